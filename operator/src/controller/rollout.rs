//! What an update of workers is decided from, as their pods tell it. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;
use penstock_api::CacheRuntime;
use penstock_plan::{
    rollout::{PodSeen, Rollout, Step},
    scaling::Leaving,
};

use super::{
    build::WORKER_CONTAINER,
    observed::{Observed, Worker},
    status,
};
use crate::names::{HAND_OVER_STARTED, REPLACED_CONTAINER, REVISION, UPDATED_AT};

/// The image that new pods start from. Without a `StatefulSet` the last status tells.
pub(super) fn pinned(runtime: &CacheRuntime, seen: &Observed) -> Option<String> {
    let template = seen.statefulset.as_ref().and_then(|s| s.spec.as_ref()?.template.spec.as_ref());
    let image = template.and_then(|spec| container(spec)?.image.clone());
    image.or_else(|| runtime.status.as_ref()?.worker_image.clone())
}

/// The pods of workers that are wanted, but for those under deletion. `epoch` is of the newest member list.
pub(super) fn pods(workers: &[Worker], wanted: u32, epoch: u64, revision: &str, now: Timestamp) -> Vec<PodSeen> {
    let stays = |worker: &&Worker| worker.ordinal < wanted && worker.pod.metadata.deletion_timestamp.is_none();
    workers.iter().filter(stays).map(|worker| pod(worker, epoch, revision, now)).collect()
}

fn pod(worker: &Worker, epoch: u64, revision: &str, now: Timestamp) -> PodSeen {
    let pod = &worker.pod;
    let answers = worker.stats.as_ref().is_some_and(|stats| stats.epoch >= epoch);
    let (is_ready, is_restarted) = (worker.is_ready(), is_restarted(pod));
    let serves = is_ready && is_restarted && answers;
    PodSeen {
        ordinal: worker.ordinal,
        image: image(pod).unwrap_or_default().to_owned(),
        // A pod of a release that wrote none is taken as it is.
        revision: pod.annotations().get(REVISION).map_or_else(|| revision.to_owned(), Clone::clone),
        serves,
        silent: if is_ready && is_restarted { Duration::ZERO } else { silent(pod, is_ready, now) },
        trouble: status::pod_trouble(pod).filter(|_| !serves).map(|trouble| trouble.message),
    }
}

fn container(spec: &PodSpec) -> Option<&Container> {
    spec.containers.iter().find(|container| container.name == WORKER_CONTAINER)
}

fn image(pod: &Pod) -> Option<&str> {
    container(pod.spec.as_ref()?)?.image.as_deref()
}

/// What runs in the pod; `None` before anything did.
pub(super) fn container_id(pod: &Pod) -> Option<&str> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == WORKER_CONTAINER)?.container_id.as_deref()
}

/// Until the kubelet has ended the container that an update replaces, the pod is as ready as that one was.
fn is_restarted(pod: &Pod) -> bool {
    let replaced = pod.annotations().get(REPLACED_CONTAINER).filter(|id| !id.is_empty());
    replaced.is_none_or(|id| container_id(pod) != Some(id))
}

fn silent(pod: &Pod, is_ready: bool, now: Timestamp) -> Duration {
    let updated = pod.annotations().get(UPDATED_AT).and_then(|at| at.parse().ok());
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let turned =
        conditions.filter(|c| c.type_ == "Ready" && !is_ready).find_map(|c| at(c.last_transition_time.as_ref()));
    let made = at(pod.metadata.creation_timestamp.as_ref());
    let since = updated.or(made).max(turned).unwrap_or_default();
    Duration::from_secs(seconds(now).saturating_sub(since))
}

/// Seconds since the epoch.
pub(super) fn seconds(now: Timestamp) -> u64 {
    now.as_second().try_into().unwrap_or_default()
}

fn at(time: Option<&Time>) -> Option<u64> {
    time.map(|time| seconds(time.0))
}

/// The wanted workers that are to hand over: whose pods are under deletion, and the one that is to get a new pod.
pub(super) fn leaving(workers: &[Worker], rollout: &Rollout, wanted: u32, now: Timestamp) -> Vec<Leaving> {
    let wanted = workers.iter().filter(|worker| worker.ordinal < wanted);
    let leaving = |worker: &Worker| Some(Leaving { ordinal: worker.ordinal, since: leaves(worker, rollout, now)? });
    wanted.filter_map(leaving).collect()
}

fn leaves(worker: &Worker, rollout: &Rollout, now: Timestamp) -> Option<u64> {
    if let Some(at) = deleted_at(&worker.pod) {
        return Some(at);
    }
    let began = started(&worker.pod);
    // Of one that has never answered there is nothing to wait for.
    let is_asked = is_replaced(worker, rollout) && (began.is_some() || worker.stats.is_some());
    is_asked.then(|| began.unwrap_or_else(|| seconds(now)))
}

/// When the deletion was asked for: the timestamp is when the grace period will be over.
fn deleted_at(pod: &Pod) -> Option<u64> {
    let end = at(pod.metadata.deletion_timestamp.as_ref())?;
    let grace = pod.metadata.deletion_grace_period_seconds.and_then(|seconds| seconds.try_into().ok());
    Some(end.saturating_sub(grace.unwrap_or_default()))
}

/// When the hand-over of a worker that is to get a new pod began.
pub(super) fn started(pod: &Pod) -> Option<u64> {
    pod.annotations().get(HAND_OVER_STARTED)?.parse().ok()
}

/// Whether the worker is to get a new pod. An answer that is late does not end a hand-over that has begun.
pub(super) fn is_replaced(worker: &Worker, rollout: &Rollout) -> bool {
    match rollout.step {
        Step::Replace { ordinal } => ordinal == worker.ordinal,
        Step::AwaitWorker { ordinal } => ordinal == worker.ordinal && started(&worker.pod).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
