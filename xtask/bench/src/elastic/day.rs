//! A simulated day of a fund, from nobody to thousands of readers and back: what cache sizes cost, and what readers wait.
//!
//! Workers send at most so much each, what they lack comes from a narrower store, and a new one takes a while. What readers
//! want and do not get, they want later.

use std::{collections::BTreeMap, path::Path, time::Duration};

use jiff::{Timestamp, ToSpan};
use penstock_api::autoscaling::{Autoscaling, AutoscalingStatus};
use penstock_e2e::noise::number;
use penstock_plan::{
    autoscaling::{Measured, Past, Scene, ValidAutoscaling, decide},
    numbers::Rates,
};
use plotters::prelude::*;
use serde_json::json;

use crate::{
    figures::{Better, Case, Goal, median},
    root,
};

const STEP: Duration = Duration::from_secs(15);
const STEPS: u64 = 24 * 240;
const GB: f64 = 1e9;
/// Of one worker, bytes and bytes per second.
const CAPACITY: f64 = 400.0 * GB;
const WORKER: f64 = GB;
/// Of the store, bytes per second.
const STORE: f64 = 2.0 * GB;
/// Steps from the decision until a new worker serves.
const STARTS: usize = 3;
const MOST: u32 = 20;
/// Of one reader, bytes per second.
const READER: f64 = 5e6;
/// What a scaler by processor use holds workers at, in parts of what they can send; the usual target.
const BUSY: f64 = 0.6;
/// A scaler by fill adds workers above this.
const FULL: f64 = 0.9;
/// Of the scalers that shrink: how long the greatest wish counts.
const STABLE: usize = 20;

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scaler {
    Penstock,
    Cpu,
    Cron,
    Fill,
}

/// What a day cost.
#[derive(Clone, Debug, Default)]
struct Day {
    worker_hours: f64,
    /// Seconds that a byte came late, on average.
    late: f64,
    sizes: Vec<u32>,
}

/// The goal is to cost less than every other scaler with which readers wait no longer.
pub(super) fn cases() -> anyhow::Result<[Case; 2]> {
    const SEEDS: u64 = 5;
    let others = [(Scaler::Cpu, "hpa-cpu"), (Scaler::Cron, "keda-cron"), (Scaler::Fill, "fluid-fill")];
    let days = |scaler| (1..=SEEDS).map(|seed| day(scaler, seed)).collect::<Vec<_>>();
    let hours = |days: &[Day]| days.iter().map(|day| day.worker_hours).collect::<Vec<_>>();
    let late = |days: &[Day]| days.iter().map(|day| day.late).collect::<Vec<_>>();
    let ours = days(Scaler::Penstock);
    let others = others.map(|(scaler, name)| (name, days(scaler)));
    let as_good = others.iter().filter(|(_, days)| median(late(days)) <= median(late(&ours)));
    let at_most = as_good.map(|(_, days)| median(hours(days))).min_by(f64::total_cmp);
    let mut cost =
        Case::new("elastic-day", "worker-h", Better::Lower, &hours(&ours), Goal { at_most, ..Goal::default() });
    let mut wait = Case::new("elastic-day-late", "s", Better::Lower, &late(&ours), Goal::default());
    for (name, days) in &others {
        cost = cost.peer(name, &hours(days));
        wait = wait.peer(name, &late(days));
    }
    let drawn: Vec<_> =
        [("penstock", &ours)].into_iter().chain(others.iter().map(|(name, days)| (*name, days))).collect();
    let file = root().join("target/bench/elastic-day.svg");
    draw(&file, &drawn)?;
    eprintln!("elastic-day: drawn in {}", file.display());
    Ok([cost, wait])
}

/// Readers at a step, and the bytes that they go through again and again.
fn readers(step: u64, seed: u64) -> (f64, f64) {
    let chance = |salt: u64| number(seed * 1000 + salt, step) as f64 / u64::MAX as f64;
    let hour = step as f64 / 240.0;
    let ramp = |from: f64, to: f64| ((hour - from) / (to - from)).clamp(0.0, 1.0);
    // Research by day, with a pause at noon, and batches after the close that come when they come.
    let research =
        600.0 * ramp(8.5, 9.5) * (1.0 - ramp(17.5, 18.5)) * if (11.5..13.0).contains(&hour) { 0.4 } else { 1.0 };
    let late = (number(seed, 7) % 60) as f64 / 60.0;
    let batches = 3000.0 * ramp(18.0 + late, 18.2 + late) * (1.0 - ramp(20.5 + late, 20.7 + late));
    let all = (research + batches) * (0.85 + 0.3 * chance(1));
    let set = if all > 0.0 { 0.5e12 + 2.0e12 * (batches / 3000.0) } else { 0.0 };
    (all.floor(), set)
}

