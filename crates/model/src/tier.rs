//! What a worker's tiers are made of.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierConfig {
    pub medium: Medium,
    pub dir: PathBuf,
    /// Bytes, overhead included.
    pub quota: u64,
    /// Fractions of the quota: eviction starts above `high` and stops at `low`.
    pub high: f64,
    pub low: f64,
}

impl Eq for TierConfig {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Medium {
    Mem,
    Ssd,
    Hdd,
}
