//! On the file system of this host; in the guest the same on all of them.

use rustix::fs::FallocateFlags;

use super::*;
use std::os::unix::fs::FileExt;

fn nobody() -> impl FnMut(u64, u64) {
    |_, _| {}
}

/// The result, or a reason why this host cannot try.
fn try_prepare(path: &Path, request: &PrepareOptions) -> Option<PrepareReport> {
    match prepare(path, request, &mut nobody()) {
        Ok(done) => Some(done),
        Err(PrepareError::Refused(report)) if report.fs != "ext4" && report.fs != "xfs" => {
            println!("not tried: {} here", report.fs);
            None
        }
        Err(err) => panic!("{err}: {err:?}"),
    }
}

#[test]
fn a_new_file_is_made_and_the_second_time_nothing_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let missing = prepare(&path, &PrepareOptions::default(), &mut nobody());
    assert!(matches!(missing, Err(PrepareError::Missing { .. })));
    let request = PrepareOptions {
        size: Some((1 << 20) + 5),
        immutable: false,
    };
    let Some(done) = try_prepare(&path, &request) else {
        return;
    };
    assert_eq!((done.size, done.zeroed), ((1 << 20) + 5, (1 << 20) + 5));
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), (1 << 20) + 5);
    assert!(bytes.iter().all(|&byte| byte == 0));
    let again = try_prepare(&path, &request).unwrap();
    assert!(!again.changed);
}

#[test]
fn data_stays_between_holes_and_unwritten_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = File::create(&path).unwrap();
    file.set_len(1 << 20).unwrap();
    file.write_all_at(&[7; 5000], 100_000).unwrap();
    file.write_all_at(&[8; 3], (1 << 20) - 3).unwrap();
    let flags = FallocateFlags::empty();
    rustix::fs::fallocate(&file, flags, 400_000, 100_000).unwrap();
    drop(file);
    let before = std::fs::read(&path).unwrap();
    let request = PrepareOptions {
        size: Some(2 << 20),
        immutable: false,
    };
    let Some(done) = try_prepare(&path, &request) else {
        return;
    };
    assert!(done.zeroed >= 1 << 20);
    let after = std::fs::read(&path).unwrap();
    assert_eq!(after.len(), 2 << 20);
    assert!(after[..1 << 20] == before);
    assert!(after[1 << 20..].iter().all(|&byte| byte == 0));
    let report = activation::check(&path, Policy::Blocks, None).unwrap();
    assert_eq!(report.verdict(), CheckVerdict::Yes, "{report:?}");
}

#[test]
fn a_file_that_somebody_has_open_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let refused = prepare(file.path(), &PrepareOptions::default(), &mut nobody());
    let allowed = matches!(refused, Err(PrepareError::InUse | PrepareError::Refused(_)));
    assert!(allowed, "{refused:?}");
    assert_eq!(std::fs::read(file.path()).unwrap(), vec![0; 1 << 20]);
}

#[test]
fn nothing_shrinks_and_no_device_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, [1; 10_000]).unwrap();
    let request = PrepareOptions {
        size: Some(4096),
        immutable: false,
    };
    let refused = prepare(&path, &request, &mut nobody());
    let shrink = matches!(
        refused,
        Err(PrepareError::Shrink {
            size: 10_000,
            wanted: 4096
        } | PrepareError::Refused(_))
    );
    assert!(shrink, "{refused:?}");
    assert_eq!(std::fs::read(&path).unwrap(), [1; 10_000]);
    let device = prepare(Path::new("/dev/null"), &request, &mut nobody());
    assert!(matches!(device, Err(PrepareError::NotRegular { .. })));
}
