//! `spec.autoscaling`: how many workers there are, by the clock, by metrics and by who mounts the Dataset.

use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display};

/// What moves the number of workers. Desired is the greatest of what the schedule in force and the metrics wish, between
/// `minReplicas` and `maxReplicas`. `spec.replicas` is left alone: a change of it is an order that holds until the next
/// due schedule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// The fewest workers, 0 to 1000, but for `idle` and an order by hand. Default: 1.
    #[serde(default = "default_min")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: u32,

    /// The most workers, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u32,

    /// Time zone of the schedules that name none, of the IANA database, such as `Asia/Shanghai`. Default: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,

    /// Sizes by the clock. The one that was due last is in force: a floor for what metrics wish, or the size itself
    /// where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub schedules: Vec<ScheduledSize>,

    /// Days that schedules may skip, or run on only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub calendars: Vec<Calendar>,

    /// What else wishes a size; the greatest wish counts. One without data keeps its last wish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub metrics: Vec<Metric>,

    /// How fast metrics may move the size, as in a HorizontalPodAutoscaler. Schedules and orders are not held back.
    #[serde(default, skip_serializing_if = "Behavior::is_default")]
    pub behavior: Behavior,

    /// To zero when nobody uses the Dataset, below `minReplicas` too. A pod that mounts it wakes the runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,

    /// What becomes of the bytes of workers that leave. Default: HandOver.
    #[serde(default)]
    pub scale_in: ScaleIn,
}

fn default_min() -> u32 {
    1
}

/// A size that holds from the times of a cron schedule on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledSize {
    /// Its name, unique within the runtime.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Five fields (minute, hour, day of month, month, day of week) or six (second first), or `@daily` and the like, or
    /// `@date 2026-12-24 18:00:00`.
    #[schemars(length(min = 1, max = 256))]
    pub schedule: String,

    /// Number of workers from then on, 0 to 1000.
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: u32,

    /// Its time zone. Default: `spec.autoscaling.timeZone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,

    /// Whether it is not to be looked at. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,

    /// Whether only its first time counts. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub run_once: bool,

    /// Seconds after which a time that nobody could act on is passed over. Default: none, the last one due holds however
    /// late it is seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_622_400))]
    pub starting_deadline_seconds: Option<u32>,

    /// Names of calendars; on their days the schedule has no times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub skip_calendars: Vec<String>,

    /// Names of calendars; only on their days the schedule has times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub only_calendars: Vec<String>,
}

/// A set of days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Calendar {
    /// Its name, unique within the object.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Days such as `2026-10-01`, or ranges of them such as `2026-10-01..2026-10-08`, both ends included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 10, max = 22)))]
    pub dates: Vec<String>,

    /// A key of a ConfigMap in the same namespace: one day or range on a line, or an iCalendar file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKey>,
}

/// A key of a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKey {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within its data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Something that wishes a size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// What is measured.
    #[serde(rename = "type")]
    pub kind: MetricType,

    /// What to reach: for HitRatio percent of the bytes read, for Throughput bytes per second and worker as a quantity
    /// such as `800Mi`, for CachedPercent percent of the Dataset's bytes that have room, for Capacity percent of the tiers in
    /// use, for WaitingPods pods for one worker.
    pub target: Quantity,
}

/// What a metric measures.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display,
)]
pub enum MetricType {
    /// The part of what readers take that does not come from the UFS, as predicted for each size.
    HitRatio,
    /// Bytes per second that readers take.
    Throughput,
    /// How much of the Dataset fits.
    CachedPercent,
    /// How full the tiers are.
    Capacity,
    /// Pods that mount the Dataset and wait to start.
    WaitingPods,
}

/// How fast metrics may move the size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Behavior {
    /// Towards more workers. Default: at once, the greater of doubling and 4 workers in 15 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_up: Option<ScalingRules>,
    /// Towards fewer workers. Default: to the greatest wish of the last 300 s, without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_down: Option<ScalingRules>,
}

