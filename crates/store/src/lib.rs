//! The tier store: what a cache worker keeps of the objects it owns, on one or more media.
//!
//! Each object version is one sparse file per tier plus a small file of page checksums; the index is in memory and is
//! rebuilt at start from what lies on disk. Nothing here is async and nothing knows the network: callers on a runtime
//! use `spawn_blocking`. `docs/store.md` has the format on disk, the policy and figures.
//!
//! Guarantees: a byte that [`Store::read`] returns is the byte that was written (checksums); a tier never takes more
//! than its quota; a full or broken disk makes [`Store::write`] fail, never a read of something else.

mod blocks;
mod candidates;
mod evict;
mod index;
mod meta;
mod page;
mod promote;
mod quota;
mod read;
mod reclaim;
mod scan;
mod store;
mod tier;
mod write;

pub use index::{Lent, PinnedFile};
pub use store::{Claim, ExtentInfo, Store, StoreStats, TierStats, WriteError};
pub use tier::TierOptions;
