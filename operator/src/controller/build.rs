//! From a plan to whole objects. Pure and infallible: everything that could fail was checked before.

mod config;
mod pod;
mod services;
mod statefulset;
mod volume;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Resource, ResourceExt, api::ObjectMeta};
use penstock_api::{CacheRuntime, Dataset};
use penstock_plan::{
    Keys,
    config::ConfigFiles,
    scaling::Scaling,
    validate::{ValidDataset, ValidRuntime},
};

pub use config::{client_secret, members, worker_secret};
pub use pod::{Ids, WORKER_CONTAINER};
pub use services::{budget, cache_service, headless_service, service_account};
pub use statefulset::{claim_storage, statefulset};
pub use volume::{UnboundVolume, claim, persistent_volume};

/// All that the objects of one pair are made from.
#[derive(Clone, Copy, Debug)]
pub struct Blueprint<'a> {
    pub dataset: &'a Dataset,
    pub runtime: &'a CacheRuntime,
    pub valid: &'a ValidDataset,
    pub valid_runtime: &'a ValidRuntime,
    pub files: &'a ConfigFiles,
    pub keys: &'a Keys,
    pub scaling: &'a Scaling,
    /// The workers that are there.
    pub observed: Option<&'a StatefulSet>,
    /// Image that new worker pods start from.
    pub image: &'a str,
    /// Hash of what a user wrote that takes a new pod.
    pub revision: &'a str,
    pub defaults: &'a WorkerDefaults,
}

/// What workers have unless their runtime says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerDefaults {
    /// Names of Secrets to pull images with, in the runtime's namespace.
    pub pull_secrets: Vec<String>,
    pub ids: Ids,
}

impl Blueprint<'_> {
    /// Of what the workers need: goes with the runtime.
    fn of_runtime(&self, name: String, component: &str) -> ObjectMeta {
        self.meta(name, component, self.runtime.controller_owner_ref(&()))
    }

    /// Of what the mounts need: outlives the runtime, so that a new one serves the same volume.
    fn of_dataset(&self, name: String, component: &str) -> ObjectMeta {
        self.meta(name, component, self.dataset.controller_owner_ref(&()))
    }

    fn meta(&self, name: String, component: &str, owner: Option<OwnerReference>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.valid.names.namespace.clone()),
            labels: Some(self.valid.names.labels(component)),
            owner_references: owner.map(|o| vec![o]),
            ..ObjectMeta::default()
        }
    }

    fn uid(&self) -> String {
        self.dataset.uid().unwrap_or_default()
    }
}

/// What a mount needs, in the order in which it is written.
#[derive(Debug)]
pub struct VolumeObjects {
    pub worker_secret: Secret,
    pub cache: Service,
    pub client_secret: Secret,
    /// `None` for a Dataset under deletion: what is gone of the two does not come back.
    pub claim: Option<(PersistentVolumeClaim, UnboundVolume)>,
}

/// What runs the workers.
#[derive(Debug)]
pub struct WorkerObjects {
    pub members: ConfigMap,
    pub headless: Service,
    pub account: ServiceAccount,
    pub budget: PodDisruptionBudget,
    pub statefulset: StatefulSet,
}

/// `cache` and `volume` are those that are there.
pub fn volume_objects(
    blueprint: &Blueprint<'_>,
    cache: Option<&Service>,
    volume: Option<&PersistentVolume>,
) -> VolumeObjects {
    // A Service that was lost comes back where mounts look for it.
    let endpoint = volume.filter(|_| cache.is_none()).and_then(volume::address_of);
    let is_going = blueprint.dataset.metadata.deletion_timestamp.is_some();
    VolumeObjects {
        worker_secret: worker_secret(blueprint),
        cache: cache_service(blueprint, endpoint),
        client_secret: client_secret(blueprint),
        claim: (!is_going).then(|| (claim(blueprint), persistent_volume(blueprint, volume))),
    }
}

pub fn worker_objects(blueprint: &Blueprint<'_>) -> WorkerObjects {
    WorkerObjects {
        members: members(blueprint),
        headless: headless_service(blueprint),
        account: service_account(blueprint),
        budget: budget(blueprint),
        statefulset: statefulset(blueprint),
    }
}

#[cfg(test)]
mod tests;
