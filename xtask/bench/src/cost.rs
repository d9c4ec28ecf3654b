//! What caching costs: a worker's memory besides its tier, and processors' time for what is served.

use std::path::Path;

use anyhow::ensure;

use super::{
    blocking,
    figures::{Better, Case, Goal},
    fleet::{Fleet, Network, Place},
    load::{self, LARGE, Shape},
    peers::Peer,
    process,
    scratch::Scratch,
    source::{self, Bucket, Source},
};

const BUCKET: &str = "cost";
const SMALL_SIZE: usize = 16 << 10;
const MIB: f64 = (1 << 20) as f64;

struct Scale {
    runs: usize,
    cached: u64,
    served: u64,
    /// Passes over what is served, so that ticks of 10 ms are fine enough.
    passes: usize,
}

pub(super) async fn run(quick: bool) -> anyhow::Result<Vec<Case>> {
    let scale = if quick {
        Scale { runs: 1, cached: 2 << 30, served: 1 << 30, passes: 4 }
    } else {
        Scale { runs: 5, cached: 8 << 30, served: 1 << 30, passes: 8 }
    };
    // The quick part first: what is wrong shows early.
    let cpu = cpu(&scale).await?;
    let large = memory("cost-memory", &scale, whole).await?;
    let small = memory("cost-memory-small", &scale, small).await?;
    Ok([large, small].into_iter().chain(cpu).collect())
}

/// The bytes in one file.
fn whole(bytes: u64) -> Shape {
    Shape { large: bytes, small_files: 0, small: 0 }
}

/// The same bytes in small files.
fn small(bytes: u64) -> Shape {
    Shape { large: 0, small_files: (bytes / SMALL_SIZE as u64) as usize, small: SMALL_SIZE }
}

/// Anonymous memory of a worker that has everything in its tier, in MiB.
async fn memory(name: &'static str, scale: &Scale, shape: fn(u64) -> Shape) -> anyhow::Result<Case> {
    let (data, shape) = (Scratch::on_disk()?, shape(scale.cached));
    eprintln!("{name}: writing {} MiB", scale.cached >> 20);
    blocking(|| shape.write(data.path()))?;
    let mut ours = Vec::new();
    for _ in 0..scale.runs {
        // The store counts what a small file takes besides its bytes.
        let mut fleet = Fleet::here(Source::Folder(data.path()), scale.cached * 2).await?;
        let target = fleet.mount_first().await?;
        let pid = fleet.workers[0].pid();
        let before = process::memory(pid, "RssAnon")?;
        blocking(|| read_all(&target, &shape))?;
        let held = blocking(|| load::allocated(&fleet.workers[0].tier))?;
        ensure!(held >= shape.bytes(), "only {held} bytes are cached");
        let after = process::memory(pid, "RssAnon")?;
        let objects = shape.small_files.max(1);
        let each = after.saturating_sub(before) / objects as u64;
        eprintln!(
            "{name}: {:.1} MiB at the start, {:.1} with {objects} objects, {each} bytes each",
            mib(before),
            mib(after)
        );
        fleet.unmount().await?;
        ours.push(mib(after));
    }
    let goal = Goal { at_most: Some(64.0 + 0.002 * mib(scale.cached)), ..Goal::default() };
    Ok(Case::new(name, "MiB", Better::Lower, &ours, goal))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

fn read_all(target: &Path, shape: &Shape) -> anyhow::Result<()> {
    let read = load::pass(&target.join(LARGE))?;
    ensure!(read == shape.large, "read {read} bytes of {}", shape.large);
    if shape.small_files > 0 {
        eprintln!("{:.0} small files/s at their first read", load::small(target, shape)?);
    }
    Ok(())
}

/// Seconds of processors per gigabyte, worker and reader on one node and on two.
async fn cpu(scale: &Scale) -> anyhow::Result<[Case; 2]> {
    let network = blocking(|| Network::create(1, 1))?;
    let server = source::serve(&network.store).await?;
    let (data, shape) = (Scratch::in_memory()?, whole(scale.served));
    let bucket = blocking(|| {
        shape.write(data.path())?;
        let bucket = Bucket::create(&server, BUCKET)?;
        server.put_file(BUCKET, LARGE, &data.path().join(LARGE))?;
        anyhow::Ok(bucket)
    })?;
    let (worker, reader) = (&network.workers[0], &network.clients[0]);
    let local = ours("local", scale, &bucket, worker, worker).await?;
    let remote = ours("remote", scale, &bucket, worker, reader).await?;
    let goal = Goal { times_best_peer: Some(1.0), ..Goal::default() };
    let mut cases = [("cost-cpu", local), ("cost-cpu-remote", remote)]
        .map(|(name, values)| Case::new(name, "s/GB", Better::Lower, &values, goal));
    for peer in Peer::ALL {
        let values = blocking(|| {
            let mounted = peer.mount(reader, &bucket, data.path())?;
            seconds_per_gigabyte(peer.name(), scale, &mounted.path().join(LARGE), &[mounted.pid()])
        })?;
        cases = cases.map(|case| case.peer(peer.name(), &values));
    }
    Ok(cases)
}

async fn ours(name: &str, scale: &Scale, bucket: &Bucket, worker: &Place, reader: &Place) -> anyhow::Result<Vec<f64>> {
    let (workers, clients) = (std::slice::from_ref(worker), std::slice::from_ref(reader));
    let mut fleet = Fleet::start(Source::Bucket(bucket), scale.served * 5 / 4, workers, clients).await?;
    let file = fleet.mount_first().await?.join(LARGE);
    let pids = [fleet.workers[0].pid(), fleet.clients[0].pid()];
    let values = blocking(|| seconds_per_gigabyte(name, scale, &file, &pids))?;
    fleet.unmount().await?;
    Ok(values)
}

/// What these processes and all that they started use of processors for warm reads in order, a value for each run.
fn seconds_per_gigabyte(name: &str, scale: &Scale, file: &Path, pids: &[u32]) -> anyhow::Result<Vec<f64>> {
    load::sequential(file)?;
    let mut values = Vec::new();
    for _ in 0..scale.runs {
        let before = used(pids)?;
        for _ in 0..scale.passes {
            load::sequential(file)?;
        }
        values.push((used(pids)? - before) / (scale.served as f64 * scale.passes as f64 / 1e9));
    }
    eprintln!("cost-cpu: {name} {values:.3?} s/GB");
    Ok(values)
}

fn used(pids: &[u32]) -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    for pid in pids {
        for member in process::family(*pid)? {
            seconds += process::cpu_seconds(member)?;
        }
    }
    Ok(seconds)
}
