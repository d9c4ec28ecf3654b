//! Names and attributes of a tree of many objects: what a first listing asks of the store, how fast names and attributes
//! are told once they are known, and what knowing them costs.

mod store;
mod walk;

use std::{path::Path, time::Instant};

use anyhow::{Context, ensure};

use self::{
    store::{Store, Tree},
    walk::{stat_all, walk, walk_first},
};
use super::{
    blocking,
    figures::{Better, Case, Goal},
    fleet::Fleet,
    load::drop_dentries,
    process,
    source::Source,
};

const BUCKET: &str = "metadata";
const THREADS: usize = 4;
/// Files that are asked for by name.
const NAMED: usize = 50_000;
/// Bytes of the tier, of which nothing is used.
const QUOTA: u64 = 64 << 20;

/// What one mount showed; rates per second, a value for each run.
#[derive(Debug, Default)]
struct Figures {
    lists: f64,
    listed: f64,
    /// Until the first entry of the large directory, in milliseconds; and until all of them.
    first_entry: f64,
    all_entries: f64,
    worker_bytes: f64,
    mount_bytes: f64,
    walked: Vec<f64>,
    one_thread: Vec<f64>,
    threads: Vec<f64>,
    kernel: Vec<f64>,
}

pub(super) async fn run(quick: bool) -> anyhow::Result<Vec<Case>> {
    let (tree, runs) = if quick { (Tree::QUICK, 1) } else { (Tree::FULL, 5) };
    let begun = Instant::now();
    let store = if quick { Store::seaweed_fs(BUCKET, tree).await? } else { Store::double(BUCKET, tree)? };
    eprintln!("{} objects made in {:.1} s", tree.objects(), begun.elapsed().as_secs_f64());
    let mut fleet = Fleet::here(Source::Bucket(store.bucket()), QUOTA).await?;
    let before = anonymous(fleet.workers[0].pid())?;
    let target = fleet.mount_first().await?;
    let figures = blocking(|| measure(&target, &fleet, &store, tree, before, runs))?;
    eprintln!("{figures:.1?}");
    fleet.unmount().await?;
    Ok(cases(&figures, tree))
}

fn measure(
    target: &Path,
    fleet: &Fleet,
    store: &Store,
    tree: Tree,
    before: f64,
    runs: usize,
) -> anyhow::Result<Figures> {
    let objects = tree.objects() as f64;
    let mut figures = Figures::default();
    let mount = anonymous(mount_process(fleet)?)?;
    (figures.first_entry, figures.all_entries) = walk_first(&target.join(Tree::LARGE), tree.large)?;
    let found = walk(target, false)?;
    ensure!(found.files == tree.objects(), "{} files were found of {}", found.files, tree.objects());
    (figures.lists, figures.listed) = (store.lists()? as f64, found.files as f64 / found.seconds);
    figures.worker_bytes = (anonymous(fleet.workers[0].pid())? - before) / objects;
    for _ in 0..runs {
        drop_dentries()?;
        let walked = walk(target, true)?;
        figures.walked.push(walked.files as f64 / walked.seconds);
        if figures.mount_bytes == 0.0 {
            figures.mount_bytes = (anonymous(mount_process(fleet)?)? - mount) / objects;
        }
        let some = &walked.paths[..walked.paths.len().min(NAMED)];
        figures.kernel.push(stat_all(some, 1)?);
        drop_dentries()?;
        figures.one_thread.push(stat_all(some, 1)?);
        drop_dentries()?;
        figures.threads.push(stat_all(some, THREADS)?);
    }
    Ok(figures)
}

fn cases(figures: &Figures, tree: Tree) -> Vec<Case> {
    let most = (tree.objects() / 1000 + tree.directories()) as f64;
    let case = |name, unit, ours: f64, better, goal| Case::new(name, unit, better, &[ours], goal);
    let rate = |name, runs: &Vec<f64>, goal| Case::new(name, "stat/s", Better::Higher, runs, goal);
    let at_most = |most| Goal { at_most: Some(most), ..Goal::default() };
    let fast = Goal { at_least: Some(50_000.0), ..Goal::default() };
    vec![
        case("meta-list", "calls", figures.lists, Better::Lower, at_most(most)),
        case("meta-list-rate", "files/s", figures.listed, Better::Higher, Goal::default()),
        case("meta-first", "ms", figures.first_entry, Better::Lower, Goal::default()),
        case("meta-all", "ms", figures.all_entries, Better::Lower, Goal::default()),
        rate("meta-stat", &figures.walked, fast),
        rate("meta-stat-name", &figures.one_thread, Goal::default()),
        rate("meta-stat-names", &figures.threads, Goal::default()),
        rate("meta-stat-kernel", &figures.kernel, Goal::default()),
        case("meta-memory", "B/object", figures.worker_bytes, Better::Lower, at_most(300.0)),
        case("meta-inode", "B/object", figures.mount_bytes, Better::Lower, at_most(300.0)),
    ]
}

/// Bytes of memory that a process has for itself alone.
fn anonymous(process: u32) -> anyhow::Result<f64> {
    Ok(process::memory(process, "RssAnon")? as f64)
}

/// The process that serves the mount: the plugin's child.
fn mount_process(fleet: &Fleet) -> anyhow::Result<u32> {
    process::family(fleet.clients[0].pid())?.get(1).copied().context("the plugin serves no mount")
}
