//! What users are told, from what is wanted and seen. Pure, but for [`publish`], which writes it at the end of a pass.

mod findings;
mod publish;
mod trouble;

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::PersistentVolume};
use kube::ResourceExt;
use penstock_api::{
    CacheRuntime, CacheRuntimePhase, CacheRuntimeStatus, ConditionType, Dataset, DatasetPhase, DatasetStatus,
    HandOverStatus, MountStatus, ReadsStatus, Reason, TierStatus, UpdateStatus,
    autoscaling::AutoscalingStatus,
    condition::{conditions, is_true},
    names::COMPONENT_WORKER,
};
use penstock_plan::{
    Names,
    numbers::{Rates, to_two_digits},
    rollout::Rollout,
    scaling::{Scaling, Step, WorkerSeen},
    validate::{Invalid, ValidRuntime},
};
use penstock_wire::message::{MountHealth, Stats};

use super::sizing::Sizing;
use crate::names::selector_text;

pub(super) use publish::{publish, publish_runtime};
pub(super) use trouble::pod_trouble;
pub use trouble::{PodTrouble, is_stuck, trouble};

/// All that the two statuses are computed from.
#[derive(Clone, Debug)]
pub struct View<'a> {
    pub names: &'a Names,
    pub dataset: &'a Dataset,
    pub runtime: Option<&'a CacheRuntime>,
    /// `None` when the specification was not valid.
    pub valid_runtime: Option<&'a ValidRuntime>,
    /// What keeps the pair from being set up as written.
    pub problem: Option<&'a Invalid>,
    /// Volume and configuration stand.
    pub bound: bool,
    /// The size, where `spec.autoscaling` decides it.
    pub sizing: Option<&'a Sizing>,
    pub scaling: Option<&'a Scaling>,
    pub rollout: Option<&'a Rollout>,
    pub workers: &'a [WorkerSeen],
    /// What readers took, by minutes.
    pub reads: &'a [(u32, Rates)],
    pub trouble: Option<&'a PodTrouble>,
    /// The workers and the volume that are there.
    pub statefulset: Option<&'a StatefulSet>,
    pub volume: Option<&'a PersistentVolume>,
    /// Pods keep the claim of a Dataset under deletion.
    pub in_use: bool,
}

impl View<'_> {
    fn stats(&self) -> impl Iterator<Item = &Stats> {
        self.workers.iter().filter_map(|w| w.stats.as_ref())
    }

    /// Workers that are wanted and serve.
    fn ready(&self) -> u32 {
        let wanted = self.wanted();
        self.workers.iter().filter(|w| w.ready && w.ordinal < wanted).count() as u32
    }

    fn wanted(&self) -> u32 {
        let written = self.runtime.map_or(0, |r| r.spec.replicas);
        self.valid_runtime.map_or(written, |valid| valid.replicas)
    }

    /// Whether the Dataset was ready when it was looked at before.
    fn was_ready(&self) -> bool {
        let status = self.dataset.status.as_ref();
        status.is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
    }

    pub(super) fn is_deleting(&self) -> bool {
        self.dataset.metadata.deletion_timestamp.is_some()
    }

    /// Bytes of all workers' tiers together.
    fn capacity(&self) -> Option<u64> {
        self.valid_runtime.map(|v| v.weight().saturating_mul(self.wanted().into()))
    }

    fn sum(&self, number: impl Fn(&Stats) -> u64) -> Option<u64> {
        self.stats().map(number).reduce(u64::saturating_add)
    }

    /// Percent of the bytes served that came from the cache, to one decimal.
    fn hit_ratio(&self) -> Option<f64> {
        let (hits, misses) = (self.sum(|s| s.hit_bytes)?, self.sum(|s| s.miss_bytes)?);
        let all = hits.saturating_add(misses);
        (all > 0).then(|| (hits as f64 * 1000.0 / all as f64).round() / 10.0)
    }
}

