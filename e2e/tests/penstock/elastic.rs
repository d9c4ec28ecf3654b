//! The cache grows and shrinks, sleeps and wakes, and is warmed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::core::DynamicObject;
use penstock_e2e::harness::{Case, Loop, Skip, Witnesses, checked_pass};
use penstock_e2e::image::PENSTOCK_NEXT;
use penstock_e2e::kubectl::wait_condition;
use penstock_e2e::noise::number;
use penstock_e2e::pods;
use serde_json::{Value, json};

use crate::upgrades::leader;

const DATASET: &str = "elastic";
/// How many kills there shall be, and what their moments and victims come from.
const KILLS: &str = "PENSTOCK_E2E_KILLS";
const SEED: &str = "PENSTOCK_E2E_SEED";
const LIMIT: Duration = Duration::from_mins(2);
/// Zero to first byte, at most.
const AWAKE: Duration = Duration::from_secs(10);

fn field(object: &DynamicObject, path: &str) -> Option<u64> {
    object.data.pointer(path).and_then(Value::as_u64)
}

pub(crate) async fn from_3_to_6_to_3_to_1_and_back_readers_notice_nothing(case: &Case<'_>) -> Result<()> {
    let files = [("a", 13_000_000), ("b", 9_000_000), ("deep/c", 4_194_304), ("deep/d", 777_777), ("e", 1)];
    let tree = case.store(&files)?;
    case.serve(DATASET, 3, "128Mi").await?;
    let witnesses = Witnesses::start(case, DATASET, &tree, case.env.cluster.nodes()).await?;
    // At the same time they take another image, one after the other; a cluster of one's own has none.
    let has_image = case.env.cluster.node_access().is_ok();
    if has_image {
        let change = json!({"spec": {"worker": {"image": PENSTOCK_NEXT}}}).to_string();
        case.kubectl(&["patch", "cacheruntime", DATASET, "--type=merge", "--patch", &change])?;
    }
    for (before, after) in [(3, 6), (6, 3), (3, 1), (1, 3)] {
        let scaled = async {
            case.kubectl(&["scale", "cacheruntime/elastic", &format!("--replicas={after}")])?;
            case.wait_workers(DATASET, after).await
        };
        witnesses.during(&format!("from {before} workers to {after}"), scaled).await?;
    }
    if has_image {
        let runtimes = case.api("CacheRuntime");
        let updated = wait_condition(&runtimes, DATASET, "Updated", "True", LIMIT);
        witnesses.during("the rest of the update", updated).await?;
    }
    witnesses.stop().await
}

/// One kind after the other, each at a random moment of a slow hand-over.
pub(crate) async fn kills_in_mid_hand_over_are_overcome(case: &Case<'_>) -> Result<()> {
    case.env.cluster.node_access().map_err(|why| Skip(why.into()))?;
    let given = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (kills, seed) = (given(KILLS).unwrap_or(3), given(SEED).unwrap_or(13));
    let files = [("a", 13_000_000), ("b", 9_000_000), ("deep/c", 4_194_304), ("deep/d", 777_777)];
    let tree = case.store(&files)?;
    case.serve(DATASET, 2, "128Mi").await?;
    case.kubectl(&[
        "patch",
        "cacheruntime",
        DATASET,
        "--type=merge",
        "--patch",
        r#"{"spec": {"drainBandwidth": "4Mi"}}"#,
    ])?;
    let reader = Loop::start(case, "reader", DATASET, &tree, None).await?;
    for kill in 0..kills {
        let random = number(seed, kill);
        case.kubectl(&["scale", "cacheruntime/elastic", "--replicas=4"])?;
        case.wait_workers(DATASET, 4).await?;
        reader.more(1).await?;
        case.kubectl(&["scale", "cacheruntime/elastic", "--replicas=2"])?;
        let moment = Duration::from_millis(random % 4000);
        tokio::time::sleep(moment).await;
        let victim = Victim::ALL[kill as usize % Victim::ALL.len()];
        victim.kill(case, (random >> 32) % 2).await?;
        case.wait_workers(DATASET, 2).await?;
        reader.more(1).await?;
        println!("    kill {}: {victim:?} after {} ms", kill + 1, moment.as_millis());
    }
    reader.stop().await.map(drop)
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Leaving,
    Receiving,
    Operator,
}

impl Victim {
    const ALL: [Self; 3] = [Self::Leaving, Self::Receiving, Self::Operator];

    /// SIGKILL; a leaving one may have ended by itself before.
    async fn kill(self, case: &Case<'_>, which: u64) -> Result<()> {
        let (client, system) = (case.env.client(), case.env.system_namespace());
        let (namespace, pod, container) = match self {
            Self::Leaving => (case.namespace.as_str(), format!("{DATASET}-worker-{}", 2 + which), "worker"),
            Self::Receiving => (case.namespace.as_str(), format!("{DATASET}-worker-{which}"), "worker"),
            Self::Operator => (system, leader(case).await?, "operator"),
        };
        let killed = pods::container_id(&client, namespace, &pod, container)
            .await
            .and_then(|(node, id)| case.env.cluster.kill_container(&node, &id));
        if matches!(self, Self::Leaving) { Ok(()) } else { killed }
    }
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
    let complete =
        |object: &DynamicObject| object.data.pointer("/status/phase").and_then(Value::as_str) == Some("Complete");
    case.apply(&load("warm", "Load")).await?;
    let warm = case.wait_object("DataLoad", "warm", "complete", complete).await?;
    let told = [field(&warm, "/status/files"), field(&warm, "/status/bytes"), field(&warm, "/status/cachedBytes")];
    ensure!(told == [Some(4), Some(tree.bytes()), Some(tree.bytes())], "it tells {told:?}");
    let loaded = case.env.s3.object_bytes(case.bucket())?;
    println!("    {loaded} bytes fetched for {} bytes of data", tree.bytes());
    ensure!(loaded == tree.bytes(), "each byte once");
    case.run(&case.script("reader", DATASET, &checked_pass(&tree))).await?;
    ensure!(case.env.s3.object_bytes(case.bucket())? == loaded, "the reader had bytes fetched again");

    case.apply(&load("out", "Evict")).await?;
    case.wait_object("DataLoad", "out", "complete", complete).await?;
    let empty = |object: &DynamicObject| field(object, "/status/cachedBytes") == Some(0);
    case.wait_object("Dataset", DATASET, "nothing cached", empty).await?;
    Ok(())
}
