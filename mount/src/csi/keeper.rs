//! The plugin's own copy of each mount's `/dev/fuse` descriptor.
//!
//! While a copy is held here the kernel keeps the connection, whatever becomes of the process that serves it. That is
//! what a takeover needs; until one exists, a copy must be let go as soon as its process has died: readers would wait
//! for ever instead of getting an error.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

/// Descriptors by staging path.
#[derive(Debug, Default)]
pub struct Keeper {
    kept: Mutex<HashMap<PathBuf, Arc<OwnedFd>>>,
}

impl Keeper {
    /// Keeps the descriptor of the connection that is mounted at `staging`, in place of an earlier one.
    pub fn keep(&self, staging: &Path, fuse: Arc<OwnedFd>) {
        self.kept.lock().insert(staging.to_owned(), fuse);
    }

    /// Lets `fuse` go, unless another connection has been mounted at `staging` in the meantime. Once no process holds
    /// the descriptor, the kernel ends the connection and every waiting reader gets `ENOTCONN`.
    pub fn release(&self, staging: &Path, fuse: &Arc<OwnedFd>) {
        let mut kept = self.kept.lock();
        if kept.get(staging).is_some_and(|held| Arc::ptr_eq(held, fuse)) {
            kept.remove(staging);
        }
    }

    /// Lets go whatever is kept for `staging`.
    pub fn forget(&self, staging: &Path) {
        self.kept.lock().remove(staging);
    }
}
