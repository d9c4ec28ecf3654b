//! A Dataset that changes or goes.

use anyhow::{Context, Result, ensure};
use kube::api::DeleteParams;
use kube::core::DynamicObject;
use penstock_e2e::harness::{Case, Loop, Tree, blocking, checked_pass};
use penstock_e2e::kubectl::{condition, wait_for};
use penstock_e2e::pods;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(1);

pub(crate) async fn a_mount_added_while_it_serves_appears_to_running_pods(case: &Case<'_>) -> Result<()> {
    let tree = case.store(&[("a", 2_000_000)])?;
    let second = format!("{}-2", case.bucket());
    let more = blocking(|| Tree::store(&case.env.s3, &second, 2, &[("x", 300_000), ("y/z", 5)]))?;
    let yaml = |mounts: &[String]| {
        format!(
            "---\napiVersion: penstock.dev/v1alpha1\nkind: Dataset\nmetadata: {{name: grown}}\n\
             spec: {{consistency: {{mode: Revalidate, interval: 2s}}, mounts: [{}]}}\n",
            mounts.join(", ")
        )
    };
    let first = case.mount_yaml(case.bucket(), "/");
    let manifests = [case.secret_yaml(), yaml(std::slice::from_ref(&first)), case.runtime_yaml("grown", 2, "64Mi")];
    case.apply(&manifests.concat()).await?;
    case.wait_dataset("grown", "Ready", "True").await?;
    let script = format!(
        "{}echo first\nuntil [ -e /data/more/x ]; do sleep 0.2; done; cat /proc/uptime\nsha256sum -c <<'END'\n{}END\nls /data",
        checked_pass(&tree),
        more.sums("/data/more/")
    );
    let pod = case.script("reader", "grown", &script);
    pods::start(&case.env.client(), &pod).await?;
    case.wait_log("reader", "first").await?;
    let added = case.mount_yaml(&second, "/more");
    let begun = std::time::Instant::now();
    case.apply(&yaml(&[first, added])).await?;
    let finished = pods::finish(&case.env.client(), &case.namespace, "reader", LIMIT).await?;
    println!("    the pod had read the new mount {:.1} s after the change", begun.elapsed().as_secs_f64());
    ensure!(finished.exit_code == 0, "{finished:?}");
    Ok(())
}

pub(crate) async fn a_dataset_in_use_is_served_until_its_pod_ends(case: &Case<'_>) -> Result<()> {
    let tree = case.store(&[("a", 2_000_000), ("b", 10)])?;
    case.serve("wanted", 1, "64Mi").await?;
    let reader = Loop::start(case, "its-reader", "wanted", &tree, None).await?;
    case.api("Dataset").delete("wanted", &DeleteParams::background()).await?;
    let says = |object: &DynamicObject| {
        let told = condition(object, "Bound").is_some_and(|bound| {
            bound["reason"] == "InUse"
                && bound["message"].as_str().is_some_and(|text| text.contains("describe pvc wanted"))
        });
        told && object.metadata.deletion_timestamp.is_some()
    };
    case.wait_object("Dataset", "wanted", "told to be in use", says).await?;
    reader.more(2).await?;
    reader.stop().await?;
    wait_gone(case, "Dataset", "wanted").await?;
    case.wait_no_volumes().await?;
    nothing_is_left(case).await
}

pub(crate) async fn deleting_in_any_order_leaves_nothing(case: &Case<'_>) -> Result<()> {
    let tree = case.store(&[("a", 2_000_000)])?;
    for order in [["Dataset", "CacheRuntime"], ["CacheRuntime", "Dataset"]] {
        case.serve("brief", 1, "64Mi").await?;
        let name = format!("reader-{}-first", order[0].to_lowercase());
        case.run(&case.script(&name, "brief", &checked_pass(&tree))).await?;
        for kind in order {
            case.api(kind).delete("brief", &DeleteParams::background()).await?;
            wait_gone(case, kind, "brief").await?;
        }
        case.wait_no_volumes().await?;
        nothing_is_left(case).await.with_context(|| format!("{} first", order[0]))?;
    }
    Ok(())
}

async fn wait_gone(case: &Case<'_>, kind: &str, name: &str) -> Result<()> {
    let api = case.api(kind);
    let what = format!("{kind} {name} to be gone");
    wait_for(&what, LIMIT, || async { Ok(api.get_opt(name).await?.is_none().then_some(())) }).await
}

/// No object of the operator's in the namespace, and no FUSE mount on any node.
pub(crate) async fn nothing_is_left(case: &Case<'_>) -> Result<()> {
    let kinds = "statefulsets,pods,services,configmaps,secrets,serviceaccounts,poddisruptionbudgets,pvc";
    let what = "the operator's objects and the nodes' mounts to be gone";
    wait_for(what, LIMIT, || async {
        let selector = "app.kubernetes.io/managed-by=penstock-operator";
        let left = case.kubectl(&["get", kinds, "-l", selector, "-o", "name"])?;
        ensure!(left.is_empty(), "left: {left}");
        if case.env.cluster.node_access().is_ok() {
            for node in case.env.cluster.nodes() {
                let mounts = case.env.cluster.node_exec(node, &["cat", "/proc/mounts"])?;
                let left: Vec<_> =
                    mounts.lines().filter(|line| line.contains(" fuse") && line.contains("kubelet")).collect();
                ensure!(left.is_empty(), "mounted on {node}: {left:?}");
            }
        }
        Ok(Some(()))
    })
    .await
}
