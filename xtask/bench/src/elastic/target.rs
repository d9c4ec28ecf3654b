//! A target hit ratio over real workers: they are read from, tell what they saw, and are as many as the decision says.
//! Only the clock is simulated.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use penstock_api::autoscaling::{Autoscaling, AutoscalingStatus};
use penstock_model::{Object, PAGE};
use penstock_placement::MemberList;
use penstock_plan::{
    autoscaling::{Learned, Measured, Past, Scene, ValidAutoscaling, decide},
    numbers::History,
};
use penstock_testkit::traces::Kind;
use penstock_wire::{
    Address, Pool,
    message::{Pattern, Reach, Request, Response},
};
use serde_json::json;

use crate::{
    blocking,
    figures::{Better, Case, Goal},
    fleet::{Fleet, Place},
    load,
    scratch::Scratch,
    source::Source,
};

const TARGET: f64 = 0.9;
/// All that is read: objects of one page each, so that workers own equal parts.
const PAGES: u64 = 1600;
/// Of each worker; eight hold all.
const QUOTA: u64 = 64 << 20;
const LOW: f64 = 0.9;
const MOST: u32 = 10;
const BEGUN: u32 = 2;
/// The decision is made so often, by a clock that stands still between.
const STEP: Duration = Duration::from_secs(15);
/// Steps of one run, of which the last third is measured.
const STEPS: usize = 90;
const READS: usize = 1000;
const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of one kind of reads.
struct Outcome {
    size: u32,
    moves: u32,
    predicted: f64,
    seen: f64,
}

