//! The command that cures a reason: to be pasted into a shell, and saying what it takes where it takes something.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::judge::{JOURNALS_ALL, SCRUB, SHOWS, SUBVOLUME};
use super::reason::{Name, Reason};
use crate::filesystem::Family;
use crate::hold::heads::Heads;

pub(super) fn of(reason: &Reason, path: &Path, family: Family) -> Option<String> {
    let file = quote(path);
    let hint = match reason.name {
        // f2fs chooses other blocks for a hole of a file in its place.
        Name::Hole if family == Family::F2fs => copy(&file),
        Name::Hole if family == Family::Memory => {
            format!("dd if={file} of={file} bs=1M conv=notrunc")
        }
        Name::Hole | Name::Unwritten | Name::Delalloc | Name::Shared => prepare(&file),
        Name::Snapshotted | Name::Interrupted => prepare(&file),
        Name::Empty | Name::TooSmall => format!("longpin prepare {file} --size SIZE"),
        Name::CopyOnWrite if family == Family::Xfs => return None,
        Name::CopyOnWrite | Name::Compressed | Name::NotPinned => copy(&file),
        Name::Inline if family == Family::Btrfs => large_copy(&file),
        Name::Encoded | Name::Inline | Name::Verity => copy(&file),
        Name::Encrypted => copy(&file) + "   # NEW outside of the encrypted directory",
        Name::ActiveSwap => end_swap(path, &file),
        Name::Immutable => format!("chattr -i {file}"),
        Name::AppendOnly => format!("chattr -a {file}"),
        Name::Journalled => unjournal(reason, &file),
        Name::ReadOnly if reason.detail.is_none() => {
            format!("mount -o remount,rw {}", mount(&file))
        }
        Name::ReadOnly if reason.detail.as_deref() == Some(SUBVOLUME) => writable(&file),
        Name::Profile => single(reason, &file),
        Name::FileSystemBusy => stop(reason, &file),
        Name::MovesData if family == Family::Btrfs => stay(reason, &file),
        Name::NoBlocks => format!("longpin check {file}   # for pages: memory can be pinned"),
        Name::Overlay => layer(reason),
        Name::Changed => format!("fuser -v {file}   # who writes it?"),
        _ => return None,
    };
    Some(hint)
}

fn prepare(file: &str) -> String {
    format!("longpin prepare {file}")
}

/// A new file, made as it has to be, then the contents.
fn copy(file: &str) -> String {
    let make = format!("longpin prepare NEW --size $(stat -c %s {file})");
    format!("{make} && dd if={file} of=NEW bs=1M conv=notrunc,fsync")
}

/// btrfs keeps what is smaller among metadata, whatever is done to it.
fn large_copy(file: &str) -> String {
    format!(
        "longpin prepare NEW --size 4096 && dd if={file} of=NEW bs=1M conv=notrunc,fsync   # zeroes behind the data: btrfs keeps small files among metadata"
    )
}

/// btrfs's subvolumes begin at inode 256.
fn writable(file: &str) -> String {
    let up = r#"until [ "$(stat -c %i "$d")" = 256 ]; do d=$(dirname "$d"); done"#;
    format!(
        "d=$(dirname {file}); {up}; btrfs property set -ts \"$d\" ro false   # a received one takes -f, and no increments then"
    )
}

/// Where data and metadata share chunks, only both can be converted.
fn single(reason: &Reason, file: &str) -> String {
    let is_mixed = reason
        .detail
        .as_deref()
        .is_some_and(|detail| detail.starts_with("mixed"));
    let (what, of) = match is_mixed {
        true => ("-f -dconvert=single -mconvert=single", "data and metadata"),
        false => ("-dconvert=single", "data"),
    };
    let mount = mount(file);
    format!(
        "btrfs balance start {what} {mount}   # of all {of} of this file system: gives up its redundancy"
    )
}

fn mount(file: &str) -> String {
    format!("\"$(stat -c %m {file})\"")
}

/// The mode of a mounted ext4 cannot be changed. A loop device that goes with its mount stays while somebody has it open.
fn unjournal(reason: &Reason, file: &str) -> String {
    if reason.detail.as_deref() != Some(JOURNALS_ALL) {
        return format!("chattr -j {file}");
    }
    // Of several mounts the first one, which shows all of it.
    let names = format!("d=$(findmnt -nvfo SOURCE -T {file}) m=$(findmnt -nvfo TARGET -S \"$d\")");
    let again = r#"umount -A "$d" && mount -o data=ordered "$d" "$m""#;
    format!(
        "{names}; tune2fs -o ^journal_data \"$d\" && {{ {again}; }} <\"$d\"   # while nobody uses the file system; its bind mounts go"
    )
}

/// To end swapping to a file that is held so would end the hold.
fn end_swap(path: &Path, file: &str) -> String {
    let own = path.metadata().map(|data| (data.dev(), data.ino())).ok();
    let held = Heads::default().read_all().unwrap_or_default();
    if held.iter().any(|record| Some(record.inode) == own) {
        return "longpin ls   # it is held by backend swap-header".into();
    }
    format!("longpin swapoff {file}")
}

