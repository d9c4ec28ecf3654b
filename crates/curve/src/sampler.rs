//! A worker's sampler: what reads of sampled pages say, from any thread.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use penstock_model::{ObjectKey, PAGE};

use crate::{
    reuse::Reuse,
    sample::{Fleet, Read, Sample},
};

/// Looks at some of the pages that readers take. A read of pages that are not in the sample takes no lock.
pub struct Sampler {
    threshold: AtomicU64,
    asked: AtomicU64,
    sample: Mutex<Sample>,
}

impl Default for Sampler {
    /// Of a worker that begins with the first member list and an empty store.
    fn default() -> Self {
        Self::new(Sample::new(Fleet::ALONE.epoch))
    }
}

impl Sampler {
    /// Of a worker of whose pages some were read before.
    pub fn with_past() -> Self {
        Self::new(Sample::new(0))
    }

    fn new(sample: Sample) -> Self {
        Self { threshold: AtomicU64::new(sample.threshold()), asked: AtomicU64::new(0), sample: Mutex::new(sample) }
    }

    /// A reader took `range` of an object of `size` bytes from its owner.
    pub fn read(&self, key: ObjectKey, size: u64, range: Range<u64>, fleet: Fleet) {
        self.asked.fetch_add(range.end.saturating_sub(range.start), Relaxed);
        for (page, hash) in self.sampled(key, &range) {
            let whole = page * PAGE..((page + 1) * PAGE).min(size.max(range.end));
            let bytes = range.end.min(whole.end) - range.start.max(whole.start);
            let mut sample = self.sample.lock();
            sample.read(Read { hash, bytes, page_bytes: whole.end - whole.start, fleet });
            self.threshold.store(sample.threshold(), Relaxed);
        }
    }

    /// A reader took `bytes` from a copy that another worker than their owner has for it: the cache had them at any size.
    pub fn copied(&self, bytes: u64) {
        self.asked.fetch_add(bytes, Relaxed);
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
        sampler.read(KEY, 2 * PAGE, 0..PAGE, Fleet::ALONE);
        sampler.read(KEY, 2 * PAGE, 0..PAGE, Fleet::ALONE);
        sampler.fetched(KEY, &(0..2 * PAGE));
        sampler.read(KEY, 2 * PAGE, 0..PAGE, Fleet::ALONE);
        let told = sampler.told();
        assert_eq!((told.reads, told.asked, told.hit, told.missed), (3, 3 * PAGE, PAGE, 2 * PAGE));
        assert_eq!((told.first, told.again), (PAGE, vec![(64, 2 * PAGE)]));
    }

    #[test]
    fn a_page_read_in_parts_is_read_once() {
        let sampler = Sampler::default();
        for _ in 0..3 {
            for part in 0..4 {
                sampler.read(KEY, PAGE, part * PAGE / 4..(part + 1) * PAGE / 4, Fleet::ALONE);
            }
            sampler.fetched(KEY, &(0..PAGE));
        }
        let told = sampler.told();
        assert_eq!((told.first, told.missed, told.hit), (PAGE, 3 * PAGE, 0));
    }

    #[test]
    fn parts_of_pages_count_as_what_they_are() {
        let sampler = Sampler::default();
        sampler.read(KEY, PAGE + 10, PAGE - 5..PAGE + 5, Fleet::ALONE);
        let told = sampler.told();
        assert_eq!((told.reads, told.sampled, told.first), (2, 10, 10));
    }

    #[test]
    fn after_a_change_of_the_members_a_page_not_known_says_nothing() {
        let sampler = Sampler::default();
        let read = |page: u64, epoch| {
            sampler.read(KEY, 100 * PAGE, page * PAGE..(page + 1) * PAGE, Fleet { epoch, members: epoch });
        };
        (0..10).for_each(|page| read(page, 1));
        (10..20).for_each(|page| read(page, 2));
        assert_eq!((sampler.told().first, sampler.told().reads), (10 * PAGE, 20));
        (0..80).for_each(|n| read(n % 20, 2));
        (20..30).for_each(|page| read(page, 2));
        assert_eq!(sampler.told().first, 20 * PAGE, "all were read again, so the past is known");
    }
}
