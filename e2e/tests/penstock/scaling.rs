//! More and fewer workers under a reader.

use anyhow::{Result, ensure};
use penstock_e2e::harness::{Case, Loop};

/// New workers ask the UFS whether it answers, and new owners of a folder list it: some 1 KB each, and no file's bytes.
const LISTINGS: u64 = 64 << 10;

pub(crate) async fn scaling_from_2_to_4_to_1_disturbs_no_reader_and_fetches_nothing(case: &Case<'_>) -> Result<()> {
    let tree = case.store(&[("a", 9_000_000), ("b", 4_194_304), ("c/d", 5_000_000), ("c/e", 1), ("c/f", 777_777)])?;
    case.serve("elastic", 2, "128Mi").await?;
    let reader = Loop::start(case, "reader", "elastic", &tree, None).await?;
    let before = case.env.s3.bytes_sent();
    for replicas in [4, 1] {
        case.kubectl(&["scale", "cacheruntime/elastic", &format!("--replicas={replicas}")])?;
        case.wait_workers("elastic", replicas).await?;
        reader.more(2).await?;
        let fetched = case.env.s3.bytes_sent() - before;
        println!("    {replicas} workers: {fetched} bytes fetched since all was cached");
    }
    let passes = reader.stop().await?;
    println!("    {passes} passes");
    let fetched = case.env.s3.bytes_sent() - before;
    ensure!(fetched < LISTINGS, "scaling fetched {fetched} bytes again");
    Ok(())
}
