//! Before the operator is removed, on a real API server with the controllers of Kubernetes.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

mod common;

use common::{Bench, wait_for};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use penstock_api::{CacheRuntime, Dataset};
use penstock_operator::uninstall::{self, Error, UninstallOptions};
use penstock_testkit::control_plane::ControlPlaneOptions;
use serde_json::{Value, json};

fn options() -> UninstallOptions {
    UninstallOptions {
        namespace: "system".into(),
        deployment: "penstock-operator".into(),
        watch_namespace: None,
        timeout_seconds: 60,
    }
}

/// What Helm makes; the operator itself runs in this process.
fn deployment() -> Value {
    let labels = json!({"app.kubernetes.io/component": "operator"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "penstock-operator"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "operator", "image": "x"}]}}
        }
    })
}

fn reader(claim: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"},
        "spec": {
            "containers": [{"name": "main", "image": "x"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
        }
    })
}

async fn operators(bench: &Bench) -> Vec<Pod> {
    let params = ListParams::default().labels("app.kubernetes.io/component=operator");
    bench.api::<Pod>("system").list(&params).await.unwrap().items
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstalling_is_refused_while_a_pod_reads_and_else_leaves_definitions_that_anyone_can_delete() {
    let options_of_plane = ControlPlaneOptions { controller_manager: true, ..ControlPlaneOptions::default() };
    let mut bench = Bench::start_with(options_of_plane).await;
    for namespace in ["system", "ns"] {
        bench.namespace(namespace).await;
        bench.there::<ServiceAccount>(namespace, "default").await;
    }
    bench.apply::<Deployment>("system", deployment()).await;
    bench.pair("ns", "a").await;
    bench.bound("ns", "a").await;
    bench.there::<StatefulSet>("ns", "a-worker").await;
    bench.there::<Pod>("ns", "a-worker-0").await;
    bench.apply::<Pod>("ns", reader("a")).await;

    let refused = uninstall::run(bench.client.clone(), &options()).await.unwrap_err();
    assert!(matches!(refused, Error::InUse(_)));
    assert!(refused.to_string().contains("pod ns/reader (Dataset a)"), "{refused}");
    wait_for("both operators", || async { (operators(&bench).await.len() == 2).then_some(()) }).await;
    let claim = bench.api::<PersistentVolumeClaim>("ns").get("a").await.unwrap();
    assert!(claim.metadata.deletion_timestamp.is_none());

    bench.api::<Pod>("ns").delete("reader", &DeleteParams::default().grace_period(0)).await.unwrap();
    bench.stop_operator().await;
    uninstall::run(bench.client.clone(), &options()).await.unwrap();
    assert_eq!(operators(&bench).await.len(), 0);
    gone(&bench).await;
    let dataset = bench.api::<Dataset>("ns").get("a").await.unwrap();
    assert!(dataset.finalizers().is_empty() && dataset.status.is_none(), "{dataset:?}");
    assert!(bench.api::<CacheRuntime>("ns").get_opt("a").await.unwrap().is_some());

    // Once more changes nothing, a later installation serves it again, and nobody is needed to delete it.
    uninstall::run(bench.client.clone(), &options()).await.unwrap();
    bench.start_operator().await;
    bench.bound("ns", "a").await;
    bench.stop_operator().await;
    uninstall::run(bench.client.clone(), &options()).await.unwrap();
    bench.delete::<Dataset>("ns", "a").await;
    bench.gone::<Dataset>("ns", "a").await;
}

/// Nothing of the operator's is left, whoever deletes it in the end.
async fn gone(bench: &Bench) {
    bench.gone::<StatefulSet>("ns", "a-worker").await;
    bench.gone::<PodDisruptionBudget>("ns", "a-worker").await;
    bench.gone::<ServiceAccount>("ns", "a-worker").await;
    bench.gone::<ConfigMap>("ns", "a-members").await;
    bench.gone::<PersistentVolumeClaim>("ns", "a").await;
    for name in ["a-worker", "a-cache"] {
        bench.gone::<Service>("ns", name).await;
    }
    for name in ["a-worker", "a-client"] {
        bench.gone::<Secret>("ns", name).await;
    }
    let pods = bench.api::<Pod>("ns").list(&ListParams::default()).await.unwrap();
    assert!(pods.items.is_empty(), "{pods:?}");
    let volumes = Api::<PersistentVolume>::all(bench.client.clone()).list(&ListParams::default()).await.unwrap();
    assert!(volumes.items.is_empty(), "{volumes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_go_is_named_and_the_operator_started_again() {
    let mut bench = Bench::start().await;
    for namespace in ["system", "ns"] {
        bench.namespace(namespace).await;
    }
    bench.apply::<Deployment>("system", deployment()).await;
    bench.pair("ns", "a").await;
    bench.bound("ns", "a").await;
    bench.stop_operator().await;

    // Nobody lets the claim go: there is no controller manager.
    let soon = UninstallOptions { timeout_seconds: 2, ..options() };
    let stuck = uninstall::run(bench.client.clone(), &soon).await.unwrap_err().to_string();
    assert!(stuck.contains("after 2 s there is still claim ns/a"), "{stuck}");
    let deployment = bench.api::<Deployment>("system").get("penstock-operator").await.unwrap();
    assert_eq!(deployment.spec.unwrap().replicas, Some(2));
    assert_eq!(bench.api::<Dataset>("ns").get("a").await.unwrap().finalizers().len(), 1);
}
