use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use penstock_api::names::COMPONENT_WORKER;
use penstock_wire::config::{CLIENT_KEY_FILE, MEMBERS_FILE};

use super::Blueprint;
use crate::names::VOLUME;

/// The workers' configuration and keys; only they mount it.
pub fn worker_secret(blueprint: &Blueprint<'_>) -> Secret {
    let files = blueprint.files.0.iter().map(|(name, content)| (name.clone(), ByteString(content.clone())));
    Secret {
        metadata: blueprint.of_runtime(blueprint.valid.names.worker(), COMPONENT_WORKER),
        type_: Some("Opaque".into()),
        data: Some(files.collect()),
        ..Secret::default()
    }
}

/// What kubelet hands to the CSI plugin.
pub fn client_secret(blueprint: &Blueprint<'_>) -> Secret {
    let key = ByteString(blueprint.keys.client.to_hex().into_bytes());
    Secret {
        metadata: blueprint.of_dataset(blueprint.valid.names.client_secret(), VOLUME),
        type_: Some("Opaque".into()),
        data: Some([(CLIENT_KEY_FILE.to_owned(), key)].into()),
        ..Secret::default()
    }
}

/// The numbered member list. It outlives the runtime: mounts take no list with a lower number than they know.
pub fn members(blueprint: &Blueprint<'_>) -> ConfigMap {
    // A struct of strings and numbers always serialises.
    let text = serde_json::to_string(&blueprint.scaling.members).unwrap_or_default();
    ConfigMap {
        metadata: blueprint.of_dataset(blueprint.valid.names.members(), COMPONENT_WORKER),
        data: Some([(MEMBERS_FILE.to_owned(), text)].into()),
        ..ConfigMap::default()
    }
}
