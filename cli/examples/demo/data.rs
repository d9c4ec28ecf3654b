//! Market data as a research bucket has it: a few large tick files, many small daily bars.

use indicatif::{ProgressBar, ProgressStyle};
use penstock_testkit::{noise, s3::S3Server};
use sha2::{Digest, Sha256};

const LARGE_FILES: u64 = 8;
const SMALL_FILES: u64 = 1_992;

pub(super) type Checksum = [u8; 32];

pub(super) struct MarketFile {
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) sha256: Checksum,
}

pub(super) struct MarketData {
    pub(super) files: Vec<MarketFile>,
}

impl MarketData {
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Puts about `bytes` into the bucket, half of it in the few large files.
pub(super) fn fill(server: &S3Server, bucket: &str, bytes: u64) -> anyhow::Result<MarketData> {
    server.create_bucket(bucket);
    let bar = ProgressBar::new(LARGE_FILES + SMALL_FILES)
        .with_style(ProgressStyle::with_template("fill        {bar:40} {pos}/{len} files {elapsed}")?);
    let large = (0..LARGE_FILES).map(|i| (format!("ticks/2026-10-{:02}.parquet", i + 1), bytes / 2 / LARGE_FILES));
    let small = (0..SMALL_FILES).map(|i| (small_path(i), small_bytes(i, bytes / 2 / SMALL_FILES)));
    let mut files = Vec::new();
    for (seed, (path, bytes)) in large.chain(small).enumerate() {
        let content = noise(seed as u64, bytes as usize);
        let sha256 = Sha256::digest(&content).into();
        server.put(bucket, &path, content)?;
        files.push(MarketFile { path, bytes, sha256 });
        bar.inc(1);
    }
    bar.finish();
    Ok(MarketData { files })
}

fn small_path(index: u64) -> String {
    format!("bars/{}/{:06}.csv", ["daily", "hourly", "minute"][(index % 3) as usize], index)
}

/// Sizes from a tenth to nineteen tenths of the mean, so that ends fall anywhere in a page.
fn small_bytes(index: u64, mean: u64) -> u64 {
    mean * (1 + index * 7 % 19) / 10 + index % 97
}
