//! Warm reads from a worker on another node, beside what the link between them allows.

use std::{path::PathBuf, thread, time::Duration};

use anyhow::anyhow;

use super::{
    bare, blocking,
    figures::{Better, Case, Goal},
    fleet::{Fleet, Network, Place},
    load::{self, LARGE, Shape},
    local::tier_file,
    scratch::Scratch,
    source::{self, Bucket, Source},
};

const BUCKET: &str = "remote";
/// Mbit/s of the link of `remote-seq-2g`.
const SHAPED: u32 = 2000;
/// Of random reads in one run.
const SECONDS: u32 = 5;
/// What is read at random beside a stream of the large file, bytes.
const OTHER: (&str, u64) = ("other.bin", 256 << 20);
/// For so many seconds, less than the stream takes.
const BESIDE: u32 = 3;

/// Ours and the limit, a value for each run.
#[derive(Debug, Default)]
struct Pair {
    ours: Vec<f64>,
    limit: Vec<f64>,
}

#[derive(Debug, Default)]
struct Figures {
    open: Pair,
    shaped: Pair,
    random: Pair,
    busy: Pair,
}

/// Who reads what over the link.
struct Link<'a> {
    worker: &'a Place,
    reader: &'a Place,
    /// The large file and [`OTHER`], as the reader's mount shows them.
    large: PathBuf,
    other: PathBuf,
    /// The large one in the worker's tier.
    tier: PathBuf,
}

pub(super) async fn run(quick: bool) -> anyhow::Result<Vec<Case>> {
    let shape = Shape { large: 1 << 30, small_files: 0, small: 0 };
    let runs = if quick { 1 } else { 5 };
    let data = Scratch::in_memory()?;
    shape.write(data.path())?;
    load::write_noise(&data.path().join(OTHER.0), OTHER.1)?;
    let network = blocking(|| Network::create(1, 1))?;
    let server = source::serve(&network.store).await?;
    let bucket = Bucket::create(&server, BUCKET)?;
    for name in [LARGE, OTHER.0] {
        blocking(|| server.put_file(BUCKET, name, &data.path().join(name)))?;
    }

    let quota = (shape.bytes() + OTHER.1) * 5 / 4;
    let mut fleet = Fleet::start(Source::Bucket(&bucket), quota, &network.workers, &network.clients).await?;
    let mount = fleet.mount_first().await?;
    let (large, other) = (mount.join(LARGE), mount.join(OTHER.0));
    let figures = blocking(|| {
        eprintln!("first pass {:.3} GB/s", load::sequential(&large)?);
        load::pass(&other)?;
        let tier = tier_file(&fleet.workers[0].tier, shape.large)?;
        let link = Link { worker: &network.workers[0], reader: &network.clients[0], large, other, tier };
        let mut figures = Figures::default();
        (0..runs).try_for_each(|_| figures.measure(&link))?;
        anyhow::Ok(figures)
    })?;
    eprintln!("{figures:.3?}");
    fleet.unmount().await?;
    Ok(figures.cases())
}

impl Figures {
    fn measure(&mut self, link: &Link<'_>) -> anyhow::Result<()> {
        let Link { worker, reader, large, other, tier } = link;
        reader.shape(None)?;
        self.open.ours.push(load::sequential(large)?);
        self.open.limit.push(bare::sequential(worker, reader, tier)?);
        self.random.ours.push(load::latency(large, SECONDS)?);
        self.random.limit.push(bare::round_trip(worker, reader, tier, Duration::from_secs(SECONDS.into()))?);
        reader.shape(Some(SHAPED))?;
        self.shaped.ours.push(load::sequential(large)?);
        self.shaped.limit.push(bare::sequential(worker, reader, tier)?);
        // What the last pass left there is no stream.
        load::drop_caches()?;
        self.busy.ours.push(beside(|| load::pass(large), || load::latency(other, BESIDE))?);
        let round_trips = || bare::round_trip(worker, reader, tier, Duration::from_secs(BESIDE.into()));
        self.busy.limit.push(beside(|| bare::sequential(worker, reader, tier), round_trips)?);
        Ok(())
    }

    fn cases(&self) -> Vec<Case> {
        let part = |part| Goal { of_limit: Some(part), ..Goal::default() };
        let times = |times| Goal { times_limit: Some(times), ..Goal::default() };
        vec![
            case("remote-seq", "GB/s", &self.open, Better::Higher, part(0.6)),
            case("remote-seq-2g", "GB/s", &self.shaped, Better::Higher, part(0.95)),
            case("remote-rand4k", "us", &self.random, Better::Lower, times(3.0)),
            case("remote-rand4k-busy", "us", &self.busy, Better::Lower, Goal::default()),
        ]
    }
}

/// What `measure` finds while `stream`, which takes longer, is under way.
fn beside<S: Send, T>(
    stream: impl FnOnce() -> anyhow::Result<S> + Send,
    measure: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let stream = scope.spawn(stream);
        let found = measure();
        stream.join().map_err(|_| anyhow!("the stream panicked"))??;
        found
    })
}

fn case(name: &'static str, unit: &'static str, pair: &Pair, better: Better, goal: Goal) -> Case {
    Case::new(name, unit, better, &pair.ours, goal).limit(&pair.limit)
}
