//! S3 and what speaks like it.
//!
//! `opendal`'s `Operator` trims paths and joins `//`, which are different keys on S3. So its service is called directly,
//! under the layers for time-outs, concurrency and retries alone.

mod connect;
mod failure;
mod key;
mod listing;

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use opendal::options::{ListOptions, ReadOptions, StatOptions};
use opendal::raw::{OpRead, Servicer, oio};
use opendal::{BytesRange, Metadata, OperationContext};
use penstock_model::{Kind, Version};

use crate::options::Options;
use crate::{ListedEntry, ListedPage, Status, Ufs, UfsError};

use failure::Place;
use key::Prefix;
use listing::{Found, Merge, Progress};

/// Entries handed over at once, and asked for at once: one page of `ListObjectsV2`.
const PAGE: usize = 1000;

pub(crate) struct S3 {
    service: Servicer,
    context: OperationContext,
    prefix: Prefix,
    place: Place,
    told_of_skipped: AtomicBool,
}

impl S3 {
    pub(crate) fn open(source: &str, rest: &str, options: &Options<'_>) -> Result<Self, UfsError> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if prefix.starts_with('/') {
            return Err(UfsError::Misconfigured(format!(
                "mountPoint {source:?} has an empty segment after the bucket: write s3://{bucket}/{}",
                prefix.trim_start_matches('/')
            )));
        }
        let (service, context, place) = connect::connect(source, bucket, options)?;
        Ok(Self { service, context, prefix: Prefix::new(prefix), place, told_of_skipped: AtomicBool::new(false) })
    }

    async fn head(&self, key: &str) -> Result<Status, UfsError> {
        let found = self.service.stat_dyn(&self.context, key, StatOptions::default().into()).await;
        let metadata = found.map_err(|error| self.place.describe(&error))?.into_metadata();
        Ok(file(&metadata))
    }

    fn lister(&self, prefix: &str, limit: Option<usize>) -> Result<oio::Lister, UfsError> {
        // The service takes "/" for its root.
        let path = if prefix.is_empty() { "/" } else { prefix };
        let options = ListOptions { limit, ..Default::default() };
        self.service.list_dyn(&self.context, path, options.into()).map_err(|error| self.place.describe(&error))
    }

    /// Whether any key begins with this.
    async fn any(&self, prefix: &str) -> Result<bool, UfsError> {
        let mut lister = self.lister(prefix, Some(1))?;
        lister.next_dyn().await.map(|entry| entry.is_some()).map_err(|error| self.place.describe(&error))
    }

    /// Why a listing is empty: an error unless the directory exists all the same.
    async fn explain_empty(&self, path: &[u8]) -> Result<(), UfsError> {
        if path.is_empty() {
            return Ok(());
        }
        let Some(key) = self.prefix.file(path) else { return Err(UfsError::NotFound) };
        self.head(&key).await.and(Err(UfsError::NotADirectory))
    }

    /// Why an answer is whole and has fewer bytes than were asked for: the object is shorter than it was, or the store
    /// gave less than it has.
    async fn explain_short(&self, key: &str, version: &Version, end: u64) -> UfsError {
        match self.head(key).await {
            Ok(status) if status.version.as_ref() == Some(version) && end <= status.size => {
                UfsError::Unavailable(format!("{} answers with fewer bytes than were asked for", self.place))
            }
            Ok(_) => UfsError::Changed,
            Err(error) => error,
        }
    }

    fn tell_of_skipped(&self, key: &str) {
        if !self.told_of_skipped.swap(true, Ordering::Relaxed) {
            tracing::warn!(key, place = %self.place, "keys with empty, \".\" or \"..\" segments or NUL have no path and are not shown");
        }
    }
}

#[async_trait]
impl Ufs for S3 {
    async fn stat(&self, path: &[u8]) -> Result<Status, UfsError> {
        let Some(directory) = self.prefix.directory(path) else { return Err(UfsError::NotFound) };
        if path.is_empty() {
            self.any(&directory).await?;
            return Ok(DIRECTORY);
        }
        let key = directory.trim_end_matches('/');
        let (below, head) = futures::join!(self.any(&directory), self.head(key));
        match (below, head) {
            (Ok(true), _) => Ok(DIRECTORY),
            (Ok(false), head) => head,
            // Keys that may only get, not list, still read files by name.
            (Err(UfsError::Denied(_)), Ok(status)) => Ok(status),
            (Err(error), _) => Err(error),
        }
    }

