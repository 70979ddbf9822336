//! The structures of kmod/longpin_lend.h. A test compiles the header and compares.

/// The device may write.
pub const WRITE: u32 = 1 << 0;
/// Door 3: this process may register mappings of the range.
pub const REGISTER: u32 = 1 << 1;
/// In a row: the dma-buf is still there.
pub const ROW_OPEN: u32 = 1 << 8;
/// In a row: a page is pinned by others than lends.
pub const ROW_PINNED: u32 = 1 << 9;
/// In a row: taken back from importers.
pub const ROW_REVOKED: u32 = 1 << 10;
/// In a row: it is of a flag, not of a lend.
pub const ROW_FLAG: u32 = 1 << 11;
/// The module can do door 3.
pub const CAN_REGISTER: u32 = 1 << 0;
/// Importers can be told to let go.
pub const CAN_REVOKE: u32 = 1 << 1;
/// The file system waits for the pins without a mapping of the file.
pub const WAITS_UNMAPPED: u32 = 1 << 3;

/// The requests: `_IO('L', 0x10)` and on.
pub(super) mod request {
    pub(in super::super) const LEND: libc::Ioctl = 0x4c10;
    pub(in super::super) const UNTIL: libc::Ioctl = 0x4c11;
    pub(in super::super) const FLAG: libc::Ioctl = 0x4c12;
    pub(in super::super) const LIST: libc::Ioctl = 0x4c13;
    pub(in super::super) const REVOKE: libc::Ioctl = 0x4c14;
    pub(in super::super) const INFO: libc::Ioctl = 0x4c15;
}

/// `struct longpin_lend`.
#[repr(C)]
pub(super) struct Lend {
    pub(super) size: u32,
    pub(super) flags: u32,
    pub(super) file: i32,
    pub(super) token: i32,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) groups: u64,
    pub(super) group_count: u32,
    pub(super) zero: u32,
}

/// `struct longpin_lend_until`.
#[repr(C)]
pub(super) struct Until {
    pub(super) size: u32,
    pub(super) dmabuf: i32,
    pub(super) group: i32,
    pub(super) zero: u32,
}

/// `struct longpin_lend_row`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[expect(missing_docs, reason = "the header says what they are")]
pub struct Row {
    pub id: u64,
    pub dev: u64,
    pub inode: u64,
    pub offset: u64,
    pub length: u64,
    pub since: u64,
    pub flags: u32,
    pub pid: i32,
    pub groups: u32,
    pub importers: u32,
    pub mappings: u32,
    pub zero: u32,
    pub command: [u8; 16],
}

/// `struct longpin_lend_list`.
#[repr(C)]
pub(super) struct List {
    pub(super) size: u32,
    pub(super) row_size: u32,
    pub(super) after: u64,
    pub(super) rows: u64,
    pub(super) room: u32,
    pub(super) zero: u32,
}

/// `struct longpin_lend_revoke`.
#[repr(C)]
pub(super) struct Revoke {
    pub(super) size: u32,
    pub(super) dmabuf: i32,
}

/// `struct longpin_lend_info`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Info {
    pub(super) size: u32,
    /// `LONGPIN_LEND_VERSION`.
    pub version: u32,
    /// `LONGPIN_CAN_*`, `LONGPIN_WAITS_UNMAPPED`.
    pub can: u32,
    pub(super) zero: u32,
}

/// The `size` that begins each structure.
pub(super) const fn size_of_u32<T>() -> u32 {
    assert!(size_of::<T>() < 4096);
    #[expect(clippy::cast_possible_truncation, reason = "below 4096, as asserted")]
    let size = size_of::<T>() as u32;
    size
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::fmt::Write;
    use std::mem::offset_of;
    use std::process::Command;

    /// What the header's compiler says and what this one does, a line each.
    #[derive(Default)]
    struct Both {
        c: String,
        rust: String,
    }

    impl Both {
        fn line(&mut self, c: &str, rust: u64) {
            writeln!(
                self.c,
                "printf(\"%s %llu\\n\", {c:?}, (unsigned long long)({c}));"
            )
            .unwrap();
            writeln!(self.rust, "{c} {rust}").unwrap();
        }
    }

    macro_rules! fields {
        ($both:ident, $c:literal, $rust:ident, $($field:ident),*) => {
            $both.line(concat!("sizeof(struct ", $c, ")"), size_of::<$rust>() as u64);
            $($both.line(
                concat!("offsetof(struct ", $c, ", ", stringify!($field), ")"),
                offset_of!($rust, $field) as u64,
            );)*
        };
    }

    #[test]
    fn structures_are_those_of_the_header() {
        let mut both = Both::default();
        fields!(
            both,
            "longpin_lend",
            Lend,
            size,
            flags,
            file,
            token,
            offset,
            length,
            groups,
            group_count,
            zero
        );
        fields!(both, "longpin_lend_until", Until, size, dmabuf, group, zero);
        fields!(
            both,
            "longpin_lend_row",
            Row,
            id,
            dev,
            inode,
            offset,
            length,
            since,
            flags,
            pid,
            groups,
            importers,
            mappings,
            zero,
            command
        );
        fields!(
            both,
            "longpin_lend_list",
            List,
            size,
            row_size,
            after,
            rows,
            room,
            zero
        );
        fields!(both, "longpin_lend_revoke", Revoke, size, dmabuf);
        fields!(both, "longpin_lend_info", Info, size, version, can, zero);
        for (name, value) in [
            ("LONGPIN_IOC_LEND", request::LEND),
            ("LONGPIN_IOC_UNTIL", request::UNTIL),
            ("LONGPIN_IOC_LIST", request::LIST),
            ("LONGPIN_IOC_REVOKE", request::REVOKE),
            ("LONGPIN_IOC_INFO", request::INFO),
        ] {
            both.line(name, value);
        }
        for (name, value) in [
            ("LONGPIN_LEND_WRITE", WRITE),
            ("LONGPIN_LEND_REGISTER", REGISTER),
            ("LONGPIN_ROW_OPEN", ROW_OPEN),
            ("LONGPIN_ROW_PINNED", ROW_PINNED),
            ("LONGPIN_ROW_REVOKED", ROW_REVOKED),
            ("LONGPIN_ROW_FLAG", ROW_FLAG),
            ("LONGPIN_CAN_REGISTER", CAN_REGISTER),
            ("LONGPIN_CAN_REVOKE", CAN_REVOKE),
            ("LONGPIN_WAITS_UNMAPPED", WAITS_UNMAPPED),
        ] {
            both.line(name, value.into());
        }
        assert_eq!(run(&both.c), both.rust);
    }

    fn run(body: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let (source, program) = (dir.path().join("lend.c"), dir.path().join("lend"));
        let header = concat!(env!("CARGO_MANIFEST_DIR"), "/../../kmod/longpin_lend.h");
        let text = format!(
            "#include <stddef.h>\n#include <stdio.h>\n#include {header:?}\nint main(void) {{\n{body}return 0;\n}}\n"
        );
        std::fs::write(&source, text).unwrap();
        let mut compile = Command::new("cc");
        compile.arg("-Wall").arg("-o").arg(&program).arg(&source);
        let compiled = compile.output().unwrap();
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{said}");
        let output = Command::new(&program).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}
