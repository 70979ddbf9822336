//! What the programs know of files and pins, as values with a meaning.

use crate::types::{self, constant, file_flag, file_identity, level, row_key, verdict};

/// Layout version of everything pinned.
pub const ABI: u32 = constant::GUARD_ABI.0;
/// Most suspect files, unless a start says otherwise.
pub const MAX_FILES: u32 = constant::MAX_FILES.0;
/// Stack frames kept for each row.
pub const STACK_DEPTH: usize = constant::STACK_DEPTH.0 as usize;

/// A file, by its inode: address, number, device (`s_dev`, kernel encoding) and generation.
#[derive(Debug, Clone, Copy)]
pub struct FileId {
    /// Kernel address of the inode: tells files apart while they live.
    pub inode: u64,
    /// Inode number.
    pub ino: u64,
    /// Device of the super block, as the kernel encodes it (major << 20 | minor).
    pub dev: u32,
    /// Generation of the inode number.
    pub generation: u32,
}

/// The generation is left out: on some file systems an ioctl changes it.
impl PartialEq for FileId {
    fn eq(&self, other: &Self) -> bool {
        (self.inode, self.ino, self.dev) == (other.inode, other.ino, other.dev)
    }
}

impl Eq for FileId {}

impl std::hash::Hash for FileId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.inode, self.ino, self.dev).hash(state);
    }
}

impl FileId {
    pub(crate) const fn of(inode: u64, file: &file_identity) -> Self {
        Self {
            inode,
            ino: file.ino,
            dev: file.dev,
            generation: file.generation,
        }
    }

    /// As a key. The generation is left out: on some file systems an ioctl changes it.
    pub(crate) fn key(&self) -> file_identity {
        file_identity {
            generation: 0,
            ..self.numbers()
        }
    }

    /// As a key of explicit holds.
    pub(crate) const fn numbers(&self) -> file_identity {
        file_identity {
            ino: self.ino,
            dev: self.dev,
            generation: self.generation,
        }
    }

    /// Major and minor number of the device.
    #[must_use]
    pub const fn device(&self) -> (u32, u32) {
        (self.dev >> 20, self.dev & 0xf_ffff)
    }

    /// Of the same numbers, as explicit holds know their files: device, inode, and on btrfs the subvolume, which stands in
    /// the place of the generation, or is 0 where it is not known.
    #[must_use]
    pub const fn has_numbers_of(&self, other: &Self) -> bool {
        let (one, two) = (self.generation, other.generation);
        self.ino == other.ino && self.dev == other.dev && (one == two || one == 0 || two == 0)
    }
}

/// What is refused while a file is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// What would take pages or blocks of the range away from the file.
    #[default]
    Layout = level::LEVEL_LAYOUT.0,
    /// All that is refused of an active swap file.
    Swapfile = level::LEVEL_SWAPFILE.0,
}

impl Level {
    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Layout => "layout",
            Self::Swapfile => "swapfile",
        }
    }

    /// Of the word in a key.
    const fn of(word: level) -> Option<Self> {
        match level(word.0 & level::LEVEL_MASK.0) {
            level::LEVEL_LAYOUT => Some(Self::Layout),
            level::LEVEL_SWAPFILE => Some(Self::Swapfile),
            _ => None,
        }
    }
}

/// A file that was pinned since the guard began, or found pinned by a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// The file.
    pub file: FileId,
    /// Its pins are holds; otherwise they are only reported.
    pub held: bool,
    /// They ask for level swapfile.
    pub strict: bool,
    /// The user it is charged to.
    pub owner: u32,
    /// Pages that left it while they were pinned.
    pub broken: u64,
    /// Rows up to this number are of an earlier file with the same inode.
    pub born: u64,
}

/// A folio that left its file while it was pinned, and is pinned still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray {
    /// The file, which may have gone.
    pub file: FileId,
    /// Index of its first page in the file.
    pub first: u64,
    /// How many it has.
    pub pages: u64,
}

/// Whether a row is a hold; if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Held,
    /// The process may not write the file.
    Reader,
    /// Whether it may depends on an access control list, which the guard does not read.
    AclUnknown,
    /// By rule.
    Ignored,
    /// The user holds as many files as the quota allows.
    OverQuota,
    /// An administrator released it.
    Released,
    /// By rule no long-term pins: the process was killed. Held until it has gone.
    Denied,
    /// An explicit hold that is not judged yet: it refuses, and ends with its process.
    Pending,
}

