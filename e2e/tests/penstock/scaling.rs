//! More and fewer workers under a reader.

use anyhow::{Result, ensure};
use penstock_e2e::harness::{Case, Loop};

pub(crate) async fn scaling_from_2_to_4_to_1_disturbs_no_reader_and_fetches_nothing(case: &Case<'_>) -> Result<()> {
    let tree = case.store(&[("a", 9_000_000), ("b", 4_194_304), ("c/d", 5_000_000), ("c/e", 1), ("c/f", 777_777)])?;
    case.serve("elastic", 2, "128Mi").await?;
    let reader = Loop::start(case, "reader", "elastic", &tree, None).await?;
    let before = case.env.s3.object_bytes(case.bucket())?;
    ensure!(before > 0, "the server did not count the first pass");
    for replicas in [4, 1] {
        case.kubectl(&["scale", "cacheruntime/elastic", &format!("--replicas={replicas}")])?;
        case.wait_workers("elastic", replicas).await?;
        reader.more(2).await?;
        let bytes = case.env.s3.object_bytes(case.bucket())? - before;
        println!("    {replicas} workers: {bytes} bytes of objects fetched since all was cached");
    }
    let passes = reader.stop().await?;
    println!("    {passes} passes");
    let bytes = case.env.s3.object_bytes(case.bucket())? - before;
    ensure!(bytes == 0, "scaling had {bytes} bytes of objects fetched again");
    Ok(())
}
