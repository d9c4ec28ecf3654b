//! A long time of everything at once: readers of every habit, caches too small for what they read, files that are replaced,
//! and a worker that dies again and again. The workers that live on and the mount are watched.

mod files;
mod readers;
mod vitals;

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use penstock_cli::local::{Fleet, UpOptions};
use penstock_e2e::s3::SeaweedFs;
use tokio::time::sleep;

use self::{
    files::{BUCKET, Files, Kind},
    readers::{Habit, Reader, Tally},
    vitals::Vitals,
};
use super::{
    blocking,
    figures::{Better, Case, Goal},
    programs,
};
use crate::root;

/// Between two replaced files.
const REPLACE: u64 = 3;
/// Between two deaths of a worker, and how long it stays away.
const DEATH: u64 = 45;
const AWAY: u64 = 5;
/// Between two lines of progress.
const TELL: u64 = 15;
/// Percent: more is a leak, less is what allocators do.
const GROWTH: f64 = 5.0;

pub(super) async fn run(quick: bool) -> anyhow::Result<Vec<Case>> {
    sweep()?;
    fs::create_dir_all(state_dir())?;
    let _sweeper = Sweeper;
    let (vitals, tally) = soak(Duration::from_mins(if quick { 2 } else { 30 })).await?;
    blocking(sweep)?;
    for vitals in &vitals {
        eprintln!("{}", vitals.tell());
    }
    let most = |growth: fn(&Vitals) -> f64| vitals.iter().map(growth).fold(f64::MIN, f64::max);
    Ok(vec![
        case("soak-memory", "%", most(Vitals::memory_growth), GROWTH),
        case("soak-fds", "%", most(Vitals::descriptor_growth), GROWTH),
        case("soak-wrong", "bytes", tally.wrong.load(Relaxed) as f64, 0.0),
        case("soak-errors", "reads", tally.errors.load(Relaxed) as f64, 0.0),
    ])
}

fn case(name: &'static str, unit: &'static str, ours: f64, at_most: f64) -> Case {
    let goal = Goal { at_most: Some(at_most), ..Goal::default() };
    Case::new(name, unit, Better::Lower, &[ours], goal)
}

fn state_dir() -> PathBuf {
    root().join("target/soak")
}

/// Tells readers to end when dropped.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Sweeps when dropped: also when the run failed or was interrupted.
struct Sweeper;

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Err(error) = blocking(sweep) {
            eprintln!("soak: {error:?}");
        }
    }
}

/// Ends what this or an earlier run left. Blocks.
fn sweep() -> anyhow::Result<()> {
    if state_dir().is_dir() {
        if let Ok(fleet) = Fleet::find(&state_dir(), Some("soak")) {
            fleet.down()?;
        }
        fs::remove_dir_all(state_dir())?;
    }
    Ok(())
}

async fn soak(duration: Duration) -> anyhow::Result<(Vec<Vitals>, Arc<Tally>)> {
    let server = SeaweedFs::start(Ipv4Addr::LOCALHOST.into()).await?;
    let files = blocking(|| {
        server.create_bucket(BUCKET)?;
        Files::create(&server)
    })?;
    let options = up_options(&server)?;
    let fleet = Fleet::up(&options).await?;
    let root = fleet.mount_dir().context("the Dataset is mounted")?.to_owned();
    let vitals = watched(&fleet)?;
    let (files, tally, stop) = (Arc::new(files), Arc::new(Tally::default()), Stop::default());
    let crowd: Vec<JoinHandle<()>> = (0u64..)
        .zip(Habit::ALL)
        .map(|(number, habit)| {
            let reader =
                Reader { root: root.clone(), files: files.clone(), tally: tally.clone(), stop: stop.0.clone() };
            std::thread::spawn(move || reader.run(habit, number))
        })
        .collect();
    let mut stage = Stage { server, files, tally: tally.clone(), options, fleet, vitals };
    let played = stage.play(duration).await;
    drop(stop);
    let ended = blocking(|| crowd.into_iter().try_for_each(JoinHandle::join));
    played?;
    ended.map_err(|_| anyhow!("a reader panicked"))?;
    Ok((stage.vitals, tally))
}

fn up_options(server: &SeaweedFs) -> anyhow::Result<UpOptions> {
    let manifest = include_str!("soak/dataset.yaml")
        .replace("ENDPOINT", &server.endpoint())
        .replace("BUCKET", BUCKET)
        .replace("ACCESS_KEY", SeaweedFs::ACCESS_KEY)
        .replace("SECRET_KEY", SeaweedFs::SECRET_KEY);
    let file = root().join("target/soak.yaml");
    fs::write(&file, manifest)?;
    Ok(UpOptions { file, mount: None, base: state_dir(), programs: Some(programs()) })
}

/// The mount, and all workers but the last, which dies now and then.
fn watched(fleet: &Fleet) -> anyhow::Result<Vec<Vitals>> {
    let mut processes = fleet.processes();
    processes.pop();
    let mut watched: Vec<Vitals> = processes.iter().map(|(id, process)| Vitals::new(id, process.pid)).collect();
    watched.push(Vitals::new("mount", fleet.mount_process().context("the Dataset is mounted")?.pid));
    Ok(watched)
}

struct Stage {
    server: SeaweedFs,
    files: Arc<Files>,
    tally: Arc<Tally>,
    options: UpOptions,
    fleet: Fleet,
    vitals: Vec<Vitals>,
}

impl Stage {
    /// Second by second. The first tenth, in which buffers and pools come to their size, is not looked at.
    async fn play(&mut self, duration: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        for second in 1..=duration.as_secs() {
            sleep((begun + Duration::from_secs(second)).saturating_duration_since(Instant::now())).await;
            if second > duration.as_secs() / 10 {
                self.vitals.iter_mut().try_for_each(Vitals::look)?;
            }
            if second.is_multiple_of(REPLACE) {
                blocking(|| self.replace_one(second as usize / REPLACE as usize))?;
            }
            match second % DEATH {
                0 => self.kill_the_last(),
                AWAY if second > DEATH => self.fleet = Fleet::up(&self.options).await?,
                _ => {}
            }
            if second.is_multiple_of(TELL) {
                self.tell(second);
            }
        }
        Ok(())
    }

    fn replace_one(&self, turn: usize) -> anyhow::Result<()> {
        let kind = Kind::ALL[turn % Kind::ALL.len()];
        self.files.replace(&self.server, kind, turn.wrapping_mul(7919) % kind.count())
    }

    fn kill_the_last(&self) {
        if let Some((id, process)) = self.fleet.processes().pop() {
            process.kill();
            eprintln!("killed {id}");
        }
    }

    fn tell(&self, second: u64) {
        let Tally { reads, bytes, wrong, errors, stale } = &*self.tally;
        let gib = bytes.load(Relaxed) as f64 / f64::from(1 << 30);
        eprintln!(
            "{second:>5} s: {} reads, {gib:.2} GiB, {} bytes wrong, {} failed, {} told of a change",
            reads.load(Relaxed),
            wrong.load(Relaxed),
            errors.load(Relaxed),
            stale.load(Relaxed)
        );
    }
}
