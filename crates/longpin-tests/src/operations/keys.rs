//! Files that their file system encrypts: without the key they are no longer found (C05).

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::requests::{
    ADD_KEY, AddKey, KeyPolicy, KeySpecifier, REMOVE_KEY, RemoveKey, SET_KEY_POLICY,
};
use super::{Build, Home, Operation, Victim};
use crate::act::Outcome;

const ENCRYPTING: &[Home] = &[Home::Ext4, Home::F2fs];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("encryption key removed", "C05", ENCRYPTING, remove).on(Build::Encrypted),
    Operation::new(
        "encryption key removed, only the pin left",
        "C05",
        ENCRYPTING,
        remove,
    )
    .on(Build::Encrypted)
    .alone(),
    Operation::new(
        "encryption key of other files removed",
        "C05",
        ENCRYPTING,
        |v| {
            encrypted_dir(v.ground.dir()?, "others")?;
            remove(v)
        },
    )
    .alone(),
];

/// A directory under this one whose files are encrypted with a key that the file system has now.
pub(super) fn encrypted_dir(mounted: &Path, name: &str) -> Result<PathBuf> {
    let identifier = add_key(mounted)?.identifier;
    let dir = mounted.join(name);
    if !dir.exists() {
        std::fs::create_dir(&dir)?;
        let mut policy = KeyPolicy {
            head: [2, 1, 4, 0],
            identifier,
            ..KeyPolicy::default()
        };
        let encrypted = SET_KEY_POLICY.ask(&File::open(&dir)?, &mut policy);
        encrypted.context("cannot encrypt a directory")?;
    }
    Ok(dir)
}

/// One key for all directories; adding it again only tells its identifier.
fn add_key(mounted: &Path) -> Result<KeySpecifier> {
    let mut key = AddKey {
        specifier: KeySpecifier {
            kind: 2,
            ..KeySpecifier::default()
        },
        size: 64,
        id: 0,
        reserved: [0; 8],
        key: std::array::from_fn(|i| u8::try_from(i).unwrap_or(0)),
    };
    let added = ADD_KEY.ask(&File::open(mounted)?, &mut key);
    added.context("cannot add a key")?;
    Ok(key.specifier)
}

fn remove(victim: &mut Victim<'_>) -> Result<Outcome> {
    let mounted = victim.ground.dir()?;
    let mut removal = RemoveKey {
        specifier: add_key(mounted)?,
        ..RemoveKey::default()
    };
    Ok(REMOVE_KEY.ask(&File::open(mounted)?, &mut removal))
}
