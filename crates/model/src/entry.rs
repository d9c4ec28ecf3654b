//! What a directory of a Dataset holds.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{ObjectKey, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    #[n(0)]
    File,
    #[n(1)]
    Directory,
    #[n(2)]
    Symlink,
}

/// What `stat` tells of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
pub struct Attr {
    #[n(0)]
    pub kind: Kind,
    /// Bytes; for a symlink the length of its target, for a directory 0.
    #[n(1)]
    pub size: u64,
    /// Nanoseconds since the epoch.
    #[n(2)]
    pub mtime_ns: i64,
    /// Permission bits only (`0o7777`).
    #[n(3)]
    pub mode: u32,
    /// Set for files: what to ask bytes by.
    #[n(4)]
    pub object: Option<(ObjectKey, Version)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// One path segment, never empty, `.` or `..`, without `/` and NUL.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    #[n(1)]
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
