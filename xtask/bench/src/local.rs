//! Warm reads with the worker on the reader's node, beside what people use today and what the tier itself gives.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{
    blocking,
    figures::{Better, Case, Goal},
    fleet::{Fleet, Place},
    load::{self, LARGE, Shape},
    peers::{self, Peer},
    scratch::Scratch,
    source::{self, Bucket, Source},
};

const BUCKET: &str = "local";
/// Of random reads in one run.
const SECONDS: u32 = 5;

/// What one reader measured, a value for each run.
#[derive(Debug, Default)]
struct Figures {
    sequential: Vec<f64>,
    random: Vec<f64>,
    small: Vec<f64>,
}

pub(super) async fn run(quick: bool) -> anyhow::Result<Vec<Case>> {
    let shape = Shape { large: 1 << 30, small_files: if quick { 4_000 } else { 20_000 }, small: 16 << 10 };
    let runs = if quick { 1 } else { 5 };
    let data = Scratch::in_memory()?;
    shape.write(data.path())?;
    let server = source::serve(&Place::here()).await?;
    let bucket = Bucket::create(&server, BUCKET)?;
    blocking(|| peers::fill(&bucket, data.path()))?;

    let (ours, limit) = ours(&bucket, data.path(), &shape, runs).await?;
    let (mut others, here) = (Vec::new(), Place::here());
    for peer in Peer::ALL {
        let figures = blocking(|| {
            let mounted = peer.mount(&here, &bucket, data.path())?;
            measure(peer.name(), &mounted.path(), &shape, runs)
        })?;
        others.push((peer.name(), figures));
    }
    let case = |name, unit, goal, pick: fn(&Figures) -> &Vec<f64>| {
        let case = Case::new(name, unit, Better::Higher, pick(&ours), goal).limit(pick(&limit));
        others.iter().fold(case, |case, (name, figures)| case.peer(name, pick(figures)))
    };
    Ok(vec![
        case("local-seq", "GB/s", Goal { of_limit: Some(0.9), of_best_peer: Some(2.5), ..Goal::default() }, |f| {
            &f.sequential
        }),
        case(
            "local-rand4k",
            "reads/s",
            Goal { of_limit: Some(0.5), of_best_peer: Some(7.0), ..Goal::default() },
            |f| &f.random,
        ),
        case("local-small", "files/s", Goal { of_best_peer: Some(4.0), ..Goal::default() }, |f| &f.small),
    ])
}

/// Through the mount of the worker's node, and the same from the files of its tier.
async fn ours(bucket: &Bucket, data: &Path, shape: &Shape, runs: usize) -> anyhow::Result<(Figures, Figures)> {
    let mut fleet = Fleet::here(Source::Bucket(bucket), shape.bytes() * 5 / 4).await?;
    let target = fleet.mount_first().await?;
    let ours = blocking(|| measure("penstock", &target, shape, runs))?;
    // The files of a tier have names of their own; small ones are compared with those that were copied into the bucket.
    let limit = blocking(|| {
        let file = tier_file(&fleet.workers[0].tier, shape.large)?;
        let mut limit = Figures::default();
        for _ in 0..runs {
            limit.sequential.push(load::sequential(&file)?);
            limit.random.push(load::random(&file, SECONDS)?);
            limit.small.push(load::small(data, shape)?);
        }
        tell("the tier's file", &limit);
        anyhow::Ok(limit)
    })?;
    fleet.unmount().await?;
    Ok((ours, limit))
}

/// One pass that warms everything, then `runs` that count.
fn measure(name: &str, folder: &Path, shape: &Shape, runs: usize) -> anyhow::Result<Figures> {
    let large = folder.join(LARGE);
    let warm = || anyhow::Ok((load::sequential(&large)?, load::small(folder, shape)?));
    let (sequential, small) = warm().with_context(|| format!("{name}: the first pass"))?;
    eprintln!("{name}: first pass {sequential:.3} GB/s, {small:.0} files/s");
    let mut figures = Figures::default();
    for _ in 0..runs {
        figures.sequential.push(load::sequential(&large)?);
        figures.random.push(load::random(&large, SECONDS)?);
        figures.small.push(load::small(folder, shape)?);
    }
    tell(name, &figures);
    Ok(figures)
}

fn tell(name: &str, figures: &Figures) {
    eprintln!(
        "{name}: {:.3?} GB/s, {:.0?} random reads/s, {:.0?} small files/s",
        figures.sequential, figures.random, figures.small
    );
}

/// The file of the tier that has this length.
pub(super) fn tier_file(folder: &Path, length: u64) -> anyhow::Result<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.len() == length {
                return Ok(entry.path());
            }
        }
    }
    anyhow::bail!("no file of {length} bytes in the tier {}", folder.display())
}
