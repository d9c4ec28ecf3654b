//! How workers come to run as specified, one after the other: decided anew each time from what is seen.
//!
//! Two things of a pod are compared. Its *image* can be changed where it is: the container starts again, and what it caches
//! stays. Its [`revision`], all else that a user wrote, takes a new pod, whose worker hands over first.

use std::time::Duration;

use penstock_api::{CacheRuntime, CacheRuntimeSpec, Dataset, UpdateStrategy, Worker};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::validate::{ValidRuntime, ValidTier};

/// A worker that does not serve for so long is stuck. Its startup probe allows ten minutes.
const PATIENCE: Duration = Duration::from_mins(15);
/// The same for one whose pod says what is wrong. What it says may be of before the update, or end by itself.
const SETTLED: Duration = Duration::from_secs(30);

/// One worker pod that is wanted and not under deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSeen {
    pub ordinal: u32,
    pub image: String,
    /// The [`revision`] that the pod was made for.
    pub revision: String,
    /// It answers, from its image, and has the newest member list.
    pub serves: bool,
    /// Since it was ready, updated or made, whichever came last; zero while it serves.
    pub silent: Duration,
    /// What the pod says is wrong.
    pub trouble: Option<String>,
}

/// What an update is decided from.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub strategy: UpdateStrategy,
    /// The image and the revision wanted.
    pub image: &'a str,
    pub revision: &'a str,
    /// The image that new pods start from; `None` before there are any.
    pub pinned: Option<&'a str>,
    /// How many workers the user wants.
    pub wanted: u32,
    pub pods: &'a [PodSeen],
    /// The last status told of an update.
    pub was_under_way: bool,
    /// This runtime may be updated now; see [`needs_turn`].
    pub has_turn: bool,
    /// Other workers are handing over.
    pub is_draining: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The image that all workers will run from.
    pub target: String,
    /// What new pods start from: the image wanted, once a worker serves from it.
    pub image: String,
    /// Pods that are as wanted.
    pub updated: u32,
    pub step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    UpToDate,
    /// The user deletes pods, and they are made anew.
    AwaitDeletion,
    /// Other runtimes are updated first.
    AwaitTurn,
    /// Leaving workers hand over first.
    AwaitScaling,
    /// All workers have to serve first, and this one does not.
    AwaitWorker {
        ordinal: u32,
    },
    /// The pod's image is to be changed.
    SetImage {
        ordinal: u32,
    },
    /// The pod is to be deleted once its worker has handed over.
    Replace {
        ordinal: u32,
    },
    /// An updated worker does not come back.
    Stopped {
        ordinal: u32,
        why: String,
    },
}

impl Step {
    /// The worker that it is about.
    pub fn ordinal(&self) -> Option<u32> {
        match self {
            Self::AwaitWorker { ordinal }
            | Self::SetImage { ordinal }
            | Self::Replace { ordinal }
            | Self::Stopped { ordinal, .. } => Some(*ordinal),
            Self::UpToDate | Self::AwaitDeletion | Self::AwaitTurn | Self::AwaitScaling => None,
        }
    }

    /// Whether an update has begun and not ended.
    pub fn is_under_way(&self) -> bool {
        self.ordinal().is_some() || *self == Self::AwaitScaling
    }
}