    fn list<'a>(&'a self, path: &'a [u8]) -> BoxStream<'a, Result<ListedPage, UfsError>> {
        let opened = match self.prefix.directory(path) {
            None => Err(UfsError::NotFound),
            Some(directory) => self.lister(&directory, Some(PAGE)).map(|lister| (lister, directory)),
        };
        let (lister, directory) = match opened {
            Ok(opened) => opened,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let listing = Listing {
            s3: self,
            path,
            directory,
            lister,
            merge: Merge::default(),
            progress: Progress::default(),
            seen: false,
            ended: false,
        };
        stream::try_unfold(listing, |mut listing| async move {
            let page = listing.page().await?;
            Ok(page.map(|page| (page, listing)))
        })
        .boxed()
    }

    async fn read(&self, path: &[u8], version: &Version, offset: u64, len: u64) -> Result<Bytes, UfsError> {
        let Some(key) = self.prefix.file(path) else { return Err(UfsError::NotFound) };
        if len == 0 {
            return Ok(Bytes::new());
        }
        let etag = key::etag(version);
        let options = ReadOptions { if_match: etag, ..Default::default() };
        let (_, read, _): (BytesRange, OpRead, _) = options.into();
        let told = |error: &opendal::Error| self.place.describe(error);
        let reader = self.service.read_dyn(&self.context, &key, read).map_err(|error| told(&error))?;
        let (response, data) = match reader.read_dyn(BytesRange::new(offset, Some(len))).await {
            Ok(answer) => answer,
            Err(error) if failure::is_short(&error) => {
                return Err(self.explain_short(&key, version, offset + len).await);
            }
            Err(error) => return Err(told(&error)),
        };
        // For stores that ignore the condition.
        match response.metadata() {
            Some(metadata) if key::version(metadata) != *version => Err(UfsError::Changed),
            _ if data.len() as u64 != len => Err(self.explain_short(&key, version, offset + len).await),
            _ => Ok(data.to_bytes()),
        }
    }

    async fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, UfsError> {
        self.stat(path).await.and(Err(UfsError::NotFound))
    }

    async fn probe(&self) -> Result<(), UfsError> {
        self.any(self.prefix.as_str()).await.map(|_| ())
    }
}

const DIRECTORY: Status = Status { kind: Kind::Directory, size: 0, mtime_ns: 0, mode: None, version: None };

fn file(metadata: &Metadata) -> Status {
    Status {
        kind: Kind::File,
        size: metadata.content_length(),
        mtime_ns: key::mtime_ns(metadata),
        mode: None,
        version: Some(key::version(metadata)),
    }
}

struct Listing<'a> {
    s3: &'a S3,
    path: &'a [u8],
    directory: String,
    lister: oio::Lister,
    merge: Merge<Status>,
    progress: Progress,
    seen: bool,
    ended: bool,
}

impl Listing<'_> {
    async fn page(&mut self) -> Result<Option<ListedPage>, UfsError> {
        let mut page = Vec::with_capacity(PAGE);
        while !self.ended && page.len() < PAGE {
            let next = self.lister.next_dyn().await.map_err(|error| self.s3.place.describe(&error))?;
            if let Some(entry) = next {
                self.take(&entry, &mut page);
                continue;
            }
            self.ended = true;
            self.merge.finish(|name, status| page.push(entry_of(name, status)));
            if !self.seen {
                self.s3.explain_empty(self.path).await?;
            }
        }
        // A file that waits for the directory of its name comes later than its turn.
        let settled =
            self.merge.first_pending().map_or(self.progress.reached(), |file| self.progress.reached().min(file));
        Ok((!page.is_empty()).then(|| ListedPage { entries: page, settled: settled.as_bytes().to_vec() }))
    }

    fn take(&mut self, entry: &oio::Entry, page: &mut Vec<ListedEntry>) {
        self.seen = true;
        match listing::locate(&self.directory, entry.path()) {
            Found::Marker => {}
            Found::Unshowable => self.s3.tell_of_skipped(entry.path()),
            Found::Directory(name) => {
                self.progress.directory(name, PAGE);
                self.merge.directory(name, |name, status| page.push(entry_of(name, status)));
            }
            Found::File(name) => {
                self.progress.file(name);
                let status = file(entry.metadata());
                self.merge.file(name, status, |name, status| page.push(entry_of(name, status)));
            }
        }
    }
}

/// `None` stands for a directory.
fn entry_of(name: String, status: Option<Status>) -> ListedEntry {
    ListedEntry { name: name.into_bytes(), status: status.unwrap_or(DIRECTORY) }
}
