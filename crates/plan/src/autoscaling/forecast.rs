//! What other sizes would give: the curve of a Dataset, and the wish that follows from it.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use penstock_api::autoscaling::{CurvePoint, CurveStatus};
use penstock_curve::{Check, Curve, Reuse, USUAL_SKILL};

use super::{
    Scene,
    wish::{percent, rounded},
};

/// What was read counts half after so long.
const HALF_LIFE: Duration = Duration::from_mins(30);
/// Counts are faded so often.
const STEP: Duration = Duration::from_secs(30);
/// How popular pages are is forgotten when their worker has not told it for so long.
const GONE: Duration = Duration::from_mins(5);
/// No worker more is wished for a gain of less than this, in parts of what is read.
const WORTH: f64 = 0.02;
/// A smaller size is wished only if it is as much above the target, so that the wish does not swing.
const MARGIN: f64 = 0.03;
/// The most sizes that the status tells.
const POINTS: u32 = 16;

/// What workers told of reuse, over time. Neither a restart of a worker nor one of the operator counts anything twice.
#[derive(Debug)]
pub struct Learned {
    curve: Curve,
    workers: BTreeMap<u32, Told>,
    faded: Timestamp,
    /// The size that `curve` has seen hits of.
    size: Option<u32>,
    /// What the size before taught.
    skill: f64,
    /// What the present one teaches.
    fitted: f64,
}

#[derive(Debug)]
struct Told {
    at: Timestamp,
    boot: u64,
    reuse: Reuse,
}

/// The curve at one moment.
#[derive(Debug)]
pub struct Forecast<'a> {
    curve: &'a Curve,
    /// Bytes of one worker.
    each: f64,
    skill: f64,
    check: Option<(Check, f64)>,
}

impl Learned {
    pub fn new(now: Timestamp) -> Self {
        let (curve, workers) = (Curve::default(), BTreeMap::new());
        Self { curve, workers, faded: now, size: None, skill: USUAL_SKILL, fitted: USUAL_SKILL }
    }

    /// Takes what a worker answered at `at`; `boot` tells its processes apart.
    pub fn add(&mut self, worker: u32, at: Timestamp, boot: u64, reuse: &Reuse) {
        let since = Duration::try_from(at.duration_since(self.faded)).unwrap_or_default();
        if since >= STEP {
            self.curve.fade(0.5_f64.powf(since.as_secs_f64() / HALF_LIFE.as_secs_f64()));
            self.faded = at;
        }
        let none = Reuse::default();
        let known = self.workers.get(&worker).filter(|told| told.boot == boot && told.reuse.reads <= reuse.reads);
        self.curve.add(known.map_or(&none, |told| &told.reuse), reuse);
        self.workers.insert(worker, Told { at, boot, reuse: reuse.clone() });
        self.workers.retain(|_, told| told.at + GONE > at);
    }

    /// With `size` workers that hold `held` bytes of the `each` that one may; `None` until enough was read.
    pub fn forecast(&mut self, size: Option<u32>, each: u64, held: Option<u64>) -> Option<Forecast<'_>> {
        if self.size != size {
            self.curve.forget_seen();
            (self.size, self.skill) = (size, self.fitted);
        }
        if !self.curve.is_known() || each == 0 {
            return None;
        }
        let told = || self.workers.values().map(|told| &told.reuse);
        let part: f64 = told().filter(|reuse| reuse.members > 0).map(|reuse| 1.0 / reuse.members as f64).sum();
        self.curve.set_popular(told().flat_map(|reuse| &reuse.popular), part.clamp(0.001, 1.0));
        let held = held.unwrap_or(0).min(each.saturating_mul(size.unwrap_or(0).into())) as f64;
        let check = self.curve.check(held).map(|check| (check, self.curve.predict(held, self.skill)));
        self.fitted = check.and_then(|(check, _)| check.skill).unwrap_or(self.skill);
        Some(Forecast { curve: &self.curve, each: each as f64, skill: self.fitted, check })
    }
}

impl Forecast<'_> {
    /// The hit ratio to expect of so many workers, 0 to 1.
    pub fn ratio(&self, workers: u32) -> f64 {
        self.curve.predict(self.each * f64::from(workers), self.skill)
    }

    /// The smallest size that reaches `target`. Where none does, the smallest that is worth its last workers: a cliff
    /// behind a plateau is seen, and one that is out of reach is not waited for.
    pub(super) fn wish(&self, target: f64, scene: &Scene<'_>) -> u32 {
        let (min, max) = (scene.spec.min.max(1), scene.spec.max);
        let best = self.ratio(max);
        let target = if best < target { best - WORTH } else { target };
        let least = |target: f64| (min..max).find(|size| self.ratio(*size) >= target).unwrap_or(max);
        let (up, down) = (least(target), least(target + MARGIN));
        match scene.current {
            Some(current) if (up..=down).contains(&current) => current,
            Some(current) if current > down => down,
            _ => up,
        }
    }

    pub(super) fn told(&self, scene: &Scene<'_>) -> CurveStatus {
        let max = scene.spec.max;
        let sizes = (1..=POINTS).map(|n| (n * max).div_ceil(POINTS.min(max))).filter(|size| *size <= max);
        let point = |replicas| CurvePoint { replicas, hit_percent: percent(self.ratio(replicas)) };
        CurveStatus {
            seen_percent: self.check.map(|(check, _)| percent(check.seen)),
            predicted_percent: self.check.map(|(_, predicted)| percent(predicted)),
            bytes_per_second: scene.measured.five_minutes.map(|rates| rounded(rates.total(), 1)),
            points: sizes.map(point).collect(),
        }
    }
}
