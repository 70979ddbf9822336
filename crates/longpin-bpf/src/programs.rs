//! The programs of a pinned guard: which there are, and what they cost the verifier.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::Path;

use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::{Link, Program};

use crate::BpfError;

/// One program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramCost {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier looked at when it was loaded; its limit is a million.
    pub verified: u32,
    /// Runs that the kernel suppressed, or 0 where it does not count.
    pub suppressed: u64,
}

/// The programs pinned in a directory, by name.
///
/// # Errors
///
/// [`BpfError::Pin`]; [`BpfError::ListPins`] when the directory cannot be listed.
pub fn read_programs(dir: &Path) -> Result<Vec<ProgramCost>, BpfError> {
    let listed = |source| BpfError::ListPins {
        path: dir.to_owned(),
        source,
    };
    let mut names = HashMap::new();
    for entry in std::fs::read_dir(dir).map_err(listed)? {
        let path = entry.map_err(listed)?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let id = match file.split_once('_') {
            Some(("link", _)) => Link::open(&path).and_then(|link| Ok(link.info()?.prog_id)),
            Some(("prog", _)) => Program::fd_from_pinned_path(&path)
                .and_then(|program| Program::id_from_fd(program.as_fd())),
            _ => continue,
        };
        let name = file[5..].to_owned();
        let failed = |source| BpfError::Pin {
            path: path.clone(),
            source,
        };
        names.insert(id.map_err(failed)?, name);
    }
    let mut programs: Vec<ProgramCost> = ProgInfoIter::default()
        .filter_map(|info| {
            Some(ProgramCost {
                name: names.remove(&info.id)?,
                verified: info.verified_insns,
                suppressed: info.recursion_misses,
            })
        })
        .collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}
