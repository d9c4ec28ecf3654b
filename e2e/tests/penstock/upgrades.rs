//! Parts of Penstock that are replaced, moved or killed while readers on several nodes read: none of them sees an error
//! or a wrong byte, and the UFS sends nothing again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use penstock_e2e::harness::{Case, Release, Skip, Witnesses, blocking};
use penstock_e2e::image::PENSTOCK_NEXT;
use penstock_e2e::kubectl::{wait_condition, wait_for};
use penstock_e2e::pods;
use serde_json::json;

use crate::changes::nothing_is_left;
use crate::says::event;

const LIMIT: Duration = Duration::from_mins(2);
const DATASET: &str = "steady";
const QUOTA: &str = "128Mi";
const OPERATOR: &str = "app.kubernetes.io/component=operator";
const PLUGIN: &str = "app.kubernetes.io/component=mount";
const WORKER: &str = "app.kubernetes.io/component=worker";
const KEEPER: &str = "app.kubernetes.io/component=keeper";

pub(crate) async fn an_operator_that_dies_is_followed_by_its_standby(case: &Case<'_>) -> Result<()> {
    let (client, system) = (case.env.client(), case.env.system_namespace());
    let witnesses = witnessed(case, 2, case.env.cluster.nodes()).await?;
    pods::wait_ready_count(&client, system, OPERATOR, 2, LIMIT).await?;
    let leader = leader(case).await?;
    witnesses
        .during("the leading operator is killed", async {
            pods::kill(&client, system, &leader).await?;
            case.kubectl(&["scale", "cacheruntime", DATASET, "--replicas=3"])?;
            case.wait_workers(DATASET, 3).await
        })
        .await?;
    ensure!(leader != self::leader(case).await?, "{leader} still leads");
    witnesses.stop().await
}

pub(crate) async fn a_new_worker_image_costs_readers_a_pause(case: &Case<'_>) -> Result<()> {
    // On a cluster of one's own there is no second image.
    case.env.cluster.node_access().map_err(|why| Skip(why.into()))?;
    let witnesses = witnessed(case, 3, case.env.cluster.nodes()).await?;
    let change = json!({"spec": {"worker": {"image": PENSTOCK_NEXT}}}).to_string();
    let changed = on_next_image(case, async {
        case.kubectl(&["patch", "cacheruntime", DATASET, "--type=merge", "--patch", &change]).map(drop)
    });
    witnesses.during("the workers' image is changed", changed).await?;
    witnesses.stop().await
}

pub(crate) async fn a_chart_of_the_first_release_is_upgraded_under_readers(case: &Case<'_>) -> Result<()> {
    case.env.cluster.node_access().map_err(|why| Skip(why.into()))?;
    case.env.install(Release::First).await?;
    let result = upgraded(case).await;
    case.env.install(Release::Present).await?;
    result
}

async fn upgraded(case: &Case<'_>) -> Result<()> {
    let witnesses = witnessed(case, 3, case.env.cluster.nodes()).await?;
    let upgraded = on_next_image(case, Box::pin(case.env.install(Release::Next)));
    witnesses.during("the chart and all images are upgraded", upgraded).await?;
    witnesses.stop().await
}

pub(crate) async fn a_plugin_killed_ten_times_costs_readers_a_pause(case: &Case<'_>) -> Result<()> {
    case.env.cluster.node_access().map_err(|why| Skip(why.into()))?;
    let nodes = &case.env.cluster.nodes()[..2];
    let witnesses = witnessed(case, 2, nodes).await?;
    for time in 1..=10 {
        let killed = killed(case, PLUGIN, "mount", &nodes[0]);
        witnesses.during(&format!("the plugin's container is killed, time {time}"), killed).await?;
    }
    witnesses.stop().await
}

pub(crate) async fn a_deleted_plugin_pod_costs_readers_a_pause(case: &Case<'_>) -> Result<()> {
    let nodes = &case.env.cluster.nodes()[..2];
    let witnesses = witnessed(case, 2, nodes).await?;
    witnesses.during("the plugin's pod is deleted", replaced(case, PLUGIN, &nodes[0])).await?;
    witnesses.stop().await
}

