//! Warm reads from a worker on another node, beside what the link between them allows.

use std::time::Duration;

use super::{
    bare, blocking, build,
    figures::{Better, Case, Goal},
    fleet::{Fleet, Network},
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

/// Ours and the limit, a value for each run.
#[derive(Debug, Default)]
struct Pair {
    ours: Vec<f64>,
    limit: Vec<f64>,
}

pub(super) async fn run(quick: bool) -> anyhow::Result<Vec<Case>> {
    build(&["penstock-worker", "penstock-mount"])?;
    let shape = Shape { large: 1 << 30, small_files: 0, small: 0 };
    let runs = if quick { 1 } else { 5 };
    let data = Scratch::in_memory()?;
    shape.write(data.path())?;
    let network = blocking(|| Network::create(1, 1))?;
    let server = source::serve(&network.store).await?;
    let bucket = Bucket::create(&server, BUCKET)?;
    blocking(|| server.put_file(BUCKET, LARGE, &data.path().join(LARGE)))?;

    let (quota, worker, reader) = (shape.bytes() * 5 / 4, &network.workers[0], &network.clients[0]);
    let mut fleet = Fleet::start(Source::Bucket(&bucket), quota, &network.workers, &network.clients).await?;
    let large = fleet.mount_first().await?.join(LARGE);
    let (open, shaped, random) = blocking(|| {
        eprintln!("first pass {:.3} GB/s", load::sequential(&large)?);
        let file = tier_file(&fleet.workers[0].tier, shape.large)?;
        let (mut open, mut shaped, mut random) = (Pair::default(), Pair::default(), Pair::default());
        for _ in 0..runs {
            reader.shape(None)?;
            open.ours.push(load::sequential(&large)?);
            open.limit.push(bare::sequential(worker, reader, &file)?);
            random.ours.push(load::latency(&large, SECONDS)?);
            random.limit.push(bare::round_trip(worker, reader, &file, Duration::from_secs(SECONDS.into()))?);
            reader.shape(Some(SHAPED))?;
            shaped.ours.push(load::sequential(&large)?);
            shaped.limit.push(bare::sequential(worker, reader, &file)?);
        }
        eprintln!("{open:.3?} GB/s, at {SHAPED} Mbit/s {shaped:.3?} GB/s, 4 KiB at random {random:.1?} us");
        anyhow::Ok((open, shaped, random))
    })?;
    fleet.unmount().await?;

    let part = |part| Goal { of_limit: Some(part), ..Goal::default() };
    Ok(vec![
        case("remote-seq", "GB/s", &open, Better::Higher, part(0.6)),
        case("remote-seq-2g", "GB/s", &shaped, Better::Higher, part(0.95)),
        case("remote-rand4k", "us", &random, Better::Lower, Goal { times_limit: Some(3.0), ..Goal::default() }),
    ])
}

fn case(name: &'static str, unit: &'static str, pair: &Pair, better: Better, goal: Goal) -> Case {
    Case::new(name, unit, better, &pair.ours, goal).limit(&pair.limit)
}
