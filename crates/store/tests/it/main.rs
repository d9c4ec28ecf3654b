//! The store on real file systems, through its public interface only.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not inside tests")]
#![allow(clippy::needless_for_each, reason = "one line per step reads best in a scenario")]

mod concurrency;
mod disk;
mod eviction;
mod model;
mod promotion;
mod replicas;
mod support;
