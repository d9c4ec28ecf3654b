//! Who owns what: rendezvous (HRW) hashing, weighted by quota, over the numbered member list.
//!
//! Everything here is pure. The operator (or local mode) numbers member lists; workers and clients compute owners from
//! them, so no read asks a master. See `docs/architecture.md`, "Placement".

mod member;
mod rendezvous;

pub use member::{Member, MemberList};
pub use rendezvous::PlacementKey;