pub(crate) async fn a_killed_keeper_is_given_the_mounts_again(case: &Case<'_>) -> Result<()> {
    case.env.cluster.node_access().map_err(|why| Skip(why.into()))?;
    let nodes = &case.env.cluster.nodes()[..2];
    let witnesses = witnessed(case, 2, nodes).await?;
    witnesses.during("the keeper's container is killed", killed(case, KEEPER, "keeper", &nodes[0])).await?;
    // What it was given again carries the next restart of the plugin.
    witnesses.during("the plugin's container after it", killed(case, PLUGIN, "mount", &nodes[0])).await?;
    witnesses.during("the keeper's pod is deleted", replaced(case, KEEPER, &nodes[0])).await?;
    witnesses.during("the plugin's pod after it", replaced(case, PLUGIN, &nodes[0])).await?;
    witnesses.stop().await
}

pub(crate) async fn pods_are_told_when_keeper_and_plugin_are_killed_at_once(case: &Case<'_>) -> Result<()> {
    case.env.cluster.node_access().map_err(|why| Skip(why.into()))?;
    let (client, system, node) = (case.env.client(), case.env.system_namespace(), &case.env.cluster.nodes()[0]);
    case.store(&[("a", 1_000_000)])?;
    case.serve(DATASET, 1, QUOTA).await?;
    pods::start(&client, &case.script("reader", DATASET, "cat /data/a > /dev/null; sleep 600").on(node)).await?;
    pods::wait_ready(&client, &case.namespace, "reader", LIMIT).await?;
    let mut killed = Vec::new();
    for (selector, container) in [(KEEPER, "keeper"), (PLUGIN, "mount")] {
        let pod = pod_on(case, system, selector, node).await?;
        let (node, id) = pods::container_id(&client, system, &pod, container).await?;
        killed.push((pod, container, node, id));
    }
    for (_, _, node, id) in &killed {
        case.env.cluster.kill_container(node, id)?;
    }
    for (pod, container, _, id) in &killed {
        pods::wait_restarted(&client, system, pod, container, id, LIMIT).await?;
    }
    event(case, "Pod", "reader", "Warning", "MountLost", &[DATASET, "ended at the same time", "started again"]).await
}

