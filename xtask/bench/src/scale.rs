//! How throughput grows with workers: N workers behind links alike, and N clients that read everything, each in another order.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    bare, blocking,
    figures::{Better, Case, Goal},
    fleet::{Fleet, Network, Place, Worker},
    load,
    scratch::Scratch,
    source::{self, Bucket, Source},
};

const BUCKET: &str = "scale";
const SIZES: [usize; 4] = [1, 2, 4, 8];
const MOST: usize = 8;
/// Mbit/s of a worker's link, where the machine carries as many of them.
const LINK: f64 = 500.0;
/// Reading through a mount takes more of the machine than a bare loop does.
const SPARE: f64 = 2.0;
const FILES: usize = 16;

pub(super) async fn run(quick: bool) -> anyhow::Result<Vec<Case>> {
    let (runs, file_size, seconds) = if quick { (1, 64 << 20, 8) } else { (5, 128 << 20, 20) };
    let network = blocking(|| Network::create(MOST, MOST))?;
    let server = source::serve(&network.store).await?;
    let data = Scratch::in_memory()?;
    let names: Vec<String> = (0..FILES).map(|file| format!("part-{file:02}.bin")).collect();
    let bucket = blocking(|| {
        names.iter().try_for_each(|name| load::write_noise(&data.path().join(name), file_size))?;
        let bucket = Bucket::create(&server, BUCKET)?;
        names.iter().try_for_each(|name| server.put_file(BUCKET, name, &data.path().join(name)))?;
        anyhow::Ok(bucket)
    })?;
    let sample = data.path().join(&names[0]);
    let link = blocking(|| affordable(&network, MOST, LINK, &sample))?;
    let bench = Bench { network, bucket, names, file_size, link, seconds };
    let mut cases = Vec::new();
    for workers in SIZES {
        cases.push(bench.measure(workers, runs, &sample).await?);
    }
    Ok(cases)
}

/// Mbit/s of a link, at most `most`, of which this machine carries `links` with something to spare.
pub(super) fn affordable(network: &Network, links: usize, most: f64, file: &Path) -> anyhow::Result<u32> {
    let open = bare_sum(network, links, file)?;
    let link = (open * 8e3 / SPARE / links as f64).min(most).max(50.0) / 50.0;
    let link = link.floor() as u32 * 50;
    eprintln!("{links} bare loops at once carry {open:.2} GB/s over open links; a link is given {link} Mbit/s");
    Ok(link)
}

/// Gigabytes per second of bare sendfile loops, one from each of the first workers to a client of its own.
fn bare_sum(network: &Network, links: usize, file: &Path) -> anyhow::Result<f64> {
    let (workers, clients) = (&network.workers, &network.clients);
    let each = load::together(links, |n| bare::sequential(&workers[n], &clients[n], file))?;
    Ok(each.iter().map(|(rate, _)| rate).sum())
}

struct Bench {
    network: Network,
    bucket: Bucket,
    names: Vec<String>,
    file_size: u64,
    /// Mbit/s.
    link: u32,
    seconds: u64,
}

impl Bench {
    async fn measure(&self, size: usize, runs: usize, sample: &Path) -> anyhow::Result<Case> {
        let (workers, clients) = (&self.network.workers[..size], &self.network.clients[..size]);
        // All fits one worker, so that nothing is evicted wherever it is placed.
        let quota = self.file_size * FILES as u64 * 5 / 4;
        let mut fleet = Fleet::start(Source::Bucket(&self.bucket), quota, workers, clients).await?;
        let targets = fleet.mount().await?;
        let (ours, linear) = blocking(|| {
            self.names.iter().try_for_each(|name| load::pass(&targets[0].join(name)).map(drop))?;
            let fullest = fullest(&fleet.workers)?;
            shape(workers, Some(self.link))?;
            let (mut ours, mut linear) = (Vec::new(), Vec::new());
            for _ in 0..runs {
                linear.push(bare_sum(&self.network, 1, sample)? * size as f64);
                ours.push(self.read(&targets)?);
            }
            eprintln!(
                "scale-{size}: {ours:.4?} GB/s, linear {linear:.4?}; the fullest worker has {fullest:.2} x its share"
            );
            if size > 1 {
                eprintln!("scale-{size}: as many bare loops {:.4} GB/s", bare_sum(&self.network, size, sample)?);
            }
            shape(workers, None)?;
            anyhow::Ok((ours, linear))
        })?;
        fleet.unmount().await?;
        let goal = Goal { of_limit: Some(0.95), ..Goal::default() };
        Ok(Case::new(format!("scale-{size}"), "GB/s", Better::Higher, &ours, goal).limit(&linear))
    }

    /// Gigabytes per second that all clients read together.
    fn read(&self, targets: &[PathBuf]) -> anyhow::Result<f64> {
        load::drop_caches()?;
        let until = Instant::now() + Duration::from_secs(self.seconds);
        let read = load::together(targets.len(), |client| {
            let first = client * FILES / targets.len();
            let names = self.names.iter().cycle().skip(first).take(FILES);
            names.map(|name| load::pass_until(&targets[client].join(name), until)).sum::<anyhow::Result<u64>>()
        })?;
        let bytes: u64 = read.iter().map(|(bytes, _)| bytes).sum();
        let longest = read.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
        Ok(bytes as f64 / longest / 1e9)
    }
}

fn shape(places: &[Place], mbit: Option<u32>) -> anyhow::Result<()> {
    places.iter().try_for_each(|place| place.shape(mbit))
}

/// What the fullest worker holds, as a multiple of the mean: readers of everything wait for it.
fn fullest(workers: &[Worker]) -> anyhow::Result<f64> {
    let held = workers.iter().map(|worker| load::allocated(&worker.tier)).collect::<anyhow::Result<Vec<_>>>()?;
    let mean = held.iter().sum::<u64>() as f64 / held.len() as f64;
    Ok(held.iter().max().copied().unwrap_or_default() as f64 / mean)
}
