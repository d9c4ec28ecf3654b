//! What Penstock's objects are called, and the labels that tell them from other people's.

use std::collections::BTreeMap;

use penstock_api::names::{
    LABEL_COMPONENT, LABEL_DATASET, LABEL_INSTANCE, LABEL_MANAGED_BY, LABEL_NAME, LABEL_PART_OF, MANAGED_BY, PART_OF,
};

/// The names of everything that belongs to one Dataset. Each kind has its own suffixes, so that Datasets never share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Names {
    pub namespace: String,
    pub dataset: String,
}

impl Names {
    pub fn new(namespace: impl Into<String>, dataset: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), dataset: dataset.into() }
    }

    /// `NS/NAME`: how workers and mounts call the Dataset.
    pub fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.dataset)
    }

    /// `StatefulSet`, headless Service, worker Secret, `ServiceAccount` and `PodDisruptionBudget`.
    pub fn worker(&self) -> String {
        format!("{}-worker", self.dataset)
    }

    pub fn worker_pod(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.worker())
    }

    /// The ordinal of one of this Dataset's worker pods.
    pub fn ordinal(&self, pod: &str) -> Option<u32> {
        pod.strip_prefix(&self.worker())?.strip_prefix('-')?.parse().ok()
    }

    /// The mounts' Service.
    pub fn cache(&self) -> String {
        format!("{}-cache", self.dataset)
    }

    pub fn client_secret(&self) -> String {
        format!("{}-client", self.dataset)
    }

    /// The `ConfigMap` of the member list.
    pub fn members(&self) -> String {
        format!("{}-members", self.dataset)
    }

    /// The CSI volume handle. No part of it has a slash, so no two Datasets share one.
    pub fn volume_handle(&self, uid: &str) -> String {
        format!("{}/{uid}", self.id())
    }

    /// What every object of this Dataset carries.
    pub fn labels(&self, component: &str) -> BTreeMap<String, String> {
        let mut labels = self.selector(component);
        labels.insert(LABEL_PART_OF.into(), PART_OF.into());
        labels.insert(LABEL_MANAGED_BY.into(), MANAGED_BY.into());
        labels
    }

    /// The labels by which Services, the `StatefulSet` and the budget find pods; never changes.
    pub fn selector(&self, component: &str) -> BTreeMap<String, String> {
        [
            (LABEL_NAME, PART_OF),
            (LABEL_INSTANCE, &self.dataset),
            (LABEL_COMPONENT, component),
            (LABEL_DATASET, &self.dataset),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
    }
}

/// The `PersistentVolume` of the Dataset with this UID.
pub fn persistent_volume(uid: &str) -> String {
    format!("penstock-{uid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_name_tells_its_ordinal_only_to_its_own_dataset() {
        let names = Names::new("ns", "a");
        for (pod, ordinal) in [
            ("a-worker-0", Some(0)),
            ("a-worker-12", Some(12)),
            ("a-worker", None),
            ("a-worker-x", None),
            ("b-worker-0", None),
        ] {
            assert_eq!(names.ordinal(pod), ordinal, "{pod}");
        }
    }
}
