//! What workers found changed, and what the kernel has to drop for it.

use std::sync::Weak;

use penstock_wire::message::Change;
use tokio::{sync::mpsc, time::Instant};

use super::{FileSystem, Invalidation, split};
use crate::backend::Changed;

impl FileSystem {
    /// For the transport: what to have the kernel drop. Not to be drained by a thread that answers the kernel's requests:
    /// the kernel may hold a directory locked until one of them is answered.
    pub fn invalidations(&self) -> mpsc::UnboundedReceiver<Invalidation> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.kernel.lock() = Some(sender);
        receiver
    }

    /// Heeds what workers tell, for as long as the file system is there.
    pub async fn follow(this: Weak<Self>) {
        loop {
            let Some(backend) = this.upgrade().map(|fs| fs.backend.clone()) else { return };
            let told = backend.changed().await;
            let Some(fs) = this.upgrade() else { return };
            fs.heed(&told);
        }
    }

    pub(super) fn heed(&self, told: &Changed) {
        match told {
            Changed::Here(changes) => changes.iter().for_each(|change| match change {
                Change::Entry(path) => self.entry_changed(path),
                Change::Directory(path) => self.directory_changed(path),
            }),
            // The kernel has what it has until that is old.
            Changed::Anywhere => {
                self.names.clear();
                self.inodes.lock().expire(Instant::now());
            }
        }
    }

    fn entry_changed(&self, path: &[u8]) {
        let (directory, name) = split(path);
        self.names.forget(directory);
        let parent = {
            let mut inodes = self.inodes.lock();
            if let Some(node) = inodes.find(path)
                && let Some(kept) = inodes.get_mut(node.ino)
            {
                kept.fresh_until = Instant::now();
            }
            inodes.find(directory).map(|node| node.ino)
        };
        if let Some(parent) = parent {
            self.invalidate([Invalidation { parent, name: name.to_vec() }]);
        }
    }

    fn directory_changed(&self, path: &[u8]) {
        self.names.forget(path);
        let (parent, names) = {
            let mut inodes = self.inodes.lock();
            let Some(parent) = inodes.find(path).map(|node| node.ino) else { return };
            let children = inodes.children(path);
            for (ino, _) in &children {
                if let Some(kept) = inodes.get_mut(*ino) {
                    kept.fresh_until = Instant::now();
                }
            }
            (parent, children.into_iter().map(|(_, name)| name))
        };
        self.invalidate(names.map(|name| Invalidation { parent, name }));
    }

    fn invalidate(&self, names: impl IntoIterator<Item = Invalidation>) {
        let kernel = self.kernel.lock();
        for name in names {
            // Nobody drains it any more when the mount is ending.
            let _ = kernel.as_ref().map(|kernel| kernel.send(name));
        }
    }
}
