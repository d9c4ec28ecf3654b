//! The store read without anything of ours: `curl`, at the reader's place.

use std::{fmt::Write, process::Command, time::Instant};

use anyhow::{Context, ensure};
use penstock_testkit::tools;

use super::{fleet::Place, source::Bucket};

/// Seconds of one GET of the whole object, as curl tells them. Blocks.
pub(super) fn whole(place: &Place, bucket: &Bucket, object: &str, size: u64) -> anyhow::Result<f64> {
    let mut command = curl()?;
    command.args(signed(bucket)).args(["-o", "/dev/null", "-w", "%{time_total} %{size_download}"]);
    let told = place.output(command.arg(address(bucket, object)))?;
    let (seconds, bytes) = told.split_once(' ').context("curl's answer")?;
    ensure!(bytes.parse() == Ok(size), "{bytes} bytes of {size} came from the store");
    Ok(seconds.parse()?)
}

/// Seconds in which the object is read once in ranges of `range` bytes, `streams` of them at any time. Blocks.
pub(super) fn ranges(
    place: &Place,
    bucket: &Bucket,
    object: &str,
    size: u64,
    range: u64,
    streams: usize,
) -> anyhow::Result<f64> {
    let config = tempfile::NamedTempFile::new()?;
    let mut text = String::new();
    for start in (0..size).step_by(range as usize) {
        let separator = if start == 0 { "" } else { "next\n" };
        let end = (start + range).min(size) - 1;
        let address = address(bucket, object);
        write!(text, "{separator}url = {address}\nrange = {start}-{end}\noutput = /dev/null\n")?;
        for option in signed(bucket).chunks(2) {
            writeln!(text, "{} = \"{}\"", option[0].trim_start_matches('-'), option[1])?;
        }
        writeln!(text, "write-out = \"%{{size_download}} \"\nfail")?;
    }
    std::fs::write(config.path(), text)?;
    let mut command = curl()?;
    command.args(["--parallel", "--parallel-immediate", "--parallel-max", &streams.to_string(), "--config"]);
    let begun = Instant::now();
    let told = place.output(command.arg(config.path()))?;
    let seconds = begun.elapsed().as_secs_f64();
    let bytes = told.split_whitespace().map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    ensure!(bytes == size, "{bytes} bytes of {size} came from the store");
    Ok(seconds)
}

fn curl() -> anyhow::Result<Command> {
    let mut command = Command::new(tools::debian("curl", "curl")?);
    command.args(["--silent", "--show-error", "--fail"]);
    Ok(command)
}

/// Options with a value each.
fn signed(bucket: &Bucket) -> [String; 6] {
    let user = format!("{}:{}", bucket.access_key, bucket.secret_key);
    ["--noproxy", "*", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user].map(str::to_owned)
}

fn address(bucket: &Bucket, object: &str) -> String {
    format!("{}/{}/{object}", bucket.endpoint, bucket.name)
}
