//! What a directory of a Dataset holds.

use serde::{Deserialize, Serialize};

use crate::{ObjectKey, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    File,
    Directory,
    Symlink,
}

/// What `stat` tells of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    pub kind: Kind,
    /// Bytes; for a symlink the length of its target, for a directory 0.
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Permission bits only (`0o7777`).
    pub mode: u32,
    /// Set for files: what to ask bytes by.
    pub object: Option<(ObjectKey, Version)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// One path segment, never empty, `.` or `..`, without `/` and NUL.
    pub name: Vec<u8>,
    pub attr: Attr,
}

impl Entry {
    /// See [`listing_key`].
    pub fn listing_key(&self) -> Vec<u8> {
        listing_key(&self.name, self.attr.kind)
    }
}

/// Where an entry stands in a listing: listings are in byte order of these keys. A directory counts with a `/` after its name,
/// as in the order of a store of keys, so that a listing can be told while the store still lists.
pub fn listing_key(name: &[u8], kind: Kind) -> Vec<u8> {
    let slash: &[u8] = if kind == Kind::Directory { b"/" } else { b"" };
    [name, slash].concat()
}
