//! The library behind `penstock`: local mode runs the operator's plans as processes; the rest talks to a cluster.

mod cluster;
pub mod explain;
pub mod load;
pub mod local;
mod manifest;
mod plan;
mod progress;

pub use manifest::{Manifest, ManifestError, Order};
