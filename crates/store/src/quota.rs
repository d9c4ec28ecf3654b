//! How much of a tier is taken. Space is reserved before it is written, so that the sum never passes the limit.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug)]
pub(crate) struct Quota {
    limit: u64,
    used: AtomicU64,
}

impl Quota {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// `bytes` more, or nothing when they do not fit.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Reservation<'_>> {
        self.used
            .try_update(Relaxed, Relaxed, |used| used.checked_add(bytes).filter(|sum| *sum <= self.limit))
            .ok()
            .map(|_| Reservation { quota: self, left: bytes })
    }

    /// Counts what was found on disk at start, limit or not.
    pub(crate) fn found(&self, bytes: u64) {
        self.used.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn release(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Relaxed);
        debug_assert!(before >= bytes, "released {bytes} of {before}");
    }
}

/// Space promised to one writer; what it does not commit returns on drop.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    quota: &'a Quota,
    left: u64,
}

impl Reservation<'_> {
    pub(crate) fn commit(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.left, "committed {bytes} of {}", self.left);
        self.left -= bytes.min(self.left);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.quota.release(self.left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_committed_stays() {
        let quota = Quota::new(100);
        let mut first = quota.reserve(60).unwrap();
        assert!(quota.reserve(41).is_none());
        assert!(quota.reserve(u64::MAX).is_none());
        first.commit(10);
        drop(first);
        assert_eq!(quota.used(), 10);
        quota.release(10);
        assert_eq!(quota.used(), 0);
    }
}
