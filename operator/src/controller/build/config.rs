use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use penstock_api::names::COMPONENT_WORKER;
use penstock_wire::config::{CLIENT_KEY_FILE, MEMBERS_FILE, PEER_PUBLIC_FILE};

use super::Blueprint;
use crate::names::VOLUME;

/// The workers' configuration and keys; only they mount it. It outlives the runtime: mounts know workers by their key.
pub fn worker_secret(blueprint: &Blueprint<'_>) -> Secret {
    let files = blueprint.files.0.iter().map(|(name, content)| (name.clone(), ByteString(content.clone())));
    Secret {
        metadata: blueprint.of_dataset(blueprint.valid.names.worker(), COMPONENT_WORKER),
        type_: Some("Opaque".into()),
        data: Some(files.collect()),
        ..Secret::default()
    }
}

/// What kubelet hands to the CSI plugin: what reads, and by what workers are known. It makes nobody a worker.
pub fn client_secret(blueprint: &Blueprint<'_>) -> Secret {
    let keys =
        [(CLIENT_KEY_FILE, blueprint.keys.client.to_hex()), (PEER_PUBLIC_FILE, blueprint.keys.peer.public().to_hex())];
    Secret {
        metadata: blueprint.of_dataset(blueprint.valid.names.client_secret(), VOLUME),
        type_: Some("Opaque".into()),
        data: Some(keys.map(|(name, key)| (name.to_owned(), ByteString(key.into_bytes()))).into()),
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
