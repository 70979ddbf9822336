//! Headers, labels, and the look for data.

use super::*;
use longpin_linux::arch;

#[test]
fn the_header_is_what_the_kernel_reads() {
    let header = make_header(1000, None, Some(*b"swap\0\0\0\0\0\0\0\0\0\0\0\0")).unwrap();
    assert_eq!(header.len(), rustix::param::page_size());
    assert!(header[..1024].iter().all(|&byte| byte == 0));
    assert_eq!(header[1024..1036], [1, 0, 0, 0, 0xe7, 3, 0, 0, 0, 0, 0, 0]);
    assert!(header[UUID].iter().any(|&byte| byte != 0));
    assert_eq!(&header[LABEL][..5], b"swap\0");
    assert!(
        header[1068..rustix::param::page_size() - 10]
            .iter()
            .all(|&byte| byte == 0)
    );
    assert_eq!(&header[rustix::param::page_size() - 10..], b"SWAPSPACE2");
    assert!(has_signature(&header) && is_current(&header, 1000));
    assert!(!is_current(&header, 1001));
}

#[test]
fn a_file_that_grew_keeps_its_name() {
    let old = make_header(1000, None, Some([b'x'; 16])).unwrap();
    let new = make_header(2000, Some(&old), None).unwrap();
    assert_eq!(new[UUID.start..LABEL.end], old[UUID.start..LABEL.end]);
    assert!(is_current(&new, 2000));
}

#[test]
fn what_lies_behind_a_smaller_swap_area_is_data() {
    let file = tempfile::tempfile().unwrap();
    let pages = 256;
    let small = make_header(2, None, None).unwrap();
    file.write_all_at(&vec![0; pages * rustix::param::page_size()], 0)
        .unwrap();
    file.write_all_at(&small, 0).unwrap();
    file.sync_all().unwrap();
    let look = |old: &[u8]| {
        let status = file::status(&file).unwrap();
        refuse_loss(&file, &status, Some(old), &mut |_, _| {})
    };
    match look(&small) {
        Err(ActivateError::Map(err)) => return println!("not tried: {err}"),
        other => other.unwrap(),
    }
    file.write_all_at(&[1], 5 * arch::page_size()).unwrap();
    let found = look(&small);
    assert!(matches!(found, Err(ActivateError::Data { at }) if at == 5 * arch::page_size()));
    let mut bad = small.clone();
    bad[1032] = 3;
    let found = look(&bad);
    assert!(matches!(found, Err(ActivateError::BadPages { count: 3 })));
    assert!(look(&make_header(pages as u64, None, None).unwrap()).is_ok());
}

#[test]
fn a_label_fits_or_is_refused() {
    let options = |label: &str| SwapOptions {
        label: Some(label.into()),
        ..SwapOptions::default()
    };
    assert!(label_bytes(&options("0123456789abcdef")).is_ok());
    let refused = label_bytes(&options("0123456789abcdefg"));
    assert!(matches!(refused, Err(ActivateError::Label { len: 17 })));
}

#[test]
fn data_is_found_wherever_it_is() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![0; 2 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let look = || {
        let status = file::status(&file).unwrap();
        refuse_data(&file, &status, 0..status.size, &mut |_, _| {})
    };
    match look() {
        Err(ActivateError::Map(err)) => return println!("not tried: {err}"),
        other => other.unwrap(),
    }
    file.write_all_at(&[1], (1 << 20) + 17).unwrap();
    let found = look();
    assert!(matches!(found, Err(ActivateError::Data { at }) if at == (1 << 20) + 17));
}
