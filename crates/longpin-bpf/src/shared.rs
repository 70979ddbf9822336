//! The Rust twins of `bpf/shared.h`: plain bytes in the kernel's tables, typed values here.

/// Layout version of everything pinned; raised with each change of `shared.h`.
pub const ABI: u32 = 13;
/// Most suspect files, unless a start says otherwise.
pub const MAX_FILES: u32 = 65_536;
/// How many programs watch the entries of pin functions, at most.
pub const MAX_PIN_PROGRAMS: usize = 6;
/// Stack frames kept for each row.
pub const STACK_DEPTH: usize = 8;
/// Path components that `inspect` returns, at most.
pub const MAX_DEPTH: usize = 32;
/// Bytes of one path component, terminator included.
pub const NAME_LEN: usize = 256;
/// Bytes of `struct row_key`.
pub const ROW_KEY_LEN: usize = 24;
/// Bytes of `struct row`.
pub const ROW_LEN: usize = 232;
/// Bytes of `struct suspect`.
pub(crate) const SUSPECT_LEN: usize = 64;
/// Bytes of `struct stray`.
const STRAY_LEN: usize = 40;
/// Bytes of `struct sight` before the names.
pub const SIGHT_HEAD_LEN: usize = 88;
/// Bytes of the short name kept in rows and events, terminator included.
pub(crate) const SHORT_NAME_LEN: usize = 64;

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
pub enum Level {
    /// What would take pages or blocks of the range away from the file.
    #[default]
    Layout = 1,
    /// All that is refused of an active swap file.
    Swapfile = 2,
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

    const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Layout),
            2 => Some(Self::Swapfile),
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

    pub(crate) const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Held,
            1 => Self::Reader,
            2 => Self::AclUnknown,
            3 => Self::Ignored,
            4 => Self::OverQuota,
            6 => Self::Denied,
            7 => Self::Pending,
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
    /// The table's key, for removal.
    pub key: [u8; ROW_KEY_LEN],
}

impl Row {
    /// An explicit hold that does not end with its holder.
    #[must_use]
    pub fn persists(&self) -> bool {
        u32_at(&self.key, 20) & 0x100 != 0
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

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_ne_bytes)
}

/// Text up to the first NUL.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

pub(crate) fn identity(inode: u64, bytes: &[u8]) -> FileId {
    FileId {
        inode,
        ino: u64_at(bytes, 0),
        dev: u32_at(bytes, 8),
        generation: u32_at(bytes, 12),
    }
}

/// `struct file_identity`.
pub(crate) fn identity_key(file: &FileId) -> [u8; 16] {
    let mut key = [0; 16];
    key[0..8].copy_from_slice(&file.ino.to_ne_bytes());
    key[8..12].copy_from_slice(&file.dev.to_ne_bytes());
    // The generation stays 0: on some file systems an ioctl changes it.
    key
}

/// The answer to `IDENTIFY`: the inode's address stands in `row`.
pub(crate) fn parse_identified(value: &[u8]) -> Option<FileId> {
    (value.len() == SUSPECT_LEN)
        .then(|| identity(u64_at(value, 48), value))
        .filter(|file| file.inode != 0)
}

/// A suspect from the `files` table.
pub(crate) fn parse_suspect(key: &[u8], value: &[u8]) -> Option<Suspect> {
    (key.len() == 8 && value.len() == SUSPECT_LEN).then(|| Suspect {
        file: identity(u64_at(key, 0), value),
        held: u32_at(value, 16) & 1 == 1,
        strict: u32_at(value, 16) & 2 == 2,
        owner: u32_at(value, 20),
        broken: u64_at(value, 32),
        born: u64_at(value, 56),
    })
}

/// A folio from the `strays` table.
pub(crate) fn parse_stray(value: &[u8]) -> Option<Stray> {
    (value.len() == STRAY_LEN).then(|| Stray {
        file: identity(u64_at(value, 0), &value[8..]),
        first: u64_at(value, 24),
        pages: u64_at(value, 32),
    })
}

