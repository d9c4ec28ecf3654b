use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        CSIPersistentVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
        PersistentVolumeSpec, SecretReference, VolumeResourceRequirements,
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

/// The volume, bound to the claim with `claim_uid`. The source of a volume cannot change, so an `observed` one keeps its
/// own.
pub fn persistent_volume(
    blueprint: &Blueprint<'_>,
    address: &str,
    claim_uid: &str,
    observed: Option<&PersistentVolume>,
) -> PersistentVolume {
    let names = &blueprint.valid.names;
    let mut labels = names.labels(VOLUME);
    labels.insert(NAMESPACE_LABEL.into(), names.namespace.clone());
    let source = observed.and_then(|v| v.spec.as_ref()?.csi.clone()).unwrap_or_else(|| source(blueprint, address));
    PersistentVolume {
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
                uid: Some(claim_uid.to_owned()),
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
    }
}

fn source(blueprint: &Blueprint<'_>, address: &str) -> CSIPersistentVolumeSource {
    let names = &blueprint.valid.names;
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let mut attributes: BTreeMap<String, String> =
        [(ATTRIBUTE_DATASET.to_owned(), names.id()), (ATTRIBUTE_ENDPOINT.to_owned(), format!("{host}:{WIRE_PORT}"))]
            .into();
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

/// Whether the two name each other: from then on nobody else can take either, and what is left (their phases) is the
/// volume controller's formality.
pub fn is_bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    let lost = claim.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Lost"));
    claim.metadata.deletion_timestamp.is_none()
        && volume.metadata.deletion_timestamp.is_none()
        && claim.metadata.uid.is_some()
        && reference.is_some_and(|r| r.uid == claim.metadata.uid)
        && claim.spec.as_ref().is_some_and(|s| s.volume_name.as_deref() == Some(&volume.name_any()))
        && !lost
}
