use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use libbpf_rs::ObjectBuilder;

use super::*;

/// A kernel that has each function with three arguments, but for these.
struct Kernel(Vec<(&'static str, Option<usize>)>);

impl Offered for Kernel {
    fn arguments(&self, function: &str) -> Option<usize> {
        let told = self.0.iter().find(|(name, _)| *name == function);
        told.map_or(Some(3), |(_, count)| *count)
    }

    fn has_tracepoint(&self, _: &str) -> bool {
        true
    }
}

fn fits(kernel: &Kernel, program: &str) -> bool {
    Hook::of(program).unwrap().fits(kernel, true)
}

/// As the section of the object has it.
fn section(on: On) -> String {
    match on {
        On::Lsm(name) => format!("lsm/{name}"),
        On::Entry(name) => format!("fentry/{name}"),
        On::Exit(name) => format!("fexit/{name}"),
        On::Probe(name) => format!("probe/{name}"),
        On::Tracepoint(name) => format!("tp_btf/{name}"),
        On::Sysctl => "cgroup/sysctl".to_owned(),
        On::Tasks => "iter/task".to_owned(),
        On::Request => "raw_tp".to_owned(),
        On::Start => "iter/bpf_prog".to_owned(),
    }
}

#[test]
fn each_program_has_its_row_and_each_row_its_program() {
    for bytes in crate::object::all() {
        let object = ObjectBuilder::default().open_memory(bytes).unwrap();
        let mut names = BTreeSet::new();
        for program in object.progs() {
            let name = program.name().to_str().unwrap().to_owned();
            let told = program.section().to_str().unwrap();
            let told = told.replace("lsm.s/", "lsm/").replace("kretprobe", "probe");
            let told = told.replace("kprobe", "probe");
            let hook = Hook::of(&name).unwrap_or_else(|| panic!("{name} has no row"));
            assert_eq!(told.trim_start_matches('?'), section(hook.on), "{name}");
            assert!(names.insert(name));
        }
        let rows: BTreeSet<_> = HOOKS.iter().map(|hook| hook.program.to_owned()).collect();
        assert_eq!(names, rows);
        assert_eq!(rows.len(), HOOKS.len(), "a row is there twice");
    }
}

#[test]
fn programs_are_loaded_where_their_place_is() {
    let kernel = Kernel(vec![
        ("vfs_clone_file_range", None),
        ("reconfigure_super", None),
        ("memfd_pin_folios", None),
        ("bpf_lsm_file_ioctl_compat", None),
        ("pin_user_pages_remote", Some(7)),
    ]);
    for there in [
        "pin_user_pages_fast_exit",
        "remote_probe_entry",
        "write_enabled_file_bool_entry",
        "inode_setattr",
        "sb_umount",
        "vfs_copy_file_range_entry",
        "inspect",
    ] {
        assert!(fits(&kernel, there), "{there}");
    }
    for not in [
        "pin_user_pages_remote_exit",
        "memfd_pin_folios_entry",
        "inode_setattr_without_idmap",
        "vfs_clone_file_range_exit",
        "reconfigure_super_entry",
        "sb_remount",
        "file_ioctl_compat",
    ] {
        assert!(!fits(&kernel, not), "{not}");
    }
    assert!(!Hook::of("mountpoint_rmdir").unwrap().fits(&kernel, false));
    let newer = Kernel(vec![("bpf_lsm_inode_setattr", Some(2))]);
    assert!(fits(&newer, "inode_setattr_without_idmap") && !fits(&newer, "inode_setattr"));
    assert!(!fits(&newer, "remote_probe_entry") && !fits(&newer, "write_enabled_file_bool_entry"));
}

#[test]
fn what_cannot_be_watched_is_told() {
    let seven = |name| Kernel(vec![(name, Some(7))]);
    assert!(unwatched(&seven("pin_user_pages_remote")).is_empty());
    assert_eq!(
        unwatched(&seven("pin_user_pages_unlocked")),
        ["pin_user_pages_unlocked"]
    );
    assert_eq!(find_missing(&seven("pin_user_pages_unlocked")), None);
    let (function, _) = find_missing(&Kernel(vec![("vfs_fallocate", None)])).unwrap();
    assert_eq!(function, "vfs_fallocate");
    let setattr = Kernel(vec![("bpf_lsm_inode_setattr", Some(2))]);
    assert_eq!(find_missing(&setattr), None);
    assert_eq!(pin_functions().len(), 5);
}

/// Two programs share a hook of ioctl: neither stands for the other.
#[test]
fn a_level_has_its_own_programs() {
    let all_but = |gone: &'static str| move |program: &str| program != gone;
    let lacks = |claim, gone| !holds(claim, Level::Swapfile, all_but(gone));
    assert!(lacks(Claim::C05, "file_ioctl") && lacks(Claim::C06, "strict_touch"));
    assert!(holds(Claim::C06, Level::Layout, all_but("strict_touch")));
    assert!(!lacks(Claim::C01, "inode_setattr"), "the other of two");
}

#[test]
fn entries_of_pin_functions_are_counted() {
    let entries = HOOKS.iter().filter(|hook| hook.sees_pins_begin());
    assert_eq!(entries.count(), 6);
}

#[test]
fn what_refuses_goes_first_and_the_state_last() {
    assert_eq!(removal_rank("link_quota_on"), 0);
    assert_eq!(removal_rank("link_inode_rename"), 0);
    assert_eq!(removal_rank("link_pin_user_pages_exit"), 1);
    assert_eq!(removal_rank("prog_enter_hold"), 1);
    assert_eq!(removal_rank("map_state"), 2);
    // Each security hook but these two answers.
    let silent = HOOKS
        .iter()
        .filter(|hook| matches!(hook.on, On::Lsm(_)) && !hook.refuses);
    let silent: Vec<_> = silent.map(|hook| hook.program).collect();
    assert_eq!(silent, ["inode_free_security", "sb_delete"]);
}

/// Another version's guard would lack a program that this one counts on, or have one removed under it.
#[test]
fn other_programs_are_another_abi() {
    let mut names: Vec<_> = HOOKS.iter().map(|hook| hook.program).collect();
    names.sort_unstable();
    let bytes = names.iter().flat_map(|name| name.bytes().chain([0]));
    let sum = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    assert_eq!(
        (crate::shared::ABI, format!("{sum:016x}").as_str()),
        (13, "5f87b0491b2c2e22"),
        "raise GUARD_ABI, and put both numbers here"
    );
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            _ if path.is_dir() => found.extend(sources(&path)),
            Some(extension) if extension == "rs" => found.push(path),
            _ => {}
        }
    }
    found
}