/// A row from the `rows` table; `None` too while it is being filled in.
pub(crate) fn parse_row(key: &[u8], value: &[u8]) -> Option<Row> {
    let raw_key: [u8; ROW_KEY_LEN] = key.try_into().ok()?;
    if value.len() != ROW_LEN || u64_at(value, 16) == 0 {
        return None;
    }
    Some(Row {
        id: u64_at(value, 16),
        file: identity(u64_at(key, 0), value),
        tgid: u32_at(key, 16),
        first: u64_at(value, 24),
        last: u64_at(value, 32),
        since_ns: u64_at(value, 40),
        task_start_ns: u64_at(value, 48),
        cgroup: u64_at(value, 56),
        parent: u64_at(value, 64),
        uid: u32_at(value, 72),
        verdict: Verdict::from_number(u32_at(value, 76)),
        pins: u64_at(value, 80),
        command: text(&value[88..104]),
        name: text(&value[104..104 + SHORT_NAME_LEN]),
        stack: std::array::from_fn(|i| u64_at(value, 168 + 8 * i)),
        explicit: Level::from_number(u32_at(key, 20) & 0xff),
        key: raw_key,
    })
}

/// The question that an answer of `inspect` belongs to; 0 while it is being written.
pub(crate) fn sight_nonce(value: &[u8]) -> u64 {
    u64_at(value, 80)
}

/// The answer of `inspect`.
pub(crate) fn parse_sight(value: &[u8]) -> Option<Sight> {
    if value.len() != SIGHT_HEAD_LEN + MAX_DEPTH * NAME_LEN {
        return None;
    }
    let pages = u64_at(value, 0);
    let depth = (u32_at(value, 36) as usize).min(MAX_DEPTH);
    let names = value[SIGHT_HEAD_LEN..]
        .chunks(NAME_LEN)
        .take(depth)
        .map(text);
    let mut names: Vec<String> = names.collect();
    names.reverse();
    Some(Sight {
        pages,
        pinned: (pages > 0).then(|| (u64_at(value, 8), u64_at(value, 16))),
        folios: (pages > 0).then(|| (u64_at(value, 64), u64_at(value, 72))),
        size: u64_at(value, 24),
        links: u32_at(value, 32),
        next: (u32_at(value, 40) == 0).then(|| u64_at(value, 48)),
        parent: u64_at(value, 56),
        names,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_at_the_offsets_of_the_header() {
        let mut key = [0u8; ROW_KEY_LEN];
        key[0..8].copy_from_slice(&0xffff_8880_0000_1000_u64.to_ne_bytes());
        key[16..20].copy_from_slice(&4242_u32.to_ne_bytes());
        let mut value = [0u8; ROW_LEN];
        value[0..8].copy_from_slice(&77_u64.to_ne_bytes());
        value[8..12].copy_from_slice(&((8 << 20) | 17_u32).to_ne_bytes());
        assert_eq!(parse_row(&key, &value), None, "not filled in yet");
        value[16..24].copy_from_slice(&3_u64.to_ne_bytes());
        value[32..40].copy_from_slice(&255_u64.to_ne_bytes());
        value[76..80].copy_from_slice(&1_u32.to_ne_bytes());
        value[88..96].copy_from_slice(b"weights\0");
        value[104..108].copy_from_slice(b"f.w\0");
        value[168..176].copy_from_slice(&9_u64.to_ne_bytes());
        let row = parse_row(&key, &value).unwrap();
        assert_eq!(
            (row.id, row.file.ino, row.file.device(), row.tgid),
            (3, 77, (8, 17), 4242)
        );
        assert_eq!(
            (row.first, row.last, row.command.as_str(), row.stack[0]),
            (0, 255, "weights", 9)
        );
        assert_eq!((row.verdict, row.name.as_str()), (Verdict::Reader, "f.w"));
        assert_eq!(parse_row(&key, &value[1..]), None);
    }

    #[test]
    fn names_come_from_the_root_down() {
        let mut value = vec![0u8; SIGHT_HEAD_LEN + MAX_DEPTH * NAME_LEN];
        value[36..40].copy_from_slice(&2_u32.to_ne_bytes());
        value[SIGHT_HEAD_LEN..SIGHT_HEAD_LEN + 5].copy_from_slice(b"leaf\0");
        let at = SIGHT_HEAD_LEN + NAME_LEN;
        value[at..at + 4].copy_from_slice(b"dir\0");
        let sight = parse_sight(&value).unwrap();
        assert_eq!(sight.names, ["dir", "leaf"]);
        assert_eq!(sight.pinned, None);
    }
}
