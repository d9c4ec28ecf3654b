//! How much is asked of this worker, and for which extents: says how many workers should hold one.
//!
//! An extent is hot when what readers ask of it, over all its holders, is more than a quarter of what one worker gives at
//! its best. It gets one holder more for each such quarter, so that no holder spends more than about that on it. The best
//! is the highest rate of late: the link's, as soon as this worker was loaded once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use penstock_model::ObjectKey;

/// Rates are over about this time.
const WINDOW: Duration = Duration::from_secs(1);
/// How long a peak is remembered.
const MEMORY: Duration = Duration::from_mins(10);
/// How long an extent must have too many holders before it loses one.
const COOLING: Duration = Duration::from_secs(2);
/// No worker's best is taken to be less than this, bytes per second.
const LEAST_PEAK: f64 = (32 << 20) as f64;
/// The part of a worker that one extent may take.
const SHARE: f64 = 0.25;
/// A request costs as much as so many bytes, however few it asks for.
const REQUEST: u64 = 32 << 10;
/// Extents are first looked through for cold ones when there are so many.
const MANY: usize = 1024;

/// An object and the number of its extent.
type Extent = (ObjectKey, u64);

/// Of one worker, for what it owns.
pub(crate) struct Heat(Mutex<State>);

struct State {
    /// Of the member list that the numbers of holders are for.
    epoch: u64,
    total: Rate,
    peak: f64,
    extents: HashMap<Extent, Asked>,
    prune_at: usize,
}

struct Asked {
    rate: Rate,
    holders: u8,
    /// When `holders` was last as many as are needed.
    needed: Instant,
}

/// Bytes per second, older ones counting less and less.
#[derive(Clone, Copy)]
struct Rate {
    bytes: f64,
    at: Instant,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { bytes: 0.0, at: now }
    }

    fn now(&self, now: Instant) -> f64 {
        self.bytes * faded(now - self.at, WINDOW) / WINDOW.as_secs_f64()
    }

    fn add(&mut self, bytes: u64, now: Instant) -> f64 {
        self.bytes = self.bytes * faded(now - self.at, WINDOW) + bytes as f64;
        self.at = now;
        self.now(now)
    }
}

fn faded(since: Duration, over: Duration) -> f64 {
    (-since.as_secs_f64() / over.as_secs_f64()).exp()
}

/// How many should hold an extent of which `demand` bytes per second are asked, where one gives `peak` at its best.
fn needed(demand: f64, peak: f64, members: usize) -> u8 {
    let parts = 1 + (demand / (peak.max(LEAST_PEAK) * SHARE)) as usize;
    parts.min(members).clamp(1, usize::from(u8::MAX)) as u8
}

impl Heat {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(State { epoch: 0, total: Rate::new(now), peak: 0.0, extents: HashMap::new(), prune_at: MANY }))
    }

    /// Counts an answer of `bytes` to a reader, and says how many should hold the extent, the owner included. The list of
    /// `epoch` has so many `members`.
    pub(crate) fn asked(&self, extent: Extent, bytes: u64, (epoch, members): (u64, usize), now: Instant) -> u8 {
        let mut state = self.0.lock();
        state.begin(epoch, now);
        state.count(bytes.max(REQUEST), now);
        let peak = state.peak;
        let asked =
            state.extents.entry(extent).or_insert_with(|| Asked { rate: Rate::new(now), holders: 1, needed: now });
        let mine = asked.rate.add(bytes.max(REQUEST), now);
        asked.adjust(needed(mine * f64::from(asked.holders), peak, members), now);
        asked.holders
    }
}

impl State {
    /// Holders by another list are not holders any more.
    fn begin(&mut self, epoch: u64, now: Instant) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.extents.clear();
        }
        if self.extents.len() >= self.prune_at {
            let cold = LEAST_PEAK * SHARE / 16.0;
            self.extents
                .retain(|_, asked| asked.holders > 1 && now - asked.needed < COOLING || asked.rate.now(now) > cold);
            self.prune_at = (2 * self.extents.len()).max(MANY);
        }
    }

    fn count(&mut self, bytes: u64, now: Instant) {
        let since = now - self.total.at;
        self.peak = (self.peak * faded(since, MEMORY)).max(self.total.add(bytes, now));
    }
}

