//! The library behind `penstock`: local mode runs the operator's plans as processes.

pub mod local;
mod manifest;
mod plan;

pub use manifest::{Manifest, ManifestError};
