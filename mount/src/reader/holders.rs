//! Which workers hold a hot extent, and which of them to ask. The decisions are pure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use penstock_model::ObjectKey;
use penstock_wire::message::Pattern;

/// How long an owner's word counts.
const GOOD: Duration = Duration::from_secs(5);
/// A sequential reader moves on with the crowd: what is told of an extent counts for so many after it.
const FOLLOWING: u64 = 8;
/// More than these are not remembered.
const MANY: usize = 4096;

/// How many times as long one must take to be clearly slower than the other.
const CLEARLY: f64 = 1.5;

/// An object and the number of its extent.
pub(super) type Extent = (ObjectKey, u64);

/// What owners told of their extents under one member list.
#[derive(Debug, Default)]
pub(super) struct Holders(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    epoch: u64,
    extents: HashMap<Extent, (u8, Instant)>,
}

impl Holders {
    /// The owner by the list of `epoch` says that so many hold `extent`, itself included.
    pub(super) fn learn(&self, epoch: u64, extent: Extent, holders: u8, now: Instant) {
        let mut told = self.0.lock();
        if told.epoch != epoch {
            *told = Told { epoch, ..Told::default() };
        }
        if holders < 2 {
            told.extents.remove(&extent);
            return;
        }
        if told.extents.len() >= MANY {
            told.extents.retain(|_, (_, until)| now < *until);
        }
        if told.extents.len() < MANY {
            told.extents.insert(extent, (holders, now + GOOD));
        }
    }

    /// How many of the first in rank may be asked for `extent`.
    pub(super) fn of(&self, epoch: u64, extent: Extent, pattern: Pattern, now: Instant) -> usize {
        let told = self.0.lock();
        if told.epoch != epoch || told.extents.is_empty() {
            return 1;
        }
        let (object, number) = extent;
        let first = if pattern == Pattern::Sequential { number.saturating_sub(FOLLOWING) } else { number };
        let good = |number| told.extents.get(&(object, number)).filter(|(_, until)| now < *until);
        (first..=number).rev().find_map(good).map_or(1, |(holders, _)| usize::from(*holders))
    }
}

/// What it is like to ask a worker now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Bytes that were asked for and have not come.
    pub(super) waiting: u64,
    /// Seconds that a byte took of late; 0 when that is not known.
    pub(super) pace: f64,
}

/// Which of `holders`, at least one, to ask for `len` bytes: of two that `draw`, a random number, picks, the first, unless
/// they will come clearly sooner from the other.
///
/// The best of all would be everybody's choice at once; the better of two spreads almost as well as the best, and never
/// herds (Mitzenmacher, "The power of two choices in randomized load balancing", 2001). Small differences are noise.
pub(super) fn choose(holders: &[Load], len: u64, draw: u64) -> usize {
    let count = holders.len() as u64;
    if count < 2 {
        return 0;
    }
    let one = (draw >> 32) % count;
    let other = (one + 1 + (draw & u64::from(u32::MAX)) % (count - 1)) % count;
    let time = |at: u64| {
        let load = holders[at as usize];
        (load.waiting + len) as f64 * load.pace
    };
    (if time(other) * CLEARLY < time(one) { other } else { one }) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOT: Extent = (ObjectKey(1), 20);

    #[test]
    fn what_an_owner_told_counts_for_a_while_under_its_list_and_for_the_crowd_that_moves_on() {
        let (told, now) = (Holders::default(), Instant::now());
        told.learn(3, HOT, 4, now);
        let of = |epoch, number, pattern, after| told.of(epoch, (HOT.0, number), pattern, now + after);
        let (zero, late) = (Duration::ZERO, GOOD + Duration::from_millis(1));
        for (epoch, number, pattern, after, holders) in [
            (3, 20, Pattern::Random, zero, 4),
            (3, 20, Pattern::Sequential, zero, 4),
            (3, 21, Pattern::Random, zero, 1),
            (3, 21, Pattern::Sequential, zero, 4),
            (3, 28, Pattern::Sequential, zero, 4),
            (3, 29, Pattern::Sequential, zero, 1),
            (3, 19, Pattern::Sequential, zero, 1),
            (3, 20, Pattern::Random, late, 1),
            (4, 20, Pattern::Random, zero, 1),
        ] {
            assert_eq!(of(epoch, number, pattern, after), holders, "{epoch} {number} {pattern:?} {after:?}");
        }
        told.learn(3, HOT, 1, now);
        assert_eq!(of(3, 20, Pattern::Random, zero), 1);
        told.learn(3, HOT, 4, now);
        told.learn(4, (HOT.0, 1), 2, now);
        assert_eq!(of(3, 20, Pattern::Random, zero), 1, "another list: all is forgotten");
    }

    proptest! {
        #[test]
        fn who_is_clearly_slower_than_all_others_is_never_chosen(loads in prop::collection::vec((0u64..1000, 1u32..1000), 2..9), draw: u64) {
            let loads: Vec<_> =
                loads.into_iter().map(|(waiting, pace)| Load { waiting, pace: f64::from(pace) }).collect();
            let time = |load: &Load| (load.waiting + 10) as f64 * load.pace;
            let mut times: Vec<f64> = loads.iter().map(time).collect();
            times.sort_by(f64::total_cmp);
            let (slowest, before) = (times[times.len() - 1], times[times.len() - 2]);
            let chosen = time(&loads[choose(&loads, 10, draw)]);
            prop_assert!(chosen <= before || slowest <= before * CLEARLY);
        }
    }

    #[test]
    fn equal_holders_are_chosen_equally_often() {
        let mut chosen = [0; 4];
        for n in 0..4000u64 {
            chosen[choose(&[Load::default(); 4], 1, n.wrapping_mul(0x9e37_79b9_7f4a_7c15))] += 1;
        }
        assert!(chosen.iter().all(|count| (800..1200).contains(count)), "{chosen:?}");
    }
}
