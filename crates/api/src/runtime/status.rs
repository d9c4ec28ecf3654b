//! What a CacheRuntime's status tells.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display};

use super::{MediumType, autoscaling::AutoscalingStatus};
use crate::human_bytes;

/// What is known of a CacheRuntime. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheRuntimeStatus {
    /// The `metadata.generation` that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The runtime's state in one word. Conditions say more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<CacheRuntimePhase>,

    /// `Ready`: all workers serve. `WorkersReady`: at least one does. `TiersHealthy`: every tier can be used.
    /// `Updated`: all workers run as specified.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// Name of the Dataset that the runtime serves, once found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,

    /// Worker pods that exist, leaving ones included.
    #[serde(default)]
    pub replicas: u32,

    /// Workers that serve.
    #[serde(default)]
    pub ready_replicas: u32,

    /// Workers that there shall be: `spec.replicas`, or what `spec.autoscaling` makes of it.
    #[serde(default)]
    pub desired_replicas: u32,

    /// Why there shall be so many, and what comes next. Only with `spec.autoscaling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,

    /// Workers that run as the specification and the image wanted say.
    #[serde(default)]
    pub updated_replicas: u32,

    /// Image that new worker pods start from. A runtime keeps it until another one has proven itself in one of its
    /// workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_image: Option<String>,

    /// The update under way; none while the runtime waits for its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateStatus>,

    /// Label selector of the worker pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// Number of the member list in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,

    /// Names of the workers that are handing over before they go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draining: Vec<String>,

    /// The hand-over under way, or else the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hand_over: Option<HandOverStatus>,

    /// Bytes that the workers' tiers may take together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_capacity_bytes: Option<u64>,

    /// Bytes of the Dataset in the tiers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_bytes: Option<u64>,

    /// The tiers, summed over workers, in the order of `spec.tieredStore.levels`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<TierStatus>,

    /// Bytes served from the cache as a percentage of all bytes served since the workers started, to one decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit_ratio_percent: Option<f64>,

    /// What readers took over the last 1, 5 and 15 minutes, as far as it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<ReadsStatus>,

    /// The numbers above for people, as `kubectl get` shows them. Programs read the numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<CacheRuntimeDisplay>,
}

/// A runtime's state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum CacheRuntimePhase {
    /// It has no Dataset yet, or no worker serves yet.
    Pending,
    /// Some workers serve, not all.
    PartialReady,
    /// All workers serve; also with 0 workers when 0 are asked for.
    Ready,
    /// It cannot work as written; the conditions say why and what to mend.
    Failed,
    /// Being deleted.
    Deleting,
}

/// An update of the workers that has begun and has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStatus {
    /// Image that all workers will run from.
    pub image: String,
    /// Name of the worker whose turn it is, or that the update stopped at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
}

/// What leaving workers hand over, in bytes, summed over them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandOverStatus {
    /// Taken by workers that stay.
    pub moved_bytes: u64,
    /// Still to be taken.
    pub left_bytes: u64,
    /// Not handed over; they are fetched from the UFS again when asked for.
    pub dropped_bytes: u64,
    /// Why bytes were dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One tier, summed over workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TierStatus {
    /// MEM, SSD or HDD.
    pub medium_type: MediumType,
    /// Bytes that the tier may take.
    pub quota_bytes: u64,
    /// Bytes that it takes, overhead included.
    pub used_bytes: u64,
    /// Why workers cannot use it, where they cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What readers took over the last minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadsStatus {
    /// Over so many minutes.
    pub minutes: u32,
    /// To two digits. Files that were read through the kernel count with their sizes when they are opened.
    pub bytes_per_second: u64,
    /// The part that workers had, in whole percent; absent when nothing was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit_percent: Option<u32>,
}

/// Numbers of a CacheRuntime's status for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheRuntimeDisplay {
    /// `cachedBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<String>,
    /// `cacheCapacityBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_capacity: Option<String>,
}

impl CacheRuntimeStatus {
    /// The same status with `display` computed from its numbers; without numbers there is none.
    #[must_use]
    pub fn with_derived(mut self) -> Self {
        let display = CacheRuntimeDisplay {
            cached: self.cached_bytes.map(human_bytes),
            cache_capacity: self.cache_capacity_bytes.map(human_bytes),
        };
        self.display = (display != CacheRuntimeDisplay::default()).then_some(display);
        self
    }
}
