//! A worker's sampler: what reads of sampled pages say, from any thread.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use penstock_model::{ObjectKey, PAGE};

use crate::{
    reuse::Reuse,
    sample::{Read, Sample},
};

/// Looks at some of the pages that readers take. A read of pages that are not in the sample takes no lock.
pub struct Sampler {
    threshold: AtomicU64,
    asked: AtomicU64,
    sample: Mutex<Sample>,
}

impl Default for Sampler {
    fn default() -> Self {
        let sample = Sample::new();
        Self { threshold: AtomicU64::new(sample.threshold()), asked: AtomicU64::new(0), sample: Mutex::new(sample) }
    }
}

impl Sampler {
    /// A reader took `range` of an object of `size` bytes from its owner, one of so many `members`.
    pub fn read(&self, key: ObjectKey, size: u64, range: Range<u64>, members: usize) {
        self.asked.fetch_add(range.end.saturating_sub(range.start), Relaxed);
        let members = members.max(1) as u64;
        for (page, hash) in self.sampled(key, &range) {
            let whole = page * PAGE..((page + 1) * PAGE).min(size.max(range.end));
            let bytes = range.end.min(whole.end) - range.start.max(whole.start);
            let mut sample = self.sample.lock();
            sample.read(Read { hash, bytes, page_bytes: whole.end - whole.start, members });
            self.threshold.store(sample.threshold(), Relaxed);
        }
    }

    /// The UFS was asked for `range`.
    pub fn fetched(&self, key: ObjectKey, range: &Range<u64>) {
        for (_, hash) in self.sampled(key, range) {
            self.sample.lock().fetched(hash);
        }
    }

    /// What was counted so far.
    pub fn told(&self) -> Reuse {
        self.sample.lock().told(self.asked.load(Relaxed))
    }

    fn sampled(&self, key: ObjectKey, range: &Range<u64>) -> impl Iterator<Item = (u64, u64)> + use<> {
        let threshold = self.threshold.load(Relaxed);
        let pages = range.start / PAGE..range.end.div_ceil(PAGE);
        pages.map(move |page| (page, hash(key, page))).filter(move |(_, hash)| *hash <= threshold)
    }
}

/// The same at every worker, so that samples add up; `SplitMix64`'s finalizer.
fn hash(key: ObjectKey, page: u64) -> u64 {
    let mut hash = (key.0 as u64) ^ ((key.0 >> 64) as u64).rotate_left(17) ^ page.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ObjectKey = ObjectKey(7);

    #[test]
    fn a_page_read_again_is_a_hit_unless_it_was_fetched_between() {
        let sampler = Sampler::default();
        sampler.fetched(KEY, &(0..PAGE));
        sampler.read(KEY, 2 * PAGE, 0..PAGE, 1);
        sampler.read(KEY, 2 * PAGE, 0..PAGE, 1);
        sampler.fetched(KEY, &(0..2 * PAGE));
        sampler.read(KEY, 2 * PAGE, 0..PAGE, 1);
        let told = sampler.told();
        assert_eq!((told.reads, told.asked, told.hit, told.missed), (3, 3 * PAGE, PAGE, 2 * PAGE));
        assert_eq!((told.first, told.again), (PAGE, vec![(64, 2 * PAGE)]));
    }

    #[test]
    fn parts_of_pages_count_as_what_they_are() {
        let sampler = Sampler::default();
        sampler.read(KEY, PAGE + 10, PAGE - 5..PAGE + 5, 1);
        let told = sampler.told();
        assert_eq!((told.reads, told.sampled, told.first), (2, 10, 10));
    }

    #[test]
    fn after_a_change_of_the_members_a_page_not_known_says_nothing() {
        let sampler = Sampler::default();
        for page in 0..10 {
            sampler.read(KEY, 100 * PAGE, page * PAGE..(page + 1) * PAGE, 2);
        }
        for page in 10..30 {
            sampler.read(KEY, 100 * PAGE, page * PAGE..(page + 1) * PAGE, 3);
        }
        assert_eq!(sampler.told().first, 20 * PAGE, "ten before, and the last ten");
    }
}
