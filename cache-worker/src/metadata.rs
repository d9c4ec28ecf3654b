//! Names and attributes: asked of the UFS once, kept for as long as the Dataset's consistency allows.

mod cells;
mod listing;
mod listings;
mod packed;
mod sorter;

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use parking_lot::RwLock;
use penstock_model::{Attr, Entry, Kind, ObjectKey};
use penstock_ufs::{ListedEntry, Status, UfsError};
use penstock_wire::message::Failure;
use tokio::time::Instant;

use self::{
    cells::Cells,
    listing::{Difference, Known, Listing, Pages, Sink},
    listings::Listings,
    sorter::Sorter,
};
use crate::{
    changes::{Change, Changes},
    namespace::{Namespace, Place, split},
    source::{Source, failure},
};

const SINGLE: usize = 100_000;
/// How long "there is no such file" is believed in a static Dataset, where what exists never changes.
const NEGATIVE: Duration = Duration::from_secs(5);
/// Entries in one answer, so that it fits a frame.
const PAGE: usize = 8192;
/// Who reads on in a listing reads on in the same one for at least so long, however short the interval is.
const CONTINUED: Duration = Duration::from_secs(10);
/// Names of a directory that are told to have changed; where more have, the directory is.
const NAMED: usize = 64;

/// What was answered, and when the UFS was asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told<T> {
    pub(crate) value: T,
    pub(crate) asked: Instant,
}

impl<T> Told<T> {
    fn now(value: T) -> Self {
        Self { value, asked: Instant::now() }
    }
}

/// The Dataset as configured, with what is known of its metadata. A new configuration is a new catalog.
pub(crate) struct Catalog {
    pub(crate) namespace: Namespace<Source>,
    lifetime: Lifetime,
    listings: Arc<Listings>,
    attrs: Cells<Told<Attr>>,
    links: Cells<Vec<u8>>,
    changes: Arc<Changes>,
}

impl Catalog {
    /// `memory`: bytes that listings may take.
    pub(crate) fn new(
        namespace: Namespace<Source>,
        revalidate: Option<Duration>,
        memory: usize,
        changes: Arc<Changes>,
    ) -> Self {
        let lifetime = Lifetime { revalidate };
        Self {
            namespace,
            lifetime,
            listings: Arc::new(Listings::new(memory)),
            attrs: Cells::new(SINGLE, lifetime),
            links: Cells::new(SINGLE, lifetime),
            changes,
        }
    }

    /// How long metadata stays good; `None` for a static Dataset.
    pub(crate) fn revalidate(&self) -> Option<Duration> {
        self.lifetime.revalidate
    }

    /// For clients, who reckon with it. What a static Dataset says does not age.
    pub(crate) fn age_ms<T>(&self, told: &Told<T>) -> u64 {
        self.revalidate().map_or(0, |_| told.asked.elapsed().as_millis() as u64)
    }

    /// From the directory's listing as far as there is one, else the UFS is asked for this one path: a listing is begun by
    /// those who list.
    pub(crate) async fn stat(&self, path: &[u8]) -> Result<Told<Attr>, Failure> {
        let Some((parent, name)) = split(path) else { return Ok(Told::now(directory())) };
        match self.listings.peek(parent).map_or(Known::Unknown, |listing| listing.find(name)) {
            Known::Entry(entry, asked) => {
                return Ok(Told { value: entry_at(&self.namespace.resolve(parent), entry).attr, asked });
            }
            Known::Nothing(asked) if self.lifetime.is_believed_absent(asked) => return Err(Failure::NotFound),
            Known::Nothing(_) | Known::Unknown => {}
        }
        let before = self.attrs.outdated(path);
        self.attrs.get(path, |_| 1, self.ask_attr(path, before)).await
    }

    /// Entries in the order of their keys after `after`, and whether there are more.
    pub(crate) async fn list(
        &self,
        path: &[u8],
        after: Option<&[u8]>,
        limit: u32,
    ) -> Result<Told<(Vec<Entry>, bool)>, Failure> {
        let grace = if after.is_some() { CONTINUED } else { Duration::ZERO };
        let listing = self.listings.get(path, grace, |before| self.begin(path, before));
        let page = listing.page(after, (limit as usize).min(PAGE)).await?;
        let place = self.namespace.resolve(path);
        let entries = page.entries.into_iter().map(|entry| entry_at(&place, entry)).collect();
        Ok(Told { value: (entries, page.more), asked: page.asked })
    }

    pub(crate) async fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, Failure> {
        let ask = async {
            let (source, inner) = self.namespace.resolve(path).mount.ok_or(Failure::NotFound)?;
            source.read_link(inner).await.map_err(failure)
        };
        self.links.get(path, |_| 1, ask).await
    }

    /// What is known of `path` is out of date.
    pub(crate) fn forget(&self, path: &[u8]) {
        self.attrs.forget(path);
        self.links.forget(path);
        if let Some((parent, _)) = split(path) {
            self.listings.forget(parent);
        }
    }

    /// `before`: what was known of the path and is too old.
    async fn ask_attr(&self, path: &[u8], before: Option<Result<Told<Attr>, Failure>>) -> Result<Told<Attr>, Failure> {
        let asked = Instant::now();
        let place = self.namespace.resolve(path);
        let answer = match place.mount {
            // The root of a mount is a directory even when its UFS is away.
            _ if !place.overlay.is_empty() => Ok(directory()),
            Some((_, b"")) => Ok(directory()),
            Some((source, inner)) => {
                source.stat(inner).await.map_err(failure).map(|status| attr(&source.spec.source, inner, status))
            }
            None => Err(Failure::NotFound),
        };
        if before.is_some_and(|before| is_another(&before.map(|told| told.value), &answer)) {
            self.changes.note([Change::Entry(path.to_vec())]);
        }
        answer.map(|value| Told { value, asked })
    }