pub fn dataset(view: &View<'_>, now: Timestamp) -> DatasetStatus {
    let old = view.dataset.status.clone().unwrap_or_default();
    let generation = view.dataset.metadata.generation;
    let findings = [findings::bound(view), findings::ready(view), findings::mounts(view)];
    let conditions = conditions(&old.conditions, &findings, generation, now);
    let phase = if view.is_deleting() {
        DatasetPhase::Deleting
    } else if let Some(problem) = view.problem {
        if problem.is_missing() { DatasetPhase::Pending } else { DatasetPhase::Failed }
    } else if !view.bound {
        DatasetPhase::Pending
    } else if is_true(&conditions, ConditionType::Ready) {
        DatasetPhase::Ready
    } else {
        DatasetPhase::Bound
    };
    let status = DatasetStatus {
        observed_generation: generation,
        phase: Some(phase),
        conditions,
        runtime: view.runtime.map(ResourceExt::name_any),
        mounts: mounts(view),
        ufs_total_bytes: view.stats().filter_map(|s| s.ufs_total_bytes).max().or(old.ufs_total_bytes),
        ufs_files: view.stats().filter_map(|s| s.ufs_files).max().or(old.ufs_files),
        cached_bytes: cached(view, old.cached_bytes),
        cache_capacity_bytes: view.capacity(),
        hit_ratio_percent: view.hit_ratio(),
        ..DatasetStatus::default()
    };
    status.with_derived()
}

/// While workers exist but none answers, the last number stands.
fn cached(view: &View<'_>, old: Option<u64>) -> Option<u64> {
    view.sum(|s| s.cached_bytes).or(if view.workers.is_empty() { view.runtime.map(|_| 0) } else { old })
}

fn mounts(view: &View<'_>) -> Vec<MountStatus> {
    let mounts = view.dataset.spec.mounts.iter().map(|mount| {
        let path = mount.effective_path();
        let inner = path.trim_matches('/').to_owned();
        let told: Vec<_> =
            view.stats().flat_map(|s| &s.mounts).filter(|m| m.path == inner && m.source == mount.mount_point).collect();
        let message = told.iter().find_map(|m| m.trouble()).map(ToString::to_string);
        MountStatus {
            path,
            mount_point: mount.mount_point.clone(),
            ready: message.is_none() && told.iter().any(|m| m.health == MountHealth::Serving),
            message,
        }
    });
    mounts.collect()
}

pub fn runtime(view: &View<'_>, now: Timestamp) -> Option<CacheRuntimeStatus> {
    let runtime = view.runtime?;
    let old = runtime.status.clone().unwrap_or_default();
    let generation = runtime.metadata.generation;
    let findings =
        [findings::all_ready(view), findings::some_ready(view), findings::tiers(view), findings::updated(view)];
    let findings: Vec<_> = findings.into_iter().chain(findings::scaling_active(view)).collect();
    let (ready, wanted) = (view.ready(), view.wanted());
    let phase = match view.problem {
        Some(problem) if !problem.is_missing() => CacheRuntimePhase::Failed,
        None if ready >= wanted => CacheRuntimePhase::Ready,
        None if ready > 0 => CacheRuntimePhase::PartialReady,
        Some(_) | None => CacheRuntimePhase::Pending,
    };
    let status = CacheRuntimeStatus {
        observed_generation: generation,
        phase: Some(phase),
        conditions: conditions(&old.conditions, &findings, generation, now),
        dataset: Some(view.names.dataset.clone()),
        replicas: view.workers.len() as u32,
        ready_replicas: ready,
        desired_replicas: wanted,
        autoscaling: autoscaling(view, old.autoscaling),
        updated_replicas: view.rollout.map_or(old.updated_replicas, |rollout| rollout.updated),
        worker_image: view.rollout.map_or(old.worker_image, |rollout| Some(rollout.image.clone())),
        update: view.rollout.and_then(|rollout| update(view, rollout)),
        selector: Some(selector_text(&view.names.selector(COMPONENT_WORKER))),
        epoch: view.scaling.map(|s| s.members.epoch),
        draining: view.scaling.iter().flat_map(|s| &s.draining).map(|o| view.names.worker_pod(*o)).collect(),
        hand_over: hand_over(view, old.hand_over),
        cache_capacity_bytes: view.capacity(),
        cached_bytes: cached(view, old.cached_bytes),
        tiers: tiers(view),
        hit_ratio_percent: view.hit_ratio(),
        reads: view.reads.iter().map(|(minutes, rates)| reads(*minutes, rates)).collect(),
        ..CacheRuntimeStatus::default()
    };
    Some(status.with_derived())
}

