//! Under file systems: the stores that own the data, behind one small trait.
//!
//! [`open`] makes a [`Ufs`] of a mount's source and options without touching the store; [`Ufs::probe`] asks whether it
//! answers. `docs/ufs.md` lists schemes and options.

mod local;
mod open;
mod options;
mod s3;

pub use open::{OpenMount, open};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use penstock_model::{Kind, Version};

/// One UFS, rooted at its mount. Paths are relative to the mount, bytes as the store has them, no leading slash.
#[async_trait]
pub trait Ufs: Send + Sync {
    /// The status of one path. A store without directories (S3) finds a directory where any key has `path/` as prefix;
    /// where a key is also a prefix, the directory wins.
    async fn stat(&self, path: &[u8]) -> Result<Status, UfsError>;

    /// The entries of a directory, page by page, within a page in no promised order. [`UfsError::NotFound`] when there is none.
    fn list<'a>(&'a self, path: &'a [u8]) -> BoxStream<'a, Result<ListedPage, UfsError>>;

    /// Bytes `offset..offset + len` of the object as it was in `version`; [`UfsError::Changed`] when it no longer is.
    async fn read(&self, path: &[u8], version: &Version, offset: u64, len: u64) -> Result<Bytes, UfsError>;

    /// The target of a symlink, for stores that have them.
    async fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, UfsError>;

    /// Whether the mount works, by one cheap request. The error is fit for users.
    async fn probe(&self) -> Result<(), UfsError> {
        self.stat(b"").await.map(|_| ())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub kind: Kind,
    /// Bytes; a symlink's is the length of its target, a directory's 0.
    pub size: u64,
    /// Nanoseconds since the epoch; 0 when the store tells none.
    pub mtime_ns: i64,
    /// Permission bits where the store has them.
    pub mode: Option<u32>,
    /// Set for files.
    pub version: Option<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEntry {
    /// One path segment.
    pub name: Vec<u8>,
    pub status: Status,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedPage {
    pub entries: Vec<ListedEntry>,
    /// Whatever comes in later pages stands at this key ([`listing_key`](penstock_model::listing_key)) or after it;
    /// empty where nothing is known.
    pub settled: Vec<u8>,
}

/// Why a store did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UfsError {
    #[error("not found")]
    NotFound,
    #[error("not a directory")]
    NotADirectory,
    #[error("the object changed")]
    Changed,
    #[error("access denied: {0}")]
    Denied(String),
    /// Worth another try later: time-outs, throttling, 5xx, refused connections.
    #[error("{0}")]
    Unavailable(String),
    /// The mount as described cannot work: scheme, option or value are named, and the mend.
    #[error("{0}")]
    Misconfigured(String),
}
