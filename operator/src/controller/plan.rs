//! What a pass is to reach, from what is valid and what was seen. Pure, but for new keys and turns.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use penstock_api::{CacheRuntime, Dataset, autoscaling::ScaleIn};
use penstock_placement::MemberList;
use penstock_plan::{
    Keys,
    config::{self, ConfigFiles},
    rollout::{self as update, Rollout},
    scaling::{self, Leaving, Scaling, WorkerSeen},
    validate::ValidPair,
};
use penstock_wire::{Credential, CredentialError, config::MEMBERS_FILE};

use super::{
    observed::{KnownKeys, Observed, Seen, Worker},
    rollout,
    validate::Validated,
};
use crate::names::{DRAIN_STARTED, DRAIN_TARGET};

#[derive(Debug)]
pub(super) enum Plan {
    /// No runtime serves the Dataset: the workers go; what mounts know stays.
    Retire,
    /// What was written cannot be set up: what stands keeps standing.
    Keep,
    Serve(Box<Serve>),
}

impl Plan {
    pub(super) fn scaling(&self) -> Option<&Scaling> {
        match self {
            Self::Serve(serve) => Some(&serve.scaling),
            Self::Retire | Self::Keep => None,
        }
    }

    pub(super) fn rollout(&self) -> Option<&Rollout> {
        match self {
            Self::Serve(serve) => Some(&serve.rollout),
            Self::Retire | Self::Keep => None,
        }
    }
}

/// What volume and workers are built from, besides what was written.
#[derive(Debug)]
pub(super) struct Serve {
    pub keys: Keys,
    pub files: ConfigFiles,
    pub scaling: Scaling,
    /// Hash of what a user wrote that takes a new pod.
    pub revision: String,
    pub rollout: Rollout,
    /// The worker whose pod is to be deleted now, to be made anew.
    pub replaced: Option<u32>,
    pub stage: Stage,
}

/// How far a pass goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// What a mount needs. The first workers of a Dataset come at a later pass: they must not keep others from being
    /// mountable.
    Volume,
    Workers,
}

/// What a plan depends on besides what was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    pub now: Timestamp,
    /// Image of workers whose runtime names none.
    pub default_image: &'a str,
    /// Other Datasets are still to become mountable.
    pub others_wait: bool,
}

/// `turn` says whether the runtime may change images now, told whether it wants to.
pub(super) fn plan(
    dataset: &Dataset,
    validated: &Validated,
    seen: &Seen,
    moment: Moment<'_>,
    turn: impl FnOnce(&CacheRuntime, bool) -> bool,
) -> Result<Plan, CredentialError> {
    let (runtime, pair) = match (&validated.runtime, &validated.pair) {
        (None, _) => return Ok(Plan::Retire),
        (Some(runtime), Err(_)) => {
            turn(runtime, false);
            return Ok(Plan::Keep);
        }
        (Some(runtime), Ok(pair)) => (runtime, pair),
    };
    let keys = known_or_new(&seen.keys)?;
    let config = config::worker_config(&pair.dataset, &pair.runtime, |index, _| config::tier_dir(index));
    let revision = update::revision(dataset, runtime, &pair.runtime);
    let rollout = rollout(runtime, pair.runtime.replicas, &revision, seen, moment, turn);
    let keeps_tiers = update::outlives_pods(&runtime.spec);
    let leaving = if keeps_tiers {
        Vec::new()
    } else {
        rollout::leaving(&seen.workers, &rollout, pair.runtime.replicas, moment.now)
    };
    let scaling = scaling(pair, seen, &leaving, moment.now);
    Ok(Plan::Serve(Box::new(Serve {
        files: config::config_files(&config, &pair.dataset, &keys),
        keys,
        replaced: replaced(&rollout, &leaving, &scaling),
        scaling,
        revision,
        rollout,
        stage: stage(&seen.own, moment.others_wait),
    })))
}

fn rollout(
    runtime: &CacheRuntime,
    wanted: u32,
    revision: &str,
    seen: &Seen,
    moment: Moment<'_>,
    turn: impl FnOnce(&CacheRuntime, bool) -> bool,
) -> Rollout {
    let pods = rollout::pods(&seen.workers, wanted, members(seen).epoch, revision, moment.now);
    let pinned = rollout::pinned(runtime, &seen.own);
    let scene = update::Scene {
        strategy: runtime.spec.worker.update_strategy,
        image: runtime.spec.worker.image.as_deref().unwrap_or(moment.default_image),
        revision,
        pinned: pinned.as_deref(),
        wanted,
        pods: &pods,
        was_under_way: runtime.status.as_ref().is_some_and(|status| status.update.is_some()),
        has_turn: false,
        is_draining: replicas(seen).is_some_and(|current| current > wanted),
    };
    let has_turn = turn(runtime, update::needs_turn(&scene));
    update::decide(&update::Scene { has_turn, ..scene })
}

