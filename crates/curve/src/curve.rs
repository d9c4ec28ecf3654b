//! The curve: what caches of other sizes would hit.

use std::collections::BTreeMap;

use crate::{
    distances::{self, COUNT},
    reuse::{Popular, Reuse},
};

/// With fewer reads in the sample a curve says nothing.
const ENOUGH: f64 = 500.0;
/// How far from the least recently read towards the best choice of pages a tier gets, as long as nothing tells.
pub const USUAL_SKILL: f64 = 0.85;
/// Where the two are nearer than this, what was seen does not tell the skill.
const TELLING: f64 = 0.05;
/// What was seen is believed when it is of at least this part of what the curve is of.
const SEEN: f64 = 0.02;

/// Sums over workers and time; older counts weigh less when [`Curve::fade`]d.
#[derive(Clone, Debug)]
pub struct Curve {
    reads: f64,
    asked: f64,
    sampled: f64,
    first: f64,
    again: Vec<f64>,
    hit: f64,
    missed: f64,
    popular: BTreeMap<i16, (f64, f64)>,
}

impl Default for Curve {
    fn default() -> Self {
        let again = vec![0.0; COUNT];
        let popular = BTreeMap::new();
        Self { reads: 0.0, asked: 0.0, sampled: 0.0, first: 0.0, again, hit: 0.0, missed: 0.0, popular }
    }
}

/// What came at the present size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Check {
    /// The part of the bytes that did not come from the UFS, 0 to 1.
    pub seen: f64,
    /// The skill that explains it, where it tells one.
    pub skill: Option<f64>,
}

impl Curve {
    /// All that has been counted counts `part` as much from now on.
    pub fn fade(&mut self, part: f64) {
        let counts =
            [&mut self.reads, &mut self.asked, &mut self.sampled, &mut self.first, &mut self.hit, &mut self.missed];
        counts.into_iter().chain(&mut self.again).for_each(|count| *count *= part);
    }

    /// Adds what a worker has counted after it told `before`, which is of the same process.
    pub fn add(&mut self, before: &Reuse, now: &Reuse) {
        let grown = |count: fn(&Reuse) -> u64| count(now).saturating_sub(count(before)) as f64;
        self.reads += grown(|reuse| reuse.reads);
        self.asked += grown(|reuse| reuse.asked);
        self.sampled += grown(|reuse| reuse.sampled);
        self.first += grown(|reuse| reuse.first);
        self.hit += grown(|reuse| reuse.hit);
        self.missed += grown(|reuse| reuse.missed);
        let before: BTreeMap<u16, u64> = before.again.iter().copied().collect();
        for (step, bytes) in &now.again {
            let known = before.get(step).copied().unwrap_or(0);
            if let Some(sum) = self.again.get_mut(usize::from(*step)) {
                *sum += bytes.saturating_sub(known) as f64;
            }
        }
    }

    /// Sets how popular pages are now, as workers told that own this `part` of all pages.
    pub fn set_popular<'a>(&mut self, all: impl Iterator<Item = &'a Popular>, part: f64) {
        self.popular.clear();
        for one in all {
            let (bytes, read) = self.popular.entry(one.class).or_default();
            *bytes += one.bytes as f64 / part;
            *read += one.read as f64 / part;
        }
    }

    /// Whether enough was read to say anything.
    pub fn is_known(&self) -> bool {
        self.reads >= ENOUGH && self.first + self.again.iter().sum::<f64>() > 0.0
    }

    /// The hit ratio of a cache that holds the `bytes` read last, 0 to 1.
    pub fn recent(&self, bytes: f64) -> f64 {
        let again: f64 = self.again.iter().sum();
        let below = |(step, sum): (usize, &f64)| sum * distances::part_below(step, bytes);
        let hit: f64 = self.again.iter().enumerate().map(below).sum();
        // The sample has too many or too few of the pages that are read most, and those are near.
        let surplus = self.asked - self.sampled;
        let (hit, all) = (hit + surplus.max(-hit), self.first + again + surplus);
        if all > 0.0 { (hit / all).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The hit ratio of a cache that holds the best `bytes` of pages all the time, 0 to 1.
    pub fn best(&self, bytes: f64) -> f64 {
        let all: f64 = self.popular.values().map(|(_, read)| read).sum();
        let (mut room, mut hit) = (bytes, 0.0);
        for (size, read) in self.popular.values().rev() {
            hit += read * (room / size.max(1.0)).clamp(0.0, 1.0);
            room -= size;
        }
        if all > 0.0 { self.recent(f64::MAX) * hit / all } else { 0.0 }
    }

    /// What came of reads by tiers that held `bytes`; `None` while too little is known.
    pub fn check(&self, bytes: f64) -> Option<Check> {
        let (known, counted) = (self.hit + self.missed, self.first + self.again.iter().sum::<f64>());
        if !self.is_known() || known <= SEEN * counted {
            return None;
        }
        let seen = self.hit / known;
        let (recent, best) = (self.recent(bytes), self.best(bytes));
        let tells = best - recent > TELLING;
        Some(Check { seen, skill: tells.then(|| ((seen - recent) / (best - recent)).clamp(0.0, 1.0)) })
    }

    /// Tiers have another size now: what was seen before says nothing of it.
    pub fn forget_seen(&mut self) {
        (self.hit, self.missed) = (0.0, 0.0);
    }

    /// The hit ratio to expect of tiers of `bytes`, 0 to 1. With a `skill` of 0 they keep what was read last, with 1 what is
    /// best to keep.
    pub fn predict(&self, bytes: f64, skill: f64) -> f64 {
        let recent = self.recent(bytes);
        recent + skill * (self.best(bytes) - recent).max(0.0)
    }
}