/// Hash of what a user wrote that takes a new pod. What a release of the operator makes of it does not count, nor does a
/// field that nobody has set: an upgrade of the operator must not replace pods.
pub fn revision(dataset: &Dataset, runtime: &CacheRuntime, valid: &ValidRuntime) -> String {
    let spec = &runtime.spec;
    let own = Worker { image: None, update_strategy: UpdateStrategy::default(), ..spec.worker.clone() };
    let tier = |(tier, level): (&ValidTier, &penstock_api::Level)| {
        json!([
            tier.medium,
            tier.quota,
            tier.high,
            tier.low,
            tier.path,
            level.volume_source,
            level.volume_claim_template
        ])
    };
    let tiers: Vec<Value> = valid.tiers.iter().zip(&spec.tiered_store.levels).map(tier).collect();
    let nodes = json!([dataset.spec.tolerations, dataset.spec.node_affinity, dataset.spec.placement]);
    let text = json!([set_fields(&own), tiers, nodes]).to_string();
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

/// The fields that differ from what they are by default.
fn set_fields(worker: &Worker) -> Value {
    // Plain data, whose serialisation does not fail.
    let mut fields = serde_json::to_value(worker).unwrap_or_default();
    let unset = serde_json::to_value(Worker::default()).unwrap_or_default();
    if let Value::Object(fields) = &mut fields {
        fields.retain(|name, value| unset.get(name.as_str()) != Some(value));
    }
    fields
}

/// Whether all that a worker caches is on claims, which its next pod has again.
pub fn outlives_pods(runtime: &CacheRuntimeSpec) -> bool {
    runtime.tiered_store.levels.iter().all(|level| level.volume_claim_template.is_some())
}

/// Whether an image is to be changed: of the runtimes that take the default image, only so many do at once.
pub fn needs_turn(scene: &Scene<'_>) -> bool {
    let moves = scene.wanted > 0 && scene.pinned.is_some_and(|pinned| pinned != scene.image);
    scene.strategy == UpdateStrategy::Staged && (moves || scene.pods.iter().any(|pod| pod.image != scene.image))
}

pub fn decide(scene: &Scene<'_>) -> Rollout {
    let updated = scene.pods.iter().filter(|pod| scene.is_current(pod)).count() as u32;
    Rollout { target: scene.image.to_owned(), image: scene.pin().to_owned(), updated, step: scene.step() }
}

impl Scene<'_> {
    fn is_current(&self, pod: &PodSeen) -> bool {
        pod.image == self.image && pod.revision == self.revision
    }

    fn pin(&self) -> &str {
        let is_proven = || self.pods.iter().any(|pod| pod.image == self.image && pod.serves);
        match self.pinned {
            Some(pinned) if self.strategy == UpdateStrategy::Staged && self.wanted > 0 && !is_proven() => pinned,
            _ => self.image,
        }
    }

    fn step(&self) -> Step {
        let outdated = || self.pods.iter().filter(|pod| !self.is_current(pod));
        if self.strategy == UpdateStrategy::OnDelete {
            return if outdated().next().is_some() { Step::AwaitDeletion } else { Step::UpToDate };
        }
        let is_begun = self.was_under_way || outdated().next().is_some() || self.pin() != self.image;
        if self.wanted == 0 || !is_begun {
            return Step::UpToDate;
        }
        if needs_turn(self) && !self.has_turn {
            return Step::AwaitTurn;
        }
        if let Some(pod) = self.pods.iter().find(|pod| self.is_current(pod) && is_stuck(pod)) {
            let why = pod.trouble.clone().unwrap_or_else(|| "it does not become ready".to_owned());
            return Step::Stopped { ordinal: pod.ordinal, why };
        }
        // It serves nobody, and the others need not serve for it to be mended.
        if let Some(pod) = outdated().find(|pod| is_stuck(pod)) {
            return self.renew(pod);
        }
        if self.is_draining {
            return Step::AwaitScaling;
        }
        let serves = |ordinal| self.pods.iter().any(|pod| pod.ordinal == ordinal && pod.serves);
        if let Some(ordinal) = (0..self.wanted).rev().find(|ordinal| !serves(*ordinal)) {
            return Step::AwaitWorker { ordinal };
        }
        outdated().max_by_key(|pod| pod.ordinal).map_or(Step::UpToDate, |pod| self.renew(pod))
    }

    fn renew(&self, pod: &PodSeen) -> Step {
        let ordinal = pod.ordinal;
        if pod.revision == self.revision { Step::SetImage { ordinal } } else { Step::Replace { ordinal } }
    }
}

fn is_stuck(pod: &PodSeen) -> bool {
    !pod.serves && pod.silent >= if pod.trouble.is_some() { SETTLED } else { PATIENCE }
}

#[cfg(test)]
mod tests;