pub(crate) async fn a_drained_node_hands_its_workers_data_over(case: &Case<'_>) -> Result<()> {
    let (drained, rest) = case.env.cluster.nodes().split_last().context("no node")?;
    let witnesses = witnessed(case, 3, rest).await?;
    let drain = ["drain", drained, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"];
    let result = witnesses
        .during("a node is drained", async {
            case.kubectl(&drain)?;
            let left = pods_on(case, &case.namespace, WORKER, drained).await?;
            ensure!(left.is_empty(), "left on {drained}: {left:?}");
            case.wait_workers(DATASET, 3).await
        })
        .await;
    case.kubectl(&["uncordon", drained])?;
    result?;
    witnesses.stop().await
}

pub(crate) async fn an_uninstall_waits_for_readers_and_then_leaves_nothing(case: &Case<'_>) -> Result<()> {
    case.env.cluster.node_access().map_err(|why| Skip(why.into()))?;
    let witnesses = witnessed(case, 2, case.env.cluster.nodes()).await?;
    witnesses
        .during("an uninstall is refused", async {
            let refused = blocking(|| case.env.uninstall());
            ensure!(refused.is_err(), "Penstock was uninstalled under its readers");
            Ok(())
        })
        .await?;
    witnesses.stop().await?;
    let result = uninstalled(case).await;
    case.env.install(Release::Present).await?;
    result?;
    // What was left serves again.
    case.wait_dataset(DATASET, "Ready", "True").await?;
    case.wait_workers(DATASET, 2).await
}

async fn uninstalled(case: &Case<'_>) -> Result<()> {
    blocking(|| case.env.uninstall())?;
    case.wait_no_volumes().await?;
    nothing_is_left(case).await?;
    let dataset = case.api("Dataset").get(DATASET).await?;
    ensure!(dataset.finalizers().is_empty(), "finalizers are left: {:?}", dataset.finalizers());
    Ok(())
}

/// A Dataset of files of all kinds, warm in `replicas` workers, and a reader on each node.
async fn witnessed<'a>(case: &'a Case<'a>, replicas: u32, nodes: &[String]) -> Result<Witnesses<'a>> {
    let small: Vec<String> = (0..8).map(|index| format!("deep/er/small-{index}")).collect();
    let mut files = vec![("a", 13_000_000), ("b", 9_000_000), ("deep/c", 4_194_304), ("deep/d", 777_777), ("e", 1)];
    files.extend(small.iter().map(|path| (path.as_str(), 60_001)));
    let tree = case.store(&files)?;
    case.serve(DATASET, replicas, QUOTA).await?;
    Witnesses::start(case, DATASET, &tree, nodes).await
}

/// Waits until all workers run the next image because of `work`.
///
/// # Errors
/// Also when one got another pod.
async fn on_next_image(case: &Case<'_>, work: impl Future<Output = Result<()>>) -> Result<()> {
    let pods = |workers: Vec<(String, String)>| workers.into_iter().map(|(pod, _)| pod).collect::<Vec<_>>();
    let before = pods(workers(case).await?);
    work.await?;
    wait_for("all workers to run the new image", LIMIT, || async {
        Ok(workers(case).await?.iter().all(|(_, image)| image == PENSTOCK_NEXT).then_some(()))
    })
    .await?;
    wait_condition(&case.api("CacheRuntime"), DATASET, "Updated", "True", LIMIT).await?;
    case.wait_workers(DATASET, 3).await?;
    ensure!(before == pods(workers(case).await?), "pods were replaced");
    Ok(())
}

/// UID and the image that runs, of each worker's pod, in order.
async fn workers(case: &Case<'_>) -> Result<Vec<(String, String)>> {
    let pods: Api<Pod> = Api::namespaced(case.env.client(), &case.namespace);
    let running = |pod: Pod| {
        let statuses = pod.status.clone().and_then(|status| status.container_statuses).unwrap_or_default();
        let image = statuses.into_iter().next().map(|status| status.image).unwrap_or_default();
        (pod.uid().unwrap_or_default(), image)
    };
    let mut list = pods.list(&ListParams::default().labels(WORKER)).await?.items;
    list.sort_by_key(ResourceExt::name_any);
    Ok(list.into_iter().map(running).collect())
}

/// The pod of the operator that leads.
pub(crate) async fn leader(case: &Case<'_>) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(case.env.client(), case.env.system_namespace());
    wait_for("an operator to lead", LIMIT, || async {
        let holder = leases.get("penstock-operator").await?.spec.and_then(|spec| spec.holder_identity);
        Ok(holder.and_then(|holder| Some(holder.split_once('_')?.0.to_owned())))
    })
    .await
}

/// SIGKILL for the container of Penstock's pod on a node; returns when its successor is ready.
async fn killed(case: &Case<'_>, selector: &str, container: &str, node: &str) -> Result<()> {
    let (client, system) = (case.env.client(), case.env.system_namespace());
    let pod = pod_on(case, system, selector, node).await?;
    let (node, id) = pods::container_id(&client, system, &pod, container).await?;
    case.env.cluster.kill_container(&node, &id)?;
    pods::wait_restarted(&client, system, &pod, container, &id, LIMIT).await
}

/// Deletes Penstock's pod on a node as `kubectl delete` does; returns when its successor is ready.
async fn replaced(case: &Case<'_>, selector: &str, node: &str) -> Result<()> {
    let (client, system) = (case.env.client(), case.env.system_namespace());
    let old = pod_on(case, system, selector, node).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), system);
    pods.delete(&old, &DeleteParams::default()).await?;
    wait_for(&format!("a successor of {old}"), LIMIT, || async {
        let ready = pods::ready(&client, system, selector).await?;
        let there = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
        Ok(ready.iter().any(|pod| there(pod) && pod.name_any() != old).then_some(()))
    })
    .await
}

async fn pod_on(case: &Case<'_>, namespace: &str, selector: &str, node: &str) -> Result<String> {
    let found = pods_on(case, namespace, selector, node).await?;
    found.into_iter().next().with_context(|| format!("no pod of {selector} on {node}"))
}

/// Names of the pods on a node.
async fn pods_on(case: &Case<'_>, namespace: &str, selector: &str, node: &str) -> Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(case.env.client(), namespace);
    let params = ListParams::default().labels(selector).fields(&format!("spec.nodeName={node}"));
    Ok(pods.list(&params).await?.iter().map(ResourceExt::name_any).collect())
}
