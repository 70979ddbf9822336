//! What may stand behind `=`.

use super::{Consumer, User};

/// What is wrong with a value, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) remedy: String,
}

fn wrong<T>(what: impl Into<String>, remedy: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong {
        what: what.into(),
        remedy: remedy.into(),
    })
}

/// An absolute path; empty and `.` parts are left out.
pub(super) fn path(value: &str) -> Result<String, Wrong> {
    let Some(names) = value.strip_prefix('/') else {
        let tidy = value.trim_start_matches("./");
        return wrong(
            format!("`{value}` is no absolute path"),
            format!("begin it with a slash, as in path=/srv/{tidy}"),
        );
    };
    let names = parts(names).or_else(|()| {
        let what = format!("`{value}` has `..` in it");
        wrong(what, "write the path that is meant")
    })?;
    Ok(format!("/{}", names.join("/")))
}

/// A group below the cgroup2 mount, without slashes at its ends; empty for the root group.
pub(super) fn cgroup(value: &str) -> Result<String, Wrong> {
    const MOUNT: &str = "/sys/fs/cgroup/";
    if let Some(below) = value.strip_prefix(MOUNT) {
        let below = below.trim_start_matches("unified/");
        return wrong(
            format!("`{value}` is a path in the file system"),
            format!("write it from the cgroup2 mount on: cgroup={below}"),
        );
    }
    let names = parts(value).or_else(|()| {
        let what = format!("`{value}` has `..` in it");
        wrong(what, "write the group that is meant")
    })?;
    Ok(names.join("/"))
}

fn parts(value: &str) -> Result<Vec<&str>, ()> {
    let names = value.split('/').filter(|name| !matches!(*name, "" | "."));
    let names: Vec<&str> = names.collect();
    if names.contains(&"..") {
        return Err(());
    }
    Ok(names)
}

/// A user's number or name.
pub(super) fn user(value: &str) -> Result<User, Wrong> {
    if value.starts_with(|c: char| c.is_ascii_digit()) {
        // The last number means "no user" to the kernel.
        return match value.parse() {
            Ok(id) if id < u32::MAX => Ok(User::Id(id)),
            _ => wrong(
                format!("`{value}` is no user number"),
                format!("write a number from 0 to {}, or a name", u32::MAX - 1),
            ),
        };
    }
    let good = |c: char| c.is_alphanumeric() || "_.-$@\\".contains(c);
    if value.starts_with('-') || !value.chars().all(good) {
        return wrong(
            format!("`{value}` is no user name"),
            "write a number, or a name of /etc/passwd",
        );
    }
    Ok(User::Name(value.to_owned()))
}

/// A subsystem, a module or a function of the kernel.
pub(super) fn consumer(value: &str) -> Result<Consumer, Wrong> {
    let known = |word: &str| {
        Consumer::KNOWN
            .into_iter()
            .find(|known| known.word() == word)
    };
    if let Some(found) = known(value) {
        return Ok(found);
    }
    let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    let meant = Consumer::KNOWN
        .into_iter()
        .find(|known| known.word().replace('_', "") == plain);
    if let Some(meant) = meant {
        return wrong(
            format!("`{value}` is no consumer"),
            format!("did you mean consumer={}?", meant.word()),
        );
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if !value.chars().all(good) {
        return wrong(
            format!("`{value}` is no name of a module or kernel function"),
            "write one of rdma, io_uring, vfio, iommufd, udmabuf, or one name as lsmod or \
             /proc/kallsyms shows it",
        );
    }
    Ok(Consumer::Named(value.to_owned()))
}

/// A number of files.
pub(super) fn files(value: &str) -> Result<u32, Wrong> {
    let digits = value.chars().all(|c| c.is_ascii_digit());
    value.parse().ok().filter(|_| digits).map_or_else(
        || {
            wrong(
                format!("`{value}` is no number of files"),
                format!("write a number from 0 to {}", u32::MAX),
            )
        },
        Ok,
    )
}

/// The word among `words` that was probably meant: at most two letters wrong, and not all of them.
pub(super) fn nearest<'a>(
    found: &str,
    words: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let found = found.to_lowercase();
    let distances = words
        .into_iter()
        .map(|word| (strsim::osa_distance(&found, word), word));
    let best = distances.min_by_key(|(distance, _)| *distance);
    best.filter(|(distance, word)| *distance <= 2 && *distance < word.chars().count().min(3))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_plain() {
        assert_eq!(path("/srv//models/./a/").unwrap(), "/srv/models/a");
        assert_eq!(path("/").unwrap(), "/");
        assert!(
            path("srv/a")
                .unwrap_err()
                .remedy
                .contains("path=/srv/srv/a")
        );
        assert!(path("/srv/../etc").unwrap_err().what.contains(".."));
        assert_eq!(path("/srv/..a").unwrap(), "/srv/..a");
    }

    #[test]
    fn groups_begin_at_the_mount() {
        assert_eq!(
            cgroup("/system.slice/a.service/").unwrap(),
            "system.slice/a.service"
        );
        assert_eq!(cgroup("/").unwrap(), "");
        let remedy = cgroup("/sys/fs/cgroup/user.slice").unwrap_err().remedy;
        assert!(remedy.ends_with("cgroup=user.slice"), "{remedy}");
        assert!(cgroup("a/../b").is_err());
    }

    #[test]
    fn users_are_numbers_or_names() {
        assert_eq!(user("0").unwrap(), User::Id(0));
        assert_eq!(user("4294967294").unwrap(), User::Id(u32::MAX - 1));
        for bad in [
            "4294967295",
            "12x",
            "99999999999999999999",
            "-1",
            "a b",
            "a:b",
        ] {
            assert!(user(bad).is_err(), "{bad}");
        }
        assert_eq!(
            user("systemd-network").unwrap(),
            User::Name("systemd-network".into())
        );
    }

    #[test]
    fn consumers_are_known_or_names() {
        assert_eq!(consumer("io_uring").unwrap(), Consumer::IoUring);
        assert_eq!(
            consumer("nvidia").unwrap(),
            Consumer::Named("nvidia".into())
        );
        assert!(
            consumer("io-uring")
                .unwrap_err()
                .remedy
                .contains("consumer=io_uring")
        );
        assert!(
            consumer("RDMA")
                .unwrap_err()
                .remedy
                .contains("consumer=rdma")
        );
        assert!(consumer("rdma,vfio").is_err());
    }

    #[test]
    fn numbers_of_files_have_an_end() {
        assert_eq!(files("0").unwrap(), 0);
        for bad in ["+5", "-5", "4294967296", "1k", "0x10"] {
            assert!(files(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_likely_mistake_is_recognised_an_unlikely_one_is_not() {
        let words = ["enforce", "ignore", "deny", "allow"];
        assert_eq!(nearest("enfroce", words), Some("enforce"));
        assert_eq!(nearest("Deny", words), Some("deny"));
        assert_eq!(nearest("denied", words), None);
        assert_eq!(nearest("x", words), None);
    }
}
