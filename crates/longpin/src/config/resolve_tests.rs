//! Looking up names, on hosts made up for the purpose.
#![allow(
    clippy::single_range_in_vec_init,
    reason = "one range is what is meant"
)]

use std::collections::HashMap;

use longpin_linux::cgroups::{Cgroup, CgroupError};
use longpin_linux::code::Code;
use longpin_linux::identity::{FileKind, Identity, IdentityError};
use longpin_linux::mounts::Mount;

use super::lookup::Lookup;
use super::resolve::resolve_on;
use super::{CgroupKey, FileKey, Resolved, Severity, parse};

const SYMBOLS: &str = "1000 T io_pin_pages\n1100 T vfs_read\n1180 T many\n1190 T x\n1200 t many.a\n1210 T x\n1220 t many.b\n\
    1230 T x\n1240 t many.c\n1250 T x\n1260 t many.d\n1270 T x\n\
    1280 t udmabuf_create\n1290 t udmabuf_ioctl\n12a0 T x\n12b0 t udmabuf_create.cold\n12c0 T x\n\
    9000 t ib_umem_get\t[ib_uverbs]\na000 t ib_cm\t[ib_core]\nb000 t nv\t[nvidia_fs]\nc000 d end\n";

/// A host with what a test puts there.
#[derive(Default)]
struct Fake {
    files: HashMap<&'static str, Identity>,
    below: Vec<Mount>,
    users: HashMap<&'static str, u32>,
    groups: HashMap<&'static str, Cgroup>,
    code: Option<Code>,
    passwd_broken: bool,
}

impl Lookup for Fake {
    fn identify(&self, path: &str) -> Result<Identity, IdentityError> {
        if path == "/root/secret" {
            return Err(IdentityError::Denied);
        }
        self.files.get(path).cloned().ok_or(IdentityError::Missing)
    }

    fn mounts_below(&self, _: &str) -> Vec<Mount> {
        self.below.clone()
    }

