//! What a transport asks of a file system: the seam between the kernel's protocol and [`crate::fs`].

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use penstock_model::{Attr, Kind};
use rustix::io::Errno;
use tokio::sync::mpsc;

use crate::backend::LocalFile;

/// Bytes of a name: an S3 key has no more.
pub const NAME_MAX: usize = 1024;

/// Attributes, and how long they stay good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub ino: u64,
    pub attr: Attr,
    pub uid: u32,
    pub gid: u32,
    pub ttl: Duration,
}

/// One entry of a directory with its position.
pub struct DirEntry<'a> {
    pub name: &'a [u8],
    pub kind: Kind,
    pub ino: u64,
    /// Where to go on after this entry.
    pub next: u64,
    /// With `plus`, what a lookup would have found.
    pub stat: Option<Stat>,
}

/// What a lookup found.
#[derive(Clone, Debug)]
pub enum Found {
    Entry(Stat),
    /// Nothing, and so it stays for this long.
    Nothing(Duration),
}

/// What the transport must know of a new handle.
pub struct Opened {
    pub handle: u64,
    /// The complete cached file: may be given to the kernel, to read it without us.
    pub local: Option<Arc<LocalFile>>,
    /// All bytes of the object, for the kernel's page cache: it need not ask for them.
    pub content: Option<Bytes>,
}

/// A name that the kernel may know, and that is not what it was. What it named is another inode, so nothing else is to be
/// dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalidation {
    pub parent: u64,
    pub name: Vec<u8>,
}

/// A tree of files that cannot be written to. Nodes and handles are numbers that it gives out.
pub trait Tree: Send + Sync + 'static {
    /// Counts one lookup of what it finds, until [`Tree::forget`].
    fn lookup(&self, directory: u64, name: &[u8]) -> impl Future<Output = Result<Found, Errno>> + Send;

    fn forget(&self, ino: u64, lookups: u64);

    fn getattr(&self, ino: u64) -> impl Future<Output = Result<Stat, Errno>> + Send;

    fn readlink(&self, ino: u64) -> impl Future<Output = Result<Vec<u8>, Errno>> + Send;

    fn open(&self, ino: u64, writable: bool) -> impl Future<Output = Result<Opened, Errno>> + Send;

    /// Fewer bytes than asked for only at the end of the file.
    fn read(&self, handle: u64, offset: u64, len: u32) -> impl Future<Output = Result<Bytes, Errno>> + Send;

    fn release(&self, handle: u64);

    fn opendir(&self, ino: u64) -> Result<u64, Errno>;

    /// Hands entries from `position` on to `take` until it refuses one or the directory ends. With `plus`, a lookup is
    /// counted for each entry that `take` has accepted, but for `.` and `..`.
    fn readdir(
        &self,
        handle: u64,
        position: u64,
        plus: bool,
        take: impl FnMut(DirEntry<'_>) -> bool + Send,
    ) -> impl Future<Output = Result<(), Errno>> + Send;

    fn releasedir(&self, handle: u64);

    /// What to have the kernel drop. Not to be drained by a thread that answers the kernel's requests: the kernel may hold
    /// a directory locked until one of them is answered.
    fn invalidations(&self) -> mpsc::UnboundedReceiver<Invalidation>;
}
