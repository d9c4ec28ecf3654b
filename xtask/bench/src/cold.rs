//! First reads, when no worker has anything yet, from a store behind a link of 1 Gbit/s.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use penstock_e2e::s3::SeaweedFs;

use super::{
    blocking, direct,
    figures::{Better, Case, Goal},
    fleet::{Fleet, Network},
    load::{self, LARGE, Shape},
    peers::Peer,
    scratch::Scratch,
    source::{self, Bucket, Source},
};

/// Mbit/s of the store's link.
const STORE: u32 = 1000;
const NODES: usize = 4;
const READERS: usize = 16;
/// What a worker fetches at once, and how many of these it has under way for one object.
const RANGE: u64 = 4 << 20;
const STREAMS: usize = 8;
const KIB: f64 = 1024.0;

/// How much of everything.
struct Scale {
    runs: usize,
    sequential: u64,
    once: u64,
    random: u64,
    reads: u64,
    /// The most that one row of random reads may take, seconds.
    patience: u32,
}

impl Scale {
    fn new(quick: bool) -> Self {
        if quick {
            Self { runs: 1, sequential: 1 << 30, once: 512 << 20, random: 2 << 30, reads: 2_000, patience: 20 }
        } else {
            Self { runs: 5, sequential: 2 << 30, once: 4 << 30, random: 8 << 30, reads: 20_000, patience: 120 }
        }
    }
}

pub(super) async fn run(quick: bool) -> anyhow::Result<Vec<Case>> {
    let bench = Bench::start(Scale::new(quick)).await?;
    let mut cases = vec![bench.sequential().await?, bench.once().await?];
    cases.extend(bench.random().await?);
    Ok(cases)
}

struct Bench {
    scale: Scale,
    // Ends before the network on which it is reached.
    server: SeaweedFs,
    network: Network,
}

/// A bucket with one large object, and the file that it was made from.
struct Stored {
    bucket: Bucket,
    data: Scratch,
}

impl Bench {
    async fn start(scale: Scale) -> anyhow::Result<Self> {
        let network = blocking(|| Network::create(NODES, NODES))?;
        let server = source::serve(&network.store).await?;
        Ok(Self { scale, server, network })
    }

    fn store(&self, name: &str, size: u64) -> anyhow::Result<Stored> {
        eprintln!("{name}: writing {} MiB to the store", size >> 20);
        let data = Scratch::on_disk()?;
        Shape { large: size, small_files: 0, small: 0 }.write(data.path())?;
        let bucket = Bucket::create(&self.server, name)?;
        self.server.put_file(name, LARGE, &data.path().join(LARGE))?;
        Ok(Stored { bucket, data })
    }

    /// Workers with room for `size` bytes each, which know nothing yet, and the large object through each client's mount.
    async fn fresh(&self, bucket: &Bucket, size: u64, nodes: usize) -> anyhow::Result<(Fleet, Vec<PathBuf>)> {
        let (workers, clients) = (&self.network.workers[..nodes], &self.network.clients[..nodes]);
        let mut fleet = Fleet::start(Source::Bucket(bucket), size * 5 / 4, workers, clients).await?;
        let files = fleet.mount().await?.iter().map(|target| target.join(LARGE)).collect();
        Ok((fleet, files))
    }

    /// One reader, one worker.
    async fn sequential(&self) -> anyhow::Result<Case> {
        let size = self.scale.sequential;
        let stored = blocking(|| self.store("cold-seq", size))?;
        let (mut ours, mut limit) = (Vec::new(), Vec::new());
        blocking(|| self.network.store.shape(Some(STORE)))?;
        for _ in 0..self.scale.runs {
            let (mut fleet, files) = self.fresh(&stored.bucket, size, 1).await?;
            ours.push(blocking(|| load::sequential(&files[0]))?);
            fleet.unmount().await?;
            let reader = &self.network.workers[0];
            let seconds = blocking(|| {
                load::drop_caches()?;
                direct::ranges(reader, &stored.bucket, LARGE, size, RANGE, STREAMS)
            })?;
            limit.push(size as f64 / seconds / 1e9);
        }
        blocking(|| self.network.store.shape(None))?;
        eprintln!("cold-seq: {ours:.4?} GB/s, the store directly {limit:.4?}");
        let goal = Goal { of_limit: Some(0.95), ..Goal::default() };
        Ok(Case::new("cold-seq", "GB/s", Better::Higher, &ours, goal).limit(&limit))
    }

