//! What a newcomer does first.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use penstock_e2e::harness::{Case, Tree, blocking, checked_pass};
use penstock_e2e::kubectl::wait_for;
use penstock_e2e::pods::Script;
use penstock_e2e::s3::SeaweedFs;
use penstock_testkit::tools;

/// The example with this test's server, keys and image in it, and without its Job.
fn example(case: &Case<'_>) -> Result<String> {
    let text = std::fs::read_to_string(tools::workspace_root().join("examples/quickstart.yaml"))?;
    let mut text = text;
    for (theirs, ours) in [
        ("http://198.18.0.1:8333", case.env.s3.endpoint().as_str()),
        ("access-key: penstock\n", &format!("access-key: {}\n", SeaweedFs::ACCESS_KEY)),
        ("secret-key: penstock-secret\n", &format!("secret-key: {}\n", SeaweedFs::SECRET_KEY)),
        ("busybox:stable", &penstock_e2e::image::toolbox_name()),
    ] {
        ensure!(text.contains(theirs), "the example does not contain {theirs:?}");
        text = text.replace(theirs, ours);
    }
    Ok(text)
}

fn readers(case: &Case<'_>, tree: &Tree, pass: &str) -> Vec<Script> {
    let nodes = case.env.cluster.nodes();
    let script = |node: &String| case.script(&format!("{pass}-{node}"), "quickstart", &checked_pass(tree)).on(node);
    nodes.iter().map(script).collect()
}

pub(crate) async fn pods_on_all_nodes_read_the_same_and_a_second_pass_fetches_nothing(case: &Case<'_>) -> Result<()> {
    let files = [
        ("readme.txt", 700),
        ("empty", 0),
        ("prices/2024/a.bin", 3_000_000),
        ("prices/2024/b.bin", 4_194_304),
        ("prices/2025/large.bin", 21_000_001),
        ("prices/2025/one-byte", 1),
    ];
    let tree = blocking(|| Tree::store(&case.env.s3, "quickstart", 1, &files))?;
    case.apply(&example(case)?).await?;
    case.wait_dataset("quickstart", "Bound", "True").await?;
    case.wait_dataset("quickstart", "Ready", "True").await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(case.env.client(), &case.namespace);
    wait_for("the PVC to be bound", Duration::from_mins(1), || async {
        let phase = claims.get("quickstart").await?.status.and_then(|status| status.phase);
        Ok((phase.as_deref() == Some("Bound")).then_some(()))
    })
    .await?;

    case.run_all(&readers(case, &tree, "cold")).await?;
    a_pass_fetches_nothing(case, &tree).await?;

    the_job_prints_the_checksums(case, &tree)?;
    kubectl_shows_what_matters(case, &tree).await
}

/// No byte of an object; and once no byte at all is fetched, for the workers ask the UFS every 30 s whether something changed.
async fn a_pass_fetches_nothing(case: &Case<'_>, tree: &Tree) -> Result<()> {
    let objects = || case.env.s3.object_bytes("quickstart");
    let before = objects()?;
    ensure!(before > 0, "the server did not count the first pass");
    for attempt in ["warm", "warm-again", "warm-once-more"] {
        let sent = case.env.s3.bytes_sent();
        case.run_all(&readers(case, tree, attempt)).await?;
        let fetched = case.env.s3.bytes_sent() - sent;
        println!("    {attempt}: {fetched} bytes fetched");
        ensure!(objects()? == before, "a pass over cached data fetched objects again");
        if fetched == 0 {
            return Ok(());
        }
    }
    bail!("every pass over cached data fetched something")
}

fn the_job_prints_the_checksums(case: &Case<'_>, tree: &Tree) -> Result<()> {
    case.kubectl(&["wait", "--for=condition=complete", "--timeout=120s", "job/quickstart-reader"])?;
    let mut sums: Vec<String> = case.kubectl(&["logs", "job/quickstart-reader"])?.lines().map(str::to_owned).collect();
    let mut expected: Vec<String> = tree.sums("./").lines().map(str::to_owned).collect();
    sums.sort();
    expected.sort();
    ensure!(sums == expected, "the Job printed {sums:#?}, not {expected:#?}");
    Ok(())
}

async fn kubectl_shows_what_matters(case: &Case<'_>, tree: &Tree) -> Result<()> {
    let full =
        |object: &kube::core::DynamicObject| object.data.pointer("/status/cachedBytes") == Some(&tree.bytes().into());
    case.wait_object("Dataset", "quickstart", "all bytes cached", full).await?;
    let table = case.kubectl(&["get", "datasets"])?;
    println!("{table}");
    let mut lines = table.lines();
    let (head, row) = (lines.next().context("no head")?, lines.next().context("no row")?);
    for column in ["READY", "CACHED", "SIZE"] {
        ensure!(head.contains(column), "no column {column} in {head}");
    }
    ensure!(row.contains("Ready") && row.contains("100"), "{row}");
    let table = case.kubectl(&["get", "penstock"])?;
    println!("{table}");
    Ok(())
}
