//! `/proc/self/mountinfo`: where a file system is mounted, as seen from here.

use std::fs;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount's number, as `statx(2)` gives it for a file (`stx_mnt_id`).
    pub id: u64,
    /// Major and minor number of the file system's super block.
    pub device: (u32, u32),
    /// Which directory of the file system is mounted.
    pub root: String,
    /// Where.
    pub point: String,
    /// The file system's type.
    pub kind: String,
    /// Options of the super block, separated by commas.
    pub options: String,
}

impl Mount {
    /// Whether its super block has this option.
    #[must_use]
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|own| own == option)
    }
}

/// Read `/proc/self/mountinfo`.
///
/// # Errors
///
/// The file cannot be read.
pub fn read_mounts() -> std::io::Result<Vec<Mount>> {
    // A mount point may have any bytes in its name; one strange name must not hide the other mounts.
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(String::from_utf8_lossy(&text)
        .lines()
        .filter_map(parse_mount)
        .collect())
}

fn parse_mount(line: &str) -> Option<Mount> {
    let words: Vec<&str> = line.split(' ').collect();
    let (major, minor) = words.get(2)?.split_once(':')?;
    // Optional fields, as many as there are, end at a hyphen.
    let dash = words.iter().skip(6).position(|&word| word == "-")? + 6;
    Some(Mount {
        id: words.first()?.parse().ok()?,
        device: (major.parse().ok()?, minor.parse().ok()?),
        root: unescape(words.get(3)?),
        point: unescape(words.get(4)?),
        kind: unescape(words.get(dash + 1)?),
        options: unescape(words.get(dash + 3).unwrap_or(&"")),
    })
}

/// Blank, tab, newline and backslash are written as three octal digits.
fn unescape(word: &str) -> String {
    let mut parts = word.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(&part[3..]);
            }
            None => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

/// The paths of a file, from its names below the root of its file system, each with the mount that shows it: none when no
/// such mount can be seen from here. What is mounted over a part of a path is not looked for: it may lead elsewhere.
pub fn paths_on<'a>(
    mounts: &'a [Mount],
    device: (u32, u32),
    names: &[String],
) -> impl Iterator<Item = (&'a Mount, String)> + use<'a> {
    let inside = format!("/{}", names.join("/"));
    let own = mounts.iter().filter(move |mount| mount.device == device);
    own.filter_map(move |mount| {
        let below = if mount.root == "/" {
            Some(inside.as_str())
        } else {
            inside.strip_prefix(&mount.root)
        };
        let below = below.filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
        let path = format!("{}{below}", mount.point.trim_end_matches('/'));
        Some((mount, path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(line: &str) -> Mount {
        parse_mount(line).unwrap()
    }

    #[test]
    fn a_path_goes_through_the_mount_that_shows_it() {
        let mounts = [
            mount("31 1 0:27 / /dev/shm rw,nosuid shared:4 - tmpfs tmpfs rw"),
            mount("32 1 8:1 /srv/data /mnt/my\\040data rw - ext4 /dev/sda1 rw"),
        ];
        let names = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let path = |device, text| {
            let mut paths = paths_on(&mounts, device, &names(text));
            paths.next().map(|(_, path)| path)
        };
        assert_eq!(path((0, 27), "ring"), Some("/dev/shm/ring".into()));
        assert_eq!(
            path((8, 1), "srv/data/weights.bin"),
            Some("/mnt/my data/weights.bin".into())
        );
        assert_eq!(path((8, 1), "srv/database"), None);
        assert_eq!(path((9, 9), "ring"), None);
    }

    #[test]
    fn the_type_stands_behind_the_hyphen() {
        let line =
            "40 31 0:35 / /mnt rw,relatime shared:7 master:2 - overlay none rw,lowerdir=/a:/b";
        let overlay = mount(line);
        assert_eq!((overlay.id, overlay.kind.as_str()), (40, "overlay"));
        assert_eq!(overlay.options, "rw,lowerdir=/a:/b");
        assert_eq!(parse_mount("40 31 0:35 / /mnt rw shared:7"), None);
    }
}
