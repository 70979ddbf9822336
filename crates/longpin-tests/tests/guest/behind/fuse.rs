//! A FUSE server of one file, whose reads, writes and mappings the kernel passes on to another file.
#![allow(unsafe_code, reason = "FUSE_DEV_IOC_BACKING_OPEN takes a structure")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};

use crate::blocks::sh;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// `FUSE_INIT_EXT` in the first word of flags, `FUSE_PASSTHROUGH` in the second.
const EXT: u32 = 1 << 30;
const PASSTHROUGH: u32 = 1 << 5;
const FOPEN_PASSTHROUGH: u32 = 1 << 7;
/// `_IOW(229, 1, struct fuse_backing_map)`
const BACKING_OPEN: libc::c_ulong = 0x4010_e501;
const HEADER: usize = 40;

/// A mount that shows one file as `shown`; the server ends with it.
pub(crate) struct Fuse {
    dir: PathBuf,
    pub(crate) shown: PathBuf,
    server: Option<JoinHandle<Result<()>>>,
}

impl Fuse {
    /// `None`: this kernel passes nothing on.
    pub(crate) fn over(backing: &Path) -> Result<Option<Self>> {
        let dir = backing.with_extension("fuse");
        fs::create_dir(&dir)?;
        sh("modprobe fuse || true", &dir)?;
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        let options = std::ffi::CString::new(options)?;
        rustix::mount::mount(
            "longpin-test",
            &dir,
            "fuse",
            rustix::mount::MountFlags::empty(),
            options.as_c_str(),
        )?;
        let mut server = Server {
            device,
            backing: File::options().read(true).write(true).open(backing)?,
            id: None,
        };
        let passes = server.begin()?;
        let server = std::thread::spawn(move || server.serve());
        let made = Self {
            shown: dir.join("file"),
            dir,
            server: Some(server),
        };
        Ok(passes.then_some(made))
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        // Best effort: the guest ends with the tests.
        let _ = sh("umount -l $F; rmdir $F", &self.dir);
        if let Some(server) = self.server.take() {
            drop(server.join());
        }
    }
}

struct Server {
    device: File,
    backing: File,
    /// By which the kernel knows the file.
    id: Option<i32>,
}

/// Numbers in the order of the kernel's structure.
#[derive(Default)]
struct Reply(Vec<u8>);

impl Reply {
    fn u32(mut self, words: &[u32]) -> Self {
        words
            .iter()
            .for_each(|word| self.0.extend(word.to_ne_bytes()));
        self
    }

    fn u64(mut self, words: &[u64]) -> Self {
        words
            .iter()
            .for_each(|word| self.0.extend(word.to_ne_bytes()));
        self
    }

    fn zeroes(mut self, len: usize) -> Self {
        self.0.resize(self.0.len() + len, 0);
        self
    }
}

fn word(request: &[u8], at: usize) -> u32 {
    let bytes = request.get(at..at + 4).and_then(|it| it.try_into().ok());
    bytes.map_or(0, u32::from_ne_bytes)
}

impl Server {
    fn receive(&mut self) -> std::io::Result<Vec<u8>> {
        let mut room = vec![0; 1 << 20];
        let len = self.device.read(&mut room)?;
        room.truncate(len);
        Ok(room)
    }

    fn answer(&mut self, request: &[u8], answer: Result<Reply, i32>) -> Result<()> {
        let (error, body) = match answer {
            Ok(reply) => (0, reply.0),
            Err(errno) => (-errno, Vec::new()),
        };
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + body.len())?.to_ne_bytes());
        bytes.extend(error.to_ne_bytes());
        bytes.extend(request.get(8..16).context("no number")?);
        bytes.extend(body);
        self.device.write_all(&bytes)?;
        Ok(())
    }

    /// FUSE_INIT: whether the kernel offers to pass on.
    fn begin(&mut self) -> Result<bool> {
        let request = self.receive()?;
        ensure!(word(&request, 4) == INIT, "the first word is not INIT");
        let (flags, more) = (word(&request, HEADER + 12), word(&request, HEADER + 16));
        let passes = flags & EXT != 0 && more & PASSTHROUGH != 0;
        let reply = Reply::default()
            .u32(&[7, 40, 1 << 17, EXT, 0, 1 << 17, 1, 0])
            .u32(&[if passes { PASSTHROUGH } else { 0 }, 1])
            .zeroes(24);
        self.answer(&request, Ok(reply))?;
        Ok(passes)
    }

    fn serve(&mut self) -> Result<()> {
        loop {
            let request = match self.receive() {
                Ok(request) => request,
                Err(err) if err.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
                Err(err) if err.raw_os_error() == Some(libc::EINTR) => continue,
                Err(err) => return Err(err.into()),
            };
            let answer = match word(&request, 4) {
                FORGET | BATCH_FORGET | INTERRUPT => continue,
                LOOKUP => Ok(self.attributes(2, Reply::default().u64(&[2, 0, 60, 60, 0]))?),
                GETATTR => {
                    let node = u64::from(word(&request, 16));
                    Ok(self.attributes(node, Reply::default().u64(&[60, 0]))?)
                }
                OPEN => Ok(self.open()?),
                STATFS => Ok(Reply::default().zeroes(80)),
                RELEASE => Ok(Reply::default()),
                _ => Err(libc::ENOSYS),
            };
            // Who asked may be gone.
            let _ = self.answer(&request, answer);
        }
    }

    /// `struct fuse_attr` of the root or of the file.
    fn attributes(&self, node: u64, reply: Reply) -> Result<Reply> {
        let len = self.backing.metadata()?.size();
        let (mode, len) = match node {
            1 => (libc::S_IFDIR | 0o755, 0),
            _ => (libc::S_IFREG | 0o755, len),
        };
        let reply = reply.u64(&[node, len, len / 512, 0, 0, 0]);
        Ok(reply.u32(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0]))
    }

    fn open(&mut self) -> Result<Reply> {
        let id = match self.id {
            // All opens of a file go to the same one.
            Some(id) => id,
            None => self.lend()?,
        };
        self.id = Some(id);
        Ok(Reply::default()
            .u64(&[0])
            .u32(&[FOPEN_PASSTHROUGH, u32::try_from(id)?]))
    }

    fn lend(&self) -> Result<i32> {
        let mut map = [0_u32; 4];
        map[0] = u32::try_from(self.backing.as_raw_fd())?;
        // SAFETY: the kernel reads one `struct fuse_backing_map`, which has this size.
        let id = unsafe { libc::ioctl(self.device.as_raw_fd(), BACKING_OPEN, map.as_ptr()) };
        ensure!(
            id > 0,
            "no backing file: {}",
            std::io::Error::last_os_error()
        );
        Ok(id)
    }
}
