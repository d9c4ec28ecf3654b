//! What a Dataset's status tells.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display};

use crate::human_bytes;

/// What is known of a Dataset. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetStatus {
    /// The `metadata.generation` that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The Dataset's state in one word. Conditions say more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<DatasetPhase>,

    /// `Bound`: pods can mount it. `Ready`: workers serve it. `MountsHealthy`: every UFS answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// Name of the CacheRuntime that serves the Dataset, once found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,

    /// The mounts as workers see them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountStatus>,

    /// Bytes of all files in the UFS, once counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ufs_total_bytes: Option<u64>,

    /// Number of files in the UFS, once counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ufs_files: Option<u64>,

    /// Bytes of the Dataset in the cache, over all workers and tiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_bytes: Option<u64>,

    /// `cachedBytes` as a percentage of `ufsTotalBytes`, to one decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_percent: Option<f64>,

    /// Bytes that the workers' tiers may take together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_capacity_bytes: Option<u64>,

    /// Bytes served from the cache as a percentage of all bytes served since the workers started, to one decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit_ratio_percent: Option<f64>,

    /// The numbers above for people, as `kubectl get` shows them. Programs read the numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<DatasetDisplay>,
}

/// A Dataset's state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum DatasetPhase {
    /// Something that it needs is not there yet: its CacheRuntime, a Secret, a name that another object holds.
    Pending,
    /// Mountable: volume and configuration stand. Workers do not serve yet, or no longer.
    Bound,
    /// Workers serve it.
    Ready,
    /// It cannot work as written; the conditions say why and what to mend.
    Failed,
    /// Being deleted; waits for the pods that use its claim.
    Deleting,
}

/// One mount as workers see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MountStatus {
    /// Where the mount appears in the Dataset.
    pub path: String,
    /// The UFS.
    pub mount_point: String,
    /// Whether the UFS answers every worker that was asked.
    pub ready: bool,
    /// What the UFS or the worker said when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Numbers of a Dataset's status for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatasetDisplay {
    /// `ufsTotalBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ufs_total: Option<String>,
    /// `cachedBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<String>,
    /// `cacheCapacityBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_capacity: Option<String>,
}

impl DatasetStatus {
    /// The same status with `cachedPercent` and `display` computed from its numbers. Without numbers there is no
    /// `display`: server-side apply takes an object without fields for null when it had some before.
    #[must_use]
    pub fn with_derived(mut self) -> Self {
        self.cached_percent = match (self.cached_bytes, self.ufs_total_bytes) {
            (Some(cached), Some(total)) => crate::quantity::percent(cached, total),
            _ => None,
        };
        let display = DatasetDisplay {
            ufs_total: self.ufs_total_bytes.map(human_bytes),
            cached: self.cached_bytes.map(human_bytes),
            cache_capacity: self.cache_capacity_bytes.map(human_bytes),
        };
        self.display = (display != DatasetDisplay::default()).then_some(display);
        self
    }
}