impl Verdict {
    /// Why a pin is a hold, or is none.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Held => "the process may write the file",
            Self::Reader => "the process may not write the file",
            Self::AclUnknown => "whether it may write depends on an ACL",
            Self::Ignored => "a rule says ignore",
            Self::OverQuota => "the user's quota is used up",
            Self::Released => "released by an administrator",
            Self::Denied => "a rule denies it; the process was killed",
            Self::Pending => "it is not judged yet",
        }
    }

    /// One that this build does not know is no hold.
    pub(crate) const fn of(number: verdict) -> Self {
        match number {
            verdict::HELD => Self::Held,
            verdict::READER => Self::Reader,
            verdict::ACL_UNKNOWN => Self::AclUnknown,
            verdict::IGNORED => Self::Ignored,
            verdict::OVER_QUOTA => Self::OverQuota,
            verdict::DENIED => Self::Denied,
            verdict::PENDING => Self::Pending,
            _ => Self::Released,
        }
    }
}

/// What one process pinned of one file through one caller in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Number of the row, from 1.
    pub id: u64,
    /// The file.
    pub file: FileId,
    /// Whether it is a hold.
    pub verdict: Verdict,
    /// Thread group (process) that asked for the pin, in the initial pid namespace.
    pub tgid: u32,
    /// First page index that was ever pinned.
    pub first: u64,
    /// Last page index that was ever pinned, inclusive.
    pub last: u64,
    /// First pin, nanoseconds of boot time.
    pub since_ns: u64,
    /// Start of the process, nanoseconds of boot time: tells reused pids apart.
    pub task_start_ns: u64,
    /// cgroup v2 id.
    pub cgroup: u64,
    /// User.
    pub uid: u32,
    /// Pin calls.
    pub pins: u64,
    /// Name of the process's main thread.
    pub command: String,
    /// The file's name when it was pinned, cut to 63 bytes.
    pub name: String,
    /// Inode number of the directory that it was in.
    pub parent: u64,
    /// Kernel stack of the first pin, innermost first, 0 past its end.
    pub stack: [u64; STACK_DEPTH],
    /// Of an explicit hold: its level. Its range is held whether pages are pinned or not.
    pub explicit: Option<Level>,
    /// Return address of the pin function; of an explicit hold, its token.
    pub(crate) caller: u64,
    /// The key's word: the level, and whether the hold persists.
    pub(crate) level: level,
}

impl Row {
    /// Under which it stands in its table.
    pub(crate) const fn key(&self) -> row_key {
        row_key {
            inode: self.file.inode,
            caller: self.caller,
            tgid: self.tgid,
            level: self.level,
        }
    }

    /// An explicit hold that does not end with its holder.
    #[must_use]
    pub const fn persists(&self) -> bool {
        self.level.0 & level::LEVEL_PERSISTS.0 != 0
    }
}

/// What a look at a range of a file's page cache found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Pages pinned now.
    pub pages: u64,
    /// Index of the first and of the last pinned page (inclusive), when there is one.
    pub pinned: Option<(u64, u64)>,
    /// The same, widened to their whole folios: a pin anywhere in a folio protects all of it.
    pub folios: Option<(u64, u64)>,
    /// Size of the file in bytes.
    pub size: u64,
    /// Hard links; 0 when the file is deleted.
    pub links: u32,
    /// Where to go on; `None` when the whole range was looked at.
    pub(crate) next: Option<u64>,
    /// Path components from the root of the file system down.
    pub names: Vec<String>,
    /// Inode number of the directory.
    pub parent: u64,
}

impl Sight {
    /// Of a file that is not in memory, with the names that are known.
    #[must_use]
    pub const fn unseen(names: Vec<String>) -> Self {
        Self {
            pages: 0,
            pinned: None,
            folios: None,
            size: 0,
            links: 1,
            next: None,
            names,
            parent: 0,
        }
    }

    /// Join what was seen of the following part of the range.
    pub(crate) fn append(&mut self, part: &Self) {
        self.pages += part.pages;
        self.pinned = join(self.pinned, part.pinned);
        self.folios = join(self.folios, part.folios);
        self.next = part.next;
    }
}

/// From the first of the one to the last of the other.
fn join(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (one, other) {
        (Some((first, _)), Some((_, last))) => Some((first, last)),
        (one, other) => one.or(other),
    }
}

