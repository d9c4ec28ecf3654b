//! The vocabulary that the store, the wire protocol, workers and mounts share: objects and their parts, entries of
//! directories, tiers. What travels
//! has its encoding for the wire here: fields and variants are numbered, numbers are never used again. It knows neither disks nor networks.

mod checksum;
mod entry;
mod object;
mod tier;

pub use checksum::{BLOCK, block_sums, short_sum};
pub use entry::{Attr, Entry, Kind, listing_key};
pub use object::{EXTENT, Object, ObjectKey, PAGE, Version};
pub use tier::{Medium, TierConfig};

/// A path inside a Dataset: bytes as the UFS has them, no leading or trailing slash; the root is empty.
pub type Path = Vec<u8>;