impl Asked {
    /// More holders at once, fewer only after a while and one at a time.
    fn adjust(&mut self, needed: u8, now: Instant) {
        if needed >= self.holders {
            self.spread(needed, now);
        } else if now - self.needed > COOLING {
            self.spread(self.holders - 1, now);
        }
    }

    /// What was asked here so far counts as if it had been spread so from the beginning.
    fn spread(&mut self, holders: u8, now: Instant) {
        self.rate.bytes *= f64::from(self.holders) / f64::from(holders);
        (self.holders, self.needed) = (holders, now);
    }
}

#[cfg(test)]
mod tests {
    use penstock_model::EXTENT;

    use super::*;

    const LIST: (u64, usize) = (1, 8);
    const HOT: Extent = (ObjectKey(1), 0);

    /// Readers who ask all holders in turn, so many times over one second; the last number of holders.
    fn read(heat: &Heat, extent: Extent, times: u32, from: Instant) -> u8 {
        let mut holders = 1;
        for n in (0..times).filter(|n| n.is_multiple_of(10)) {
            let at = from + Duration::from_secs(1) * n / times;
            for _ in 0..(10 / u32::from(holders)).max(1) {
                holders = heat.asked(extent, EXTENT, LIST, at);
            }
        }
        holders
    }

    #[test]
    fn a_scan_by_one_reader_makes_nothing_hot() {
        let (now, heat) = (Instant::now(), Heat::new(Instant::now()));
        for n in 0..2000u32 {
            let at = now + Duration::from_millis(10) * n;
            assert_eq!(heat.asked((ObjectKey(1), u64::from(n)), EXTENT, LIST, at), 1);
        }
        assert!(heat.0.lock().extents.len() < 2000, "cold extents are forgotten");
    }

    #[test]
    fn what_takes_a_large_part_of_a_worker_gets_holders_by_its_part() {
        let (now, heat) = (Instant::now(), Heat::new(Instant::now()));
        // 400 MiB/s: the peak.
        for n in 0..100u64 {
            heat.asked((ObjectKey(9), n), EXTENT, LIST, now);
        }
        let later = now + Duration::from_secs(30);
        assert_eq!(read(&heat, HOT, 20, later), 1);
        assert_eq!(read(&heat, HOT, 60, later + Duration::from_secs(10)), 2);
        assert!(read(&heat, HOT, 120, later + Duration::from_secs(20)) > 2);
    }

    #[test]
    fn demand_is_that_of_all_holders_and_ends_at_the_number_of_members() {
        let (now, heat) = (Instant::now(), Heat::new(Instant::now()));
        let mut holders = 0;
        for second in 0..10 {
            holders = read(&heat, HOT, 50, now + Duration::from_secs(second));
        }
        assert_eq!(holders, 8);
    }

    #[test]
    fn what_cools_down_loses_its_holders_one_by_one() {
        let (now, heat) = (Instant::now(), Heat::new(Instant::now()));
        let hot = read(&heat, HOT, 40, now);
        assert!(hot > 2);
        let mut seen = vec![hot];
        for second in 1..60 {
            seen.push(heat.asked(HOT, 1, LIST, now + Duration::from_secs(second)));
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1] || pair[0] == pair[1] + 1), "{seen:?}");
        assert_eq!(seen.last(), Some(&1));
    }

    #[test]
    fn a_new_list_begins_anew() {
        let (now, heat) = (Instant::now(), Heat::new(Instant::now()));
        assert!(read(&heat, HOT, 40, now) > 1);
        assert_eq!(heat.asked(HOT, 1, (2, 8), now + Duration::from_mins(1)), 1);
    }

    #[test]
    fn many_small_requests_heat_as_large_ones_do() {
        let (now, heat) = (Instant::now(), Heat::new(Instant::now()));
        let last = (0..5000u32).map(|n| heat.asked(HOT, 4096, LIST, now + Duration::from_micros(200) * n)).last();
        assert!(last > Some(1), "{last:?}");
    }
}