    /// A new listing of `path`; what is not as in `before` is noted.
    fn begin(&self, path: &[u8], before: Option<Arc<Listing>>) -> Arc<Listing> {
        let Place { mount, overlay } = self.namespace.resolve(path);
        let pages = match mount {
            Some((source, inner)) => {
                Listed::Of { source: source.clone(), inner: inner.to_vec(), exists: !overlay.is_empty() }
            }
            None if overlay.is_empty() => Listed::Missing,
            None => Listed::Bare,
        };
        let mounts: BTreeSet<Vec<u8>> = overlay.into_iter().map(<[u8]>::to_vec).collect();
        let (listings, changes, path) = (Arc::downgrade(&self.listings), self.changes.clone(), path.to_vec());
        let done = move |now: &Listing| {
            if let Some(difference) = before.and_then(|before| before.differences(now, NAMED)) {
                changes.note(changed(&path, difference));
            }
            listings.upgrade().iter().for_each(|listings| listings.shrink());
        };
        Listing::begin(pages, Sorter::new(mounts, Instant::now()), self.lifetime, self.listings.bytes(), done)
    }
}

/// The catalog in force: of the newest configuration. Clones share it.
#[derive(Clone)]
pub(crate) struct Catalogs(Arc<RwLock<Arc<Catalog>>>);

impl Catalogs {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(catalog))))
    }

    pub(crate) fn current(&self) -> Arc<Catalog> {
        self.0.read().clone()
    }

    pub(crate) fn replace(&self, catalog: Catalog) {
        *self.0.write() = Arc::new(catalog);
    }
}

/// The pages of one directory.
enum Listed {
    Of {
        source: Arc<Source>,
        inner: Vec<u8>,
        /// Other mounts lie below it: it exists even when the source has no such directory.
        exists: bool,
    },
    /// It exists only because mounts lie below it.
    Bare,
    Missing,
}

impl Pages for Listed {
    async fn feed(self, sink: &mut Sink) -> Result<(), Failure> {
        let (source, inner, exists) = match self {
            Self::Of { source, inner, exists } => (source, inner, exists),
            Self::Bare => return Ok(()),
            Self::Missing => return Err(Failure::NotFound),
        };
        let mut pages = pin!(source.list(&inner));
        while let Some(page) = pages.next().await {
            let page = match page {
                Err(UfsError::NotFound | UfsError::NotADirectory) if exists => return Ok(()),
                page => page.map_err(failure)?,
            };
            if !sink.take(page).await {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// How long an answer is believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    revalidate: Option<Duration>,
}

impl Lifetime {
    /// A client believes it as long again: together they stay within the interval.
    fn negative(self) -> Duration {
        self.revalidate.map_or(NEGATIVE, |interval| NEGATIVE.min(interval / 2))
    }

    /// Whether a listing from then still says that something is not there.
    fn is_believed_absent(self, asked: Instant) -> bool {
        self.revalidate.is_none_or(|interval| asked.elapsed() <= interval / 2)
    }

    /// `None` is forever.
    fn of<V>(self, answer: &Result<V, Failure>) -> Option<Duration> {
        match answer {
            Ok(_) => self.revalidate,
            Err(Failure::NotFound | Failure::NotADirectory) => Some(self.negative()),
            Err(_) => Some(Duration::ZERO),
        }
    }
}

/// An entry of the directory at `place`.
fn entry_at(place: &Place<'_, Source>, ListedEntry { name, status }: ListedEntry) -> Entry {
    let attr = match place.mount {
        Some((source, b"")) => attr(&source.spec.source, &name, status),
        Some((source, inner)) => attr(&source.spec.source, &[inner, b"/", &name].concat(), status),
        None => directory(),
    };
    Entry { name, attr }
}

fn changed(directory: &[u8], difference: Difference) -> Vec<Change> {
    match difference {
        Difference::Names(names) if directory.is_empty() => names.into_iter().map(Change::Entry).collect(),
        Difference::Names(names) => names.iter().map(|name| Change::Entry([directory, b"/", name].concat())).collect(),
        Difference::Many => vec![Change::Directory(directory.to_vec())],
    }
}

/// Whether two answers about one path show different things; a failure to answer shows nothing.
fn is_another(before: &Result<Attr, Failure>, now: &Result<Attr, Failure>) -> bool {
    match (before, now) {
        (Ok(before), Ok(now)) => before != now,
        (Ok(_), Err(Failure::NotFound)) | (Err(Failure::NotFound), Ok(_)) => true,
        _ => false,
    }
}

fn directory() -> Attr {
    Attr { kind: Kind::Directory, size: 0, mtime_ns: 0, mode: 0o755, object: None }
}

fn attr(source: &str, inner: &[u8], status: Status) -> Attr {
    let usual = match status.kind {
        Kind::File => 0o644,
        Kind::Directory => 0o755,
        Kind::Symlink => 0o777,
    };
    Attr {
        kind: status.kind,
        size: status.size,
        mtime_ns: status.mtime_ns,
        mode: status.mode.unwrap_or(usual),
        object: status.version.map(|version| (ObjectKey::new(source, inner, &version), version)),
    }
}