/// The worker that is to get a new pod, once nothing of it is waited for.
fn replaced(rollout: &Rollout, leaving: &[Leaving], scaling: &Scaling) -> Option<u32> {
    let update::Step::Replace { ordinal } = rollout.step else { return None };
    let is_held = leaving.iter().any(|l| l.ordinal == ordinal) && !scaling.released.contains(&ordinal);
    (!is_held).then_some(ordinal)
}

fn known_or_new(keys: &KnownKeys) -> Result<Keys, CredentialError> {
    let or_new = |key: &Option<Credential>| key.clone().map_or_else(Credential::generate, Ok);
    Ok(Keys { client: or_new(&keys.client)?, peer: or_new(&keys.peer)? })
}

fn stage(seen: &Observed, others_wait: bool) -> Stage {
    let is_first = seen.statefulset.is_none();
    // A claim under deletion is in use.
    let is_mounted = seen.claim.as_ref().is_some_and(|claim| claim.metadata.deletion_timestamp.is_some());
    let waits = others_wait || !seen.is_bound();
    if is_first && waits && !is_mounted { Stage::Volume } else { Stage::Workers }
}

fn scaling(pair: &ValidPair, seen: &Seen, leaving: &[Leaving], now: Timestamp) -> Scaling {
    let statefulset = seen.own.statefulset.as_ref();
    let scene = scaling::Scene {
        wanted: pair.runtime.replicas,
        current: replicas(seen),
        members: &members(seen),
        told: seen.runtime.as_ref().and_then(|r| r.status.as_ref()?.epoch).unwrap_or_default(),
        workers: &workers(&seen.workers),
        leaving,
        weight: pair.runtime.weight(),
        drain_started: statefulset.and_then(|s| s.annotations().get(DRAIN_STARTED)?.parse().ok()),
        drain_target: statefulset.and_then(|s| s.annotations().get(DRAIN_TARGET)?.parse().ok()),
        drain_timeout: pair.runtime.drain_timeout,
        hands_over: pair.runtime.scale_in == ScaleIn::HandOver,
        now: rollout::seconds(now),
    };
    scaling::decide(&scene, |ordinal| pair.dataset.names.worker_pod(ordinal))
}

/// How many workers the `StatefulSet` has now.
fn replicas(seen: &Seen) -> Option<u32> {
    seen.own.statefulset.as_ref()?.spec.as_ref()?.replicas.map(i32::unsigned_abs)
}

fn members(seen: &Seen) -> MemberList {
    seen.own.members.as_ref().map(|map| read_members(map)).unwrap_or_default()
}

/// The persisted list; the empty one when there is none that can be read.
pub(super) fn read_members(map: &ConfigMap) -> MemberList {
    let text = map.data.as_ref().and_then(|data| data.get(MEMBERS_FILE));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The workers as decisions and statuses see them.
pub(super) fn workers(seen: &[Worker]) -> Vec<WorkerSeen> {
    let worker = |worker: &Worker| WorkerSeen {
        ordinal: worker.ordinal,
        addr: worker.addr(),
        ready: worker.is_ready(),
        stats: worker.stats.clone(),
    };
    seen.iter().map(worker).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn first_workers_wait_for_their_volume_and_for_other_datasets_and_later_ones_for_nothing() {
        let claim = json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"volumeName": "v"}});
        let volume = json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"uid": "u"}}});
        let unbound = Observed::default;
        let bound = || Observed {
            claim: serde_json::from_value(claim.clone()).unwrap(),
            volume: serde_json::from_value(volume.clone()).unwrap(),
            ..unbound()
        };
        let serving = |seen: Observed| Observed { statefulset: Some(Arc::default()), ..seen };
        for (case, seen, others_wait, expected) in [
            ("nothing is there", unbound(), false, Stage::Volume),
            ("the volume stands", bound(), false, Stage::Workers),
            ("others wait", bound(), true, Stage::Volume),
            ("workers run, others wait", serving(bound()), true, Stage::Workers),
            ("workers run, the volume was lost", serving(unbound()), false, Stage::Workers),
        ] {
            assert_eq!(stage(&seen, others_wait), expected, "{case}");
        }
    }
}
