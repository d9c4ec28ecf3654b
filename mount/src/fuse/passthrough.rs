//! Which inodes the kernel reads by itself.
//!
//! The kernel refuses to mix: while an inode is open through the page cache no passthrough open of it succeeds, nor the
//! other way round, and all passthrough opens must name one backing file. So the first open decides, until the last close.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use fuser::{BackingId, FileHandle, FopenFlags, InitFlags, KernelConfig, ReplyOpen};
use parking_lot::Mutex;

use crate::{backend::LocalFile, fs::Opened, spec::Passthrough};

/// Backing files may lie on one layer of a stacking file system (overlayfs) at most.
const STACK_DEPTH: u32 = 2;

pub(super) struct Backings {
    wanted: Passthrough,
    /// Cleared for good by the first refusal.
    usable: AtomicBool,
    modes: Mutex<HashMap<u64, Mode>>,
}

struct Mode {
    opens: u32,
    backing: Option<Backing>,
}

struct Backing {
    id: Arc<BackingId>,
    /// The pin lasts as long as the kernel may read.
    _local: Arc<LocalFile>,
}

impl Backings {
    pub(super) fn new(wanted: Passthrough) -> Self {
        Self { wanted, usable: AtomicBool::new(false), modes: Mutex::default() }
    }

    pub(super) fn negotiate(&self, config: &mut KernelConfig) {
        if self.wanted == Passthrough::Off {
            return;
        }
        let offered = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
        let usable = offered && config.set_max_stack_depth(STACK_DEPTH).is_ok();
        if !usable {
            tracing::info!("this kernel has no FUSE passthrough: local files are read through this process");
        }
        self.usable.store(usable, Ordering::Relaxed);
    }

    /// Answers an open, by passthrough where the inode's mode is or can become that.
    pub(super) fn reply(&self, ino: u64, opened: &Opened, reply: ReplyOpen) {
        let handle = FileHandle(opened.handle);
        let mut modes = self.modes.lock();
        let mode = modes.entry(ino).or_insert_with(|| Mode { opens: 0, backing: self.back(opened, &reply) });
        mode.opens += 1;
        let backing = mode.backing.as_ref().map(|backing| backing.id.clone());
        drop(modes);
        if let Some(id) = backing {
            reply.opened_passthrough(handle, FopenFlags::empty(), &id);
        } else {
            // A number stands for one content only, so what the page cache holds of it stays right.
            reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    pub(super) fn release(&self, ino: u64) {
        let mut modes = self.modes.lock();
        if let Some(mode) = modes.get_mut(&ino) {
            mode.opens -= 1;
            if mode.opens == 0 {
                modes.remove(&ino);
            }
        }
    }

    fn back(&self, opened: &Opened, reply: &ReplyOpen) -> Option<Backing> {
        let local = opened.local.clone().filter(|_| self.usable.load(Ordering::Relaxed))?;
        match reply.open_backing(&local.file) {
            Ok(id) => {
                tracing::debug!("the kernel reads a local file by itself");
                Some(Backing { id: Arc::new(id), _local: local })
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
