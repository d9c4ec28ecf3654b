//! The first publish of a Dataset on a node: a real worker on a real S3 server, and the real plugin behind its socket.

use std::{fs, time::Instant};

use anyhow::ensure;
use penstock_testkit::s3::{S3Options, S3Server};

use super::{
    fleet::Fleet,
    source::{Bucket, Source},
};

const CONTENT: &str = "read through the mount";

/// Seconds of `runs` first publishes (stage and publish), each with a worker and a plugin that know nothing yet.
pub(super) async fn first_publishes(runs: usize) -> anyhow::Result<Vec<f64>> {
    let server = S3Server::start(S3Options::default()).await?;
    server.put("data", "file", CONTENT)?;
    let bucket = Bucket::of(&server, "data");
    let mut seconds = Vec::new();
    for _ in 0..runs {
        seconds.push(first_publish(Fleet::here(Source::Bucket(&bucket), 64 << 20).await?).await?);
    }
    eprintln!("first publishes: {seconds:.3?} s");
    Ok(seconds)
}

async fn first_publish(mut fleet: Fleet) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let target = fleet.mount_first().await?;
    let seconds = begun.elapsed().as_secs_f64();
    let read = tokio::task::spawn_blocking(move || fs::read_to_string(target.join("file"))).await?;
    fleet.unmount().await?;
    ensure!(read? == CONTENT, "the mount shows something else");
    Ok(seconds)
}
