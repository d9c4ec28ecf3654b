//! Loads over four workers from a store behind a link of 1 Gbit/s, and sizes that stay where nothing asks for others.

mod curve;
mod day;
mod noise;
mod target;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use penstock_e2e::s3::SeaweedFs;
use penstock_wire::message::{LoadOrder, LoadState, LoadTarget};

use super::{
    blocking, direct,
    figures::{Better, Case, Goal},
    fleet::{Fleet, Network},
    load::{self, LARGE, SMALL, Shape},
    scratch::Scratch,
    source::{self, Bucket, Source},
};

/// Mbit/s of the store's link.
const STORE: u32 = 1000;
const NODES: usize = 4;
/// What the store directly is read in, and so many of these at a time.
const RANGE: u64 = 4 << 20;
const STREAMS: usize = 16;
/// The order of the case of the throttle, bytes per second of all workers together.
const ORDERED: u64 = 40_000_000;
/// What readers read meanwhile is in the cache before.
const WARM: &str = "warm.bin";
/// Seconds that latencies are measured for.
const LATENCY: u32 = 5;
const PATIENCE: Duration = Duration::from_mins(10);

struct Scale {
    runs: usize,
    shape: Shape,
    warm: u64,
}

impl Scale {
    fn new(quick: bool) -> Self {
        let (runs, large, small_files) = if quick { (1, 1 << 30, 2_000) } else { (3, 4 << 30, 20_000) };
        Self { runs, shape: Shape { large, small_files, small: 16 << 10 }, warm: 128 << 20 }
    }
}

pub(super) async fn run(quick: bool) -> anyhow::Result<Vec<Case>> {
    let curve = blocking(|| curve::cases(quick))?;
    let bench = blocking(|| Bench::prepare(Scale::new(quick)))?;
    let bench = bench.serve().await?;
    let mut cases = Vec::from(bench.once_and_rate().await?);
    cases.push(bench.throttle().await?);
    cases.push(bench.latency().await?);
    cases.push(noise::case());
    cases.extend(day::cases()?);
    cases.extend(curve);
    cases.extend(target::cases().await?);
    Ok(cases)
}

/// The network and the data.
struct Prepared {
    scale: Scale,
    network: Network,
    data: Scratch,
}

struct Bench {
    scale: Scale,
    // Ends before the network on which it is reached.
    server: SeaweedFs,
    bucket: Bucket,
    network: Network,
}

impl Bench {
    fn prepare(scale: Scale) -> anyhow::Result<Prepared> {
        let (network, data) = (Network::create(NODES, 1)?, Scratch::on_disk()?);
        scale.shape.write(data.path())?;
        load::write_noise(&data.path().join(WARM), scale.warm)?;
        Ok(Prepared { scale, network, data })
    }

    /// Workers that know nothing yet.
    async fn fresh(&self) -> anyhow::Result<Fleet> {
        let quota = (self.scale.shape.bytes() + self.scale.warm) / NODES as u64 * 2;
        Fleet::start(Source::Bucket(&self.bucket), quota, &self.network.workers, &self.network.clients).await
    }

