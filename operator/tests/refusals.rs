//! What the API server and the nodes refuse is told: a reason, words that help, and a Warning.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

mod common;

use common::{Bench, dataset, runtime, wait_for};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    core::v1::{Event, Namespace, Pod, ResourceQuota, Service, ServiceAccount},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use penstock_api::{CacheRuntime, Dataset};
use penstock_testkit::control_plane::ControlPlaneOptions;
use serde_json::json;

/// Waits for a Warning about an object of this kind.
async fn warned(bench: &Bench, namespace: &str, kind: &str, reason: &str) {
    let events = bench.api::<Event>(namespace);
    let params = ListParams::default().fields(&format!("involvedObject.kind={kind},reason={reason},type=Warning"));
    wait_for(&format!("a Warning {reason} about a {kind}"), || async {
        (!events.list(&params).await.unwrap().items.is_empty()).then_some(())
    })
    .await;
}

/// With the StatefulSet controller: pods are made, or refused, as in a cluster.
async fn with_controllers() -> Bench {
    Bench::start_with(ControlPlaneOptions { controller_manager: true, ..Default::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_beyond_a_resource_quota_are_told_until_it_is_raised() {
    let bench = with_controllers().await;
    bench.namespace("ns").await;
    let quota = |pods: &str| json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": pods}}});
    bench.apply::<ResourceQuota>("ns", quota("0")).await;
    bench.pair("ns", "a").await;
    let message = bench.dataset_says("ns", "a", "Ready", "False", "PodsRefused").await;
    for words in ["worker pods cannot be created", "exceeded quota: few", "raise the namespace's ResourceQuota"] {
        assert!(message.contains(words), "{message}");
    }
    warned(&bench, "ns", "Dataset", "PodsRefused").await;
    warned(&bench, "ns", "CacheRuntime", "PodsRefused").await;

    bench.apply::<ResourceQuota>("ns", quota("9")).await;
    // The controller tries again within its own back-off; a change of the pods' number is tried at once.
    let mut more = runtime("a");
    more["spec"]["replicas"] = json!(3);
    bench.apply::<CacheRuntime>("ns", more).await;
    bench.there::<Pod>("ns", "a-worker-2").await;
    bench.dataset_says("ns", "a", "Ready", "False", "WorkersNotReady").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_pod_security_refuses_are_told() {
    let bench = with_controllers().await;
    bench.namespace("ns").await;
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces: Api<Namespace> = Api::all(bench.client.clone());
    namespaces.patch("ns", &PatchParams::default(), &Patch::Merge(labels)).await.unwrap();
    bench.apply::<Dataset>("ns", dataset("a")).await;
    let mut host = runtime("a");
    host["spec"]["worker"] = json!({"volumes": [{"name": "data", "hostPath": {"path": "/data"}}]});
    bench.apply::<CacheRuntime>("ns", host).await;
    let message = bench.dataset_says("ns", "a", "Ready", "False", "PodsRefused").await;
    for words in ["violates PodSecurity", "hostPath", "pod-security.kubernetes.io/enforce"] {
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_object_is_named_with_the_mend_and_a_warning_until_it_is_let_through() {
    let bench = Bench::start().await;
    bench.namespace("ns").await;
    // Nobody answers at this address, and the policy is to refuse then.
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "deny"},
        "webhooks": [{
            "name": "deny.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "timeoutSeconds": 1, "clientConfig": {"url": "https://127.0.0.1:9/"},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["services"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ns"}}
        }]
    });
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(bench.client.clone());
    let webhook = serde_json::from_value(webhook).unwrap();
    webhooks.create(&PostParams::default(), &webhook).await.unwrap();
    wait_for("the webhook in force", || async {
        let service = json!({"metadata": {"generateName": "x-"}, "spec": {"ports": [{"port": 1}]}});
        let service: Service = serde_json::from_value(service).unwrap();
        bench.api::<Service>("ns").create(&PostParams::default(), &service).await.is_err().then_some(())
    })
    .await;

    bench.pair("ns", "a").await;
    let message = bench.dataset_says("ns", "a", "Ready", "False", "ApplyFailed").await;
    for words in ["Service 'a-", "failed calling webhook", "see that the service behind the webhook answers"] {
        assert!(message.contains(words), "{message}");
    }
    warned(&bench, "ns", "Dataset", "ApplyFailed").await;
    webhooks.delete("deny", &DeleteParams::default()).await.unwrap();
    bench.bound("ns", "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_on_a_node_without_the_plugin_is_told_with_the_node() {
    let bench = Bench::start().await;
    bench.namespace("ns").await;
    bench.pair("ns", "a").await;
    bench.bound("ns", "a").await;
    bench.there::<ServiceAccount>("ns", "a-worker").await;
    // In the place of the StatefulSet controller, the scheduler and a kubelet.
    let labels = json!({"app.kubernetes.io/managed-by": "penstock-operator", "penstock.dev/dataset": "a"});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a-worker-0", "labels": labels},
        "spec": {"nodeName": "n7", "containers": [{"name": "worker", "image": "x"}]}
    });
    let pod = bench.apply::<Pod>("ns", pod).await;
    let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
    let container =
        json!({"name": "worker", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": waiting});
    let status = json!({"status": {
        "phase": "Pending", "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [container]
    }});
    bench.api::<Pod>("ns").patch_status("a-worker-0", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let event = json!({
        "metadata": {"name": "a-worker-0.1"}, "type": "Warning", "reason": "FailedMount",
        "involvedObject": {"kind": "Pod", "namespace": "ns", "name": "a-worker-0", "uid": pod.metadata.uid},
        "message": "MountVolume.SetUp failed for volume \"socket\" : kubernetes.io/csi: mounter.SetUpAt failed to get CSI \
                    client: driver name csi.penstock.dev not found in the list of registered CSI drivers"
    });
    let event: Event = serde_json::from_value(event).unwrap();
    bench.api::<Event>("ns").create(&PostParams::default(), &event).await.unwrap();
    let message = bench.dataset_says("ns", "a", "Ready", "False", "NodePluginMissing").await;
    assert!(message.contains("node 'n7' of worker a-worker-0 runs no Penstock node plugin"), "{message}");
    warned(&bench, "ns", "CacheRuntime", "NodePluginMissing").await;
}
