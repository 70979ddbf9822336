//! What the tests of lends stand on: a DAX file system, a held file there of which every byte is known, what others may not
//! do to it, and others who fill the disk meanwhile.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use longpin::guard::Host;
use longpin::hold::Hold;
use longpin_tests::act::{Outcome, ftruncate, open_truncate, outcome_name, punch, truncate};
use longpin_tests::lend::{self, Lend, Wish, abi};
use longpin_tests::operations::{clone_range, copy_range};
use longpin_tests::pattern::Pattern;
use longpin_tests::scratch::{FsKind, write_pattern};
use longpin_tests::{PAGE, PATIENCE};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::guard;
use crate::pin::{must_allow_soon, must_refuse};
use crate::plan::DaxMount;

/// Of each file. VFIO and RDMA pin it in more than one call.
pub(super) const LEN: usize = 4 << 20;
/// What unmodified programs may register.
pub(super) const REGISTRABLE: u32 = abi::WRITE | abi::REGISTER;
/// A lend outlives what used it by up to a second; longer than that nothing may have ended by chance.
const LINGER: Duration = Duration::from_millis(2500);

/// A DAX file system.
pub(super) struct Field {
    pub(super) kind: FsKind,
    mount: DaxMount,
}

impl Field {
    pub(super) const KINDS: [FsKind; 2] = [FsKind::Xfs, FsKind::Ext4];

    /// The same on each kind.
    pub(super) fn on_each(run: impl Fn(FsKind) -> Result<()>) -> Result<()> {
        for kind in Self::KINDS {
            run(kind).with_context(|| kind.name())?;
        }
        Ok(())
    }

    /// With the module loaded, and the guard on.
    pub(super) fn guarded(kind: FsKind) -> Result<Self> {
        guard::on()?;
        Self::make(kind)
    }

    fn make(kind: FsKind) -> Result<Self> {
        lend::load()?;
        let maker = match kind {
            FsKind::Xfs => "mkfs.xfs -q -f",
            _ => "mkfs.ext4 -q -F -b 4096",
        };
        let mount = DaxMount::make(maker)?;
        Ok(Self { kind, mount })
    }

    pub(super) fn dir(&self) -> &Path {
        self.mount.path()
    }

    /// After an unmount.
    pub(super) fn mount_again(&self) -> Result<()> {
        self.mount.mount_again()
    }

    /// A new file, not held.
    pub(super) fn file(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir().join(name);
        write_pattern(&path, LEN, Pattern::new(1))?;
        Ok(path)
    }

    /// A new file, empty, open for reading and writing.
    pub(super) fn create(&self, name: &str) -> Result<File> {
        Ok(File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.dir().join(name))?)
    }

    /// A new file, held by this process.
    pub(super) fn held(&self, name: &str) -> Result<Held> {
        let path = self.file(name)?;
        let hold = Hold::on(&path).acquire(&Host::default());
        let file = File::options().read(true).write(true).open(&path)?;
        Ok(Held {
            kind: self.kind,
            dir: self.dir().to_owned(),
            path,
            file: Some(file),
            hold: Some(hold?),
            pages: Pattern::new(1)
                .bytes(LEN)
                .chunks(PAGE)
                .map(<[u8]>::to_vec)
                .collect(),
        })
    }

    /// Gives all blocks but these bytes to a file that nobody writes.
    pub(super) fn leave_room(&self, bytes: u64) -> Result<()> {
        let stat = rustix::fs::statvfs(self.dir())?;
        let free = stat.f_bavail * stat.f_frsize;
        let filler = File::create(self.dir().join("filler"))?;
        let len = free.saturating_sub(bytes);
        Ok(fallocate(&filler, FallocateFlags::empty(), 0, len)?)
    }

    /// Others write files until the disk is full: what was free is theirs now.
    pub(super) fn fill(&self) -> Result<()> {
        let bytes = vec![b'Z'; 1 << 20];
        let mut file = File::create(self.dir().join("others"))?;
        loop {
            match file.write_all(&bytes) {
                Err(err) if err.raw_os_error() == Some(libc::ENOSPC) => break,
                written => written?,
            }
        }
        // The last megabyte did not fit as a whole; and some goes only at once.
        for number in 0..64 {
            let path = self.dir().join(format!("others-{number}"));
            if fs::write(path, &bytes[..16 * PAGE]).is_err() {
                break;
            }
        }
        Ok(file.sync_all()?)
    }
}

/// What the owner lets go of, and in which order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Token,
    Memory,
    Buffer,
}

pub(super) const ORDERS: [[Part; 3]; 6] = {
    use Part::{Buffer, Memory, Token};
    [
        [Token, Memory, Buffer],
        [Token, Buffer, Memory],
        [Memory, Token, Buffer],
        [Memory, Buffer, Token],
        [Buffer, Token, Memory],
        [Buffer, Memory, Token],
    ]
};

/// A held file.
pub(super) struct Held {
    kind: FsKind,
    dir: PathBuf,
    pub(super) path: PathBuf,
    file: Option<File>,
    hold: Option<Hold>,
    /// What it holds.
    pages: Vec<Vec<u8>>,
}

impl Held {
    pub(super) fn file(&self) -> Result<&File> {
        self.file.as_ref().context("closed")
    }

