//! The file behind an overlay's: held and pinned files of a layer, by way of overlayfs.

mod commands;
mod copy_up;
mod fuse;
mod passthrough;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use longpin_tests::act::{Outcome, ftruncate, punch, swap};
use longpin_tests::mapping::Mapping;
use longpin_tests::scratch::FsKind;
use longpin_tests::stores::{Access, Answer, in_child};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, pipe, splice};

use crate::blocks::{sh, status};
use crate::child::Pinner;
use crate::files::TestFile;
use crate::hold::Holder;
use crate::pin::{must_allow, must_refuse, pin};
use crate::{Test, guard};

pub(crate) const TESTS: &[Test] = &[
    ("c06_overlay", || overlay(FsKind::Xfs)),
    ("c05_overlay_commands", commands::commands),
    ("c06_loop_device_unread", commands::loop_device_unread),
    ("answers_overlay", answers),
];

pub(crate) const WITHOUT_GUARD: &[Test] = &[("answers_overlay_unguarded", unguarded)];

pub(crate) const LONG_TESTS: &[Test] = &[
    ("c06_overlay_ext4", || overlay(FsKind::Ext4)),
    ("c06_overlay_on_overlay", on_overlay),
    ("c06_fuse_passthrough", passthrough::fuse_passthrough),
    ("c04_copy_up", copy_up::copy_up_of_held),
    ("c13_copy_up", copy_up::copy_up_of_pinned),
];

const LEN: u64 = 1 << 20;
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A mounted overlay, whose one file is in this layer; unmounted on drop.
struct Overlay {
    root: PathBuf,
    merged: PathBuf,
}

impl Overlay {
    /// Moves the file to `upper` or `lower`.
    fn over(file: &mut TestFile, layer: &str) -> Result<Self> {
        let root = file.path.parent().context("no directory")?;
        let root = root.join(format!("overlay-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(root.join(name))?;
        }
        // Before the mount, which may remember what is there.
        let place = root.join(layer).join("file");
        fs::rename(&file.path, &place)?;
        file.path = place;
        let script = "cd $F
            mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged";
        sh(script, &root)?;
        let merged = root.join("merged/file");
        Ok(Self { root, merged })
    }

    fn open(&self) -> Result<File> {
        Ok(File::options().read(true).write(true).open(&self.merged)?)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // Best effort: the guest ends with the tests.
        let _ = sh("umount -l $F/merged; rm -rf $F", &self.root);
    }
}

fn io(result: std::io::Result<()>) -> Outcome {
    result.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))
}

fn splice_into(file: &File, bytes: &[u8]) -> Outcome {
    let (reader, writer) = pipe()?;
    io(File::from(writer).write_all(bytes))?;
    let none = SpliceFlags::empty();
    splice(&reader, None, file, Some(&mut 0), bytes.len(), none).map(drop)
}

fn send_into(file: &File) -> Outcome {
    let from = File::open("/proc/self/exe").map_err(|_| Errno::NOENT)?;
    rustix::fs::sendfile(file, &from, Some(&mut 0), 4096).map(drop)
}

fn copy_into(file: &File) -> Outcome {
    rustix::fs::copy_file_range(file, Some(&mut 8192), file, Some(&mut 0), 4096).map(drop)
}

/// execve(2) of what is no program: whether that was found out.
fn exec(path: &Path) -> Result<Errno> {
    let answer = Command::new(path).status();
    let errno = answer.err().and_then(|err| Errno::from_io_error(&err));
    errno.context("it ran")
}

/// A store through a new mapping: refused, or none is made.
fn store(file: &File) -> Result<Answer> {
    Ok(match Mapping::shared(file, 0, 4096, true) {
        Ok(mapping) => in_child(&mapping, Access::Store)?,
        Err(err) => Answer::Errno(err),
    })
}

/// Ways to change a file by one descriptor, and what they answered.
fn ways(file: &File) -> Result<Vec<(&'static str, Answer)>> {
    Ok(vec![
        ("write", io(file.write_all_at(b"overwritten", 0)).into()),
        ("splice", splice_into(file, b"overwritten").into()),
        ("sendfile", send_into(file).into()),
        ("copy_file_range", copy_into(file).into()),
        ("punch", punch(file, 0, 4096).into()),
        ("ftruncate", ftruncate(file, 0).into()),
        ("mmap and store", store(file)?),
    ])
}

/// C06, C02, C01, C13: each way to a file of the upper layer, by descriptors and mappings from before and after.
fn overlay(kind: FsKind) -> Result<()> {
    guard::on()?;
    let mut file = TestFile::new(kind, LEN)?;
    let overlay = Overlay::over(&mut file, "upper")?;
    through(&file, &overlay)?;
    beside_a_swap_file(kind)?;
    at_level_layout(kind)
}

