use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{
            StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
        },
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector},
};
use kube::api::ObjectMeta;
use penstock_api::{Level, autoscaling::ScaleIn, names::COMPONENT_WORKER};

use super::{Blueprint, pod};
use crate::names::{DRAIN_STARTED, DRAIN_TARGET};

/// The workers. Parallel: they depend on nothing of each other.
pub fn statefulset(blueprint: &Blueprint<'_>) -> StatefulSet {
    let names = &blueprint.valid.names;
    let mut metadata = blueprint.of_runtime(names.worker(), COMPONENT_WORKER);
    if let Some(started) = blueprint.scaling.drain_started {
        let target = blueprint.valid_runtime.replicas;
        metadata.annotations = Some(
            [(DRAIN_STARTED.to_owned(), started.to_string()), (DRAIN_TARGET.to_owned(), target.to_string())].into(),
        );
    }
    let deletion = StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some("Delete".into()),
        when_scaled: Some(if blueprint.valid_runtime.scale_in == ScaleIn::Retain { "Retain" } else { "Delete" }.into()),
    };
    StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            pod_management_policy: Some("Parallel".into()),
            replicas: Some(blueprint.scaling.replicas as i32),
            revision_history_limit: Some(2),
            selector: LabelSelector {
                match_labels: Some(names.selector(COMPONENT_WORKER)),
                ..LabelSelector::default()
            },
            service_name: Some(names.worker()),
            template: pod::template(blueprint),
            // The operator changes pods itself, one by one.
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".into()),
                ..StatefulSetUpdateStrategy::default()
            }),
            // What a claim holds is a cache: it goes with its worker.
            persistent_volume_claim_retention_policy: Some(deletion),
            volume_claim_templates: claim_templates(blueprint),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn claim_templates(blueprint: &Blueprint<'_>) -> Option<Vec<PersistentVolumeClaim>> {
    let quotas = blueprint.valid_runtime.tiers.iter().map(|tier| tier.quota);
    let levels = blueprint.runtime.spec.tiered_store.levels.iter().zip(quotas).enumerate();
    let kept = |index| blueprint.observed.and_then(|observed| claim_storage(observed, index)).cloned();
    let templates: Vec<_> =
        levels.filter_map(|(index, (level, quota))| claim_template(index, level, quota, kept(index))).collect();
    (!templates.is_empty()).then_some(templates)
}

/// The storage that the claims of a level ask for.
pub fn claim_storage(observed: &StatefulSet, index: usize) -> Option<&Quantity> {
    let templates = observed.spec.as_ref()?.volume_claim_templates.as_ref()?;
    let name = pod::tier_volume(index);
    let template = templates.iter().find(|template| template.metadata.name.as_ref() == Some(&name))?;
    template.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")
}

/// Templates cannot change: `kept` is the storage that the claims were made with, whatever the quota is now.
fn claim_template(index: usize, level: &Level, quota: u64, kept: Option<Quantity>) -> Option<PersistentVolumeClaim> {
    let template = level.volume_claim_template.as_ref()?;
    let mut spec: PersistentVolumeClaimSpec = template.spec.clone();
    spec.access_modes.get_or_insert_with(|| vec!["ReadWriteOnce".into()]);
    let requests: &mut BTreeMap<String, Quantity> =
        spec.resources.get_or_insert_default().requests.get_or_insert_default();
    // A file system keeps some of its volume for itself: an eighth more than the tier is to hold.
    let room = quota.saturating_add(quota / 8);
    requests.entry("storage".into()).or_insert_with(|| kept.unwrap_or_else(|| pod::bytes(room)));
    let (labels, annotations) = (template.metadata.labels.clone(), template.metadata.annotations.clone());
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(pod::tier_volume(index)),
            labels: (!labels.is_empty()).then_some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        ..PersistentVolumeClaim::default()
    })
}