    /// Several readers on each node, all nodes' links to several workers.
    async fn once(&self) -> anyhow::Result<Case> {
        let size = self.scale.once;
        let stored = blocking(|| self.store("cold-once", size))?;
        let mut ours = Vec::new();
        blocking(|| self.network.store.shape(Some(STORE)))?;
        for _ in 0..self.scale.runs {
            let (mut fleet, files) = self.fresh(&stored.bucket, size / NODES as u64 * 2, NODES).await?;
            let before = blocking(|| self.server.object_bytes("cold-once"))?;
            let read = blocking(|| load::together(READERS, |reader| load::pass(&files[reader % NODES])))?;
            ensure!(read.iter().all(|(bytes, _)| *bytes == size), "not every reader read {size} bytes: {read:?}");
            fleet.unmount().await?;
            let fetched = blocking(|| self.server.object_bytes("cold-once"))? - before;
            ours.push(fetched as f64 / size as f64);
        }
        blocking(|| self.network.store.shape(None))?;
        eprintln!("cold-once: {ours:.4?} of the data came from the store for {READERS} readers");
        Ok(Case::new("cold-once", "x data", Better::Lower, &ours, Goal { at_most: Some(1.01), ..Goal::default() }))
    }

    /// One reader, one worker; the peers in the reader's place.
    async fn random(&self) -> anyhow::Result<[Case; 2]> {
        let size = self.scale.random;
        let stored = blocking(|| self.store("cold-rand4k", size))?;
        let (mut rates, mut bytes) = (Vec::new(), Vec::new());
        for _ in 0..self.scale.runs {
            let (mut fleet, files) = self.fresh(&stored.bucket, size, 1).await?;
            let (rate, fetched) = blocking(|| self.random_reads("penstock", &files[0]))?;
            fleet.unmount().await?;
            rates.push(rate);
            bytes.push(fetched / KIB);
        }
        let goal = Goal { at_most: Some(256.0), ..Goal::default() };
        let mut spent = Case::new("cold-rand4k", "KiB/read", Better::Lower, &bytes, goal);
        let goal = Goal { of_best_peer: Some(1.0), ..Goal::default() };
        let mut rate = Case::new("cold-rand4k-rate", "reads/s", Better::Higher, &rates, goal);
        for peer in Peer::ALL {
            let (rates, bytes) = blocking(|| self.peer_reads(peer, &stored))?;
            rate = rate.peer(peer.name(), &rates);
            spent = spent.peer(peer.name(), &bytes);
        }
        Ok([spent, rate])
    }

    fn peer_reads(&self, peer: Peer, stored: &Stored) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
        let mut mounted = peer.mount(&self.network.clients[0], &stored.bucket, stored.data.path())?;
        let (mut rates, mut bytes) = (Vec::new(), Vec::new());
        for _ in 0..self.scale.runs {
            mounted.cool()?;
            let (rate, fetched) = self.random_reads(peer.name(), &mounted.path().join(LARGE))?;
            rates.push(rate);
            bytes.push(fetched / KIB);
        }
        Ok((rates, bytes))
    }

    /// Reads per second, and bytes that the store sent for each.
    fn random_reads(&self, name: &str, file: &Path) -> anyhow::Result<(f64, f64)> {
        let store = &self.network.store;
        store.shape(Some(STORE))?;
        let before = self.server.object_bytes("cold-rand4k")?;
        let (reads, rate) = load::random_count(file, self.scale.reads, self.scale.patience)?;
        let fetched = self.server.object_bytes("cold-rand4k")? - before;
        store.shape(None)?;
        let each = fetched as f64 / reads as f64;
        eprintln!("cold-rand4k: {name} {reads} reads, {rate:.1} reads/s, {:.1} KiB each", each / KIB);
        Ok((rate, each))
    }
}