    /// Seconds from the order until every worker has done its part.
    fn load(fleet: &Fleet, id: &str, path: &str, bandwidth: Option<u64>) -> anyhow::Result<f64> {
        let order = LoadOrder {
            id: id.into(),
            targets: vec![LoadTarget::Path(path.as_bytes().to_vec())],
            evict: false,
            load_metadata: false,
            bandwidth: bandwidth.map(|bytes| bytes / NODES as u64),
            follow: false,
        };
        let begun = Instant::now();
        for worker in &fleet.workers {
            worker.set_load(order.clone())?;
        }
        for worker in &fleet.workers {
            loop {
                let part = worker.loads()?.into_iter().find(|load| load.id == id);
                if let Some(part) = part.filter(|part| part.state == LoadState::Done) {
                    ensure!(part.failures.is_empty(), "a load failed: {:?}", part.failures);
                    ensure!(part.cached_bytes == part.bytes, "{} of {} bytes loaded", part.cached_bytes, part.bytes);
                    break;
                }
                ensure!(begun.elapsed() < PATIENCE, "a load is not done after {} s", PATIENCE.as_secs());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Many small files and one large one.
    async fn once_and_rate(&self) -> anyhow::Result<[Case; 2]> {
        let (mut once, mut rates, mut limits) = (Vec::new(), Vec::new(), Vec::new());
        let (shape, store) = (&self.scale.shape, &self.network.store);
        blocking(|| store.shape(Some(STORE)))?;
        for _ in 0..self.scale.runs {
            let fleet = self.fresh().await?;
            blocking(|| {
                let before = self.server.object_bytes(&self.bucket.name)?;
                let small = Self::load(&fleet, "small", SMALL, None)?;
                let seconds = Self::load(&fleet, "large", LARGE, None)?;
                let fetched = self.server.object_bytes(&self.bucket.name)? - before;
                eprintln!("elastic-load: {} files in {small:.1} s, the large one in {seconds:.1} s", shape.small_files);
                once.push(fetched as f64 / shape.bytes() as f64);
                rates.push(shape.large as f64 / seconds / 1e9);
                drop(fleet);
                let reader = &self.network.workers[0];
                let seconds = direct::ranges(reader, &self.bucket, LARGE, shape.large, RANGE, STREAMS)?;
                limits.push(shape.large as f64 / seconds / 1e9);
                anyhow::Ok(())
            })?;
        }
        blocking(|| store.shape(None))?;
        let goal = Goal { at_most: Some(1.0), ..Goal::default() };
        let once = Case::new("elastic-load-once", "x data", Better::Lower, &once, goal);
        let goal = Goal { of_limit: Some(0.9), ..Goal::default() };
        Ok([once, Case::new("elastic-load-rate", "GB/s", Better::Higher, &rates, goal).limit(&limits)])
    }

    /// How far the rate is from the one that was ordered.
    async fn throttle(&self) -> anyhow::Result<Case> {
        let mut errors = Vec::new();
        for _ in 0..self.scale.runs {
            let fleet = self.fresh().await?;
            let seconds = blocking(|| Self::load(&fleet, "slow", LARGE, Some(ORDERED)))?;
            let rate = self.scale.shape.large as f64 / seconds;
            eprintln!("elastic-load-throttle: {:.2} of {:.2} MB/s", rate / 1e6, ORDERED as f64 / 1e6);
            errors.push((rate / ORDERED as f64 - 1.0).abs());
        }
        let goal = Goal { at_most: Some(0.05), ..Goal::default() };
        Ok(Case::new("elastic-load-throttle", "part", Better::Lower, &errors, goal))
    }

    /// Random reads of what is in the cache, while a load goes on; the limit is the same without it.
    async fn latency(&self) -> anyhow::Result<Case> {
        let (mut during, mut without) = (Vec::new(), Vec::new());
        for _ in 0..self.scale.runs {
            let mut fleet = self.fresh().await?;
            let file = fleet.mount_first().await?.join(WARM);
            blocking(|| {
                Self::load(&fleet, "warm", WARM, None)?;
                without.push(load::latency(&file, LATENCY)?);
                self.network.store.shape(Some(STORE))?;
                std::thread::scope(|scope| {
                    let loading = scope.spawn(|| Self::load(&fleet, "large", LARGE, None));
                    let read = load::latency(&file, LATENCY);
                    let is_over = loading.is_finished();
                    let loaded = loading.join().ok().context("the load panicked")?;
                    during.push(read?);
                    loaded?;
                    ensure!(!is_over, "the load was over before the reads");
                    Ok(())
                })?;
                self.network.store.shape(None)
            })?;
            fleet.unmount().await?;
        }
        eprintln!("elastic-load-latency: {during:.1?} us, without the load {without:.1?}");
        let goal = Goal { times_limit: Some(1.2), ..Goal::default() };
        Ok(Case::new("elastic-load-latency", "us", Better::Lower, &during, goal).limit(&without))
    }
}

impl Prepared {
    async fn serve(self) -> anyhow::Result<Bench> {
        let Self { scale, network, data } = self;
        let server = source::serve(&network.store).await?;
        let bucket = blocking(|| {
            let bucket = Bucket::create(&server, "elastic")?;
            for file in [LARGE, WARM] {
                server.put_file(&bucket.name, file, &data.path().join(file))?;
            }
            let names = std::fs::read_dir(data.path().join(SMALL))?;
            let small = names.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
            let key = |file: &Path| format!("{SMALL}/{}", file.file_name().unwrap_or_default().display());
            server.put_all(&bucket.name, small.iter().map(|file| (key(file), file.as_path())))?;
            anyhow::Ok(bucket)
        })?;
        Ok(Bench { scale, server, bucket, network })
    }
}
