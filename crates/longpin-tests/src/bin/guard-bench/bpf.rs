//! What the running guard has attached, and an empty program for each of its places: what attaching anything at all
//! costs there.
#![allow(
    unsafe_code,
    reason = "bpf(2) and perf_event_open(2) have no safe wrappers for this"
)]

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use anyhow::{Context, Result, bail, ensure};
use libbpf_rs::libbpf_sys as sys;

/// A place where the guard has a program.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The name under which the guard pinned the link.
    pub(crate) name: String,
    kind: sys::bpf_prog_type,
    attach_type: sys::bpf_attach_type,
    /// The function, hook or tracepoint, as the kernel's BTF numbers it.
    target: u32,
}

/// One BPF object of the guard.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) fd: OwnedFd,
    pub(crate) name: String,
}

fn owned(fd: i32) -> Result<OwnedFd> {
    ensure!(fd >= 0, Error::last_os_error());
    // SAFETY: the kernel has just returned it to us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn open_pinned(path: &Path) -> Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a NUL-terminated string that lives across the call.
    let fd = unsafe { sys::bpf_obj_get(name.as_ptr()) };
    owned(fd).with_context(|| format!("cannot open {}", path.display()))
}

/// `BPF_OBJ_GET_INFO_BY_FD` into a structure of plain numbers.
fn info<T: Default>(fd: &OwnedFd, mut fresh: T) -> Result<T> {
    let mut len = u32::try_from(size_of::<T>())?;
    let place = ptr::from_mut(&mut fresh).cast();
    // SAFETY: the structure is ours, and of the size that the kernel is told.
    let answer = unsafe { sys::bpf_obj_get_info_by_fd(fd.as_raw_fd(), place, &raw mut len) };
    ensure!(answer == 0, Error::last_os_error());
    Ok(fresh)
}

fn open_program(id: u32) -> Result<OwnedFd> {
    // SAFETY: takes a number, returns a descriptor or an error.
    owned(unsafe { sys::bpf_prog_get_fd_by_id(id) })
}

fn open_map(id: u32) -> Result<OwnedFd> {
    // SAFETY: takes a number, returns a descriptor or an error.
    owned(unsafe { sys::bpf_map_get_fd_by_id(id) })
}

/// The pinned links, by name.
fn links(dir: &Path) -> Result<Vec<Object>> {
    let mut links = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("no guard in {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if let Some(name) = name.strip_prefix("link_") {
            let name = name.to_owned();
            links.push(Object {
                fd: open_pinned(&path)?,
                name,
            });
        }
    }
    links.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(
        !links.is_empty(),
        "no links are pinned in {}",
        dir.display()
    );
    Ok(links)
}

/// Where the guard that is pinned in `dir` has programs.
pub(crate) fn places(dir: &Path) -> Result<Vec<Place>> {
    let places: Result<Vec<Option<Place>>> = links(dir)?.iter().map(place).collect();
    Ok(places?.into_iter().flatten().collect())
}

/// `None`: it runs when somebody asks for it, or writes a setting of the kernel, and costs none of the acts anything.
fn place(link: &Object) -> Result<Option<Place>> {
    let told: sys::bpf_link_info = info(&link.fd, sys::bpf_link_info::default())?;
    let program = open_program(told.prog_id)?;
    let program: sys::bpf_prog_info = info(&program, sys::bpf_prog_info::default())?;
    let attach_type = match told.type_ {
        sys::BPF_LINK_TYPE_RAW_TRACEPOINT => sys::BPF_TRACE_RAW_TP,
        sys::BPF_LINK_TYPE_PERF_EVENT => sys::BPF_PERF_EVENT,
        // SAFETY: the kind of link says that this member of the union is the one written; all are numbers.
        sys::BPF_LINK_TYPE_TRACING => unsafe { told.__bindgen_anon_1.tracing.attach_type },
        sys::BPF_LINK_TYPE_CGROUP | sys::BPF_LINK_TYPE_ITER => return Ok(None),
        other => bail!(
            "link {} is of kind {other}, which has no empty twin here",
            link.name
        ),
    };
    Ok(Some(Place {
        name: link.name.clone(),
        kind: program.type_,
        attach_type,
        target: program.attach_btf_id,
    }))
}

