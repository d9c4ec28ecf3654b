//! How the hit ratio follows from the size of the cache: measured by workers, summed and asked by the operator.
//!
//! A worker looks at a sample of the pages that readers take, always the same pages (SHARDS, Waldspurger and others,
//! FAST 2015), and counts how many other bytes were read between two reads of each. Summed over workers this is the
//! distribution of reuse distances: a cache of the least recently read bytes hits exactly the distances that it is at
//! least as large as. Tiers keep what is read often rather than what was read last, so a [`Curve`] knows what the best
//! fixed choice of pages would give, too, and takes from what was seen how far the tiers get towards it.
//!
//! Everything here is pure but the [`Sampler`], which keeps its sample behind a lock.

mod curve;
mod distances;
mod reuse;
mod sample;
mod sampler;
mod stack;

pub use curve::{Check, Curve, USUAL_SKILL};
pub use reuse::{Popular, Reuse};
pub use sample::Fleet;
pub use sampler::Sampler;
