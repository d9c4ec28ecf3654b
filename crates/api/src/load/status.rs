//! What a DataLoad's status tells.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display};

use crate::human_bytes;

/// How far a DataLoad is. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataLoadStatus {
    /// The `metadata.generation` that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Its state in one word. Conditions say more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<DataLoadPhase>,

    /// `Complete`: the bytes are in the cache, or out of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// Number of the run, from 1.
    #[serde(default)]
    pub run: u64,

    /// When the run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,

    /// With policy Cron: the time that the last run was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_time: Option<Time>,

    /// With policy Cron: when it runs next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_time: Option<Time>,

    /// Files of the targets, as far as they were listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,

    /// Bytes of the targets, as far as they were listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,

    /// Bytes dealt with in this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_bytes: Option<u64>,

    /// Bytes of the targets that are in the cache now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_bytes: Option<u64>,

    /// `cachedBytes` as a percentage of `bytes`, to one decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_percent: Option<f64>,

    /// Bytes per second of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,

    /// Seconds that the rest takes at that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,

    /// Number of files that could not be loaded.
    #[serde(default)]
    pub failed_files: u64,

    /// The first ten of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub failures: Vec<FailedFile>,

    /// The numbers above for people, as `kubectl get` shows them. Programs read the numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<DataLoadDisplay>,
}

/// A DataLoad's state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum DataLoadPhase {
    /// It waits: for its Dataset, its time, or another DataLoad.
    Pending,
    /// Workers are at it.
    Running,
    /// It is done, and what it asks for holds.
    Complete,
    /// It ended, and what it asks for does not hold.
    Failed,
}

/// A file that could not be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedFile {
    /// Its path in the Dataset.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Numbers of a DataLoad's status for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataLoadDisplay {
    /// `doneBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<String>,
    /// `bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<String>,
    /// `bytesPerSecond`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// `etaSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,
}

impl DataLoadStatus {
    /// The same status with `cachedPercent` and `display` computed from its numbers.
    #[must_use]
    pub fn with_derived(mut self) -> Self {
        let percent = |cached: u64, all: u64| (cached as f64 * 1000.0 / all as f64).floor().min(1000.0) / 10.0;
        self.cached_percent = match (self.cached_bytes, self.bytes) {
            (Some(cached), Some(all)) if all > 0 => Some(percent(cached, all)),
            (Some(_), Some(_)) => Some(100.0),
            _ => None,
        };
        let display = DataLoadDisplay {
            done: self.done_bytes.map(human_bytes),
            total: self.bytes.map(human_bytes),
            rate: self.bytes_per_second.map(|rate| format!("{}/s", human_bytes(rate))),
            eta: self.eta_seconds.map(human_seconds),
        };
        self.display = (display != DataLoadDisplay::default()).then_some(display);
        self
    }
}

/// As `kubectl` shows ages: `45s`, `3m10s`, `2h5m`.
fn human_seconds(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_never_rounded_up_to_the_whole() {
        let of = |cached, all| {
            let status = DataLoadStatus { cached_bytes: Some(cached), bytes: Some(all), ..DataLoadStatus::default() };
            status.with_derived().cached_percent
        };
        assert_eq!((of(9_999, 10_000), of(10_000, 10_000), of(0, 0)), (Some(99.9), Some(100.0), Some(100.0)));
        assert_eq!(DataLoadStatus::default().with_derived().cached_percent, None);
    }

    #[test]
    fn seconds_read_as_ages_do() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (190, "3m10s"), (7_500, "2h5m")] {
            assert_eq!(human_seconds(seconds), text);
        }
    }
}
