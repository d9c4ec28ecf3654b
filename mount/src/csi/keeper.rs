//! What must outlive the process that serves a mount: the plugin's own copies.
//!
//! While a copy of the `/dev/fuse` descriptor is held here the kernel keeps the connection, whatever becomes of the process
//! that serves it, and another one can take the session over. Where none can, the copy must be let go at once: readers
//! would wait for ever instead of getting an error.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::{fuse::point, session::journal};

/// So many processes may take one session over within [`WHILE`]: where the next one dies too, another would not help.
const TAKEOVERS: usize = 5;
const WHILE: Duration = Duration::from_mins(1);

/// One connection with the kernel, and the journal of its session.
#[derive(Debug)]
pub struct Connection {
    pub fuse: OwnedFd,
    pub journal: OwnedFd,
    takeovers: Mutex<VecDeque<Instant>>,
}

impl Connection {
    pub fn new() -> io::Result<Self> {
        let journal = memfd_create("penstock-journal", MemfdFlags::CLOEXEC)?;
        Ok(Self { fuse: point::open_device()?, journal, takeovers: Mutex::default() })
    }

    /// Whether another process should be tried now that one has died. Counts as a try.
    pub fn may_be_taken_over(&self) -> bool {
        journal::tells_of_a_session(&self.journal) && is_allowed(&mut self.takeovers.lock(), Instant::now())
    }
}

fn is_allowed(earlier: &mut VecDeque<Instant>, now: Instant) -> bool {
    while earlier.front().is_some_and(|then| now.duration_since(*then) > WHILE) {
        earlier.pop_front();
    }
    let allowed = earlier.len() < TAKEOVERS;
    if allowed {
        earlier.push_back(now);
    }
    allowed
}

/// Connections by staging path.
#[derive(Debug, Default)]
pub struct Keeper {
    kept: Mutex<HashMap<PathBuf, Arc<Connection>>>,
}

impl Keeper {
    /// Keeps the connection that is mounted at `staging`, in place of an earlier one.
    pub fn keep(&self, staging: &Path, connection: Arc<Connection>) {
        self.kept.lock().insert(staging.to_owned(), connection);
    }

    pub fn get(&self, staging: &Path) -> Option<Arc<Connection>> {
        self.kept.lock().get(staging).cloned()
    }

    /// Lets `connection` go, unless another one has been mounted at `staging` in the meantime. Once no process holds the
    /// descriptor, the kernel ends the connection and every waiting reader gets `ENOTCONN`.
    pub fn release(&self, staging: &Path, connection: &Weak<Connection>) {
        let mut kept = self.kept.lock();
        if kept.get(staging).is_some_and(|held| std::ptr::eq(Arc::as_ptr(held), connection.as_ptr())) {
            kept.remove(staging);
        }
    }

    /// Lets go whatever is kept for `staging`.
    pub fn forget(&self, staging: &Path) {
        self.kept.lock().remove(staging);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_die_one_after_the_other_are_not_replaced_for_ever() {
        let (mut earlier, begin) = (VecDeque::new(), Instant::now());
        for second in 0..TAKEOVERS as u64 {
            assert!(is_allowed(&mut earlier, begin + Duration::from_secs(second)));
        }
        assert!(!is_allowed(&mut earlier, begin + WHILE));
        assert!(is_allowed(&mut earlier, begin + WHILE + Duration::from_millis(1)), "the first is a minute ago");
        assert!(!is_allowed(&mut earlier, begin + WHILE + Duration::from_millis(2)));
    }
}
