//! The store on real file systems, through its public interface only.

mod concurrency;
mod disk;
mod eviction;
mod model;
mod support;