/// Limits in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingRules {
    /// Seconds of past wishes that count, 0 to 3600. Default: 0 for scaleUp, 300 for scaleDown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_window_seconds: Option<u32>,
    /// Which of the policies counts. Disabled: no change in this direction. Default: Max.
    #[serde(default)]
    pub select_policy: SelectPolicy,
    /// How much may change within a period. Default: as said at `behavior`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub policies: Vec<ScalingPolicy>,
}

/// Which of several policies counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum SelectPolicy {
    /// The one that allows most.
    #[default]
    Max,
    /// The one that allows least.
    Min,
    /// No change in this direction.
    Disabled,
}

/// How much may change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingPolicy {
    /// What `value` counts.
    #[serde(rename = "type")]
    pub kind: ScalingPolicyType,
    /// The most that may change.
    #[schemars(range(min = 1, max = 1000))]
    pub value: u32,
    /// Seconds over which changes add up, 1 to 1800.
    #[schemars(range(min = 1, max = 1800))]
    pub period_seconds: u32,
}

/// What a policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum ScalingPolicyType {
    /// Workers. The name is that of a HorizontalPodAutoscaler.
    Pods,
    /// Percent of the workers at the begin of the period.
    Percent,
}

/// When nobody uses a Dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Idle {
    /// Seconds without an open file and without a pod that mounts the Dataset, 10 to 31622400.
    #[schemars(range(min = 10, max = 31_622_400))]
    pub after_seconds: u32,
}

/// What becomes of the bytes of workers that leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum ScaleIn {
    /// They go to those that stay, hottest first, within `drainTimeoutSeconds`.
    #[default]
    HandOver,
    /// They are dropped, and the workers go at once.
    Discard,
    /// Workers go at once; what lies on directories of nodes or on claims is found again when they come back.
    Retain,
}

impl Behavior {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known of the autoscaling of a runtime; what the next decision needs is kept here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Why the size is what it is, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<SizeReason>,

    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// `spec.replicas` as last seen: another value is an order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_replicas: Option<u32>,

    /// The order in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,

    /// The schedule in force: the one that was due last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<DueSchedule>,

    /// The next changes by the clock, at most three.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<DueSchedule>,

    /// What each metric of the specification saw and wished last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricStatus>,

    /// What other sizes would give, by what readers come back to. Absent until enough was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve: Option<CurveStatus>,

    /// When the size last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,

    /// Since when nobody uses the Dataset, with `spec.autoscaling.idle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Time>,
}

/// Hit ratios by size, in whole percent of the bytes that readers take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurveStatus {
    /// What came since the size last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_percent: Option<u32>,
    /// What was predicted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_percent: Option<u32>,
    /// Bytes per second that readers take, to one digit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// At most 16 sizes up to `maxReplicas`, the smallest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<CurvePoint>,
}

/// The hit ratio predicted for a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurvePoint {
    /// Number of workers.
    pub replicas: u32,
    /// Predicted for it.
    pub hit_percent: u32,
}

/// Why a runtime has the size that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, AsRefStr, Display)]
pub enum SizeReason {
    /// `spec.replicas`, for nothing else says anything.
    Specified,
    /// Someone changed `spec.replicas`.
    Ordered,
    /// A schedule.
    Scheduled,
    /// A metric.
    Metric,
    /// A metric has no data: the size stays.
    NoData,
    /// `minReplicas`.
    AtMinimum,
    /// `maxReplicas`.
    AtMaximum,
    /// Nobody uses the Dataset.
    Idle,
    /// A pod mounts the Dataset.
    Woken,
}

/// A change of `spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Number of workers.
    pub replicas: u32,
    /// When it was seen.
    pub time: Time,
    /// Who changed it, as the API server has it: a field manager such as `kubectl-scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A schedule and one of its times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DueSchedule {
    /// Name of the schedule.
    pub name: String,
    /// When it was or will be due.
    pub time: Time,
    /// Its number of workers.
    pub replicas: u32,
}

/// What a metric saw and wished.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricStatus {
    /// What is measured.
    #[serde(rename = "type")]
    pub kind: MetricType,
    /// What was measured last, in the unit of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The size that it wished last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<u32>,
    /// Why it wishes that, or why it has no data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
