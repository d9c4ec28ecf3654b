//! Which inodes the kernel reads by itself.
//!
//! The kernel refuses to mix: while an inode is open through the page cache no passthrough open of it succeeds, nor the
//! other way round, and all passthrough opens must name one backing file. So the first open decides, until the last close.

use std::{
    collections::HashMap,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    abi::{FOPEN_KEEP_CACHE, FOPEN_NOFLUSH, FOPEN_PASSTHROUGH, OpenOut},
    device::Device,
    reply::Reply,
};
use crate::{
    backend::LocalFile,
    session::journal::{Journal, Key, Record, Records},
    tree::Opened,
};

pub(super) struct Backings {
    /// Cleared for good by the first refusal.
    usable: AtomicBool,
    modes: Mutex<HashMap<u64, Mode>>,
    journal: Arc<Journal>,
}

#[derive(Default)]
struct Mode {
    opens: u32,
    backing: Option<Backing>,
}

struct Backing {
    id: u32,
    /// The pin lasts as long as the kernel may read; after a takeover the kernel's own copy of the descriptor holds it.
    _local: Option<Arc<LocalFile>>,
}

impl Backings {
    /// `usable`: whether the kernel has agreed to it. `records` tell what a former process had open.
    pub(super) fn new(usable: bool, journal: Arc<Journal>, records: &Records) -> Self {
        let mut modes: HashMap<u64, Mode> = HashMap::new();
        for (key, record) in records {
            match (key, record) {
                (Key::File(_), Record::File { ino, .. }) => modes.entry(*ino).or_default().opens += 1,
                (Key::Backing(ino), Record::Backing { id }) => {
                    modes.entry(*ino).or_default().backing = Some(Backing { id: *id, _local: None });
                }
                _ => {}
            }
        }
        Self { usable: AtomicBool::new(usable), modes: Mutex::new(modes), journal }
    }

    /// Answers an open, by passthrough where the inode's mode is or can become that. Content goes into the kernel's page
    /// cache before.
    pub(super) fn reply(&self, ino: u64, opened: &Opened, reply: Reply) {
        let mut modes = self.modes.lock();
        let mode =
            modes.entry(ino).or_insert_with(|| Mode { opens: 0, backing: self.back(ino, opened, reply.device()) });
        // While anybody has the file open, pages may be locked until a READ is answered. Whoever gives content waits for
        // them, and once all threads wait so, nobody is left to answer. RELEASE comes after the last READ.
        if mode.opens == 0
            && let Some(content) = &opened.content
            && let Err(error) = reply.device().store(ino, content)
        {
            tracing::debug!(%error, "the kernel does not take the content of a file, it will ask for it");
        }
        mode.opens += 1;
        let backing = mode.backing.as_ref().map(|backing| backing.id);
        drop(modes);
        let (how, backing) = match backing {
            Some(backing) => (FOPEN_PASSTHROUGH, backing),
            // A number stands for one content only, so what the page cache holds of it stays right.
            None => (FOPEN_KEEP_CACHE, 0),
        };
        reply.value(&OpenOut { handle: opened.handle, open_flags: how | FOPEN_NOFLUSH, backing });
    }

    pub(super) fn release(&self, ino: u64, device: &Device) {
        let mut modes = self.modes.lock();
        let Some(mode) = modes.get_mut(&ino) else { return };
        mode.opens = mode.opens.saturating_sub(1);
        if mode.opens > 0 {
            return;
        }
        if let Some(Mode { backing: Some(backing), .. }) = modes.remove(&ino) {
            device.close_backing(backing.id);
            self.journal.remove(Key::Backing(ino));
        }
    }

    fn back(&self, ino: u64, opened: &Opened, device: &Device) -> Option<Backing> {
        let local = opened.local.clone().filter(|_| self.usable.load(Ordering::Relaxed))?;
        match device.open_backing(local.file.as_fd()) {
            Ok(id) => {
                tracing::debug!("the kernel reads a local file by itself");
                self.journal.put(Key::Backing(ino), Record::Backing { id });
                Some(Backing { id, _local: Some(local) })
            }
            Err(error) => {
                if self.usable.swap(false, Ordering::Relaxed) {
                    tracing::warn!(%error, "the kernel refuses FUSE passthrough (it takes CAP_SYS_ADMIN): local files are read through this process from now on");
                }
                None
            }
        }
    }
}
