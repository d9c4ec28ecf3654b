//! Conditions: their types and reasons, and how one is set.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use strum::{AsRefStr, Display, EnumIter, IntoStaticStr};

/// The `type` of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, AsRefStr, Display, EnumIter, IntoStaticStr)]
pub enum ConditionType {
    /// Dataset: workers serve it. CacheRuntime: all workers serve.
    Ready,
    /// Dataset: mountable, that is, volume and configuration stand.
    Bound,
    /// Dataset: every UFS answers.
    MountsHealthy,
    /// CacheRuntime: at least one worker serves.
    WorkersReady,
    /// CacheRuntime: every tier can be used as written.
    TiersHealthy,
    /// CacheRuntime: all workers run as specified.
    Updated,
    /// CacheRuntime: `spec.autoscaling` moves the size.
    ScalingActive,
    /// DataLoad: what it asks for holds.
    Complete,
}

/// The `reason` of a condition, also of the Event on its transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, AsRefStr, Display, EnumIter, IntoStaticStr)]
pub enum Reason {
    // All is well.
    /// Volume and configuration stand.
    Bound,
    /// All workers serve.
    WorkersReady,
    /// Every UFS answers.
    MountsHealthy,
    /// Every tier can be used.
    TiersHealthy,
    /// Bound, but the volume was made with another readahead.
    ReadaheadKept,
    /// All workers run as specified.
    UpToDate,
    /// `spec.autoscaling` moves the size.
    ScalingActive,
    /// Someone ordered a size, which holds until a schedule is due.
    Ordered,
    /// What metrics need is not known: the size stays.
    NoData,

    // Something is missing that someone may still bring.
    /// No CacheRuntime of the name.
    RuntimeNotFound,
    /// The CacheRuntime serves another Dataset.
    RuntimeTaken,
    /// No Dataset for this runtime.
    DatasetNotFound,
    /// The Dataset is served by another runtime.
    DatasetTaken,
    /// A Secret of an encryptOption is not there.
    SecretNotFound,
    /// A Secret of an encryptOption lacks the key.
    SecretKeyNotFound,
    /// A Secret of an encryptOption does not say that Datasets may use it.
    SecretNotAllowed,
    /// An object of a name that is needed is there and is not Penstock's.
    NameTaken,
    /// The specification contradicts itself in a way that admission did not see.
    InvalidSpec,
    /// The API server refuses an object.
    ApplyFailed,
    /// The volume is being made.
    VolumePending,

    // Workers.
    /// 0 workers are asked for.
    NoWorkers,
    /// Some workers do not serve yet, or no longer.
    WorkersNotReady,
    /// Workers are ready, and none of them answers the operator.
    WorkersUnreachable,
    /// No node can take a worker.
    Unschedulable,
    /// A worker's image cannot be had.
    ImageUnavailable,
    /// A worker ends again and again.
    WorkerCrashing,
    /// The API server refuses worker pods: a quota, Pod Security, a webhook.
    PodsRefused,
    /// The node of a worker runs no Penstock node plugin.
    NodePluginMissing,
    /// A volume of a worker cannot be mounted.
    VolumeUnavailable,
    /// Workers are handing over before they go.
    Draining,
    /// A tier cannot be written, or its medium is smaller than its quota.
    TierUnusable,
    /// A tier's quota was raised above what the claims of workers were made for.
    ClaimTooSmall,
    /// Nobody has answered yet.
    NotReported,

    // Updates of workers.
    /// Workers are updated one after the other.
    RollingOut,
    /// As many runtimes as may be updated at once are.
    WaitingForTurn,
    /// An updated worker does not serve, and the others are left as they are.
    UpdateStopped,
    /// Workers are updated when their pods are deleted.
    WaitingForDeletion,

    // Autoscaling.
    /// Another autoscaler sets `spec.replicas` beside `spec.autoscaling`.
    Contended,

    // UFS.
    /// The UFS refuses the credentials.
    UfsDenied,
    /// The UFS does not answer.
    UfsUnreachable,
    /// Bucket or path does not exist, or an option is wrong.
    UfsMisconfigured,

    // DataLoads.
    /// What was to be loaded is in the cache.
    Loaded,
    /// What was to be evicted is out of the cache.
    Evicted,
    /// Workers are at it.
    Loading,
    /// It waits for its time.
    Scheduled,
    /// It waits for another DataLoad.
    WaitingForLoad,
    /// Less is in the cache than is asked for.
    Incomplete,
    /// Files could not be read.
    FilesFailed,

    // The end.
    /// Being deleted, and pods still use it.
    InUse,
    /// Being deleted.
    Deleting,
}

/// The condition of type `kind`, if set.
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_ref())
}

/// Whether the condition of type `kind` is True.
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// What a condition says, before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: ConditionType,
    /// `None` is Unknown.
    pub holds: Option<bool>,
    pub reason: Reason,
    /// One sentence that names field, value and mend where something is wrong.
    pub message: String,
}

/// The conditions that say `findings`, in their order. The transition time of one whose status is the same as in `old`
/// is kept, so that the same findings give the same conditions.
pub fn conditions(
    old: &[Condition],
    findings: &[Finding],
    observed_generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    findings
        .iter()
        .map(|finding| {
            let status = match finding.holds {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let since = find(old, finding.kind)
                .filter(|condition| condition.status == status)
                .map_or(Time(now), |condition| condition.last_transition_time.clone());
            Condition {
                type_: finding.kind.to_string(),
                status: status.to_owned(),
                reason: finding.reason.to_string(),
                message: finding.message.clone(),
                observed_generation,
                last_transition_time: since,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(holds: Option<bool>, reason: Reason) -> Finding {
        Finding { kind: ConditionType::Ready, holds, reason, message: "m".to_owned() }
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_does() {
        let first = Timestamp::from_second(1).unwrap();
        let later = Timestamp::from_second(2).unwrap();
        let old = conditions(&[], &[finding(Some(false), Reason::WorkersNotReady)], Some(1), first);

        let other_reason = conditions(&old, &[finding(Some(false), Reason::NoWorkers)], Some(2), later);
        assert_eq!(other_reason[0].last_transition_time, Time(first));
        assert_eq!(other_reason[0].reason, "NoWorkers");
        assert_eq!(other_reason[0].observed_generation, Some(2));

        let turned = conditions(&old, &[finding(Some(true), Reason::WorkersReady)], Some(2), later);
        assert_eq!(turned[0].last_transition_time, Time(later));
        assert!(is_true(&turned, ConditionType::Ready));
    }
}
