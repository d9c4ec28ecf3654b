//! What is left out of objects before they are kept in memory.

use k8s_openapi::{
    api::core::v1::{Pod, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta},
};
use kube::Resource;
use penstock_api::CacheRuntime;

/// Managed fields are about half of an object, and nobody here reads them.
pub(super) fn managed_fields<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Of a runtime's managed fields, only who has `spec.replicas` is read.
pub(super) fn runtime(runtime: &mut CacheRuntime) {
    let mut entries = runtime.metadata.managed_fields.take().unwrap_or_default();
    entries.retain(has_replicas);
    for entry in &mut entries {
        entry.fields_v1 = None;
    }
    runtime.metadata.managed_fields = Some(entries);
}

fn has_replicas(entry: &ManagedFieldsEntry) -> bool {
    let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.get("f:spec"));
    fields.is_some_and(|spec| spec.get("f:replicas").is_some())
}

/// Of a pod of a user: who it is, what it mounts, whether it runs.
pub(super) fn user(pod: &mut Pod) {
    let metadata = std::mem::take(&mut pod.metadata);
    pod.metadata = ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        deletion_timestamp: metadata.deletion_timestamp,
        ..ObjectMeta::default()
    };
    let mut volumes = pod.spec.take().and_then(|spec| spec.volumes).unwrap_or_default();
    volumes.retain(|volume| volume.persistent_volume_claim.is_some());
    pod.spec = Some(PodSpec { volumes: Some(volumes), ..PodSpec::default() });
    let phase = pod.status.take().and_then(|status| status.phase);
    pod.status = Some(PodStatus { phase, ..PodStatus::default() });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_users_pod_claims_and_phase_stay() {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "job", "namespace": "ns", "uid": "u", "labels": {"a": "b"}, "resourceVersion": "7"},
            "spec": {
                "containers": [{"name": "c", "env": [{"name": "TOKEN", "value": "secret"}]}],
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "prices"}}, {"name": "tmp", "emptyDir": {}},
                ],
            },
            "status": {"phase": "Pending", "podIP": "198.18.0.1"},
        }))
        .unwrap();
        user(&mut pod);
        let kept = serde_json::to_value(&pod).unwrap();
        assert_eq!(kept["metadata"], json!({"name": "job", "namespace": "ns", "uid": "u", "resourceVersion": "7"}));
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "prices"}}]);
        assert_eq!(kept["spec"], json!({"containers": [], "volumes": volumes}));
        assert_eq!(kept["status"], json!({"phase": "Pending"}));
    }

    #[test]
    fn of_a_runtimes_managers_those_of_replicas_stay() {
        let mut object: CacheRuntime = serde_json::from_value(json!({
            "metadata": {"name": "a", "managedFields": [
                {"manager": "kubectl", "fieldsV1": {"f:spec": {"f:tieredStore": {}}}},
                {"manager": "keda", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            ]},
            "spec": {"tieredStore": {"levels": []}},
        }))
        .unwrap();
        runtime(&mut object);
        let managers = object.metadata.managed_fields.unwrap();
        assert_eq!(managers.len(), 1);
        assert_eq!((managers[0].manager.as_deref(), &managers[0].fields_v1), (Some("keda"), &None));
    }
}