pub(super) async fn cases() -> anyhow::Result<[Case; 3]> {
    let data = Scratch::on_disk()?;
    for number in 0..2 * PAGES {
        load::write_noise(&data.path().join(name(number)), PAGE)?;
    }
    let (mut excesses, mut changes, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for kind in Kind::ALL {
        let reads = kind.reads(PAGES, STEPS * READS, 1);
        let outcome = World::start(&data).await?.live(&reads).await?;
        let least = least(&data, &reads, outcome.size).await?;
        let Outcome { size, moves, predicted, seen } = outcome;
        eprintln!(
            "elastic-target: {kind:?}: {size} workers, {least} suffice; {moves} changes; {predicted:.3} predicted, \
             {seen:.3} seen"
        );
        excesses.push(f64::from(size) - f64::from(least));
        changes.push(f64::from(moves));
        errors.push((predicted - seen).abs());
    }
    let worst = |values: Vec<f64>| values.into_iter().fold(0.0, f64::max);
    let case = |name, unit, values, most| {
        let goal = Goal { at_most: Some(most), ..Goal::default() };
        Case::new(name, unit, Better::Lower, &[worst(values)], goal)
    };
    Ok([
        case("elastic-target-excess", "workers", excesses, 1.0),
        case("elastic-target-changes", "changes", changes, 3.0),
        case("elastic-target-error", "hits", errors, 0.03),
    ])
}

/// The fewest workers that give the target, or nearly what `size` gives where that is less: with one fewer at a time.
async fn least(data: &Scratch, reads: &[u64], size: u32) -> anyhow::Result<u32> {
    let enough = World::start(data).await?.fixed(reads, size).await?.min(TARGET) - 0.01;
    let mut least = size;
    while least > 1 && World::start(data).await?.fixed(reads, least - 1).await? >= enough {
        least -= 1;
    }
    Ok(least)
}

fn name(number: u64) -> String {
    format!("{number:05}.bin")
}

struct World {
    fleet: Fleet,
    pool: Pool,
    list: MemberList,
    objects: Vec<Object>,
}

impl World {
    async fn start(data: &Scratch) -> anyhow::Result<Self> {
        let places = vec![Place::here(); MOST as usize];
        let fleet = Fleet::start(Source::Folder(data.path()), QUOTA, &places, &[]).await?;
        let list = MemberList { epoch: 1, ..MemberList::default() };
        let mut world = Self { fleet, pool: Fleet::pool()?, list, objects: Vec::new() };
        world.resize(BEGUN)?;
        for number in 0..2 * PAGES {
            world.objects.push(world.object(&name(number)).await?);
        }
        Ok(world)
    }

    async fn object(&self, name: &str) -> anyhow::Result<Object> {
        let path = name.as_bytes().to_vec();
        let address = Address::Tcp(self.list.members[0].addr.clone());
        match self.pool.call(&address, Request::Stat { path: path.clone() }).await? {
            Response::Attr { attr, .. } => {
                let (key, version) = attr.object.context("a file has a version")?;
                Ok(Object { key, path, version, size: attr.size })
            }
            other => bail!("a worker answers with {other:?}"),
        }
    }

    /// So many workers from now on; those that leave have handed over when it returns.
    fn resize(&mut self, to: u32) -> anyhow::Result<()> {
        let members = self.fleet.workers[..to as usize].iter().map(|worker| worker.member(QUOTA)).collect();
        let Some(list) = self.list.next(members) else { return Ok(()) };
        let (from, fleet) = (self.list.members.len(), &self.fleet);
        self.list = list.clone();
        blocking(|| {
            for worker in &fleet.workers {
                worker.set_members(&list)?;
            }
            for worker in fleet.workers.iter().take(from).skip(to as usize) {
                let begun = Instant::now();
                worker.drain()?;
                loop {
                    let handover = worker.stats()?.handover;
                    if !handover.running && handover.finished_epoch == list.epoch {
                        break;
                    }
                    ensure!(begun.elapsed() < PATIENCE, "a hand-over is not done after {} s", PATIENCE.as_secs());
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            Ok(())
        })
    }

    async fn read(&self, page: u64) -> anyhow::Result<()> {
        let object = &self.objects[page as usize];
        let owner = self.list.owner(object.key.placement(0)).context("a list has members")?;
        let (len, pattern, reach) = (PAGE as u32, Pattern::Random, Reach::Ufs);
        let request = Request::Read { object: object.clone(), offset: 0, len, pattern, reach };
        match self.pool.call(&Address::Tcp(owner.addr.clone()), request).await? {
            Response::Data(_) | Response::SharedData { .. } => Ok(()),
            other => bail!("a worker answers with {other:?}"),
        }
    }

    async fn read_all(&self, pages: &[u64]) -> anyhow::Result<()> {
        stream::iter(pages).map(|page| self.read(*page)).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// Bytes that all workers got from the UFS so far.
    fn fetched(&self) -> anyhow::Result<u64> {
        blocking(|| self.fleet.workers.iter().map(|worker| Ok(worker.stats()?.ufs_bytes)).sum())
    }

    /// The part of `pages` that did not come from the UFS.
    async fn hit_ratio(&self, pages: &[u64]) -> anyhow::Result<f64> {
        let before = self.fetched()?;
        self.read_all(pages).await?;
        Ok(1.0 - (self.fetched()? - before) as f64 / (pages.len() as u64 * PAGE) as f64)
    }

    /// What a fixed number of workers gives.
    async fn fixed(mut self, reads: &[u64], size: u32) -> anyhow::Result<f64> {
        self.resize(size)?;
        let (first, last) = reads.split_at(STEPS * 2 / 3 * READS);
        self.read_all(first).await?;
        self.hit_ratio(last).await
    }

    async fn live(mut self, reads: &[u64]) -> anyhow::Result<Outcome> {
        let spec: Autoscaling = serde_json::from_value(json!({
            "maxReplicas": MOST, "metrics": [{"type": "HitRatio", "target": TARGET * 100.0}]
        }))?;
        let spec = ValidAutoscaling::new(&spec, &BTreeMap::new());
        let created = Timestamp::UNIX_EPOCH;
        let (mut now, mut past, mut learned) = (created, Past::new(created), Learned::new(created));
        let (mut numbers, mut kept) = (History::default(), AutoscalingStatus::default());
        let (mut size, mut moves, mut predicted, mut seen) = (BEGUN, 0, 0.0, Vec::new());
        for (step, pages) in reads.chunks(READS).enumerate() {
            let hit = self.hit_ratio(pages).await?;
            now += STEP;
            let mut used = 0;
            for (ordinal, worker) in (0..).zip(&self.fleet.workers[..size as usize]) {
                let stats = blocking(|| worker.stats())?;
                used += stats.tiers.iter().map(|tier| tier.used_bytes).sum::<u64>();
                numbers.add(ordinal, now, &stats.asked);
                learned.add(ordinal, now, stats.asked.boot, &stats.reuse);
            }
            let minute = numbers.rates(Duration::from_mins(1), now);
            let measured = Measured { minute, worker_capacity: QUOTA, used_bytes: Some(used), ..Measured::default() };
            let forecast = learned.forecast(Some(size), (QUOTA as f64 * LOW) as u64, Some(used));
            if step >= STEPS * 2 / 3 {
                seen.push(hit);
            } else if let Some(forecast) = &forecast {
                predicted = forecast.ratio(size);
            }
            let decision = decide(&Scene {
                spec: &spec,
                replicas: BEGUN,
                changed_by: None,
                kept: &kept,
                current: Some(size),
                measured: &measured,
                forecast: forecast.as_ref(),
                past: &past,
                users: 1,
                created,
                now,
            });
            past.note(now, decision.wish, Some(size), decision.replicas);
            kept = decision.status;
            if decision.replicas != size {
                (size, moves) = (decision.replicas, moves + 1);
                self.resize(size)?;
            }
        }
        let seen = seen.iter().sum::<f64>() / seen.len() as f64;
        Ok(Outcome { size, moves, predicted, seen })
    }
}
