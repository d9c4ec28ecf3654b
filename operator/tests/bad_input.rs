//! What users get wrong: each with its message, and recovery once it is mended.

mod common;

use common::{Bench, dataset, runtime};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::ResourceExt;
use penstock_api::{CacheRuntime, Dataset};
use serde_json::{Value, json};

fn with_secret(name: &str) -> Value {
    let mut dataset = dataset(name);
    dataset["spec"]["mounts"][0]["encryptOptions"] =
        json!([{"name": "secretAccessKey", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "secret"}}}]);
    dataset
}

fn secret(usable_by: &str, key: &str) -> Value {
    let labels = json!({"penstock.dev/usable-by-datasets": usable_by});
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "labels": labels}, "stringData": {key: "hush"}
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_one_of_others_and_a_missing_key_are_named_and_mended() {
    let bench = Bench::start().await;
    bench.namespace("ns").await;
    bench.apply::<Dataset>("ns", with_secret("a")).await;
    bench.apply::<CacheRuntime>("ns", runtime("a")).await;
    let message = bench.dataset_says("ns", "a", "Ready", "False", "SecretNotFound").await;
    assert!(message.contains("'s3'") && message.contains("secretAccessKey"), "{message}");

    bench.apply::<Secret>("ns", secret("b", "other")).await;
    let message = bench.dataset_says("ns", "a", "Ready", "False", "SecretNotAllowed").await;
    assert!(message.contains("kubectl label secret s3 penstock.dev/usable-by-datasets=a"), "{message}");

    bench.delete::<Secret>("ns", "s3").await;
    bench.apply::<Secret>("ns", secret("a", "other")).await;
    let message = bench.dataset_says("ns", "a", "Ready", "False", "SecretKeyNotFound").await;
    assert!(message.contains("'secret'") && !message.contains("other"), "{message}");

    bench.delete::<Secret>("ns", "s3").await;
    bench.apply::<Secret>("ns", secret("a", "secret")).await;
    // Within the time that a Secret is remembered.
    let worker: Secret = bench.there("ns", "a-worker").await;
    assert_eq!(worker.data.unwrap()["ufs-0-secretAccessKey"].0, b"hush");
    bench.bound("ns", "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_not_ours_is_left_alone_and_the_dataset_recovers_when_it_goes() {
    let bench = Bench::start().await;
    bench.namespace("ns").await;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "a"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    });
    bench.apply::<PersistentVolumeClaim>("ns", claim).await;
    bench.pair("ns", "a").await;
    let message = bench.dataset_says("ns", "a", "Bound", "False", "NameTaken").await;
    assert!(message.contains("PersistentVolumeClaim 'a'"), "{message}");
    let theirs: PersistentVolumeClaim = bench.api("ns").get("a").await.unwrap();
    assert!(theirs.labels().is_empty() && theirs.spec.unwrap().volume_name.is_none());

    bench.delete::<PersistentVolumeClaim>("ns", "a").await;
    bench.release_claim("ns", "a").await;
    bench.bound("ns", "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_ours_is_never_written_and_the_workers_come_when_it_goes() {
    let bench = Bench::start().await;
    bench.namespace("ns").await;
    let theirs =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a-worker"}, "stringData": {"x": "y"}});
    let before: Secret = bench.apply("ns", theirs).await;
    bench.pair("ns", "a").await;
    let message = bench.dataset_says("ns", "a", "Ready", "False", "NameTaken").await;
    assert!(message.contains("Secret 'a-worker'"), "{message}");
    // Mounts would know no worker without the key in there.
    bench.dataset_says("ns", "a", "Bound", "False", "NameTaken").await;
    let after: Secret = bench.api("ns").get("a-worker").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());

    bench.delete::<Secret>("ns", "a-worker").await;
    common::wait_for("the workers' own Secret", || async {
        let secret: Option<Secret> = bench.api("ns").get_opt("a-worker").await.unwrap();
        secret.filter(|secret| !secret.labels().is_empty())
    })
    .await;
    bench.bound("ns", "a").await;
    bench.dataset_says("ns", "a", "Ready", "False", "WorkersNotReady").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_runtimes_for_one_dataset_the_named_one_serves_and_the_other_is_told() {
    let bench = Bench::start().await;
    bench.namespace("ns").await;
    let mut named = dataset("a");
    named["spec"]["runtime"] = json!({"name": "b"});
    bench.apply::<Dataset>("ns", named).await;
    bench.apply::<CacheRuntime>("ns", runtime("a")).await;
    bench.apply::<CacheRuntime>("ns", runtime("b")).await;
    bench.bound("ns", "a").await;
    let message = common::wait_for("the message", || async {
        let runtime = bench.api::<CacheRuntime>("ns").get("a").await.unwrap();
        runtime.status?.conditions.into_iter().find(|c| c.reason == "DatasetTaken").map(|c| c.message)
    })
    .await;
    assert!(message.contains("CacheRuntime 'b'"), "{message}");

    // And two Datasets for one runtime: the older one has it.
    bench.apply::<Dataset>("ns", dataset("b")).await;
    let message = bench.dataset_says("ns", "b", "Ready", "False", "RuntimeTaken").await;
    assert!(message.contains("Dataset 'a'"), "{message}");
    bench.delete::<Dataset>("ns", "a").await;
    bench.release_claim("ns", "a").await;
    bench.bound("ns", "b").await;
}
