//! Questions to the running system: yes, no (only for the expected reason), or an error.

use std::path::Path;

use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::pseudo;

/// `f_type` of bpffs (`BPF_FS_MAGIC`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// `capget(2)`: may this process load tracing and LSM programs and look at other people's?
///
/// # Errors
///
/// The kernel does not answer.
pub fn may_load_lsm_programs() -> std::io::Result<bool> {
    Ok(rustix::thread::capabilities(None)?
        .effective
        .contains(CapabilitySet::SYS_ADMIN))
}

/// `capget(2)`: may this process keep others from changing files for good?
///
/// # Errors
///
/// The kernel does not answer.
pub fn may_make_immutable() -> std::io::Result<bool> {
    Ok(rustix::thread::capabilities(None)?
        .effective
        .contains(CapabilitySet::LINUX_IMMUTABLE))
}

/// `/sys/kernel/security/lsm`: the active security modules; `None` where securityfs is not mounted.
///
/// # Errors
///
/// The file is there and cannot be read.
pub fn read_security_modules(path: &Path) -> std::io::Result<Option<Vec<String>>> {
    let text = pseudo::read_text(path)?;
    Ok(text.map(|text| text.trim().split(',').map(str::to_owned).collect()))
}

/// `statfs(2)`: is a BPF file system mounted at `path`?
///
/// # Errors
///
/// The kernel does not answer, for another reason than that nothing is there.
pub fn is_bpf_fs(path: &Path) -> std::io::Result<bool> {
    match rustix::fs::statfs(path) {
        Ok(found) => Ok(u64::try_from(found.f_type).is_ok_and(|kind| kind == BPF_FS_MAGIC)),
        Err(Errno::NOENT) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

/// `/proc/zoneinfo`: the number of page frames, from 0 to the end of the last zone.
///
/// # Errors
///
/// The file cannot be read.
pub fn count_page_frames() -> std::io::Result<u64> {
    match end_of_zones(&pseudo::must_read("/proc/zoneinfo")?) {
        0 => Err(std::io::Error::other("/proc/zoneinfo names no zone")),
        frames => Ok(frames),
    }
}

fn end_of_zones(text: &str) -> u64 {
    let mut spanned = 0;
    let mut end = 0;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match (
            words.next(),
            words.next().and_then(|word| word.parse::<u64>().ok()),
        ) {
            (Some("spanned"), Some(pages)) => spanned = pages,
            (Some("start_pfn:"), Some(start)) => end = end.max(start + spanned),
            _ => {}
        }
    }
    end
}

/// `clock_gettime(CLOCK_BOOTTIME)` and `CLOCK_REALTIME` together: what turns one into the other.
#[must_use]
pub fn boot_to_wall_offset() -> std::time::Duration {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let wall = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let nanos =
        |t: rustix::time::Timespec| i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec);
    let difference = nanos(wall).saturating_sub(nanos(boot));
    std::time::Duration::from_nanos(u64::try_from(difference).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_zone_ends_the_frames() {
        let text = "Node 0, zone      DMA\n        spanned  4095\n  start_pfn:           1\n\
                    Node 0, zone   Normal\n        spanned  1024\n  start_pfn:           8192\n";
        assert_eq!(end_of_zones(text), 9216);
        assert_eq!(end_of_zones(""), 0);
    }

    #[test]
    fn a_missing_list_is_unknown_not_empty() {
        let dir = std::env::temp_dir();
        assert_eq!(
            read_security_modules(&dir.join("no-such-file")).unwrap(),
            None
        );
        assert!(!is_bpf_fs(&dir.join("no-such-dir")).unwrap());
    }
}
