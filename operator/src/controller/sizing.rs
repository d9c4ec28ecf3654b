//! How many workers there shall be, where the runtime says more of it than `spec.replicas`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use penstock_api::{CacheRuntime, Dataset};
use penstock_plan::{
    autoscaling::{self, Decision, Measured, Scene, ValidAutoscaling},
    validate::{Invalid, ValidRuntime},
};
use penstock_wire::message::Stats;

use super::observed::{Seen, Worker};
use crate::recent::{self, Recent};

const MINUTE: Duration = Duration::from_mins(1);
const FIVE_MINUTES: Duration = Duration::from_mins(5);

/// A size, and what is to be told of it.
#[derive(Clone, Debug)]
pub struct Sizing {
    pub decision: Decision,
    /// The size decided before; `None` at the first time.
    pub before: Option<u32>,
    /// Parts of `spec.autoscaling` that are left out.
    pub problems: Vec<Invalid>,
    /// Another autoscaler that sets `spec.replicas`.
    pub contender: Option<String>,
}

impl Sizing {
    /// Whether workers come back because a pod mounts the Dataset.
    pub fn wakes(&self) -> bool {
        self.before == Some(0) && self.decision.replicas > 0
    }
}

/// `None` where `spec.replicas` is all that counts.
pub(super) fn size(
    dataset: &Dataset,
    runtime: &CacheRuntime,
    valid: &ValidRuntime,
    seen: &Seen,
    active_loads: usize,
    recent: &Recent,
    now: Timestamp,
) -> Option<Sizing> {
    let spec = ValidAutoscaling::new(runtime.spec.autoscaling.as_ref()?, &seen.texts);
    let status = runtime.status.clone().unwrap_or_default();
    let replicas = runtime.spec.replicas;
    let before = match &status.autoscaling {
        Some(_) => Some(status.desired_replicas),
        None => seen.own.statefulset.as_ref().map(|_| replicas),
    };
    let kept = status.autoscaling.unwrap_or_default();
    let uid = dataset.uid().unwrap_or_default();
    let decision = recent.with(&uid, now, |lately| {
        let recent::Seen { numbers, learned, past, .. } = lately;
        for (ordinal, stats) in answers(&seen.workers) {
            learned.add(ordinal, now, stats.asked.boot, &stats.reuse);
        }
        let measured = Measured {
            minute: numbers.rates(MINUTE, now),
            five_minutes: numbers.rates(FIVE_MINUTES, now),
            ..measured(valid, seen)
        };
        let forecast = learned.forecast(before, valid.held(), measured.used_bytes);
        let decision = autoscaling::decide(&Scene {
            spec: &spec,
            replicas,
            changed_by: changed_by(runtime).and_then(|entry| entry.manager.as_deref()),
            kept: &kept,
            current: before,
            measured: &measured,
            forecast: forecast.as_ref(),
            past,
            users: (seen.users.len() + active_loads) as u32,
            created: runtime.creation_timestamp().map_or(now, |created| created.0),
            now,
        });
        past.note(now, decision.wish, before, decision.replicas);
        decision
    });
    let contender = changed_by(runtime).filter(|entry| is_autoscaler(entry) && !spec.is_idle());
    let contender = contender.and_then(|entry| entry.manager.clone());
    Some(Sizing { decision, before, problems: spec.problems, contender })
}

fn answers(workers: &[Worker]) -> impl Iterator<Item = (u32, &Stats)> {
    workers.iter().filter_map(|worker| Some((worker.ordinal, worker.stats.as_ref()?)))
}

fn measured(valid: &ValidRuntime, seen: &Seen) -> Measured {
    let stats = || answers(&seen.workers).map(|(_, stats)| stats);
    let sum = |number: fn(&Stats) -> u64| stats().map(number).reduce(u64::saturating_add);
    let is_pending = |phase: &str| phase == "Pending";
    let waiting = seen.users.iter().filter(|pod| pod.status.iter().flat_map(|s| &s.phase).any(|p| is_pending(p)));
    Measured {
        unused_for: unused_for(&seen.workers),
        worker_capacity: valid.weight(),
        used_bytes: sum(|stats| stats.tiers.iter().map(|tier| tier.used_bytes).sum()),
        dataset_bytes: stats().filter_map(|stats| stats.ufs_total_bytes).max(),
        waiting_pods: Some(waiting.count() as u32),
        ..Measured::default()
    }
}

/// Known only when every worker that is ready says it.
fn unused_for(workers: &[Worker]) -> Option<Duration> {
    let ready = workers.iter().filter(|worker| worker.is_ready());
    let said = ready.map(|worker| worker.stats.as_ref().map(|stats| &stats.asked).filter(|asked| asked.boot > 0));
    let said: Option<Vec<_>> = said.collect();
    said?.iter().map(|asked| Duration::from_millis(asked.unused_ms)).min()
}

/// Who wrote `spec.replicas` last.
fn changed_by(runtime: &CacheRuntime) -> Option<&ManagedFieldsEntry> {
    runtime.metadata.managed_fields.iter().flatten().max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
}

/// Programs scale through the subresource, as `kubectl scale` does too.
fn is_autoscaler(entry: &ManagedFieldsEntry) -> bool {
    let by_hand = entry.manager.as_ref().is_none_or(|manager| manager.starts_with("kubectl"));
    entry.subresource.as_deref() == Some("scale") && !by_hand
}
