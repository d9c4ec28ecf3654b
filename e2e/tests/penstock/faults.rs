//! Parts that die while a reader reads.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use penstock_e2e::harness::{Case, Loop, Skip, checked_pass};
use penstock_e2e::kubectl::wait_for;
use penstock_e2e::pods;

const FILES: [(&str, usize); 4] = [("a", 9_000_000), ("b", 4_194_304), ("c/d", 3_000_000), ("c/e", 1)];
const LIMIT: Duration = Duration::from_mins(2);

pub(crate) async fn a_killed_worker_pod_disturbs_no_reader(case: &Case<'_>) -> Result<()> {
    let tree = case.store(&FILES)?;
    case.serve("killed", 3, "64Mi").await?;
    let reader = Loop::start(case, "reader", "killed", &tree, None).await?;
    for worker in ["killed-worker-0", "killed-worker-2"] {
        pods::kill(&case.env.client(), &case.namespace, worker).await?;
        reader.more(2).await?;
    }
    case.wait_workers("killed", 3).await?;
    reader.more(2).await?;
    reader.stop().await.map(drop)
}

pub(crate) async fn a_killed_worker_container_keeps_its_memory_tier(case: &Case<'_>) -> Result<()> {
    case.env.cluster.node_access().map_err(|why| Skip(why.into()))?;
    let tree = case.store(&FILES)?;
    case.serve("kept", 2, "64Mi").await?;
    case.run(&case.script("cold", "kept", &checked_pass(&tree))).await?;
    let before = case.env.s3.object_bytes(case.bucket())?;
    ensure!(before >= tree.bytes(), "the server counted {before} bytes of the first pass");
    for worker in ["kept-worker-0", "kept-worker-1"] {
        kill_container(case, worker).await?;
    }
    case.wait_workers("kept", 2).await?;
    case.run(&case.script("warm", "kept", &checked_pass(&tree))).await?;
    let fetched = case.env.s3.object_bytes(case.bucket())? - before;
    println!("    {fetched} bytes of objects fetched after both workers' containers were killed");
    ensure!(fetched == 0, "{fetched} bytes of objects were fetched again");

    let reader = Loop::start(case, "reader", "kept", &tree, None).await?;
    kill_container(case, "kept-worker-0").await?;
    reader.more(2).await?;
    reader.stop().await.map(drop)
}

pub(crate) async fn a_killed_reader_is_let_go_while_another_waits(case: &Case<'_>) -> Result<()> {
    case.store(&FILES)?;
    case.serve("absent", 1, "64Mi").await?;
    case.kubectl(&["scale", "cacheruntime/absent", "--replicas=0"])?;
    case.wait_workers("absent", 0).await?;
    // No worker answers either of them.
    let script = "cat /data/a > /dev/null & one=$!
        cat /data/b > /dev/null & two=$!
        sleep 2
        kill -0 $one
        kill -9 $one
        wait $one || status=$?
        kill -0 $two
        echo killed with status $status
        kill -9 $two
        wait $two || true";
    let printed = case.run(&case.script("readers", "absent", script)).await?;
    ensure!(printed.contains("killed with status 137"), "the pod printed {printed}");
    Ok(())
}

/// Returns once its successor is ready.
async fn kill_container(case: &Case<'_>, worker: &str) -> Result<()> {
    let client = case.env.client();
    let (node, id) = pods::container_id(&client, &case.namespace, worker, "worker").await?;
    case.env.cluster.kill_container(&node, &id)?;
    pods::wait_restarted(&client, &case.namespace, worker, "worker", &id, LIMIT).await
}

pub(crate) async fn a_killed_operator_disturbs_no_reader_and_goes_on(case: &Case<'_>) -> Result<()> {
    let tree = case.store(&FILES)?;
    case.serve("steady", 1, "64Mi").await?;
    let reader = Loop::start(case, "reader", "steady", &tree, None).await?;
    let (system, selector) = (case.env.system_namespace(), "app.kubernetes.io/component=operator");
    pods::kill_all(&case.env.client(), system, selector).await?;
    case.kubectl(&["scale", "cacheruntime/steady", "--replicas=2"])?;
    pods::wait_ready_count(&case.env.client(), system, selector, 1, LIMIT).await?;
    case.wait_workers("steady", 2).await?;
    reader.more(2).await?;
    reader.stop().await.map(drop)
}

pub(crate) async fn an_api_server_down_for_30_s_disturbs_no_reader(case: &Case<'_>) -> Result<()> {
    let cluster = &case.env.cluster;
    cluster.node_access().map_err(|why| Skip(why.into()))?;
    let tree = case.store(&FILES)?;
    case.serve("lonely", 2, "64Mi").await?;
    let reader = Loop::start(case, "reader", "lonely", &tree, None).await?;
    let before = reader.passes().await?;
    let stopped = cluster.stop_api_server()?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let back = Instant::now();
    cluster.start_api_server(stopped).await?;
    let after = wait_for("the reader's log", LIMIT, || async { reader.passes().await.map(Some) }).await?;
    println!("    {} passes while the API server was down", after - before);
    ensure!(after > before + 1, "the reader stood still: pass {before}, then {after}");
    case.kubectl(&["scale", "cacheruntime/lonely", "--replicas=3"])?;
    case.wait_workers("lonely", 3).await?;
    println!("    scaled {:.1} s after it was started again", back.elapsed().as_secs_f64());
    reader.more(1).await?;
    reader.stop().await.map(drop)
}
