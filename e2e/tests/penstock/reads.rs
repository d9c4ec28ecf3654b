//! What readers may cost the UFS, and who may read.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use penstock_e2e::harness::{Case, checked_pass};
use serde_json::json;

/// Percent of headers and listings that the count at the proxy may hold beside the data.
const OVERHEAD: u64 = 1;

pub(crate) async fn twelve_readers_at_once_on_cold_data_fetch_each_byte_once(case: &Case<'_>) -> Result<()> {
    let files = [("a", 16 << 20), ("b", 4 << 20), ("c", 4 << 20), ("d/e", 8_000_001), ("d/f", 100_000), ("d/g", 5)];
    let tree = case.store(&files)?;
    case.serve("shared", 3, "128Mi").await?;
    let before = case.env.s3.bytes_sent();
    let nodes = case.env.cluster.nodes().iter().cycle().take(12).enumerate();
    let readers = nodes.map(|(n, node)| case.script(&format!("reader-{n}"), "shared", &checked_pass(&tree)).on(node));
    case.run_all(&readers.collect::<Vec<_>>()).await?;
    let fetched = case.env.s3.bytes_sent() - before;
    println!("    {fetched} bytes fetched for {} bytes of data", tree.bytes());
    ensure!(fetched >= tree.bytes(), "{fetched} bytes were fetched, but the data is {} bytes", tree.bytes());
    let limit = tree.bytes() + tree.bytes() * OVERHEAD / 100;
    ensure!(fetched <= limit, "{fetched} bytes were fetched for {} bytes of data", tree.bytes());
    Ok(())
}

pub(crate) async fn a_dataset_works_under_the_restricted_pod_security_standard(case: &Case<'_>) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(case.env.client());
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    namespaces.patch(&case.namespace, &PatchParams::default(), &Patch::Merge(label)).await?;
    let tree = case.store(&[("a", 1 << 20), ("b/c", 70_000)])?;
    case.serve("guarded", 1, "64Mi").await?;
    case.run(&case.script("reader", "guarded", &checked_pass(&tree)).restricted()).await?;
    Ok(())
}