/// Only a guard knows which file is behind an overlay's.
fn layer(reason: &Reason) -> String {
    let path = reason.detail.as_deref().unwrap_or_default();
    match path.strip_prefix(SHOWS) {
        Some(path) => format!("longpin check {}", quote(Path::new(path))),
        None => "use the file's path in its layer: `longpin why FILE` names it while a guard runs"
            .into(),
    }
}

/// Ends what moves chunks; what of it was done stays.
fn stop(reason: &Reason, file: &str) -> String {
    let mount = mount(file);
    let (what, how) = match reason.detail.as_deref().unwrap_or_default() {
        SCRUB => ("scrub", format!("btrfs scrub cancel {mount}")),
        "balance" | "balance paused" => ("balance", format!("btrfs balance cancel {mount}")),
        "device remove" => ("removal", format!("btrfs device remove cancel {mount}")),
        "resize" => ("resize", format!("btrfs filesystem resize cancel {mount}")),
        "device replace" => ("replacement", format!("btrfs replace cancel {mount}")),
        _ => {
            let setting = format!("{}/exclusive_operation", sysfs(file));
            return format!("until grep -qx none {setting}; do sleep 1; done   # wait for its end");
        }
    };
    format!("{how}   # ends the {what}; or wait for its end")
}

/// What moves data by itself is switched off, by mount option or in sysfs.
fn stay(reason: &Reason, file: &str) -> String {
    let words = reason
        .detail
        .as_deref()
        .unwrap_or_default()
        .split(' ')
        .next();
    match words.filter(|word| word.starts_with("allocation/")) {
        Some(setting) => format!("echo 0 > {}/{setting}", sysfs(file)),
        None => format!("mount -o remount,noautodefrag {}", mount(file)),
    }
}

/// btrfs's directory in sysfs.
fn sysfs(file: &str) -> String {
    format!("/sys/fs/btrfs/$(findmnt -nfo UUID -T {file})")
}

/// The path as a shell takes it, and as no command takes it for an option.
#[must_use]
pub fn quote(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let here = if bytes.first() == Some(&b'-') {
        "./"
    } else {
        ""
    };
    let plain = |&byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(&byte);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return format!("{here}{}", path.display());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => {
            format!("'{here}{}'", text.replace('\'', r"'\''"))
        }
        _ => format!("\"$(printf '{here}{}')\"", octal(bytes)),
    }
}

/// For printf(1): every byte that is not plain by its number.
fn octal(bytes: &[u8]) -> String {
    let show = |&byte: &u8| match byte {
        b'%' | b'\'' | b'\\' => format!("\\{byte:03o}"),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    };
    bytes.iter().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_gets_the_path_back() {
        use std::os::unix::ffi::OsStringExt;
        let names: [&[u8]; 8] = [
            b"/a/b-1.bin",
            b"/a b/it's",
            b"-swap",
            b"- x",
            b"/a\nb",
            b"/a\xffb 'q' %s \\n",
            b"/$HOME/`id`",
            "/gr\u{f6}\u{df}e".as_bytes(),
        ];
        for name in names {
            let path = std::ffi::OsString::from_vec(name.to_vec());
            let script = format!("printf %s {}", quote(Path::new(&path)));
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output();
            let found = output.unwrap().stdout;
            let expected = match name.first() {
                Some(b'-') => [b"./", name].concat(),
                _ => name.to_vec(),
            };
            assert_eq!(found, expected, "{script}");
        }
    }

    #[test]
    fn a_hint_is_for_its_file_system() {
        let reason = |name: Name| Reason::whole(name);
        let hint = |reason: Reason, family| of(&reason, Path::new("/a b"), family).unwrap();
        assert_eq!(
            hint(reason(Name::Shared), Family::Btrfs),
            "longpin prepare '/a b'"
        );
        assert!(hint(reason(Name::Hole), Family::F2fs).contains("dd if='/a b' of=NEW"));
        assert_eq!(
            hint(reason(Name::Immutable), Family::Ext),
            "chattr -i '/a b'"
        );
        let moves = reason(Name::MovesData).with("allocation/data/dynamic_reclaim is 1");
        assert!(hint(moves, Family::Btrfs).ends_with("-T '/a b')/allocation/data/dynamic_reclaim"));
        let defragments = reason(Name::MovesData).with("mount option autodefrag");
        assert!(hint(defragments, Family::Btrfs).contains("noautodefrag"));
        assert_eq!(
            of(&reason(Name::MovesData), Path::new("/a"), Family::Mover),
            None
        );
        let scrub = reason(Name::FileSystemBusy).with(SCRUB);
        assert!(hint(scrub, Family::Btrfs).starts_with("btrfs scrub cancel"));
        assert_eq!(
            hint(reason(Name::Journalled), Family::Ext),
            "chattr -j '/a b'"
        );
        let all = reason(Name::Journalled).with(JOURNALS_ALL);
        assert!(hint(all, Family::Ext).contains("tune2fs -o ^journal_data"));
    }
}