/// Empty programs, attached until dropped.
#[derive(Debug)]
pub(crate) struct Empty {
    _links: Vec<OwnedFd>,
}

impl Empty {
    pub(crate) fn attach(places: &[Place]) -> Result<Self> {
        let links = places.iter().map(|place| {
            attach(place).with_context(|| format!("cannot attach an empty {}", place.name))
        });
        Ok(Self {
            _links: links.collect::<Result<_>>()?,
        })
    }
}

fn attach(place: &Place) -> Result<OwnedFd> {
    let program = load(place)?;
    if place.kind == sys::BPF_PROG_TYPE_KPROBE {
        return crate::kprobe::attach(&program, &place.name);
    }
    // SAFETY: the program is open; without a name the kernel attaches it where it was loaded for.
    owned(unsafe { sys::bpf_raw_tracepoint_open(ptr::null(), program.as_raw_fd()) })
}

/// `r0 = 0; exit`, as a program for this place.
fn load(place: &Place) -> Result<OwnedFd> {
    let mut code = [sys::bpf_insn::default(), sys::bpf_insn::default()];
    code[0].code = 0xb7;
    code[1].code = 0x95;
    let mut opts = sys::bpf_prog_load_opts {
        sz: size_of::<sys::bpf_prog_load_opts>() as sys::size_t,
        attach_btf_id: place.target,
        ..Default::default()
    };
    if place.kind != sys::BPF_PROG_TYPE_KPROBE {
        opts.expected_attach_type = place.attach_type;
    }
    // SAFETY: strings are NUL-terminated, code and options live across the call.
    let fd = unsafe {
        sys::bpf_prog_load(
            place.kind,
            c"empty".as_ptr(),
            c"GPL".as_ptr(),
            code.as_ptr(),
            code.len() as sys::size_t,
            &raw mut opts,
        )
    };
    owned(fd)
}

/// Every program and every map of the guard that is pinned in `dir`, once each.
pub(crate) fn objects(dir: &Path) -> Result<(Vec<Object>, Vec<Object>)> {
    let mut programs = Vec::new();
    for link in links(dir)? {
        let told: sys::bpf_link_info = info(&link.fd, sys::bpf_link_info::default())?;
        programs.push(Object {
            fd: open_program(told.prog_id)?,
            name: link.name,
        });
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if let Some(name) = name.strip_prefix("prog_") {
            let name = name.to_owned();
            programs.push(Object {
                fd: open_pinned(&path)?,
                name,
            });
        }
    }
    let mut ids = Vec::new();
    for program in &programs {
        ids.extend(map_ids(&program.fd)?);
    }
    ids.sort_unstable();
    ids.dedup();
    let maps = ids.into_iter().map(|id| {
        let fd = open_map(id)?;
        let told: sys::bpf_map_info = info(&fd, sys::bpf_map_info::default())?;
        let name = told.name.map(i8::to_ne_bytes).concat();
        let name = CStr::from_bytes_until_nul(&name)?
            .to_string_lossy()
            .into_owned();
        Ok(Object { fd, name })
    });
    Ok((programs, maps.collect::<Result<_>>()?))
}

fn map_ids(program: &OwnedFd) -> Result<Vec<u32>> {
    let mut ids = [0_u32; 64];
    let asked = sys::bpf_prog_info {
        nr_map_ids: 64,
        map_ids: ids.as_mut_ptr() as u64,
        ..Default::default()
    };
    let told = info(program, asked)?;
    let count = usize::try_from(told.nr_map_ids)?.min(ids.len());
    Ok(ids[..count].to_vec())
}
