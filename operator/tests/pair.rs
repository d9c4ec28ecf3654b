//! A pair of Dataset and CacheRuntime on a real API server.

mod common;

use std::time::Instant;

use common::Bench;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, ResourceExt};
use penstock_api::{CacheRuntime, Dataset};

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_becomes_bound_with_all_its_objects_and_a_second_look_writes_nothing() {
    let mut bench = Bench::start().await;
    bench.namespace("ns").await;
    let begun = Instant::now();
    bench.pair("ns", "a").await;
    bench.bound("ns", "a").await;
    eprintln!("bound after {:?}", begun.elapsed());

    // It is mountable before its workers are set up.
    bench.there::<StatefulSet>("ns", "a-worker").await;
    bench.there::<Service>("ns", "a-worker").await;
    bench.there::<ConfigMap>("ns", "a-members").await;
    bench.there::<ServiceAccount>("ns", "a-worker").await;
    bench.there::<PodDisruptionBudget>("ns", "a-worker").await;
    let worker: Secret = bench.there("ns", "a-worker").await;
    let client: Secret = bench.api("ns").get("a-client").await.unwrap();
    assert_eq!(client.data.clone().unwrap()["client.key"], worker.data.clone().unwrap()["client.key"]);
    let keys: Vec<_> = client.data.unwrap().into_keys().collect();
    assert_eq!(keys, ["client.key", "peer.pub"], "mounts get nothing that makes a worker");

    let dataset: Dataset = bench.api("ns").get("a").await.unwrap();
    let service: Service = bench.api("ns").get("a-cache").await.unwrap();
    let volume = format!("penstock-{}", dataset.uid().unwrap());
    let volume: PersistentVolume = Api::all(bench.client.clone()).get(&volume).await.unwrap();
    let csi = volume.spec.unwrap().csi.unwrap();
    let address = service.spec.unwrap().cluster_ip.unwrap();
    assert_eq!(csi.volume_attributes.unwrap()["endpoint"], format!("{address}:9440"));
    assert_eq!(csi.volume_handle, format!("ns/a/{}", dataset.uid().unwrap()));
    let claim: PersistentVolumeClaim = bench.api("ns").get("a").await.unwrap();
    assert_eq!(claim.spec.unwrap().volume_name, Some(volume.metadata.name.unwrap()));

    // Another operator finds nothing to do, and the keys stay.
    let mut before = None;
    while before != Some(bench.metrics.writes()) {
        before = Some(bench.metrics.writes());
        bench.look_again::<Dataset>("ns", "a").await;
    }
    bench.stop_operator().await;
    bench.start_operator().await;
    bench.look_again::<Dataset>("ns", "a").await;
    assert_eq!(bench.metrics.writes(), 0);
    let again: Secret = bench.api("ns").get("a-worker").await.unwrap();
    assert_eq!(again.data, worker.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pair_leaves_nothing_in_whichever_order_it_goes() {
    let bench = Bench::start().await;
    bench.namespace("ns").await;
    for (name, dataset_first) in [("a", true), ("b", false)] {
        bench.pair("ns", name).await;
        bench.bound("ns", name).await;
        let volume = common::uid(&bench.api::<Dataset>("ns").get(name).await.unwrap());
        if dataset_first {
            bench.delete::<Dataset>("ns", name).await;
            bench.release_claim("ns", name).await;
            bench.gone::<Dataset>("ns", name).await;
            bench.delete::<CacheRuntime>("ns", name).await;
        } else {
            bench.delete::<CacheRuntime>("ns", name).await;
            bench.dataset_says("ns", name, "Ready", "False", "RuntimeNotFound").await;
            bench.gone::<StatefulSet>("ns", &format!("{name}-worker")).await;
            bench.delete::<Dataset>("ns", name).await;
            bench.release_claim("ns", name).await;
            bench.gone::<Dataset>("ns", name).await;
        }
        bench.gone::<PersistentVolumeClaim>("ns", name).await;
        bench.gone::<StatefulSet>("ns", &format!("{name}-worker")).await;
        for secret in ["worker", "client"] {
            bench.gone::<Secret>("ns", &format!("{name}-{secret}")).await;
        }
        for service in ["worker", "cache"] {
            bench.gone::<Service>("ns", &format!("{name}-{service}")).await;
        }
        bench.gone::<ConfigMap>("ns", &format!("{name}-members")).await;
        let volumes: Api<PersistentVolume> = Api::all(bench.client.clone());
        let volume = volumes.get_opt(&format!("penstock-{volume}")).await.unwrap();
        assert!(volume.is_none_or(|v| v.metadata.deletion_timestamp.is_some()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_is_made_anew_serves_the_same_volume_with_the_same_client_key() {
    let bench = Bench::start().await;
    bench.namespace("ns").await;
    bench.pair("ns", "a").await;
    bench.bound("ns", "a").await;
    let key = bench.api::<Secret>("ns").get("a-client").await.unwrap().data;
    let address = bench.api::<Service>("ns").get("a-cache").await.unwrap().spec.unwrap().cluster_ip;
    bench.delete::<CacheRuntime>("ns", "a").await;
    bench.dataset_says("ns", "a", "Bound", "False", "RuntimeNotFound").await;
    bench.apply::<CacheRuntime>("ns", common::runtime("a")).await;
    bench.bound("ns", "a").await;
    assert_eq!(bench.api::<Secret>("ns").get("a-client").await.unwrap().data, key);
    assert_eq!(bench.api::<Service>("ns").get("a-cache").await.unwrap().spec.unwrap().cluster_ip, address);
    bench.there::<StatefulSet>("ns", "a-worker").await;
}