fn reads(minutes: u32, rates: &Rates) -> ReadsStatus {
    ReadsStatus {
        minutes,
        bytes_per_second: to_two_digits(rates.total() as u64),
        hit_percent: rates.hit_ratio().map(|ratio| (ratio * 100.0).round() as u32),
    }
}

/// What leaving workers tell; when they are gone, how it ended.
fn hand_over(view: &View<'_>, old: Option<HandOverStatus>) -> Option<HandOverStatus> {
    let leaving = || view.workers.iter().filter(|worker| worker.ordinal >= view.wanted());
    let told = || leaving().filter_map(|worker| worker.stats.as_ref()).map(|stats| stats.handover);
    match view.scaling.map(|scaling| &scaling.step) {
        Some(Step::Draining { left_bytes }) => Some(HandOverStatus {
            moved_bytes: told().map(|handover| handover.moved_bytes).sum(),
            left_bytes: *left_bytes,
            ..HandOverStatus::default()
        }),
        Some(Step::TimedOut { left_bytes }) => Some(HandOverStatus {
            moved_bytes: told().map(|handover| handover.moved_bytes).sum(),
            dropped_bytes: *left_bytes,
            message: Some("spec.drainTimeoutSeconds was over".to_owned()),
            ..HandOverStatus::default()
        }),
        Some(Step::Drained) => old.map(|old| HandOverStatus { left_bytes: 0, ..old }),
        _ => old,
    }
}

/// While nothing can be decided, what is kept for the next decision stands.
fn autoscaling(view: &View<'_>, old: Option<AutoscalingStatus>) -> Option<AutoscalingStatus> {
    let is_wanted = view.runtime.is_some_and(|runtime| runtime.spec.autoscaling.is_some());
    view.sizing.map(|sizing| sizing.decision.status.clone()).or(old.filter(|_| is_wanted))
}

fn update(view: &View<'_>, rollout: &Rollout) -> Option<UpdateStatus> {
    rollout.step.is_under_way().then(|| UpdateStatus {
        image: rollout.target.clone(),
        worker: rollout.step.ordinal().map(|ordinal| view.names.worker_pod(ordinal)),
    })
}

fn tiers(view: &View<'_>) -> Vec<TierStatus> {
    let levels = view.runtime.iter().flat_map(|r| &r.spec.tiered_store.levels).enumerate();
    let quotas = view.valid_runtime.map(|v| v.tiers.as_slice()).unwrap_or_default();
    let tier = |(index, level): (usize, &penstock_api::Level)| {
        let told = || view.stats().filter_map(move |s| s.tiers.get(index));
        TierStatus {
            medium_type: level.medium_type,
            quota_bytes: quotas.get(index).map_or(0, |t| t.quota).saturating_mul(view.wanted().into()),
            used_bytes: told().map(|t| t.used_bytes).sum(),
            message: told().find_map(|t| t.trouble.clone()),
        }
    };
    levels.map(tier).collect()
}

/// The status of a runtime that serves no Dataset.
pub fn unclaimed(runtime: &CacheRuntime, problem: &Invalid, now: Timestamp) -> CacheRuntimeStatus {
    let old = runtime.status.clone().unwrap_or_default();
    let generation = runtime.metadata.generation;
    let findings =
        [findings::failed(ConditionType::Ready, problem), findings::failed(ConditionType::WorkersReady, problem)];
    let failed = problem.reason == Reason::DatasetTaken;
    let status = CacheRuntimeStatus {
        observed_generation: generation,
        phase: Some(if failed { CacheRuntimePhase::Failed } else { CacheRuntimePhase::Pending }),
        conditions: conditions(&old.conditions, &findings, generation, now),
        desired_replicas: runtime.spec.replicas,
        ..CacheRuntimeStatus::default()
    };
    status.with_derived()
}

#[cfg(test)]
mod tests;