/// Requests are words of every day; what is attached is not.
#[test]
fn a_program_is_named_here_alone() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for place in ["longpin-bpf", "longpin", "longpin-cli", "longpin-c"] {
        for path in sources(&crates.join(place).join("src")) {
            let name = path.to_string_lossy();
            if name.contains("src/hooks/") || name.ends_with("tests.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for hook in HOOKS.iter().filter(|hook| !hook.is_on_request()) {
                for told in [format!("\"{}\"", hook.program), hook.link(), hook.pinned()] {
                    assert!(!code.contains(&told), "{name} names {told}");
                }
            }
        }
    }
}

const HEAD: &str = "\
# Programs

Each program of the guard: what it is attached to, for which claims of [guarantee.md](guarantee.md), and what is lost on a
kernel that has no such place. Programs without a place are run on request. Those marked \u{2020} are about pins: explicit
holds do without them. What differs by kernel, and how that is found, is in [kernel-support.md](kernel-support.md).

Made from the table of hooks by `LONGPIN_WRITE_DOCS=1 cargo test -p longpin-bpf documents`.

| program | attached to | where | claims | without it |
|---|---|---|---|---|
";

fn place(on: On) -> String {
    match on {
        On::Lsm(name) => format!("security hook `{name}`"),
        On::Entry(name) => format!("entry of `{name}`"),
        On::Exit(name) => format!("return of `{name}`"),
        On::Probe(name) => format!("probe of `{name}`"),
        On::Tracepoint(name) => format!("tracepoint `{name}`"),
        On::Sysctl => "writes below /proc/sys".to_owned(),
        On::Tasks => "an iterator over tasks".to_owned(),
        On::Request => "-".to_owned(),
        On::Start => "-, run at the start".to_owned(),
    }
}

fn condition(only: If) -> String {
    match only {
        If::Always => String::new(),
        If::Arguments(count) => format!("where it takes {count} arguments"),
        If::Function(name) => format!("with `{name}`"),
        If::Mountpoints => "where the table of mount points can be read".to_owned(),
        If::Probed(name) => format!("where `{name}` is probed"),
    }
}

fn loss(hook: &Hook) -> String {
    match hook.lost {
        Lost::All(_) => "no guard starts".to_owned(),
        Lost::Claims if hook.swapfile => "no level swapfile".to_owned(),
        Lost::Claims => "its claims".to_owned(),
        Lost::Part(act) => format!("{act} is not refused"),
        Lost::Nothing => String::new(),
    }
}

#[test]
fn the_documents_list_what_the_table_has() {
    let mut text = HEAD.to_owned();
    for hook in HOOKS {
        let claims: Vec<_> = hook.claims.iter().map(|claim| claim.id()).collect();
        let cells = [
            format!(
                "`{}`{}",
                hook.program,
                if hook.pins { " \u{2020}" } else { "" }
            ),
            place(hook.on),
            condition(hook.only),
            claims.join(" "),
            loss(hook),
        ];
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("docs/programs.md");
    if std::env::var_os("LONGPIN_WRITE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == text, "docs/programs.md is not what the table says");
}