fn day(scaler: Scaler, seed: u64) -> Day {
    let mut ours = Ours::new();
    let (mut day, mut backlog, mut owed, mut asked) = (Day::default(), 0.0_f64, 0.0, 0.0);
    // Decided sizes, the newest last; what serves now was decided `STARTS` steps ago, unless it is less since.
    let (mut decided, mut filled) = (vec![0_u32; STARTS + 1], 0.0_f64);
    let mut wishes = vec![0_u32; STABLE];
    for step in 0..STEPS {
        let (count, set) = readers(step, seed);
        let serving = decided[decided.len() - 1 - STARTS..].iter().copied().min().unwrap_or_default();
        let seconds = STEP.as_secs_f64();
        let wanted = count * READER * seconds + backlog;
        let room = CAPACITY * f64::from(serving);
        filled = filled.min(room);
        let hit = if set > 0.0 { (filled / set).min(1.0) } else { 1.0 };
        let most = (WORKER * f64::from(serving)).min(if hit < 1.0 { STORE / (1.0 - hit) } else { f64::INFINITY });
        let given = wanted.min(most * seconds);
        filled = (filled + given * (1.0 - hit)).min(room);
        backlog = wanted - given;
        owed += backlog * seconds;
        asked += count * READER * seconds;
        let rate = given / seconds;
        let wish = match scaler {
            Scaler::Penstock => ours.decide(step, count, rate, hit, backlog),
            Scaler::Cpu => (rate / WORKER / BUSY).ceil().max(1.0) as u32,
            Scaler::Cron => {
                if (8 * 240..22 * 240).contains(&step) {
                    MOST
                } else {
                    0
                }
            }
            Scaler::Fill if serving == 0 => 1,
            Scaler::Fill => (filled / CAPACITY / FULL).ceil().max(1.0) as u32,
        };
        wishes.push(wish.min(MOST));
        let size = match scaler {
            Scaler::Cpu | Scaler::Fill => wishes[wishes.len() - STABLE..].iter().copied().max().unwrap_or_default(),
            Scaler::Penstock | Scaler::Cron => wish.min(MOST),
        };
        decided.push(size);
        day.worker_hours += f64::from(size) * seconds / 3600.0;
        day.sizes.push(size);
    }
    day.late = owed / asked;
    day
}

/// `spec.autoscaling` as a fund would write it.
struct Ours {
    spec: ValidAutoscaling,
    past: Past,
    kept: AutoscalingStatus,
    current: u32,
    rates: Vec<f64>,
    unused: Duration,
}

impl Ours {
    fn new() -> Self {
        let spec: Autoscaling = serde_json::from_value(json!({
            "minReplicas": 0, "maxReplicas": MOST,
            "schedules": [
                {"name": "open", "schedule": "25 8 * * *", "replicas": 4},
                {"name": "batches", "schedule": "55 17 * * *", "replicas": 8},
                {"name": "night", "schedule": "0 21 * * *", "replicas": 0}
            ],
            "metrics": [{"type": "Throughput", "target": "750M"}],
            "idle": {"afterSeconds": 300}
        }))
        .unwrap_or_default();
        let spec = ValidAutoscaling::new(&spec, &BTreeMap::new());
        let past = Past::new(Timestamp::UNIX_EPOCH);
        Self { spec, past, kept: AutoscalingStatus::default(), current: 0, rates: Vec::new(), unused: Duration::ZERO }
    }

    fn decide(&mut self, step: u64, readers: f64, rate: f64, hit: f64, backlog: f64) -> u32 {
        self.rates.push(rate);
        let over = |steps: usize| {
            let last = &self.rates[self.rates.len().saturating_sub(steps)..];
            let mean = last.iter().sum::<f64>() / last.len() as f64;
            Some(Rates { hit: mean * hit, miss: mean * (1.0 - hit), opened: 0.0 })
        };
        self.unused = if readers > 0.0 { Duration::ZERO } else { self.unused + STEP };
        let now = Timestamp::UNIX_EPOCH + ((step * STEP.as_secs()) as i64).seconds();
        // Pods wait to start while there is no worker yet.
        let waiting = if self.current == 0 && backlog > 0.0 { readers as u32 } else { 0 };
        let measured = Measured {
            minute: over(4),
            five_minutes: over(20),
            unused_for: (self.current > 0).then_some(self.unused),
            worker_capacity: CAPACITY as u64,
            waiting_pods: Some(waiting),
            ..Measured::default()
        };
        let decision = decide(&Scene {
            spec: &self.spec,
            replicas: 0,
            changed_by: None,
            kept: &self.kept,
            current: Some(self.current),
            measured: &measured,
            forecast: None,
            past: &self.past,
            users: readers as u32,
            created: Timestamp::UNIX_EPOCH,
            now,
        });
        self.past.note(now, decision.wish, Some(self.current), decision.replicas);
        (self.current, self.kept) = (decision.replicas, decision.status);
        self.current
    }
}

/// Sizes over the first day.
fn draw(file: &Path, days: &[(&str, &Vec<Day>)]) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let area = SVGBackend::new(file, (900, 400)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 40)
        .set_label_area_size(LabelAreaPosition::Bottom, 32)
        .build_cartesian_2d(0.0..24.0, 0.0..f64::from(MOST + 1))?;
    chart.configure_mesh().x_desc("hour").y_desc("workers").draw()?;
    for ((name, days), color) in days.iter().zip([BLUE, RED, BLACK, GREEN]) {
        let points = days[0].sizes.iter().enumerate().map(|(step, size)| (step as f64 / 240.0, f64::from(*size)));
        let line = LineSeries::new(points, color);
        chart.draw_series(line)?.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_scaler_is_both_cheaper_and_quicker() {
        let ours = day(Scaler::Penstock, 1);
        for scaler in [Scaler::Cpu, Scaler::Cron, Scaler::Fill] {
            let theirs = day(scaler, 1);
            let text = format!("{scaler:?}: {:.1} worker-hours, {:.2} s late", theirs.worker_hours, theirs.late);
            assert!(ours.worker_hours < theirs.worker_hours || ours.late < theirs.late, "{text}");
        }
        assert_eq!(ours.sizes.last(), Some(&0), "nobody is there at the end of the day");
    }
}
