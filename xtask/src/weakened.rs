//! `cargo xtask weakened`: do the tests notice when the guard is weaker? Builds the command with one mechanism of the
//! kernel side taken out at a time, and runs the test that must then fail, for the reason that is expected.

use crate::vm::Guest;
use crate::{build, env, kernels, rows, ui};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(2 * 3600);
/// What divides the parts of the guest's output.
const MARK: &str = "=== weakened: ";

/// A mechanism taken out.
struct Weakness {
    name: &'static str,
    /// The test that must notice.
    test: &'static str,
    /// What it must say.
    says: &'static str,
    /// Set for the test.
    environment: &'static str,
    /// Below `crates/longpin-bpf/src/bpf`; `from` stands in it once, and becomes `to`.
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const WEAKNESSES: &[Weakness] = &[
    Weakness {
        name: "settings-by-ring-pass",
        test: "c06_settings_by_ring",
        says: "done, not ETXTBSY",
        environment: "",
        file: "swapfile.bpf.c",
        from: "	return is_opening(task) || is_in_opener(ctx);\n}",
        to: "	return true;\n}",
    },
    Weakness {
        name: "older-pins",
        test: "c09_foreign_flood",
        says: "not ETXTBSY",
        environment: "",
        file: "sweep.bpf.c",
        from: "	if (state.sweep_promotes || !find_suspect(inode))\n",
        to: "	if (!inode)\n",
    },
    Weakness {
        name: "any-unpin-ends",
        test: "c09_foreign_flood",
        says: "not ETXTBSY",
        environment: "",
        file: "pins.bpf.c",
        from: "	if (!is_longterm(ctx, argument(ctx, flags_argument)))\n		return 0;\n",
        to: "	if (!is_longterm(ctx, argument(ctx, flags_argument))) {\n		\
             drop_suspect(inode_of(head_of(load64(argument(ctx, pages_argument)))));\n		return 0;\n	}\n",
    },
    Weakness {
        name: "hints-never-lost",
        test: "c09_oversubscribed",
        says: "a truncate under a live pin",
        environment: "",
        file: "suspects.h",
        from: "	if (state.entered - state.left != state.acked_balance)\n		return false;\n	\
               return count_misses() == state.acked_misses;\n",
        to: "	return true;\n",
    },
    Weakness {
        name: "removal-in-silence",
        test: "c09_file_dies_first",
        says: "lost in silence",
        environment: "",
        file: "broken.bpf.c",
        from: "	loss.call = system_call();\n	return tell_of_loss(known, &loss);\n",
        to: "	return loss.call;\n",
    },
    Weakness {
        name: "rows-outlive-files",
        test: "c09_file_dies_first",
        says: "holds",
        environment: "",
        file: "rows.h",
        from: "	return known ? row->id > known->born : state.suspect_all != 0;\n",
        to: "	return known || !known;\n",
    },
    Weakness {
        name: "ioctls-pass",
        test: "oracle_detachment",
        says: "ext4: ext4 SWAP_BOOT",
        environment: "LONGPIN_ORACLE_HOME=ext4 LONGPIN_ORACLE_OPERATION=SWAP_BOOT",
        file: "ioctl.bpf.c",
        from: "	if ((!layout && !state.strict) || !is_armed())\n",
        to: "	if (layout || !is_armed())\n",
    },
    Weakness {
        name: "cut-folios-go",
        test: "oracle_detachment",
        says: "xfs: ftruncate to its size: hole",
        environment: "LONGPIN_ORACLE_HOME=xfs LONGPIN_ORACLE_OPERATION=size",
        file: "layout.bpf.c",
        from: "	if (first == last && size & (PAGE_SIZE - 1))\n",
        to: "	if (size & (PAGE_SIZE - 1))\n",
    },
    Weakness {
        name: "clones-from-their-offset",
        test: "oracle_detachment",
        says: "xfs: FICLONERANGE behind the end: written",
        environment: "LONGPIN_ORACLE_HOME=xfs LONGPIN_ORACLE_OPERATION=behind",
        file: "layout.bpf.c",
        from: "		if (size < note->offset)\n",
        to: "		if (!size)\n",
    },
    Weakness {
        name: "32-bit-calls-pass",
        test: "oracle_detachment",
        says: "btrfs: btrfs 32-bit ENCODED_WRITE",
        environment: "LONGPIN_ORACLE_HOME=btrfs LONGPIN_ORACLE_OPERATION=32-bit",
        file: "arch.h",
        from: "	case 54:\n		return CALL_IOCTL;\n",
        to: "",
    },
    Weakness {
        name: "strays-forgotten",
        test: "c13_broken_stays",
        says: "not one broken row",
        environment: "",
        file: "broken.bpf.c",
        from: "	keep_stray(folio, loss.inode, loss.index);\n",
        to: "",
    },
    Weakness {
        name: "endings-unseen",
        test: "c08_two_umounts",
        says: "both went",
        environment: "",
        file: "endings.h",
        from: "	return ending && is_under_way(ending);\n",
        to: "	return ending && !ending;\n",
    },
    Weakness {
        name: "places-go",
        test: "c08_other_ends",
        says: "rmdir: done",
        environment: "",
        file: "leaving.h",
        from: "	leave_place(&d);\n",
        to: "",
    },
    Weakness {
        name: "unfinished-goes",
        test: "c08_far_ends",
        says: "below many: lazy umount: done",
        environment: "",
        file: "leaving.h",
        from: "	if (!sb && !d->unfinished)\n		return false;\n",
        to: "	if (!sb || !d->unfinished)\n		return false;\n",
    },
    Weakness {
        name: "holds-outlive-file-systems",
        test: "c08_broken_holds",
        says: "was not told as broken",
        environment: "",
        file: "evict.bpf.c",
        from: "	if (state.explicit_files)\n		break",
        to: "	if (!state.abi)\n		break",
    },
    Weakness {
        name: "fronts-taken-for-files",
        test: "c06_overlay",
        says: "splice: ",
        environment: "",
        file: "real.h",
        from: "	if (!inode || !is_front(inode))\n",
        to: "	if (inode)\n",
    },
    Weakness {
        name: "layers-forgotten",
        test: "c08_layers",
        says: "the overlay: done",
        environment: "",
        file: "overlay.h",
        from: "	if (!where ||",
        to: "	if (where ||",
    },
    Weakness {
        name: "balance-not-asked",
        test: "c13_sleeping_pin",
        says: "half way",
        environment: "",
        file: "suspects.h",
        from: "	if (state.entered - state.left != state.acked_balance)\n		return false;\n	return count",
        to: "	return count",
    },
    Weakness {
        name: "unknown-losses",
        test: "c13_race",
        says: "lost in silence",
        environment: "",
        file: "broken.bpf.c",
        from: "		return is_somebody_pinning() ? keep_loss(folio, loss.inode) : 0;\n",
        to: "		return 0;\n",
    },
    Weakness {
        name: "regions-unseen",
        test: "c11_rows",
        says: "not one region",
        environment: "LONGPIN_LONG=1",
        file: "intervals.h",
        from: "	if (INTERVAL(walk->at, last) >= walk->first)\n",
        to: "	if (INTERVAL(walk->at, last) < walk->first)\n",
    },
    Weakness {
        name: "torn-in-silence",
        test: "c11_beside_a_pin",
        says: "it is not told",
        environment: "",
        file: "on_demand.bpf.c",
        from: "	return tell_of_teardown(torn, region);\n",
        to: "	return region->untold ? tell_of_teardown(torn, region) : 0;\n",
    },
    Weakness {
        name: "only-the-cut-page",
        test: "random_rounds",
        says: "not ETXTBSY",
        environment: "",
        file: "layout.bpf.c",
        from: "	act.first = size >> PAGE_SHIFT;\n	return is_refused",
        to: "	act.first = act.last = size >> PAGE_SHIFT;\n	return is_refused",
    },
    Weakness {
        name: "copies-from-pass",
        test: "hold_ext4",
        says: "copy from answered",
        environment: "",
        file: "layout.bpf.c",
        from: "	if (!(ctx[1] & MAY_WRITE) && !is_copied_from(ctx, act.detail))\n",
        to: "	if (!(ctx[1] & MAY_WRITE))\n",
    },
    Weakness {
        name: "strangers-may-map",
        test: "hold_ext4",
        says: "it was mapped",
        environment: "",
        file: "swapfile.bpf.c",
        from: "	if (!act.inode || is_surely_free(act.inode) || is_holder(act.inode))\n		return 0;\n",
        to: "	if (act.inode)\n		return 0;\n",
    },
    Weakness {
        name: "replaced-by-a-rename",
        test: "hold_ext4",
        says: "rename over answered",
        environment: "",
        file: "swapfile.bpf.c",
        from: " || is_name_refused(new, OP_RENAME)))\n",
        to: "))\n",
    },
];

/// Which row, and which mechanisms.
#[derive(Debug, Args)]
pub(crate) struct WeakenedArgs {
    /// Row of KERNELS
    #[arg(long, value_name = "ROW", default_value = "latest")]
    kernel: String,
    /// Mechanisms to take out. Without names: each of the list
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

impl WeakenedArgs {
    /// Builds, boots one guest for all, and prints a table; 1: a test did not notice.
    pub(crate) fn run(&self) -> Result<u8> {
        let chosen = select(&self.names)?;
        let program = build::guest_tests()?;
        let mut orders = String::new();
        for weakness in &chosen {
            ui::say(&format!("building without: {}", weakness.name));
            let dir = build_without(weakness)?;
            orders += &weakness.order(&dir, &program);
        }
        let kernel = kernels::ensure(&rows::named(&self.kernel)?)?;
        let words = ["sh", "-c", &orders].map(Into::into);
        let mut guest = Guest::new(kernel, words.to_vec());
        guest.timeout = LIMIT;
        let run = guest.run()?;
        println!("\n{:<22} {:<22} noticed", "without", "test");
        let mut unnoticed = 0;
        for weakness in chosen {
            let noticed = weakness.is_noticed(&run.stdout);
            unnoticed += u8::from(!noticed);
            let answer = if noticed { "yes" } else { "NO" };
            println!("{:<22} {:<22} {answer}", weakness.name, weakness.test);
        }
        Ok(u8::from(unnoticed > 0))
    }
}

fn select(names: &[String]) -> Result<Vec<&'static Weakness>> {
    for name in names {
        let known = WEAKNESSES.iter().any(|weakness| weakness.name == name);
        let all: Vec<_> = WEAKNESSES.iter().map(|weakness| weakness.name).collect();
        ensure!(known, "{name} is none of {}", all.join(", "));
    }
    let chosen =
        |weakness: &&Weakness| names.is_empty() || names.iter().any(|n| n == weakness.name);
    Ok(WEAKNESSES.iter().filter(chosen).collect())
}

impl Weakness {
    /// What the guest's shell does.
    fn order(&self, dir: &Path, program: &Path) -> String {
        let Self {
            name,
            test,
            environment,
            ..
        } = self;
        let (dir, program) = (dir.display(), program.display());
        format!(
            "export PATH='{dir}':\"$PATH\"; echo '{MARK}{name}'\n\
             env -u LONGPIN_LONG {environment} timeout 900 '{program}' --exact {test}\n\
             longpin guard stop --force\n"
        )
    }

