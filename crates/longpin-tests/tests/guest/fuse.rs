//! A FUSE file system of one file, as small as the protocol allows (linux/fuse.h): the kernel keeps its pages, and drops
//! them when the file is opened again.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

pub(crate) const NAME: &str = "file";
const ROOT: u64 = 1;
const FILE: u64 = 2;
const DIRECTORY_MODE: u32 = 0o040_755;
const FILE_MODE: u32 = 0o100_644;
/// Until the kernel asks for an attribute again, in seconds.
const VALID: u64 = 1000;
const ENOENT: i32 = 2;
const ENOSYS: i32 = 38;

/// Mounts it, and serves it in a thread until it is unmounted.
pub(crate) fn serve(dir: &Path, contents: Vec<u8>) -> Result<()> {
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .context("no FUSE")?;
    let number = device.as_raw_fd();
    let options = format!("fd={number},rootmode=40000,user_id=0,group_id=0");
    let options = std::ffi::CString::new(options)?;
    mount("none", dir, "fuse", MountFlags::empty(), &*options)?;
    std::thread::spawn(move || answer_all(&device, contents));
    Ok(())
}

/// Reading fails when it is unmounted.
fn answer_all(mut device: &File, mut contents: Vec<u8>) {
    let mut room = vec![0; 1 << 20];
    while let Ok(len) = device.read(&mut room) {
        let request = Request(&room[..len]);
        let (error, body) = match request.answer(&mut contents) {
            // No answer is wanted.
            None => continue,
            Some(Ok(body)) => (0, body),
            Some(Err(errno)) => (-errno, Vec::new()),
        };
        let mut out = Fields::default();
        let len = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
        out.u32(len).i32(error).u64(request.u64(8));
        out.0.extend(body);
        // Who asked may have been interrupted.
        let _ = device.write_all(&out.0);
    }
}

/// `struct fuse_in_header`, and what follows it.
struct Request<'a>(&'a [u8]);

type Answer = Option<std::result::Result<Vec<u8>, i32>>;

impl Request<'_> {
    fn u32(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..at + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    }

    fn u64(&self, at: usize) -> u64 {
        let bytes = self.0.get(at..at + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    }

    fn answer(&self, contents: &mut [u8]) -> Answer {
        let (opcode, node) = (self.u32(4), self.u64(16));
        let len = contents.len() as u64;
        Some(match opcode {
            2 | 36 | 42 => return None,
            1 if self.0[40..].starts_with(NAME.as_bytes()) => Ok(entry(len)),
            1 => Err(ENOENT),
            3 | 4 => Ok(attributes(node, len)),
            14 | 27 => Ok(vec![0; 16]),
            15 => Ok(read(contents, self.u64(48), self.u32(56))),
            16 => Ok(write(contents, self.u64(48), &self.0[80..])),
            18 | 29 => Ok(Vec::new()),
            26 => Ok(init()),
            _ => Err(ENOSYS),
        })
    }
}

fn read(contents: &[u8], offset: u64, len: u32) -> Vec<u8> {
    let all = usize::try_from(offset).ok();
    let rest = all.and_then(|offset| contents.get(offset..)).unwrap_or(&[]);
    rest[..rest.len().min(len as usize)].to_vec()
}

fn write(contents: &mut [u8], offset: u64, bytes: &[u8]) -> Vec<u8> {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    if let Some(place) = contents.get_mut(offset..offset.saturating_add(bytes.len())) {
        place.copy_from_slice(bytes);
    }
    let mut out = Fields::default();
    out.u32(u32::try_from(bytes.len()).unwrap_or(0)).u32(0);
    out.0
}

#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
}

/// `struct fuse_attr`.
fn attribute(out: &mut Fields, node: u64, len: u64) {
    let mode = if node == ROOT {
        DIRECTORY_MODE
    } else {
        FILE_MODE
    };
    out.u64(node).u64(len).u64(len / 512);
    out.u64(0).u64(0).u64(0).u32(0).u32(0).u32(0);
    out.u32(mode).u32(1).u32(0).u32(0).u32(0).u32(4096).u32(0);
}

fn entry(len: u64) -> Vec<u8> {
    let mut out = Fields::default();
    out.u64(FILE).u64(0).u64(VALID).u64(VALID).u32(0).u32(0);
    attribute(&mut out, FILE, len);
    out.0
}

fn attributes(node: u64, len: u64) -> Vec<u8> {
    let mut out = Fields::default();
    out.u64(VALID).u32(0).u32(0);
    attribute(&mut out, node, len);
    out.0
}

/// `struct fuse_init_out` of 7.31: without any feature.
fn init() -> Vec<u8> {
    let mut out = Fields::default();
    out.u32(7).u32(31).u32(1 << 17).u32(0).u32(0x000c_0010);
    out.u32(1 << 16).u32(1).u32(0);
    out.0.resize(64, 0);
    out.0
}
