//! The listings of all directories that were asked for, within a bound of bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use lru::LruCache;
use parking_lot::Mutex;

use super::listing::Listing;

pub(super) struct Listings {
    by_path: Mutex<LruCache<Vec<u8>, Arc<Listing>>>,
    /// Bytes that all of them take, those included that only a reader still holds.
    bytes: Arc<AtomicUsize>,
    capacity: usize,
}

impl Listings {
    pub(super) fn new(capacity: usize) -> Self {
        Self { by_path: Mutex::new(LruCache::unbounded()), bytes: Arc::default(), capacity }
    }

    pub(super) fn bytes(&self) -> Arc<AtomicUsize> {
        self.bytes.clone()
    }

    /// The listing, if there is a good one.
    pub(super) fn peek(&self, path: &[u8]) -> Option<Arc<Listing>> {
        self.by_path.lock().get(path).filter(|listing| listing.is_usable(Duration::ZERO)).cloned()
    }

    /// The listing, or a new one that `begin` makes; it is told of the one before.
    pub(super) fn get(
        &self,
        path: &[u8],
        grace: Duration,
        begin: impl FnOnce(Option<Arc<Listing>>) -> Arc<Listing>,
    ) -> Arc<Listing> {
        let mut by_path = self.by_path.lock();
        let before = by_path.get(path).cloned();
        if let Some(listing) = before.as_ref().filter(|listing| listing.is_usable(grace)) {
            return listing.clone();
        }
        let listing = begin(before);
        by_path.put(path.to_vec(), listing.clone());
        drop(by_path);
        self.shrink();
        listing
    }

    pub(super) fn forget(&self, path: &[u8]) {
        self.by_path.lock().pop(path);
    }

    /// Drops the longest unused until the others fit; the newest stays, however much it takes.
    pub(super) fn shrink(&self) {
        let mut over = self.bytes.load(Relaxed).saturating_sub(self.capacity);
        let mut dropped = Vec::new();
        let mut by_path = self.by_path.lock();
        while over > 0 && by_path.len() > 1 {
            let Some((_, listing)) = by_path.pop_lru() else { break };
            over = over.saturating_sub(listing.bytes());
            dropped.push(listing);
        }
        drop(by_path);
    }
}
