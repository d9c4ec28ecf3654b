//! The file system as a transport sees it.

use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::{DirEntry, FileSystem, Found, Invalidation, Opened, Stat, Tree};

impl Tree for FileSystem {
    async fn lookup(&self, directory: u64, name: &[u8]) -> Result<Found, Errno> {
        self.lookup(directory, name).await
    }

    fn forget(&self, ino: u64, lookups: u64) {
        self.forget(ino, lookups);
    }

    async fn getattr(&self, ino: u64) -> Result<Stat, Errno> {
        self.getattr(ino).await
    }

    async fn readlink(&self, ino: u64) -> Result<Vec<u8>, Errno> {
        self.readlink(ino).await
    }

    async fn open(&self, ino: u64, writable: bool) -> Result<Opened, Errno> {
        self.open(ino, writable).await
    }

    async fn read(&self, handle: u64, offset: u64, len: u32) -> Result<Bytes, Errno> {
        self.read(handle, offset, len).await
    }

    fn release(&self, handle: u64) {
        self.release(handle);
    }

    fn opendir(&self, ino: u64) -> Result<u64, Errno> {
        self.opendir(ino)
    }

    async fn readdir(
        &self,
        handle: u64,
        position: u64,
        plus: bool,
        take: impl FnMut(DirEntry<'_>) -> bool + Send,
    ) -> Result<(), Errno> {
        self.readdir(handle, position, plus, take).await
    }

    fn releasedir(&self, handle: u64) {
        self.releasedir(handle);
    }

    fn invalidations(&self) -> mpsc::UnboundedReceiver<Invalidation> {
        self.invalidations()
    }
}
