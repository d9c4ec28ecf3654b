use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        CSIPersistentVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
        PersistentVolumeSpec, SecretReference, Service, VolumeResourceRequirements,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{ResourceExt, api::ObjectMeta};
use penstock_api::names::{ATTRIBUTE_DATASET, ATTRIBUTE_ENDPOINT, ATTRIBUTE_READAHEAD, CSI_DRIVER};
use penstock_plan::names::persistent_volume as volume_name;
use penstock_wire::config::WIRE_PORT;

use super::Blueprint;
use crate::names::{NAMESPACE_LABEL, VOLUME};

/// The size that volume and claim agree on. Nothing measures it: a Dataset is as big as its UFS.
const CAPACITY: &str = "1Pi";

fn capacity() -> BTreeMap<String, Quantity> {
    [("storage".to_owned(), Quantity(CAPACITY.into()))].into()
}

fn access_modes(blueprint: &Blueprint<'_>) -> Vec<String> {
    blueprint.dataset.spec.access_modes.iter().map(ToString::to_string).collect()
}

/// What pods mount. It names its volume, so that no other one is ever bound to it.
pub fn claim(blueprint: &Blueprint<'_>) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: blueprint.of_dataset(blueprint.valid.names.dataset.clone(), VOLUME),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(access_modes(blueprint)),
            resources: Some(VolumeResourceRequirements {
                requests: Some(capacity()),
                ..VolumeResourceRequirements::default()
            }),
            // Empty, not absent: absent means the default class, which would provision something.
            storage_class_name: Some(String::new()),
            volume_mode: Some("Filesystem".into()),
            volume_name: Some(volume_name(&blueprint.uid())),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// A volume that lacks what only the API server gives: the Service's address and the claim's UID.
#[derive(Clone, Debug)]
pub struct UnboundVolume(PersistentVolume);

impl UnboundVolume {
    /// The volume, bound to the claim; `None` while the Service has no address.
    pub fn bind(mut self, cache: &Service, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
        let address = cache.spec.as_ref()?.cluster_ip.as_deref().filter(|address| !address.is_empty())?;
        let spec = self.0.spec.get_or_insert_default();
        spec.claim_ref.get_or_insert_default().uid = claim.uid();
        let attributes = spec.csi.get_or_insert_default().volume_attributes.get_or_insert_default();
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        attributes.entry(ATTRIBUTE_ENDPOINT.to_owned()).or_insert_with(|| format!("{host}:{WIRE_PORT}"));
        Some(self.0)
    }
}

/// The address that a volume sends mounts to.
pub(super) fn address_of(volume: &PersistentVolume) -> Option<&str> {
    let attributes = volume.spec.as_ref()?.csi.as_ref()?.volume_attributes.as_ref()?;
    let (host, _) = attributes.get(ATTRIBUTE_ENDPOINT)?.rsplit_once(':')?;
    Some(host.trim_matches(['[', ']']))
}

/// The source of a volume cannot change, so an `observed` one keeps its own.
pub fn persistent_volume(blueprint: &Blueprint<'_>, observed: Option<&PersistentVolume>) -> UnboundVolume {
    let names = &blueprint.valid.names;
    let mut labels = names.labels(VOLUME);
    labels.insert(NAMESPACE_LABEL.into(), names.namespace.clone());
    let source = observed.and_then(|v| v.spec.as_ref()?.csi.clone()).unwrap_or_else(|| source(blueprint));
    UnboundVolume(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(volume_name(&blueprint.uid())),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(access_modes(blueprint)),
            capacity: Some(capacity()),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("PersistentVolumeClaim".into()),
                namespace: Some(names.namespace.clone()),
                name: Some(names.dataset.clone()),
                ..ObjectReference::default()
            }),
            csi: Some(source),
            // The operator deletes it itself: there is no provisioner that would.
            persistent_volume_reclaim_policy: Some("Retain".into()),
            storage_class_name: Some(String::new()),
            volume_mode: Some("Filesystem".into()),
            ..PersistentVolumeSpec::default()
        }),
        ..PersistentVolume::default()
    })
}

fn source(blueprint: &Blueprint<'_>) -> CSIPersistentVolumeSource {
    let names = &blueprint.valid.names;
    let mut attributes: BTreeMap<String, String> = [(ATTRIBUTE_DATASET.to_owned(), names.id())].into();
    if let Some(readahead) = blueprint.valid_runtime.readahead {
        attributes.insert(ATTRIBUTE_READAHEAD.to_owned(), readahead.to_string());
    }
    let secret = SecretReference { name: Some(names.client_secret()), namespace: Some(names.namespace.clone()) };
    CSIPersistentVolumeSource {
        driver: CSI_DRIVER.into(),
        volume_handle: names.volume_handle(&blueprint.uid()),
        volume_attributes: Some(attributes),
        // At each publish too: a plugin that has lost a mount makes it anew without asking for another stage.
        node_publish_secret_ref: Some(secret.clone()),
        node_stage_secret_ref: Some(secret),
        read_only: Some(true),
        ..CSIPersistentVolumeSource::default()
    }
}