fn through(file: &TestFile, overlay: &Overlay) -> Result<()> {
    let older = overlay.open()?;
    fs::set_permissions(&overlay.merged, fs::Permissions::from_mode(0o755))?;
    let writable = Mapping::shared(&older, 0, 4096, true)?;
    let (code, words) = hold(&file.path)?;
    let own = format!("[{}]", std::process::id());
    ensure!(code == 1 && words.contains(&own), "{code}: {words}");
    drop(writable);
    // That waits for its end.
    if file.kind == FsKind::Ext4 {
        in_flight(file, &older)?;
    }
    let read_only = Mapping::shared(&older, 0, 4096, false)?;
    let held = Holder::start(&[], &file.path)?;
    let newer = overlay.open()?;
    for descriptor in [&older, &newer] {
        for (what, answer) in ways(descriptor)? {
            ensure!(answer == Answer::Errno(Errno::TXTBSY), "{what}: {answer:?}");
        }
    }
    let answer = in_child(&read_only, Access::ProtectAndStore)?;
    ensure!(
        answer == Answer::Errno(Errno::TXTBSY),
        "mprotect: {answer:?}"
    );
    let removed = io(fs::remove_file(&overlay.merged));
    ensure!(removed == Err(Errno::PERM), "unlink: {removed:?}");
    file.check_all()?;
    drop((older, newer, read_only));
    println!(
        "a held file by the overlay: execve: {:?}",
        exec(&overlay.merged)
    );
    ensure!(held.end()? == 7);
    let newer = overlay.open()?;
    must_allow(
        "splice afterwards",
        splice_into(&newer, &file.pattern.bytes(4096)),
    )?;
    file.check_all()
}