    fn user(&self, name: &str) -> std::io::Result<Option<u32>> {
        if self.passwd_broken {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        Ok(self.users.get(name).copied())
    }

    fn cgroup(&self, group: &str) -> Result<Option<Cgroup>, CgroupError> {
        if self.groups.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        Ok(self.groups.get(group).copied())
    }

    fn code(&self) -> Result<&Code, String> {
        self.code.as_ref().ok_or_else(|| "hidden".to_owned())
    }
}

fn mount(kind: &str, point: &str) -> Mount {
    Mount {
        id: 1,
        device: (8, 17),
        root: "/".into(),
        point: point.into(),
        kind: kind.into(),
        options: "rw,lowerdir=/lower,upperdir=/upper".into(),
    }
}

fn file(ino: u64, kind: FileKind, fs: &str) -> Identity {
    Identity {
        ino,
        kind,
        mount: mount(fs, "/"),
    }
}

fn host() -> Fake {
    Fake {
        files: HashMap::from([
            ("/srv", file(12, FileKind::Directory, "ext4")),
            ("/srv/a", file(13, FileKind::File, "ext4")),
            ("/dev/null", file(4, FileKind::Other, "devtmpfs")),
            ("/merged", file(5, FileKind::Directory, "overlay")),
            ("/sub", file(256, FileKind::Directory, "btrfs")),
        ]),
        users: HashMap::from([("alice", 1000)]),
        groups: HashMap::from([("a.slice/b", Cgroup { id: 77, level: 2 })]),
        code: Some(Code::parse(SYMBOLS.as_bytes()).unwrap()),
        ..Fake::default()
    }
}

fn resolved(host: &Fake, text: &str) -> Resolved {
    resolve_on(host, &parse(text).unwrap()).unwrap()
}

/// The warnings of a text whose rules all fail to match now.
fn inert(host: &Fake, text: &str) -> String {
    let resolved = resolved(host, text);
    assert_eq!(resolved.rules, [], "{text}");
    let [warning] = resolved.warnings.as_slice() else {
        panic!("{text}: {:?}", resolved.warnings)
    };
    warning.to_string()
}

/// The one problem of a text.
fn refused(host: &Fake, text: &str) -> (Severity, String) {
    let errors = resolve_on(host, &parse(text).unwrap()).unwrap_err();
    let [problem] = errors.problems() else {
        panic!("{text}: {errors}")
    };
    (problem.severity, problem.to_string())
}

#[test]
fn names_become_numbers() {
    let found = resolved(
        &host(),
        "\nenforce path=/srv/a uid=alice cgroup=/a.slice/b consumer=io_uring\nquota files=7",
    );
    let rule = &found.rules[0];
    let dev = 8 << 20 | 17;
    assert_eq!((rule.line, rule.file), (2, Some(FileKey { dev, ino: 13 })));
    assert_eq!(rule.uid, Some(1000));
    assert_eq!(rule.cgroup, Some(CgroupKey { id: 77, level: 2 }));
    assert_eq!(rule.consumer.as_deref(), Some(&[0x1000..0x1100][..]));
    assert_eq!((found.files_per_user, found.warnings), (7, vec![]));
    let any = &resolved(&host(), "enforce").rules[0];
    assert_eq!(
        (any.file, any.uid, any.cgroup, any.consumer.as_ref()),
        (None, None, None, None)
    );
}

#[test]
fn consumers_are_modules_or_functions() {
    let ranges = |name: &str| {
        let rules = resolved(&host(), &format!("longterm consumer={name}")).rules;
        rules[0].consumer.clone().unwrap()
    };
    assert_eq!(ranges("rdma"), [0x9000..0xa000, 0xa000..0xb000]);
    assert_eq!(ranges("nvidia-fs"), [0xb000..0xc000]);
    assert_eq!(ranges("vfs_read"), [0x1100..0x1180]);
    assert_eq!(
        ranges("udmabuf"),
        [0x1280..0x1290, 0x12b0..0x12c0, 0x1290..0x12a0]
    );
    let (severity, said) = refused(&host(), "deny consumer=many");
    assert_eq!(severity, Severity::Error);
    assert!(said.contains("5 pieces of code"), "{said}");
}

#[test]
fn what_is_not_there_now_has_no_effect_now() {
    assert!(inert(&host(), "deny cgroup=b.slice").contains("no cgroup `b.slice` now"));
    assert!(inert(&host(), "deny consumer=vfio").contains("vfio_iommu_type1 is not loaded"));
    let said = inert(&host(), "deny consumer=nvidia_sf");
    assert!(said.contains("did you mean consumer=nvidia_fs?"), "{said}");
    let kept = resolved(&host(), "deny cgroup=b.slice\nallow uid=0");
    assert_eq!((kept.rules.len(), kept.rules[0].line), (1, 2));
}

#[test]
fn what_the_host_does_not_know_is_an_error_with_its_line() {
    for (text, word) in [
        ("deny path=/nowhere", "nothing is at `/nowhere`"),
        ("deny path=/srv/*", "there are no patterns"),
        ("deny path=/dev/null", "neither a file nor a directory"),
        ("deny path=/merged", "upperdir=/upper"),
        ("deny uid=bob", "id -u bob"),
    ] {
        let (severity, said) = refused(&host(), text);
        assert_eq!(severity, Severity::Error, "{text}");
        assert!(said.starts_with("1: ") && said.contains(word), "{said}");
    }
    let both = parse("deny path=/nowhere uid=bob\ndeny uid=eve").unwrap();
    let errors = resolve_on(&host(), &both).unwrap_err();
    assert_eq!(errors.problems().len(), 3);
    assert!(!errors.cannot_tell());
}

#[test]
fn no_answer_is_not_a_wrong_configuration() {
    let blind = Fake {
        passwd_broken: true,
        ..Fake::default()
    };
    for text in [
        "deny path=/root/secret",
        "deny uid=alice",
        "deny cgroup=a.slice",
        "deny consumer=rdma",
    ] {
        let (severity, said) = refused(&blind, text);
        assert_eq!(severity, Severity::CannotTell, "{said}");
    }
}

#[test]
fn rules_that_cover_more_or_less_than_they_say_are_reported() {
    let mut host = host();
    let said = resolved(&host, "deny path=/sub").warnings;
    assert!(
        said[0].what.contains("inode 256 of other subvolumes"),
        "{said:?}"
    );
    host.below = vec![
        mount("proc", "/srv/proc"),
        mount("xfs", "/srv/data"),
        mount("ext4", "/srv/b"),
    ];
    let said = resolved(&host, "deny path=/srv").warnings;
    assert!(
        said[0]
            .what
            .ends_with("mounted below it: /srv/data and 1 more"),
        "{said:?}"
    );
    assert_eq!(resolved(&host, "deny path=/srv/a").warnings, []);
}
