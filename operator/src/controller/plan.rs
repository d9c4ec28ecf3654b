//! What a pass is to reach, from what is valid and what was seen. Pure, but for new keys.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use penstock_placement::MemberList;
use penstock_plan::{
    Keys,
    config::{self, ConfigFiles},
    scaling::{self, Scaling, WorkerSeen},
    validate::ValidPair,
};
use penstock_wire::{Credential, CredentialError, config::MEMBERS_FILE};

use super::{
    observed::{KnownKeys, Observed, Seen, Worker},
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
}

/// What volume and workers are built from, besides what was written.
#[derive(Debug)]
pub(super) struct Serve {
    pub keys: Keys,
    pub files: ConfigFiles,
    pub scaling: Scaling,
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
pub(super) struct Moment {
    pub now: Timestamp,
    /// Other Datasets are still to become mountable.
    pub others_wait: bool,
}

pub(super) fn plan(validated: &Validated, seen: &Seen, moment: Moment) -> Result<Plan, CredentialError> {
    let pair = match (&validated.runtime, &validated.pair) {
        (None, _) => return Ok(Plan::Retire),
        (Some(_), Err(_)) => return Ok(Plan::Keep),
        (Some(_), Ok(pair)) => pair,
    };
    let keys = known_or_new(&seen.keys)?;
    let config = config::worker_config(&pair.dataset, &pair.runtime, |index, _| config::tier_dir(index));
    Ok(Plan::Serve(Box::new(Serve {
        files: config::config_files(&config, &pair.dataset, &keys),
        keys,
        scaling: scaling(pair, seen, moment.now),
        stage: stage(&seen.own, moment.others_wait),
    })))
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

fn scaling(pair: &ValidPair, seen: &Seen, now: Timestamp) -> Scaling {
    let statefulset = seen.own.statefulset.as_ref();
    let members = seen.own.members.as_ref().map(|map| read_members(map)).unwrap_or_default();
    let scene = scaling::Scene {
        wanted: pair.runtime.replicas,
        current: statefulset.and_then(|s| s.spec.as_ref()?.replicas).map(i32::unsigned_abs),
        members: &members,
        told: seen.runtime.as_ref().and_then(|r| r.status.as_ref()?.epoch).unwrap_or_default(),
        workers: &workers(&seen.workers),
        weight: pair.runtime.weight(),
        drain_started: statefulset.and_then(|s| s.annotations().get(DRAIN_STARTED)?.parse().ok()),
        drain_target: statefulset.and_then(|s| s.annotations().get(DRAIN_TARGET)?.parse().ok()),
        drain_timeout: pair.runtime.drain_timeout,
        now: now.as_second().try_into().unwrap_or_default(),
    };
    scaling::decide(&scene, |ordinal| pair.dataset.names.worker_pod(ordinal))
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
