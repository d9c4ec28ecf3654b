//! What workers counted, over time: rates that neither a restart of a worker nor one of the operator falsifies.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use penstock_wire::message::{Asked, Stats};

/// How long samples are kept.
const KEPT: Duration = Duration::from_hours(1);
/// Samples of one worker are at least so far apart.
const APART: Duration = Duration::from_secs(5);
/// Samples older than this are kept only as far apart as the next.
const CLOSE: Duration = Duration::from_mins(16);
const COARSE: Duration = Duration::from_mins(1);
/// Without a newer sample than this there is no rate.
const FRESH: Duration = Duration::from_mins(1);

/// Rates are told over so many minutes.
pub const WINDOWS: [u32; 3] = [1, 5, 15];

/// What the workers of one Dataset counted during the last hour.
#[derive(Clone, Debug, Default)]
pub struct History {
    workers: BTreeMap<u32, VecDeque<(Timestamp, Asked)>>,
}

/// What mounts took, in bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// From the cache.
    pub hit: f64,
    /// From peers and the UFS.
    pub miss: f64,
    /// Through the kernel, from the tier of the reader's own node: estimated by the sizes of the files opened.
    pub opened: f64,
}

impl Rates {
    /// All that readers took, in bytes per second.
    pub fn total(&self) -> f64 {
        self.hit + self.miss + self.opened
    }

    /// The part that came from the cache; `None` when nothing was read.
    pub fn hit_ratio(&self) -> Option<f64> {
        (self.total() > 0.0).then(|| (self.hit + self.opened) / self.total())
    }
}

impl History {
    /// The rates over each of [`WINDOWS`] that is known.
    pub fn told(&self, now: Timestamp) -> Vec<(u32, Rates)> {
        let over = |minutes: u32| Duration::from_mins(minutes.into());
        WINDOWS.into_iter().filter_map(|minutes| Some((minutes, self.rates(over(minutes), now)?))).collect()
    }

    /// Takes what a worker answered at `at`.
    pub fn add(&mut self, worker: u32, at: Timestamp, asked: &Asked) {
        let samples = self.workers.entry(worker).or_default();
        if samples.back().is_some_and(|(last, _)| since(*last, at) < APART) {
            return;
        }
        thin_out(samples, at);
        samples.push_back((at, asked.clone()));
        for samples in self.workers.values_mut() {
            while samples.front().is_some_and(|(first, _)| since(*first, at) > KEPT) {
                samples.pop_front();
            }
        }
        self.workers.retain(|_, samples| !samples.is_empty());
    }

    /// Over the last `window`, of all workers together; `None` while it is not known for at least half of the window, or no
    /// worker has answered lately.
    pub fn rates(&self, window: Duration, now: Timestamp) -> Option<Rates> {
        let is_recent = |at: Timestamp| since(at, now) <= window;
        let (mut bytes, mut covered, mut newest) = (Rates::default(), Duration::ZERO, Duration::MAX);
        for samples in self.workers.values() {
            for (before, after) in samples.iter().zip(samples.iter().skip(1)).filter(|(before, _)| is_recent(before.0))
            {
                bytes.add(&before.1, &after.1);
                covered = covered.max(since(before.0, now));
                newest = newest.min(since(after.0, now));
            }
        }
        (covered * 2 >= window && newest <= FRESH).then(|| bytes.over(covered.as_secs_f64()))
    }
}

impl Rates {
    /// Adds what one worker counted between two samples. Another process began at zero: what it counted is not known to
    /// be of this time alone, but cannot be older than itself.
    fn add(&mut self, before: &Asked, after: &Asked) {
        let is_same = before.boot == after.boot && after.hit_bytes >= before.hit_bytes;
        let grown = |count: fn(&Asked) -> u64| count(after) - if is_same { count(before).min(count(after)) } else { 0 };
        self.hit += grown(|a| a.hit_bytes) as f64;
        self.miss += grown(|a| a.miss_bytes) as f64;
        self.opened += grown(|a| a.opened_bytes) as f64;
    }

    fn over(self, seconds: f64) -> Self {
        Self { hit: self.hit / seconds, miss: self.miss / seconds, opened: self.opened / seconds }
    }
}

