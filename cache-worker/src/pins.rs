//! Descriptors of cached files in other processes' hands: what they read must not be evicted meanwhile.
//!
//! Each descriptor goes out with a shared `flock` on an open file description of its own. The kernel drops that lock with
//! the last reference to the description, whether a process closes it, dies, or unmounts a FUSE file system that reads
//! through it; until then the exclusive lock cannot be had here, and the pin stays.

use std::{collections::HashMap, fs::File, io, os::fd::AsRawFd, os::fd::OwnedFd, time::Duration};

use parking_lot::Mutex;
use penstock_model::ObjectKey;
use penstock_store::{PinnedFile, Store};
use rustix::fs::{FlockOperation, flock};

pub(crate) const SWEEP: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(crate) struct Pins {
    held: Mutex<HashMap<ObjectKey, PinnedFile>>,
}

impl Pins {
    /// A read-only descriptor, or `None` unless the object is whole. Blocks for disk I/O.
    pub(crate) fn open(&self, store: &Store, key: ObjectKey) -> io::Result<Option<OwnedFd>> {
        let mut held = self.held.lock();
        if let Some(pinned) = held.get(&key) {
            return Ok(Some(lend(pinned)?));
        }
        let Some(pinned) = store.open_complete(&key) else { return Ok(None) };
        let fd = lend(&pinned)?;
        held.insert(key, pinned);
        Ok(Some(fd))
    }

    /// Unpins what nobody holds any more.
    pub(crate) fn sweep(&self) {
        self.held.lock().retain(|_, pinned| flock(&**pinned, FlockOperation::NonBlockingLockExclusive).is_err());
    }
}

fn lend(pinned: &File) -> io::Result<OwnedFd> {
    // Opened anew: a duplicate would share the description that `sweep` tests with.
    let file = File::open(format!("/proc/self/fd/{}", pinned.as_raw_fd()))?;
    flock(&file, FlockOperation::NonBlockingLockShared)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use penstock_model::{Medium, Object, Version};
    use penstock_store::TierOptions;

    use super::*;

    #[test]
    fn a_file_stays_pinned_until_the_last_copy_of_its_descriptor_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let tier = TierOptions { medium: Medium::Ssd, dir: dir.path().into(), quota: 8 << 20, high: 0.95, low: 0.9 };
        let (store, pins, key) = (Store::open(vec![tier]), Pins::default(), ObjectKey(3));
        assert!(pins.open(&store, key).unwrap().is_none());
        let object = Object { key, path: b"a".to_vec(), version: Version("v".into()), size: 5 };
        store.write(&object, 0, b"bytes").unwrap();
        let first = pins.open(&store, key).unwrap().unwrap();
        let copy = first.try_clone().unwrap();
        let second = pins.open(&store, key).unwrap().unwrap();
        for held in [first, second, copy] {
            pins.sweep();
            assert!(!store.remove_object(&key), "removed while it was held");
            drop(held);
        }
        pins.sweep();
        assert!(store.remove_object(&key));
    }
}
