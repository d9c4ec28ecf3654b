//! Descriptors of complete cached files, from workers on this node.
//!
//! A descriptor comes locked (flock, shared) and stays so as long as it is in use, by this process or by the kernel on its
//! behalf: the lock ends with the last reference, also when this process dies. A worker evicts nothing from a file that it
//! cannot lock exclusively. The lock is taken here too, which changes nothing where the worker did, and the file is looked
//! at after that: one that is not whole would show zeros, one of another length would show what is not the object's.

use std::{
    collections::HashSet,
    fs::File,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use penstock_model::Object;
use penstock_wire::{Address, CallError, Pool, config::SOCKET_FILE};
use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, timeout};

use crate::backend::LocalFile;

/// How long a look into the socket directory is good.
const LOOK: Duration = Duration::from_secs(2);
/// A local worker answers at once or is not worth waiting for.
const ANSWER: Duration = Duration::from_millis(500);

pub(super) struct LocalWorkers {
    dir: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    at: Option<Instant>,
    sockets: Arc<Vec<Address>>,
    /// Did not answer at the last look.
    silent: HashSet<Address>,
}

impl LocalWorkers {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, seen: Mutex::default() }
    }

    pub(super) async fn open(&self, pool: &Pool, object: &Object) -> Option<LocalFile> {
        if object.size == 0 {
            return None;
        }
        for socket in self.sockets().iter() {
            match timeout(ANSWER, ask(pool, socket, object)).await {
                Ok(Ok(fd)) => return check(fd, object.size),
                Ok(Err(CallError::Failure(_))) => {}
                Ok(Err(_)) | Err(_) => self.silence(socket),
            }
        }
        None
    }

    pub(super) fn sockets(&self) -> Arc<Vec<Address>> {
        let mut seen = self.seen.lock();
        if seen.at.is_none_or(|at| at.elapsed() > LOOK) {
            *seen = Seen { at: Some(Instant::now()), sockets: Arc::new(find(&self.dir)), silent: HashSet::new() };
        }
        if seen.silent.is_empty() {
            return seen.sockets.clone();
        }
        Arc::new(seen.sockets.iter().filter(|socket| !seen.silent.contains(socket)).cloned().collect())
    }

    fn silence(&self, socket: &Address) {
        self.seen.lock().silent.insert(socket.clone());
    }
}

async fn ask(pool: &Pool, socket: &Address, object: &Object) -> Result<OwnedFd, CallError> {
    pool.client(socket).await?.open_local(object.clone()).await
}

fn check(fd: OwnedFd, size: u64) -> Option<LocalFile> {
    flock(&fd, FlockOperation::NonBlockingLockShared).ok()?;
    let file = File::from(fd);
    let metadata = file.metadata().ok()?;
    let whole = metadata.is_file() && metadata.len() == size && metadata.blocks() * 512 >= size;
    whole.then(|| LocalFile { file })
}

/// The sockets in the directories of `dir`, one for each worker pod.
fn find(dir: &Path) -> Vec<Address> {
    let Ok(pods) = std::fs::read_dir(dir) else { return Vec::new() };
    let sockets = pods.flatten().map(|pod| pod.path().join(SOCKET_FILE)).filter(|socket| socket.exists());
    sockets.map(Address::Unix).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_file_with_a_hole_or_of_another_length_is_not_used() {
        let (whole, holed) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        whole.write_all_at(&vec![1; 1 << 16], 0).unwrap();
        holed.set_len(1 << 16).unwrap();
        holed.write_all_at(&[1; 4096], 0).unwrap();
        assert!(check(whole.try_clone().unwrap().into(), (1 << 16) - 1).is_none());
        assert!(check(whole.into(), 1 << 16).is_some());
        assert!(check(holed.into(), 1 << 16).is_none());
    }

    #[test]
    fn a_file_in_use_cannot_be_locked_by_who_would_punch_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [1; 4096]).unwrap();
        let used = check(File::open(&path).unwrap().into(), 4096).unwrap();
        let worker = File::open(&path).unwrap();
        assert!(flock(&worker, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(used);
        assert!(flock(&worker, FlockOperation::NonBlockingLockExclusive).is_ok());
    }
}
