//! What one pass knows: read by `dereference`, and not changed by any later step.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Event, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{ResourceExt, api::PartialObjectMeta};
use penstock_api::{
    CacheRuntime, DataLoad, Dataset,
    names::{LABEL_DATASET, LABEL_MANAGED_BY, MANAGED_BY},
};
use penstock_plan::autoscaling::CalendarTexts;
use penstock_wire::{Credential, config::WIRE_PORT, message::Stats};

use crate::poller::Target;

/// Everything that a pass over one Dataset decides from.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The CacheRuntime that the Dataset names, unless it is being deleted.
    pub runtime: Option<Arc<CacheRuntime>>,
    /// The Datasets that may claim that runtime, this one among them.
    pub rivals: Vec<Arc<Dataset>>,
    /// The Secrets that the Dataset names, those that exist.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    pub own: Observed,
    pub keys: KnownKeys,
    /// Worker pods, by ordinal.
    pub workers: Vec<Worker>,
    /// Pods that mount the Dataset and have not ended; looked for only where the runtime scales by itself.
    pub users: Vec<Arc<Pod>>,
    /// DataLoads of the Dataset, the oldest first.
    pub loads: Vec<Arc<DataLoad>>,
    /// What the runtime and the DataLoads name in ConfigMaps: calendars and lists of paths.
    pub texts: CalendarTexts,
    /// Warnings about what does not come up.
    pub events: Vec<Event>,
}

/// Our own objects of one Dataset, as far as they exist.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub statefulset: Option<Arc<StatefulSet>>,
    pub headless: Option<Arc<Service>>,
    pub cache: Option<Arc<Service>>,
    pub members: Option<Arc<ConfigMap>>,
    pub account: Option<Arc<PartialObjectMeta<ServiceAccount>>>,
    pub budget: Option<Arc<PartialObjectMeta<PodDisruptionBudget>>>,
    pub claim: Option<Arc<PersistentVolumeClaim>>,
    pub volume: Option<Arc<PersistentVolume>>,
    pub worker_secret: Option<Arc<Secret>>,
    pub client_secret: Option<Arc<Secret>>,
    /// Worker pods, by ordinal.
    pub pods: Vec<(u32, Arc<Pod>)>,
}

/// The keys in force, as far as they can be read.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownKeys {
    pub client: Option<Credential>,
    pub peer: Option<Credential>,
}

/// A worker pod, and what its worker answered.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub ordinal: u32,
    pub pod: Arc<Pod>,
    /// `None` if there was no answer in time.
    pub stats: Option<Stats>,
}

impl Observed {
    /// Whether pods can mount the Dataset.
    pub(super) fn is_bound(&self) -> bool {
        let (Some(claim), Some(volume)) = (&self.claim, &self.volume) else { return false };
        // Secrets are read only while a runtime is there; the mounts' own lives as long as the claim.
        is_bound(claim, volume) && (self.client_secret.is_some() || self.worker_secret.is_none())
    }
}

/// Whether the two name each other: from then on nobody else can take either, and what is left (their phases) is the
/// volume controller's formality.
pub(super) fn is_bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    let lost = claim.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Lost"));
    claim.metadata.deletion_timestamp.is_none()
        && volume.metadata.deletion_timestamp.is_none()
        && claim.metadata.uid.is_some()
        && reference.is_some_and(|r| r.uid == claim.metadata.uid)
        && claim.spec.as_ref().is_some_and(|s| s.volume_name.as_deref() == Some(&volume.name_any()))
        && !lost
}

/// Whether the operator made the object, for the Dataset of this name.
pub(super) fn is_ours(object: &impl ResourceExt, dataset: &str) -> bool {
    let labels = object.labels();
    labels.get(LABEL_MANAGED_BY).map(String::as_str) == Some(MANAGED_BY)
        && labels.get(LABEL_DATASET).map(String::as_str) == Some(dataset)
}

impl Worker {
    /// `host:port` of the wire protocol, while the pod runs and has an address.
    pub(super) fn addr(&self) -> Option<String> {
        let status = self.pod.status.as_ref().filter(|s| s.phase.as_deref() == Some("Running"))?;
        let ip = status.pod_ip.as_deref().filter(|ip| !ip.is_empty())?;
        Some(if ip.contains(':') { format!("[{ip}]:{WIRE_PORT}") } else { format!("{ip}:{WIRE_PORT}") })
    }

    /// Whom to ask for the worker's numbers.
    pub(super) fn target(&self) -> Option<Target> {
        let containers = self.pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let container: Vec<_> = containers.filter_map(|status| status.container_id.as_deref()).collect();
        let life = format!("{} {} {}", self.pod.uid().unwrap_or_default(), container.join(" "), self.is_ready());
        Some(Target { ordinal: self.ordinal, addr: self.addr()?, life })
    }

    pub(super) fn is_ready(&self) -> bool {
        let conditions = self.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        self.pod.metadata.deletion_timestamp.is_none()
            && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claim_and_volume_are_bound_when_they_name_each_other_and_neither_is_going() {
        let (plain, going) = (json!({}), json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
        for (claim_meta, volume_name, phase, volume_meta, claim_uid, bound) in [
            (&plain, "v", "Pending", &plain, "u", true),
            (&plain, "v", "Bound", &plain, "u", true),
            (&plain, "v", "Lost", &plain, "u", false),
            (&plain, "w", "Pending", &plain, "u", false),
            (&plain, "v", "Pending", &plain, "other", false),
            (&going, "v", "Bound", &plain, "u", false),
            (&plain, "v", "Bound", &going, "u", false),
        ] {
            let mut claim =
                json!({"metadata": claim_meta, "spec": {"volumeName": volume_name}, "status": {"phase": phase}});
            claim["metadata"]["uid"] = json!("u");
            let mut volume = json!({"metadata": volume_meta, "spec": {"claimRef": {"uid": claim_uid}}});
            volume["metadata"]["name"] = json!("v");
            let (claim, volume): (PersistentVolumeClaim, PersistentVolume) =
                (serde_json::from_value(claim).unwrap(), serde_json::from_value(volume).unwrap());
            assert_eq!(is_bound(&claim, &volume), bound, "{claim:?} {volume:?}");
        }
        // Before the API server has given it a UID, nothing names a claim.
        assert!(!is_bound(&PersistentVolumeClaim::default(), &PersistentVolume::default()));
    }
}