    /// Did its test fail, and say why?
    fn is_noticed(&self, output: &str) -> bool {
        let mut parts = output.split(MARK);
        let part = parts.find(|part| part.lines().next() == Some(self.name));
        part.is_some_and(|part| part.contains("test result: FAILED") && part.contains(self.says))
    }

    /// The source without the mechanism.
    fn apply(&self, source: &str) -> Result<String> {
        let found = source.matches(self.from).count();
        ensure!(
            found == 1,
            "{}: what is to be taken out of {} stands there {found} times",
            self.name,
            self.file
        );
        Ok(source.replacen(self.from, self.to, 1))
    }
}

/// The command, built from a copy of the sources; the directory that it is in.
fn build_without(weakness: &Weakness) -> Result<PathBuf> {
    let home = env::target_dir()?.join("weakened");
    let (source, target) = (home.join("source"), home.join("target"));
    copy_sources(&source)?;
    let changed = source
        .join("crates/longpin-bpf/src/bpf")
        .join(weakness.file);
    let text = fs::read_to_string(&changed)?;
    fs::write(&changed, weakness.apply(&text)?)?;
    let mut cargo = build::cargo(&["build", "--release", "-q", "-p", "longpin-cli"])?;
    cargo.current_dir(&source).env("CARGO_TARGET_DIR", &target);
    env::run(&mut cargo).with_context(|| format!("building without {}", weakness.name))?;
    let dir = home.join(weakness.name);
    fs::create_dir_all(&dir)?;
    fs::copy(target.join("release/longpin"), dir.join("longpin"))?;
    Ok(dir)
}

/// What is equal already is left alone, for cargo's sake.
fn copy_sources(to: &Path) -> Result<()> {
    let root = env::workspace()?;
    let mut git = env::tool("git");
    git.current_dir(&root);
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let listed = env::output(&mut git)?;
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (root.join(name), to.join(name));
        // Deleted, and not yet committed.
        let Ok(wanted) = fs::read(from) else { continue };
        if fs::read(&to).is_ok_and(|there| there == wanted) {
            continue;
        }
        fs::create_dir_all(to.parent().context("no parent")?)?;
        fs::write(to, wanted)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mechanism_stands_in_the_sources_once() {
        let bpf = env::workspace().unwrap().join("crates/longpin-bpf/src/bpf");
        for weakness in WEAKNESSES {
            let source = fs::read_to_string(bpf.join(weakness.file)).unwrap();
            let weakened = weakness.apply(&source).unwrap();
            assert_ne!(weakened, source, "{}", weakness.name);
        }
    }

    #[test]
    fn a_test_notices_when_it_fails_for_the_expected_reason() {
        let weakness = &WEAKNESSES[0];
        let said = |words: &str| format!("{MARK}{}\n{words}\n{MARK}other\n", weakness.name);
        let failed = format!("test result: FAILED\n{}", weakness.says);
        assert!(weakness.is_noticed(&said(&failed)));
        assert!(!weakness.is_noticed(&said("test result: FAILED\nno device")));
        assert!(!weakness.is_noticed(&said("test result: ok")));
        assert!(!weakness.is_noticed("nothing"));
    }
}
