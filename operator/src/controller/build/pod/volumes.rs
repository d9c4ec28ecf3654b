use k8s_openapi::{
    api::core::v1::{
        CSIVolumeSource, ConfigMapProjection, EmptyDirVolumeSource, HostPathVolumeSource, ProjectedVolumeSource,
        SecretProjection, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use penstock_api::{
    Level, MediumType,
    names::{ATTRIBUTE_DATASET, ATTRIBUTE_PURPOSE, CSI_DRIVER, PURPOSE_WORKER_SOCKET, RESERVED_VOLUME_PREFIX},
};
use penstock_plan::{Names, config::tier_dir};

use super::{super::Blueprint, bytes, security};

pub(super) const CONFIG_DIR: &str = "/etc/penstock";
pub(super) const SOCKET_DIR: &str = "/run/penstock";

pub(crate) fn tier_volume(index: usize) -> String {
    format!("{RESERVED_VOLUME_PREFIX}tier-{index}")
}

fn name(suffix: &str) -> String {
    format!("{RESERVED_VOLUME_PREFIX}{suffix}")
}

pub(super) fn volumes(blueprint: &Blueprint<'_>) -> Vec<Volume> {
    let names = &blueprint.valid.names;
    let spec = &blueprint.runtime.spec;
    let quotas = blueprint.valid_runtime.tiers.iter().map(|t| t.quota);
    let tiers = spec.tiered_store.levels.iter().zip(quotas).enumerate();
    let tiers = tiers.filter_map(|(index, (level, quota))| tier(index, level, quota));
    [config(blueprint), socket(names)].into_iter().chain(tiers).chain(spec.worker.volumes.iter().cloned()).collect()
}

fn config(blueprint: &Blueprint<'_>) -> Volume {
    let names = &blueprint.valid.names;
    let secret = SecretProjection { name: names.worker(), ..SecretProjection::default() };
    let members = ConfigMapProjection { name: names.members(), ..ConfigMapProjection::default() };
    Volume {
        name: name("config"),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(security::secret_mode(blueprint)),
            sources: Some(vec![
                VolumeProjection { secret: Some(secret), ..VolumeProjection::default() },
                VolumeProjection { config_map: Some(members), ..VolumeProjection::default() },
            ]),
        }),
        ..Volume::default()
    }
}

/// The node's directory for this pod's socket, from our own CSI plugin: a pod of the restricted standard may not have a
/// hostPath. Not read-only, since the worker makes its socket in it.
fn socket(names: &Names) -> Volume {
    // The namespace is the pod's own, which the kubelet tells the plugin.
    let attributes = [(ATTRIBUTE_PURPOSE, PURPOSE_WORKER_SOCKET), (ATTRIBUTE_DATASET, names.dataset.as_str())];
    Volume {
        name: name("socket"),
        csi: Some(CSIVolumeSource {
            driver: CSI_DRIVER.into(),
            read_only: Some(false),
            volume_attributes: Some(attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            ..CSIVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// `None` for a claim template, which brings its volume itself.
fn tier(index: usize, level: &Level, quota: u64) -> Option<Volume> {
    if level.volume_claim_template.is_some() {
        return None;
    }
    let name = tier_volume(index);
    if let Some(source) = &level.volume_source {
        return Some(source.clone().into_volume(name));
    }
    if let Some(path) = &level.path {
        let source = HostPathVolumeSource { path: path.clone(), type_: Some("DirectoryOrCreate".into()) };
        return Some(Volume { name, host_path: Some(source), ..Volume::default() });
    }
    Some(Volume { name, empty_dir: Some(empty_dir(level.medium_type, quota)), ..Volume::default() })
}

fn empty_dir(medium: MediumType, quota: u64) -> EmptyDirVolumeSource {
    if medium == MediumType::Mem {
        let size_limit = Some(bytes(quota));
        return EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit };
    }
    let size_limit: Option<Quantity> = Some(bytes(disk_limit(quota)));
    EmptyDirVolumeSource { medium: None, size_limit }
}

/// On disk the kubelet evicts the pod beyond the limit: an eighth more, for what the file system itself takes.
fn disk_limit(quota: u64) -> u64 {
    quota.saturating_add(quota / 8)
}

/// Bytes that the tiers of a worker may take of its node's own disk.
pub(super) fn on_nodes_disk(blueprint: &Blueprint<'_>) -> u64 {
    let quotas = blueprint.valid_runtime.tiers.iter().map(|t| t.quota);
    let levels = blueprint.runtime.spec.tiered_store.levels.iter().zip(quotas);
    let on_disk = levels.filter(|(level, _)| {
        let elsewhere = level.path.is_some() || level.volume_source.is_some() || level.volume_claim_template.is_some();
        level.medium_type != MediumType::Mem && !elsewhere
    });
    on_disk.map(|(_, quota)| disk_limit(quota)).fold(0, u64::saturating_add)
}

pub(super) fn mounts(blueprint: &Blueprint<'_>) -> Vec<VolumeMount> {
    let spec = &blueprint.runtime.spec;
    let mount = |name: String, path: String, read_only: bool| VolumeMount {
        name,
        mount_path: path,
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let tiers = (0..spec.tiered_store.levels.len())
        .map(|index| mount(tier_volume(index), tier_dir(index).display().to_string(), false));
    [mount(name("config"), CONFIG_DIR.into(), true), mount(name("socket"), SOCKET_DIR.into(), false)]
        .into_iter()
        .chain(tiers)
        .chain(spec.worker.volume_mounts.iter().cloned())
        .collect()
}
