//! From a plan to whole objects. Pure and infallible: everything that could fail was checked before.

mod config;
mod pod;
mod services;
mod statefulset;
mod volume;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt, api::ObjectMeta};
use penstock_api::{CacheRuntime, Dataset};
use penstock_plan::{
    Keys,
    config::ConfigFiles,
    scaling::Scaling,
    validate::{ValidDataset, ValidRuntime},
};

pub use config::{client_secret, members, read_members, worker_secret};
pub use services::{budget, cache_service, headless_service, service_account};
pub use statefulset::statefulset;
pub use volume::{claim, is_bound, persistent_volume};

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
    /// Image of the worker unless the runtime names one.
    pub default_image: &'a str,
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

/// Seconds since the epoch.
pub fn seconds(now: Timestamp) -> u64 {
    now.as_second().try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests;
