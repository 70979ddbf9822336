//! A pinned table with the types of its keys and values.

use std::marker::PhantomData;
use std::path::Path;

use bytemuck::Pod;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::BpfError;

/// A map of which each entry is a `K` and a `V`.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    map: MapHandle,
    name: &'static str,
    entry: PhantomData<(K, V)>,
}

pub(crate) fn open_map(dir: &Path, name: &str) -> Result<MapHandle, BpfError> {
    let path = dir.join(format!("map_{name}"));
    MapHandle::from_pinned_path(&path).map_err(|source| BpfError::Pin { path, source })
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// What is pinned under this name in `dir`.
    ///
    /// # Errors
    ///
    /// [`BpfError::Pin`], or [`BpfError::Abi`] when entries are of another size.
    pub(crate) fn open(dir: &Path, name: &'static str) -> Result<Self, BpfError> {
        let map = open_map(dir, name)?;
        let sizes = (map.key_size() as usize, map.value_size() as usize);
        if sizes != (size_of::<K>(), size_of::<V>()) {
            return Err(BpfError::Abi { found: 0 });
        }
        let entry = PhantomData;
        Ok(Self { map, name, entry })
    }

    fn failed(&self, source: libbpf_rs::Error) -> BpfError {
        let table = self.name;
        BpfError::Table { table, source }
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, BpfError> {
        let value = self.map.lookup(bytemuck::bytes_of(key), MapFlags::ANY);
        let value = value.map_err(|source| self.failed(source))?;
        Ok(value.and_then(|value| read(&value)))
    }

    pub(crate) fn set(&self, key: &K, value: &V) -> Result<(), BpfError> {
        let (key, value) = (bytemuck::bytes_of(key), bytemuck::bytes_of(value));
        let set = self.map.update(key, value, MapFlags::ANY);
        set.map_err(|source| self.failed(source))
    }

    /// False: it is gone already.
    pub(crate) fn remove(&self, key: &K) -> Result<bool, BpfError> {
        match self.map.delete(bytemuck::bytes_of(key)) {
            Err(source) if source.kind() != libbpf_rs::ErrorKind::NotFound => {
                Err(self.failed(source))
            }
            removed => Ok(removed.is_ok()),
        }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = K> {
        self.map.keys().filter_map(|key| read(&key))
    }

    /// What each entry stands for; one that vanishes meanwhile is left out.
    pub(crate) fn all<T>(&self, of: impl Fn(&K, &V) -> T) -> Result<Vec<T>, BpfError> {
        let entry = |key| Ok(self.get(&key)?.map(|value| of(&key, &value)));
        self.keys()
            .map(entry)
            .filter_map(Result::transpose)
            .collect()
    }
}

/// From bytes that may lie at any address; `None`: too many, or too few.
fn read<T: Pod>(bytes: &[u8]) -> Option<T> {
    bytemuck::try_pod_read_unaligned(bytes).ok()
}
