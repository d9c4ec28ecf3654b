//! `DataLoad`: warms or evicts part of a Dataset.

// One of clippy's rules takes the columns' equal keys for mistakes.
#![allow(clippy::duplicated_attributes)]

mod status;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display};

use crate::runtime::autoscaling::{Calendar, ConfigMapKey};

pub use status::{DataLoadDisplay, DataLoadPhase, DataLoadStatus, FailedFile};

/// What to load into, or evict from, the cache of a Dataset, and when.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "penstock.dev",
    version = "v1alpha1",
    kind = "DataLoad",
    plural = "dataloads",
    shortname = "pdl",
    category = "penstock",
    namespaced,
    status = "DataLoadStatus",
    derive = "PartialEq",
    doc = "Loads part of a Dataset into its cache, or evicts it: once, by calendar, or when the Dataset changes.",
    printcolumn(name = "Dataset", type_ = "string", json_path = ".spec.dataset"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Cached%",
        type_ = "number",
        json_path = ".status.cachedPercent",
        description = "How much of the targets' bytes is in the cache now"
    ),
    printcolumn(name = "Done", type_ = "string", json_path = ".status.display.done", description = "Bytes dealt with"),
    printcolumn(name = "Total", type_ = "string", json_path = ".status.display.total", description = "Bytes in all"),
    printcolumn(name = "Rate", type_ = "string", json_path = ".status.display.rate"),
    printcolumn(name = "ETA", type_ = "string", json_path = ".status.display.eta"),
    printcolumn(name = "Files", type_ = "integer", json_path = ".status.files", priority = 1),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failedFiles", priority = 1),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextTime", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DataLoadSpec {
    /// Name of the Dataset, in the same namespace. Cannot be changed.
    #[schemars(length(min = 1, max = 45))]
    pub dataset: String,

    /// What of it. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub targets: Vec<LoadTarget>,

    /// Whether names and sizes are asked of the UFS anew before. Default: false.
    #[serde(default)]
    pub load_metadata: bool,

    /// When it runs. Default: Once.
    #[serde(default)]
    pub policy: LoadPolicy,

    /// With policy Cron: its times, written as in `spec.autoscaling.schedules` of a CacheRuntime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub schedule: Option<String>,

    /// Time zone of the schedule, of the IANA database. Default: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,

    /// Days that the schedule skips.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub skip_calendars: Vec<Calendar>,

    /// Days that the schedule runs on only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub only_calendars: Vec<Calendar>,

    /// Another DataLoad of the namespace that must be complete before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_after: Option<RunAfter>,

    /// Seconds after its end when the object is deleted. Not with policy Cron and OnChange. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_622_400))]
    pub ttl_seconds_after_finished: Option<u32>,

    /// Percent of the targets' bytes that are in the cache at the moment that it is called complete, 0 to 100.
    /// Default: 100.
    #[serde(default = "default_min_cached")]
    #[schemars(range(min = 0, max = 100))]
    pub min_cached_percent: u32,

    /// The most bytes per second that all workers together fetch for it, as a quantity such as `500Mi`, from `1Mi`.
    /// Default: what readers leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Quantity>,

    /// Load or Evict. Default: Load.
    #[serde(default)]
    pub action: LoadAction,
}

fn default_min_cached() -> u32 {
    100
}

/// Part of a Dataset: exactly one of `path`, `glob` and `configMap`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadTarget {
    /// A file, or a directory and all below it; absolute in the Dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,

    /// Files that match, such as `/prices/2026-*/**/*.parquet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub glob: Option<String>,

    /// A list of paths, one on a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKey>,
}

/// When a DataLoad runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum LoadPolicy {
    /// When it is created.
    #[default]
    Once,
    /// By its schedule.
    Cron,
    /// When it is created, and whenever the targets change.
    OnChange,
}

/// What a DataLoad does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum LoadAction {
    /// Into the cache.
    #[default]
    Load,
    /// Out of the cache.
    Evict,
}

/// What must be complete before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunAfter {
    /// Name of a DataLoad in the same namespace.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}
