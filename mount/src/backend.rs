//! What the file system asks for: the seam between FUSE and the workers.

use std::{fs::File, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use penstock_model::{Attr, Entry, Object};
use penstock_wire::message::{Change, Pattern};
use rustix::io::Errno;

/// What a mount must know of its Dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How long attributes and names stay good; `None` for a static Dataset.
    pub revalidate: Option<Duration>,
    /// Owner of all files as the mount shows them.
    pub uid: u32,
    pub gid: u32,
    /// How many workers share it out.
    pub workers: usize,
}

/// One page of a directory, in the order of [`penstock_model::listing_key`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub entries: Vec<Entry>,
    /// Whether there are entries after the last of these.
    pub more: bool,
    /// How long ago it was so.
    pub age: Duration,
}

/// Attributes, and how long ago they were these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub attr: Attr,
    pub age: Duration,
}

/// What workers have found not to be as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    Here(Vec<Change>),
    /// Some of it was missed: it may be anywhere.
    Anywhere,
}

/// A read-only descriptor of a complete cached file, from which nothing is taken away while the descriptor is open.
pub struct LocalFile {
    pub file: File,
}

/// Where names and bytes come from. Implementations try again as long as it makes sense: an error is final.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// `None` until a worker has told.
    fn facts(&self) -> Option<Facts>;

    async fn stat(&self, path: &[u8]) -> Result<Told, ReadError>;

    /// Entries after the key `after`, at most `limit` of them.
    async fn list(&self, path: &[u8], after: Option<&[u8]>, limit: u32) -> Result<Listing, ReadError>;

    async fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, ReadError>;

    /// Exactly the bytes `offset..offset + len`, which cross neither an extent nor the end of the object.
    async fn read(&self, object: &Object, offset: u64, len: u32, pattern: Pattern) -> Result<Bytes, ReadError>;

    /// The cached file of an object that a worker on this node has whole.
    async fn open_local(&self, object: &Object) -> Option<LocalFile>;

    /// Waits until something is found to have changed; for ever where nobody tells.
    async fn changed(&self) -> Changed {
        std::future::pending().await
    }
}

/// Why there is no answer. `Clone`, because one flight may have many waiters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("no such file or directory")]
    NotFound,
    #[error("not a directory")]
    NotADirectory,
    #[error("the object changed since it was opened")]
    Stale,
    #[error("the under file system denies access: {0}")]
    Denied(String),
    #[error("the under file system failed: {0}")]
    Ufs(String),
    #[error("no worker could be reached: {0}")]
    Unreachable(String),
    #[error("a worker answered out of order: {0}")]
    Protocol(String),
}

impl ReadError {
    /// What the caller of the system call sees.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NotFound => Errno::NOENT,
            Self::NotADirectory => Errno::NOTDIR,
            Self::Stale => Errno::STALE,
            Self::Denied(_) => Errno::ACCESS,
            Self::Ufs(_) | Self::Unreachable(_) | Self::Protocol(_) => Errno::IO,
        }
    }
}