/// C13: a splice by an overlay's descriptor, which asked before the hold and writes after.
fn in_flight(file: &TestFile, older: &File) -> Result<()> {
    let (reader, writer) = pipe()?;
    let target = older.try_clone()?;
    let splicing = std::thread::spawn(move || {
        let none = SpliceFlags::empty();
        splice(&reader, None, &target, Some(&mut 0), 4096, none)
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    let path = file.path.to_string_lossy();
    let (code, words) = status(&["hold", "-w", "1", &path, "--", "true"])?;
    drop(writer);
    let spliced = splicing.join().map_err(|_| anyhow::anyhow!("panicked"))?;
    ensure!(spliced == Ok(0), "{spliced:?}");
    ensure!(
        code == 1 && words.contains("in an operation"),
        "{code}: {words}"
    );
    Ok(())
}

fn hold(path: &Path) -> Result<(i32, String)> {
    status(&["hold", "-n", &path.to_string_lossy(), "--", "true"])
}

/// An active swap file keeps its bytes, too, whatever the answer.
fn beside_a_swap_file(kind: FsKind) -> Result<()> {
    let mut file = TestFile::new(kind, LEN)?;
    sh("mkswap -q $F", &file.path)?;
    let before = fs::read(&file.path)?;
    let overlay = Overlay::over(&mut file, "upper")?;
    let older = overlay.open()?;
    fs::set_permissions(&overlay.merged, fs::Permissions::from_mode(0o755))?;
    let name = CString::new(file.path.as_os_str().as_bytes())?;
    must_allow("swapon", swap(&name, true))?;
    let tried = ways(&older);
    // Who has it open for writing keeps it from being run.
    drop(older);
    println!(
        "a swap file by the overlay: execve: {:?}",
        exec(&overlay.merged)
    );
    must_allow("swapoff", swap(&name, false))?;
    for (what, answer) in tried? {
        println!("a swap file by the overlay: {what}: {answer:?}");
    }
    ensure!(fs::read(&file.path)? == before, "the swap file changed");
    Ok(())
}

/// C06: a direct splice drops pinned pages, and only the overlay's file is asked for.
fn at_level_layout(kind: FsKind) -> Result<()> {
    let mut file = TestFile::new(kind, LEN)?;
    let overlay = Overlay::over(&mut file, "upper")?;
    let pinned = pin(&file, 0, 65_536)?;
    let direct = File::options()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&overlay.merged)?;
    let bytes = file.pattern.bytes(4096);
    must_refuse("a direct splice", splice_into(&direct, &bytes))?;
    let plain = overlay.open()?;
    must_refuse("a punch", punch(&plain, 0, 4096))?;
    must_allow("a splice", splice_into(&plain, &bytes))?;
    must_allow("a write", io(plain.write_all_at(&bytes, 0)))?;
    drop(pinned);
    Ok(())
}

/// C09, C15: `why`, `deny` and `check` know whose file an overlay shows.
fn answers() -> Result<()> {
    guard::on()?;
    for layer in ["upper", "lower"] {
        let mut file = TestFile::new(FsKind::Tmpfs, LEN)?;
        let overlay = Overlay::over(&mut file, layer)?;
        let (path, merged) = (
            file.path.to_string_lossy(),
            overlay.merged.to_string_lossy(),
        );
        let pinned = pin(&file, 0, 65_536)?;
        let (code, words) = status(&["why", &merged])?;
        ensure!(
            code == 0 && words.contains("16 pages") && words.contains(&*path),
            "{words}"
        );
        drop(pinned);
        let (_, words) = status(&["check", "--for", "blocks", &merged])?;
        ensure!(
            words.contains(&format!("hint: longpin check {path}\n")),
            "{words}"
        );
        for command in [&["hold", "-l", "layout"][..], &["prepare"]] {
            let (code, words) = refused(command, &merged)?;
            let hint = format!("hint: longpin check {path}\n");
            ensure!(code == 1 && words.contains(&hint), "{command:?}: {words}");
        }
        guard::must(&["deny", &merged])?;
        let words = guard::must(&["why", "--json", &path])?;
        ensure!(
            words.contains(r#""rule":"deny""#) || words.contains(r#""rule": "deny""#),
            "{words}"
        );
        // To pin a file in memory is to write to it, which makes a lower one another.
        if layer == "upper" {
            let pinned = Pinner::pin(&overlay.merged, 0, 4096);
            ensure!(pinned.is_err(), "who pins a denied file goes on");
        }
        guard::must(&["allow", &merged])?;
    }
    Ok(())
}

/// Without a guard the layers' files are looked at: a file that was copied up has a number of its own.
fn unguarded() -> Result<()> {
    for layer in ["upper", "lower"] {
        let mut file = TestFile::new(FsKind::Tmpfs, LEN)?;
        let home = file.path.parent().context("no directory")?;
        let root = home.join(format!("whole-{layer}"));
        fs::create_dir(&root)?;
        let at = root.display();
        let script = format!(
            "cd $F; mkdir lower upper work merged; mv ../{} {layer}/file
            mount -t overlay -o lowerdir={at}/lower,upperdir={at}/upper,workdir={at}/work overlay merged",
            file.path.file_name().context("no name")?.to_string_lossy()
        );
        sh(&script, &root)?;
        file.path = root.join(layer).join("file");
        let tried = unguarded_hints(&root, &file.path);
        sh("umount -l $F/merged", &root)?;
        tried.context(layer)?;
    }
    Ok(())
}

/// What a command answers about this file.
fn refused(command: &[&str], file: &str) -> Result<(i32, String)> {
    let cmd: &[&str] = if command[0] == "hold" {
        &["--", "true"]
    } else {
        &[]
    };
    status(&[command, &[file], cmd].concat())
}

fn unguarded_hints(root: &Path, file: &Path) -> Result<()> {
    let merged = root.join("merged/file");
    let hint = format!("hint: longpin check {}\n", file.display());
    for command in [&["check"][..], &["hold"], &["prepare"]] {
        let (_, words) = refused(command, &merged.to_string_lossy())?;
        ensure!(words.contains(&hint), "{command:?}: {words}");
    }
    if file.starts_with(root.join("lower")) {
        // Now it is the copy that the overlay shows, and nobody takes the lower file for it.
        File::options()
            .append(true)
            .open(&merged)?
            .write_all(b"x")?;
        let (_, words) = status(&["check", &merged.to_string_lossy()])?;
        ensure!(!words.contains(&hint), "after the copy: {words}");
    }
    Ok(())
}

/// An overlay whose layer is an overlay's directory.
fn on_overlay() -> Result<()> {
    guard::on()?;
    let mut file = TestFile::new(FsKind::Ext4, LEN)?;
    let inner = Overlay::over(&mut file, "upper")?;
    let root = inner.root.join("outer");
    let script = "mkdir -p $F; cd $F; mkdir lower upper work merged
        mount -t overlay -o lowerdir=../merged:lower,upperdir=upper,workdir=work overlay merged";
    sh(script, &root)?;
    let merged = root.join("merged/file");
    let pinned = pin(&file, 0, 65_536)?;
    let (code, words) = status(&["why", &merged.to_string_lossy()])?;
    drop(pinned);
    let layer = file.path.to_string_lossy();
    let tried = (|| {
        ensure!(code == 0 && words.contains(&*layer), "{code}: {words}");
        upper_is_an_overlay(&file, &inner)
    })();
    sh("umount -l $F/merged; rm -rf $F", &root)?;
    tried
}

/// Where the kernel has that at all.
fn upper_is_an_overlay(file: &TestFile, inner: &Overlay) -> Result<()> {
    let root = inner.root.join("outermost");
    let script = "mkdir -p $F; cd $F; mkdir lower merged; mkdir ../merged/work
        mount -t overlay -o lowerdir=lower,upperdir=../merged,workdir=../merged/work overlay merged \
            && echo mounted || true";
    let made = sh(script, &root)?;
    if !made.contains("mounted") {
        println!("this kernel makes no overlay whose upper layer is an overlay");
        return Ok(());
    }
    let outer = Overlay {
        merged: root.join("merged/file"),
        root,
    };
    through(file, &outer)
}
