//! From what a user wrote to what can be planned: after this step nothing is left for Kubernetes to reject, and for a
//! worker only what the UFS and the nodes know, and options of one kind of UFS. Pure.

mod binding;
mod mounts;
mod secrets;
mod tiers;

use std::{collections::BTreeMap, fmt, time::Duration};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use penstock_api::{CacheRuntime, Dataset, Quota, Reason, autoscaling::ScaleIn, names::MAX_NAME};
use penstock_model::Medium;

use crate::names::Names;

pub use binding::{Claim, bind, dataset_of};
use mounts::uncovered_local_mount;
pub use secrets::{NamedSecret, UsableBy};

/// What is wrong, in one sentence that names field, value and mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    pub reason: Reason,
    pub message: String,
}

impl Invalid {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    fn spec(message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidSpec, message)
    }

    /// Whether something is missing that someone may still bring, rather than wrong.
    pub fn is_missing(&self) -> bool {
        !matches!(self.reason, Reason::InvalidSpec | Reason::ApplyFailed)
    }
}

/// Data of a Secret; never shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData(pub BTreeMap<String, Vec<u8>>);

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The Secrets that a Dataset names, by name; those that do not exist are absent.
pub type Secrets = BTreeMap<String, NamedSecret>;

/// A Dataset and the CacheRuntime that serves it.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidPair {
    pub dataset: ValidDataset,
    pub runtime: ValidRuntime,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ValidDataset {
    pub names: Names,
    pub mounts: Vec<ValidMount>,
    /// `None` for a static Dataset.
    pub revalidate: Option<Duration>,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidMount {
    pub source: String,
    /// No leading or trailing slash; empty for the root.
    pub path: String,
    pub options: BTreeMap<String, String>,
    pub secret_options: SecretData,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ValidRuntime {
    pub replicas: u32,
    pub tiers: Vec<ValidTier>,
    pub drain_timeout: Duration,
    /// Bytes per second that one leaving worker hands over at most.
    pub drain_bandwidth: Option<u64>,
    pub scale_in: ScaleIn,
    /// Bytes.
    pub readahead: Option<u64>,
}

impl ValidRuntime {
    /// Bytes of quota of one worker: its weight in placement.
    pub fn weight(&self) -> u64 {
        self.tiers.iter().map(|t| t.quota).sum()
    }

    /// Bytes that one worker still has after an eviction.
    pub fn held(&self) -> u64 {
        self.tiers.iter().map(|t| (t.quota as f64 * t.low) as u64).sum()
    }

    /// Bytes of one worker's memory that its tiers take.
    pub fn memory(&self) -> u64 {
        self.tiers.iter().filter(|t| t.medium == Medium::Mem).map(|t| t.quota).sum()
    }

    /// Bytes of one worker's tiers on disks.
    pub fn disk(&self) -> u64 {
        self.weight() - self.memory()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ValidTier {
    pub medium: Medium,
    /// Bytes.
    pub quota: u64,
    pub high: f64,
    pub low: f64,
    /// The directory that the user gave: of the node, or in local mode of the machine.
    pub path: Option<String>,
}

/// For a cluster, where worker pods see a `local://` path only where a volume is mounted.
pub fn pair(dataset: &Dataset, runtime: &CacheRuntime, secrets: &Secrets) -> Result<ValidPair, Invalid> {
    let volume_mounts = &runtime.spec.worker.volume_mounts;
    let runtime = self::runtime(runtime)?;
    let dataset = self::dataset(dataset, secrets)?;
    match uncovered_local_mount(&dataset, volume_mounts) {
        Some(problem) => Err(problem),
        None => Ok(ValidPair { dataset, runtime }),
    }
}

pub fn dataset(dataset: &Dataset, secrets: &Secrets) -> Result<ValidDataset, Invalid> {
    let name = dataset.name_any();
    check_name("Dataset", &name)?;
    let revalidate = dataset.spec.consistency.revalidate().map_err(|e| Invalid::spec(e.to_string()))?;
    let owner = dataset.spec.owner.unwrap_or_default();
    Ok(ValidDataset {
        names: Names::new(dataset.namespace().unwrap_or_else(|| "default".into()), name),
        mounts: mounts::validate(dataset, secrets)?,
        revalidate,
        uid: owner.uid,
        gid: owner.gid,
    })
}

pub fn runtime(runtime: &CacheRuntime) -> Result<ValidRuntime, Invalid> {
    check_name("CacheRuntime", &runtime.name_any())?;
    let spec = &runtime.spec;
    let bytes = |field: &str, quantity: &Option<Quantity>| {
        let read = quantity.as_ref().map(Quota::bytes).transpose();
        read.map_err(|error| Invalid::spec(format!("{field}: {error}")))
    };
    let readahead = bytes("spec.client.readahead", &spec.client.readahead)?;
    Ok(ValidRuntime {
        replicas: spec.replicas,
        tiers: tiers::validate(&spec.tiered_store)?,
        drain_timeout: Duration::from_secs(spec.drain_timeout_seconds.into()),
        drain_bandwidth: bytes("spec.drainBandwidth", &spec.drain_bandwidth)?,
        scale_in: spec.autoscaling.as_ref().map(|autoscaling| autoscaling.scale_in).unwrap_or_default(),
        readahead,
    })
}

fn check_name(kind: &str, name: &str) -> Result<(), Invalid> {
    if name.len() <= MAX_NAME {
        return Ok(());
    }
    Err(Invalid::spec(format!(
        "metadata.name '{name}' of the {kind} has {} characters, {MAX_NAME} are the most; make it anew with a shorter name",
        name.len()
    )))
}

#[cfg(test)]
mod tests;
