//! Numbers for what is open.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;

#[derive(Debug)]
pub(super) struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), open: RwLock::default() }
    }
}

impl<T> Handles<T> {
    pub(super) fn insert(&self, value: T) -> u64 {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().insert(handle, Arc::new(value));
        handle
    }

    /// A number that a former process gave out.
    pub(super) fn restore(&self, handle: u64, value: T) {
        self.next.fetch_max(handle + 1, Ordering::Relaxed);
        self.open.write().insert(handle, Arc::new(value));
    }

    pub(super) fn get(&self, handle: u64) -> Option<Arc<T>> {
        self.open.read().get(&handle).cloned()
    }

    pub(super) fn remove(&self, handle: u64) -> Option<Arc<T>> {
        self.open.write().remove(&handle)
    }
}
