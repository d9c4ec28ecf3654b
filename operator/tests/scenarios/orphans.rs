use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::*;
use crate::common::wait_for;

fn config_map(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"k": "v"}})
}

/// The objects of a pair, the last ones that are set up.
async fn complete(bench: &Bench, name: &str) {
    bench.pair("ns", name).await;
    bench.bound("ns", name).await;
    let worker = format!("{name}-worker");
    bench.there::<StatefulSet>("ns", &worker).await;
    bench.there::<ServiceAccount>("ns", &worker).await;
    bench.there::<PodDisruptionBudget>("ns", &worker).await;
    bench.there::<Service>("ns", &worker).await;
    bench.there::<Secret>("ns", &worker).await;
}

/// As one does who loses patience: the Dataset goes, and nobody tidies up.
async fn force(bench: &Bench, name: &str) {
    let api = bench.api::<Dataset>("ns");
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch(name, &PatchParams::default(), &patch).await.unwrap();
    bench.delete::<Dataset>("ns", name).await;
    bench.gone::<Dataset>("ns", name).await;
}

/// Gone, or waiting for the controllers that this control plane does not have.
async fn going<K>(api: Api<K>, name: &str)
where
    K: Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    wait_for(&format!("{} {name} going", K::kind(&())), || async {
        let found = api.get_opt(name).await.unwrap();
        found.is_none_or(|object| object.meta().deletion_timestamp.is_some()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dataset_left_that_was_removed_by_force_is_swept_and_nothing_else() {
    let mut bench = Bench::start().await;
    bench.namespace("ns").await;
    complete(&bench, "a").await;
    complete(&bench, "b").await;
    let volume = format!("penstock-{}", common::uid(&bench.api::<Dataset>("ns").get("a").await.unwrap()));
    let kept: StatefulSet = bench.api("ns").get("b-worker").await.unwrap();
    bench.stop_operator().await;
    force(&bench, "a").await;
    let (ours, theirs) = (json!("penstock-operator"), json!("helm"));
    for (name, labels) in [
        // Of a Dataset that is there, but under a name that no object of this version has.
        ("b-old", json!({"app.kubernetes.io/managed-by": ours, "penstock.dev/dataset": "b"})),
        ("notes", json!({})),
        ("a-notes", json!({"app.kubernetes.io/managed-by": theirs, "penstock.dev/dataset": "a"})),
        ("unlabelled", json!({"app.kubernetes.io/managed-by": ours})),
    ] {
        bench.apply::<ConfigMap>("ns", config_map(name, &labels)).await;
    }
    bench.start_operator().await;

    for service in ["a-worker", "a-cache"] {
        bench.gone::<Service>("ns", service).await;
    }
    bench.gone::<StatefulSet>("ns", "a-worker").await;
    bench.gone::<ConfigMap>("ns", "a-members").await;
    bench.gone::<ConfigMap>("ns", "b-old").await;
    going::<PersistentVolumeClaim>(bench.api("ns"), "a").await;
    going::<PersistentVolume>(Api::all(bench.client.clone()), &volume).await;
    // Credentials above all.
    bench.gone::<Secret>("ns", "a-worker").await;
    bench.gone::<Secret>("ns", "a-client").await;
    bench.gone::<ServiceAccount>("ns", "a-worker").await;
    bench.gone::<PodDisruptionBudget>("ns", "a-worker").await;

    for name in ["notes", "a-notes", "unlabelled", "b-members"] {
        bench.api::<ConfigMap>("ns").get(name).await.unwrap();
    }
    assert_eq!(bench.api::<StatefulSet>("ns").get("b-worker").await.unwrap().uid(), kept.uid());
    bench.api::<Secret>("ns").get("b-worker").await.unwrap();
    bench.bound("ns", "b").await;
}

/// A volume of a Dataset that never was, as the operator of `namespace` would have made it.
fn lost_volume(name: &str, namespace: &str) -> PersistentVolume {
    let labels = json!({
        "app.kubernetes.io/managed-by": "penstock-operator", "penstock.dev/dataset": "lost",
        "penstock.dev/namespace": namespace
    });
    let spec = json!({
        "accessModes": ["ReadOnlyMany"], "capacity": {"storage": "1Pi"}, "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": "csi.penstock.dev", "volumeHandle": name}
    });
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec})).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_one_namespace_leaves_the_volumes_of_others_alone() {
    let mut bench = Bench::start().await;
    let volumes: Api<PersistentVolume> = Api::all(bench.client.clone());
    bench.namespace("ns").await;
    bench.namespace("other").await;
    complete(&bench, "b").await;
    let volume = format!("penstock-{}", common::uid(&bench.api::<Dataset>("ns").get("b").await.unwrap()));
    bench.stop_operator().await;
    for (name, namespace) in [("lost-here", "other"), ("lost-elsewhere", "ns")] {
        volumes.create(&PostParams::default(), &lost_volume(name, namespace)).await.unwrap();
    }

    bench.start_operator_of(Some("other")).await;
    bench.pair("other", "a").await;
    bench.bound("other", "a").await;
    going::<PersistentVolume>(volumes.clone(), "lost-here").await;
    // The sweep goes through the volumes in no order.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for name in [volume.as_str(), "lost-elsewhere"] {
        assert_eq!(volumes.get(name).await.unwrap().metadata.deletion_timestamp, None, "{name}");
    }
}