/// Of the newest sample but one, once it is old enough: whether it is too near to the one before to be kept.
fn thin_out(samples: &mut VecDeque<(Timestamp, Asked)>, now: Timestamp) {
    let old = samples.partition_point(|(at, _)| since(*at, now) > CLOSE);
    if old >= 2 && since(samples[old - 2].0, samples[old - 1].0) < COARSE {
        samples.remove(old - 1);
    }
}

/// What people see of a worker's numbers: bytes to two digits, the hit ratio to a percent, and no counters.
pub fn visible(stats: &Stats) -> Stats {
    let tiers = stats.tiers.iter().cloned().map(|mut tier| {
        tier.used_bytes = to_two_digits(tier.used_bytes);
        tier
    });
    let asked = u128::from(stats.hit_bytes) + u128::from(stats.miss_bytes);
    let percent = (u128::from(stats.hit_bytes) * 100).checked_div(asked).unwrap_or(0) as u64;
    Stats {
        epoch: stats.epoch,
        tiers: tiers.collect(),
        cached_bytes: to_two_digits(stats.cached_bytes),
        hit_bytes: percent,
        ufs_errors: 0,
        mounts: stats.mounts.clone(),
        ufs_total_bytes: stats.ufs_total_bytes,
        ufs_files: stats.ufs_files,
        handover: stats.handover,
        loads: stats.loads.clone(),
        ..Stats::default()
    }
}

/// A status is not written for less.
pub fn to_two_digits(bytes: u64) -> u64 {
    let unit = 10_u64.pow(bytes.checked_ilog10().unwrap_or(0).saturating_sub(1));
    bytes / unit * unit
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + second.seconds()
    }

    fn counted(boot: u64, hit: u64) -> Asked {
        Asked { boot, hit_bytes: hit, ..Asked::default() }
    }

    fn reading(from: i64, seconds: i64, boot: u64, rate: u64) -> impl Iterator<Item = (Timestamp, Asked)> {
        (0..=seconds).step_by(10).map(move |n| (at(from + n), counted(boot, rate * n as u64)))
    }

    #[test]
    fn rates_are_summed_over_workers() {
        let mut history = History::default();
        for worker in 0..3 {
            reading(0, 60, 1, 100).for_each(|(at, asked)| history.add(worker, at, &asked));
        }
        let rates = history.rates(MINUTE, at(60)).unwrap();
        assert_eq!((rates.hit, rates.hit_ratio()), (300.0, Some(1.0)));
    }

    #[test]
    fn a_worker_that_starts_again_makes_no_spike() {
        let mut history = History::default();
        reading(0, 60, 1, 100).for_each(|(at, asked)| history.add(0, at, &asked));
        reading(70, 60, 2, 100).for_each(|(at, asked)| history.add(0, at, &asked));
        let rates = history.rates(MINUTE * 2, at(130)).unwrap();
        assert!((80.0..=100.0).contains(&rates.hit), "{rates:?}");
    }

    #[test]
    fn an_operator_that_starts_again_has_no_rate_until_it_has_seen_half_of_the_window() {
        let mut history = History::default();
        let old = |n: u64| counted(1, 1_000_000 + 100 * n);
        for second in [0, 10, 20] {
            history.add(0, at(second), &old(second as u64));
            assert_eq!(history.rates(MINUTE, at(second)), None, "{second}");
        }
        history.add(0, at(30), &old(30));
        assert_eq!(history.rates(MINUTE, at(30)).map(|r| r.hit), Some(100.0));
    }

    #[test]
    fn silence_is_no_rate_and_not_zero() {
        let mut history = History::default();
        reading(0, 60, 1, 100).for_each(|(at, asked)| history.add(0, at, &asked));
        assert_eq!(history.rates(MINUTE * 5, at(200)), None);
        assert_eq!(History::default().rates(MINUTE, at(0)), None);
    }

    #[test]
    fn what_is_older_than_an_hour_is_forgotten() {
        let mut history = History::default();
        reading(0, 7200, 1, 100).for_each(|(at, asked)| history.add(0, at, &asked));
        history.add(1, at(3), &counted(1, 5));
        // One in 10 s of the last 16 minutes, one in a minute of what was before.
        assert_eq!(history.workers[&0].len(), 97 + 44);
        let rates = history.rates(Duration::from_hours(1), at(7200)).unwrap();
        assert!((99.5..100.5).contains(&rates.hit), "{rates:?}");
    }
}