/// Text up to the first NUL.
pub(crate) fn text(chars: &[i8]) -> String {
    let bytes = chars.iter().flat_map(|byte| byte.to_ne_bytes());
    let bytes: Vec<u8> = bytes.take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Suspect {
    pub(crate) const fn of(inode: u64, value: &types::suspect) -> Self {
        Self {
            file: FileId::of(inode, &value.file),
            held: value.flags.0 & file_flag::FILE_HELD.0 != 0,
            strict: value.flags.0 & file_flag::FILE_STRICT.0 != 0,
            owner: value.owner,
            broken: value.broken,
            born: value.born,
        }
    }
}

impl Stray {
    pub(crate) const fn of(value: &types::stray) -> Self {
        Self {
            file: FileId::of(value.inode, &value.file),
            first: value.first,
            pages: value.pages,
        }
    }
}

impl Row {
    /// `None`: it is being filled in.
    pub(crate) fn of(key: &row_key, value: &types::row) -> Option<Self> {
        (value.id != 0).then(|| Self {
            id: value.id,
            file: FileId::of(key.inode, &value.file),
            verdict: Verdict::of(value.verdict),
            tgid: key.tgid,
            first: value.first,
            last: value.last,
            since_ns: value.since,
            task_start_ns: value.task_start,
            cgroup: value.cgroup,
            uid: value.uid,
            pins: value.pins,
            command: text(&value.comm),
            name: text(&value.name),
            parent: value.parent,
            stack: value.stack,
            explicit: Level::of(key.level),
            caller: key.caller,
            level: key.level,
        })
    }
}

impl Sight {
    pub(crate) fn of(value: &types::sight) -> Self {
        let some = |range| (value.pages > 0).then_some(range);
        let names = value.names.iter().take(value.depth as usize);
        Self {
            pages: value.pages,
            pinned: some((value.first, value.last)),
            folios: some((value.folio_first, value.folio_last)),
            size: value.size,
            links: value.links,
            next: (value.finished == 0).then_some(value.next),
            names: names.rev().map(|name| text(&name.text)).collect(),
            parent: value.parent,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    /// A C string in its place.
    fn chars<const N: usize>(text: &str) -> [i8; N] {
        let mut bytes = text.bytes();
        std::array::from_fn(|_| bytes.next().map_or(0, |byte| i8::from_ne_bytes([byte])))
    }

    #[test]
    fn a_row_is_none_until_it_is_filled_in() {
        let key = row_key {
            inode: 0xffff_8880_0000_1000,
            tgid: 4242,
            ..Zeroable::zeroed()
        };
        let mut value = types::row {
            file: file_identity {
                ino: 77,
                dev: 8 << 20 | 17,
                generation: 0,
            },
            last: 255,
            verdict: verdict::READER,
            comm: chars("weights"),
            name: chars("f.w"),
            ..Zeroable::zeroed()
        };
        assert_eq!(Row::of(&key, &value), None);
        value.id = 3;
        let row = Row::of(&key, &value).unwrap();
        assert_eq!((row.file.device(), row.verdict), ((8, 17), Verdict::Reader));
        assert_eq!(
            (row.command.as_str(), row.name.as_str()),
            ("weights", "f.w")
        );
        assert_eq!((row.explicit, row.persists()), (None, false));
    }

    #[test]
    fn a_level_is_told_from_what_it_comes_with() {
        let key = row_key {
            level: level(level::LEVEL_SWAPFILE.0 | level::LEVEL_PERSISTS.0),
            ..Zeroable::zeroed()
        };
        let value = types::row {
            id: 1,
            ..Zeroable::zeroed()
        };
        let row = Row::of(&key, &value).unwrap();
        assert_eq!(
            (row.explicit, row.persists()),
            (Some(Level::Swapfile), true)
        );
    }

    #[test]
    fn an_unknown_verdict_is_no_hold() {
        assert_eq!(Verdict::of(verdict(8)), Verdict::Released);
    }

    #[test]
    fn names_come_from_the_root_down() {
        let mut value = types::sight {
            depth: 2,
            ..Zeroable::zeroed()
        };
        value.names[0].text = chars("leaf");
        value.names[1].text = chars("dir");
        let sight = Sight::of(&value);
        assert_eq!(sight.names, ["dir", "leaf"]);
        assert_eq!(sight.pinned, None);
        value.depth = u32::MAX;
        assert_eq!(Sight::of(&value).names.len(), value.names.len());
    }
}
