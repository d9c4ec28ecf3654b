//! What must outlive the process that serves a mount: the plugin's own copies.
//!
//! While a copy of the `/dev/fuse` descriptor is held here the kernel keeps the connection, whatever becomes of the process
//! that serves it, and another one can take the session over. Where none can, the copy must be let go at once: readers
//! would wait for ever instead of getting an error. The keeper has copies of all that is here ([`super::link`]), so that it
//! outlives the plugin as well.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, memfd_create},
};
use tokio::sync::watch;

use crate::{fuse::point, keeper::Item, kernel, session::journal, spec::MountSpec};

/// So many processes may take one session over within [`WHILE`]: where the next one dies too, another would not help.
const TAKEOVERS: usize = 5;
const WHILE: Duration = Duration::from_mins(1);
/// How long a new mount waits for the keeper to have its descriptors.
const KEEPER_PATIENCE: Duration = Duration::from_secs(2);

/// One connection with the kernel, the journal of its session, and what its processes are told.
#[derive(Debug)]
pub struct Connection {
    pub fuse: OwnedFd,
    pub journal: OwnedFd,
    pub spec: MountSpec,
    /// The specification in memory that a keeper can hold: the key in it is on no disk.
    told: OwnedFd,
    takeovers: Mutex<VecDeque<Instant>>,
}

impl Connection {
    pub fn new(spec: MountSpec) -> io::Result<Self> {
        let journal = memfd_create("penstock-journal", MemfdFlags::CLOEXEC)?;
        let told = File::from(memfd_create("penstock-spec", MemfdFlags::CLOEXEC)?);
        (&told).write_all(&serde_json::to_vec(&spec)?)?;
        Ok(Self { fuse: point::open_device()?, journal, spec, told: told.into(), takeovers: Mutex::default() })
    }

    /// The names of [`Self::descriptors`], in their order.
    pub const LABEL: &str = "fuse,journal,spec";

    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.fuse.as_fd(), self.journal.as_fd(), self.told.as_fd()]
    }

    /// What a former plugin gave to the keeper. Descriptors whose names are not known here are let go.
    pub fn from_item(item: Item) -> io::Result<Self> {
        let mut named: HashMap<_, _> = item.label.split(',').zip(item.descriptors).collect();
        let mut take = |name| named.remove(name).ok_or_else(|| io::Error::other(format!("{name} is not among them")));
        let (fuse, journal, told) = (take("fuse")?, take("journal")?, File::from(take("spec")?));
        let mut text = vec![0; told.metadata()?.len() as usize];
        told.read_exact_at(&mut text, 0)?;
        let spec = serde_json::from_slice(&text)?;
        Ok(Self { fuse, journal, spec, told: told.into(), takeovers: Mutex::default() })
    }

    /// The kernel's number of it, where the kernel shows it.
    pub fn number(&self) -> Option<u32> {
        kernel::connection_of(&self.fuse)
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
#[derive(Debug)]
pub struct Connections {
    held: Mutex<Held>,
    /// Readable once something has changed.
    changed: Arc<OwnedFd>,
    kept: watch::Sender<Kept>,
}

#[derive(Debug, Default)]
struct Held {
    by_path: HashMap<PathBuf, Arc<Connection>>,
    /// How often `by_path` was changed.
    change: u64,
}

/// What a keeper has of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    pub(super) connected: bool,
    pub(super) change: u64,
}

impl Connections {
    pub fn new() -> io::Result<Self> {
        let changed = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { held: Mutex::default(), changed: Arc::new(changed), kept: watch::Sender::default() })
    }

    /// Holds the connection that is mounted at `staging`, in place of an earlier one.
    pub fn hold(&self, staging: &Path, connection: Arc<Connection>) {
        self.change(|held| held.insert(staging.to_owned(), connection));
    }

    pub fn get(&self, staging: &Path) -> Option<Arc<Connection>> {
        self.held.lock().by_path.get(staging).cloned()
    }

    /// Lets `connection` go, unless another one has been mounted at `staging` in the meantime. Once no process holds the
    /// descriptor, the kernel ends the connection and every waiting reader gets `ENOTCONN`.
    pub fn release(&self, staging: &Path, connection: &Weak<Connection>) {
        self.change(|held| {
            let same = |held: &Arc<Connection>| std::ptr::eq(Arc::as_ptr(held), connection.as_ptr());
            if held.get(staging).is_some_and(same) { held.remove(staging) } else { None }
        });
    }

    /// Lets go whatever is held for `staging`.
    pub fn forget(&self, staging: &Path) {
        self.change(|held| held.remove(staging));
    }

    /// Whether a keeper has copies.
    pub fn are_kept(&self) -> bool {
        self.kept.borrow().connected
    }

    /// Waits until the keeper, if there is one, has what is held now.
    pub async fn settled(&self) {
        let change = self.held.lock().change;
        let mut kept = self.kept.subscribe();
        let there = kept.wait_for(|kept| !kept.connected || kept.change >= change);
        if tokio::time::timeout(KEEPER_PATIENCE, there).await.is_err() {
            tracing::warn!("the keeper does not answer: a mount would not outlive this plugin yet");
        }
    }

    pub(super) fn any(&self) -> bool {
        !self.held.lock().by_path.is_empty()
    }

    /// Waits until a keeper has what is held now, having looked for it anew. False if none has within `limit`.
    pub(super) async fn are_entrusted(&self, limit: Duration) -> bool {
        let mut kept = self.kept.subscribe();
        // Whoever follows looks again at every change.
        let change = self.change(|_| ());
        let there = kept.wait_for(|kept| kept.connected && kept.change >= change);
        tokio::time::timeout(limit, there).await.is_ok()
    }

    /// Returns the number of this change.
    fn change<T>(&self, change: impl FnOnce(&mut HashMap<PathBuf, Arc<Connection>>) -> T) -> u64 {
        let mut held = self.held.lock();
        change(&mut held.by_path);
        held.change += 1;
        let number = held.change;
        drop(held);
        self.wake();
        number
    }

    fn wake(&self) {
        // Full is readable too.
        let _ = rustix::io::write(&self.changed, &1u64.to_ne_bytes());
    }

    pub(super) fn changed(&self) -> Arc<OwnedFd> {
        self.changed.clone()
    }

    pub(super) fn tell(&self, kept: Kept) {
        self.kept.send_replace(kept);
    }

    /// What the keeper should have, and which change that was.
    pub(super) fn wanted(&self) -> (BTreeMap<String, Arc<Connection>>, u64) {
        let held = self.held.lock();
        let named =
            |(path, connection): (&PathBuf, &Arc<Connection>)| Some((path.to_str()?.to_owned(), connection.clone()));
        (held.by_path.iter().filter_map(named).collect(), held.change)
    }
}

/// Ends whoever follows.
impl Drop for Connections {
    fn drop(&mut self) {
        self.wake();
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
