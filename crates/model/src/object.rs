//! Objects: versions of UFS files, and what they are divided into.

use minicbor::{Decode, Encode};
use penstock_placement::PlacementKey;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::Path;

/// Bytes of one extent, the unit of placement.
pub const EXTENT: u64 = 4 << 20;
/// Bytes of one page, the unit of fetching and of presence.
pub const PAGE: u64 = 256 << 10;

/// What identifies the content of an object: its `ETag` where the UFS has one, else `mtime-size`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[cbor(transparent)]
pub struct Version(#[n(0)] pub String);

/// The 128-bit hash of (mount source, path in the mount, version); names the cached file and places its extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[cbor(transparent)]
pub struct ObjectKey(#[n(0)] pub u128);

impl ObjectKey {
    /// `source` is the mount's `mountPoint` as written, so that a mount pointed elsewhere never meets old pages.
    pub fn new(source: &str, path: &[u8], version: &Version) -> Self {
        let mut hash = Xxh3::new();
        for part in [source.as_bytes(), path, version.0.as_bytes()] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.digest128())
    }

    /// Where the extent that holds byte `offset` is placed.
    pub fn placement(self, offset: u64) -> PlacementKey {
        PlacementKey::extent(self.0, offset / EXTENT)
    }
}

/// One version of one UFS file, as a reader names it when it asks for bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Object {
    #[n(0)]
    pub key: ObjectKey,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub path: Path,
    #[n(2)]
    pub version: Version,
    #[n(3)]
    pub size: u64,
}