    pub(super) fn token(&self) -> Result<BorrowedFd<'_>> {
        Ok(self.hold.as_ref().context("released")?.token().as_fd())
    }

    /// Lends all of it.
    pub(super) fn lend(&self, flags: u32, groups: &[BorrowedFd<'_>]) -> Result<Lend> {
        let asked = self.ask(0, LEN, flags, groups)?;
        asked.map_err(|errno| anyhow::anyhow!("LEND: {}", outcome_name(Err(errno))))
    }

    /// What the module answers.
    pub(super) fn ask(
        &self,
        offset: u64,
        len: usize,
        flags: u32,
        groups: &[BorrowedFd<'_>],
    ) -> Result<Result<Lend, Errno>> {
        Ok(Lend::ask(&Wish {
            file: self.file()?.as_fd(),
            token: self.token()?,
            offset,
            len,
            flags,
            groups,
        }))
    }

    /// This process has it open no more; the hold is as it was.
    pub(super) fn close_file(&mut self) {
        self.file = None;
    }

    /// This process's token goes, with the descriptor that the hold had.
    pub(super) fn close_token(&mut self) {
        // Not released: that would wait for the programs to be removed.
        self.hold = None;
    }

    /// The bytes of the page, as they must be.
    pub(super) fn page(&self, page: usize) -> &[u8] {
        &self.pages[page]
    }

    /// Somebody has written this at the beginning of the page.
    pub(super) fn note(&mut self, page: usize, bytes: &[u8]) {
        self.pages[page][..bytes.len()].copy_from_slice(bytes);
    }

    /// What a device found there.
    pub(super) fn must_be(&self, who: &str, first: usize, bytes: &[u8]) -> Result<()> {
        for (number, found) in (first..).zip(bytes.chunks(PAGE)) {
            let wanted = &self.pages[number][..found.len()];
            let others = found.iter().all(|&byte| byte == b'Z');
            ensure!(
                found == wanted,
                "{who}: page {number} has {} bytes",
                if others { "others'" } else { "other" }
            );
        }
        Ok(())
    }

    /// By `pread(2)` of a new descriptor.
    pub(super) fn check(&self) -> Result<()> {
        let mut bytes = vec![0; LEN];
        File::open(&self.path)?.read_exact_at(&mut bytes, 0)?;
        self.must_be("pread", 0, &bytes)
    }

    /// Everything that others may not do, by new descriptors: refused as for an active swap file, and nothing changes.
    pub(super) fn must_be_refused(&self, when: &str) -> Result<()> {
        let clones = match self.kind {
            FsKind::Xfs => Errno::TXTBSY,
            // ext4 has none.
            _ => Errno::OPNOTSUPP,
        };
        for (what, answer, wanted) in self.try_all(clones)? {
            ensure!(
                answer == Err(wanted),
                "{when}: {what} answered {}, not {}",
                outcome_name(answer),
                outcome_name(Err(wanted))
            );
        }
        self.check().with_context(|| when.to_owned())
    }

    fn try_all(&self, clones: Errno) -> Result<Vec<(&'static str, Outcome, Errno)>> {
        let busy = Errno::TXTBSY;
        let file = File::options().read(true).write(true).open(&self.path)?;
        let (path, len) = (&self.path, LEN as u64);
        let other_path = path.with_extension("other");
        write_pattern(&other_path, 16 * PAGE, Pattern::new(9))?;
        let other = File::options().read(true).write(true).open(&other_path)?;
        let mode = |mode, at, len| fallocate(&file, mode, at, len);
        let piece = 16 * PAGE as u64;
        Ok(vec![
            ("truncate", truncate(path, 4096), busy),
            ("truncate to its size", ftruncate(&file, len), busy),
            // Else it would wait for the device.
            ("grow", ftruncate(&file, len + 4096), busy),
            ("O_TRUNC", open_truncate(path), busy),
            ("punch", punch(&file, 0, 8192), busy),
            (
                "collapse",
                mode(FallocateFlags::COLLAPSE_RANGE, 0, piece),
                busy,
            ),
            ("insert", mode(FallocateFlags::INSERT_RANGE, 0, piece), busy),
            ("zero", mode(FallocateFlags::ZERO_RANGE, 0, piece), busy),
            ("a write", io(file.write_all_at(b"x", 65_536)), busy),
            ("copy into", copy_range(&other, &file, 0, piece)?, busy),
            ("clone into", clone_range(&other, &file, 0, piece), clones),
            ("clone from", clone_range(&file, &other, 0, piece), clones),
            ("unlink", io(fs::remove_file(path)), Errno::PERM),
            (
                "rename",
                io(fs::rename(path, path.with_extension("away"))),
                Errno::PERM,
            ),
            (
                "rename over",
                io(fs::rename(&other_path, path)),
                Errno::PERM,
            ),
            (
                "umount",
                rustix::mount::unmount(&self.dir, UnmountFlags::empty()),
                Errno::BUSY,
            ),
        ])
    }

    /// It stays refused for longer than any lend lingers.
    pub(super) fn must_stay_refused(&self, when: &str) -> Result<()> {
        let begin = Instant::now();
        while begin.elapsed() < LINGER {
            must_refuse(when, truncate(&self.path, 4096))?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Soon it is anybody's again, and nobody has lent it; then it goes.
    pub(super) fn must_be_free(mut self, when: &str) -> Result<()> {
        self.close_file();
        self.close_token();
        let begin = Instant::now();
        must_allow_soon(when, || truncate(&self.path, 4096))?;
        println!("{when}: free after {:.1?}", begin.elapsed());
        must_have_no_lend()?;
        Ok(fs::remove_file(&self.path)?)
    }
}

/// Soon, as the module looks once a second.
pub(super) fn must_have_no_lend() -> Result<()> {
    let begin = Instant::now();
    loop {
        let rows = lend::list().context("LIST")?;
        if rows.is_empty() {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "still lent: {rows:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a lend's file waits for the device though nobody maps it.
pub(super) fn waits_unmapped() -> Result<bool> {
    Ok(lend::info().context("INFO")?.can & abi::WAITS_UNMAPPED != 0)
}

pub(super) fn io(result: std::io::Result<()>) -> Outcome {
    result.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))
}
