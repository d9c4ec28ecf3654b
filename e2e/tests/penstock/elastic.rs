//! The cache grows and shrinks, sleeps and wakes, and is warmed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_e2e::harness::{Case, Witnesses, checked_pass};
use serde_json::Value;

const DATASET: &str = "elastic";
/// Zero to first byte, at most.
const AWAKE: Duration = Duration::from_secs(10);

fn number(object: &kube::core::DynamicObject, field: &str) -> Option<u64> {
    object.data.pointer(field).and_then(Value::as_u64)
}

pub(crate) async fn from_3_to_6_to_3_to_1_and_back_readers_notice_nothing(case: &Case<'_>) -> Result<()> {
    let files = [("a", 13_000_000), ("b", 9_000_000), ("deep/c", 4_194_304), ("deep/d", 777_777), ("e", 1)];
    let tree = case.store(&files)?;
    case.serve(DATASET, 3, "128Mi").await?;
    let witnesses = Witnesses::start(case, DATASET, &tree, case.env.cluster.nodes()).await?;
    for (before, after) in [(3, 6), (6, 3), (3, 1), (1, 3)] {
        let scaled = async {
            case.kubectl(&["scale", "cacheruntime/elastic", &format!("--replicas={after}")])?;
            case.wait_workers(DATASET, after).await
        };
        witnesses.during(&format!("from {before} workers to {after}"), scaled).await?;
    }
    witnesses.stop().await
}

pub(crate) async fn a_dataset_that_nobody_uses_sleeps_and_a_pod_wakes_it(case: &Case<'_>) -> Result<()> {
    let tree = case.store(&[("a", 3_000_000), ("deep/b", 700_000)])?;
    case.serve(DATASET, 2, "128Mi").await?;
    let patch = r#"{"spec": {"autoscaling": {"maxReplicas": 4, "idle": {"afterSeconds": 10}}}}"#;
    case.kubectl(&["patch", "cacheruntime/elastic", "--type=merge", "-p", patch])?;
    case.wait_workers(DATASET, 0).await.context("nobody uses it")?;
    let why = case.kubectl(&["get", "cacheruntime", DATASET, "-o", "jsonpath={.status.autoscaling.reason}"])?;
    ensure!(why == "Idle", "the reason is {why}");

    let begun = Instant::now();
    case.run(&case.script("reader", DATASET, &checked_pass(&tree))).await?;
    let took = begun.elapsed();
    println!("    from 0 workers to the last byte of a pod in {:.1} s", took.as_secs_f64());
    if took > AWAKE {
        println!("    that is longer than {} s", AWAKE.as_secs());
    }
    let told = case.kubectl(&["get", "events", "--field-selector", "reason=WakingWorkers", "-o", "name"])?;
    ensure!(!told.is_empty(), "the pod was not told what it waited for");
    Ok(())
}

pub(crate) async fn a_load_warms_what_readers_then_need_not_fetch(case: &Case<'_>) -> Result<()> {
    let tree = case.store(&[("a", 13_000_000), ("deep/b", 4_194_304), ("deep/c", 700_001), ("empty", 0)])?;
    case.serve(DATASET, 3, "128Mi").await?;
    let load = |name: &str, action: &str| {
        format!(
            "apiVersion: penstock.dev/v1alpha1\nkind: DataLoad\nmetadata: {{name: {name}}}\n\
             spec: {{dataset: {DATASET}, action: {action}}}\n"
        )
    };
    let complete = |object: &kube::core::DynamicObject| {
        object.data.pointer("/status/phase").and_then(Value::as_str) == Some("Complete")
    };
    case.apply(&load("warm", "Load")).await?;
    let warm = case.wait_object("DataLoad", "warm", "complete", complete).await?;
    let told = [number(&warm, "/status/files"), number(&warm, "/status/bytes"), number(&warm, "/status/cachedBytes")];
    ensure!(told == [Some(4), Some(tree.bytes()), Some(tree.bytes())], "it tells {told:?}");
    let loaded = case.env.s3.object_bytes(case.bucket())?;
    println!("    {loaded} bytes fetched for {} bytes of data", tree.bytes());
    ensure!(loaded == tree.bytes(), "each byte once");
    case.run(&case.script("reader", DATASET, &checked_pass(&tree))).await?;
    ensure!(case.env.s3.object_bytes(case.bucket())? == loaded, "the reader had bytes fetched again");

    case.apply(&load("out", "Evict")).await?;
    case.wait_object("DataLoad", "out", "complete", complete).await?;
    let empty = |object: &kube::core::DynamicObject| number(object, "/status/cachedBytes") == Some(0);
    case.wait_object("Dataset", DATASET, "nothing cached", empty).await?;
    Ok(())
}
