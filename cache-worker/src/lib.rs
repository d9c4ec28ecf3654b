//! A cache worker: serves extents and metadata of one Dataset, and fetches what it lacks exactly once for everyone.
//!
//! [`run`] is the whole process but for its arguments; `docs/architecture.md` says how workers, mounts and the operator
//! play together.

mod census;
mod changes;
mod config;
mod fill;
mod handover;
mod heat;
mod http;
mod load;
mod locals;
mod members;
mod memory;
mod metadata;
mod metrics;
mod namespace;
mod pins;
mod readers;
mod restarts;
mod run;
mod source;
mod throttle;
mod walk;
mod worker;

pub use config::{ConfigError, Loaded, load};
pub use run::{Options, RunError, run};
