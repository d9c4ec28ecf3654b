//! Names and attributes: asked of the UFS once, kept for as long as the Dataset's consistency allows.

mod cells;

use std::{sync::Arc, time::Duration};

use penstock_ufs::Status;
use penstock_wire::message::{Attr, Entry, Failure, Kind, ObjectKey};

use self::cells::Cells;
use crate::{
    namespace::{Namespace, Place, split},
    source::{Source, failure},
};

/// Entries of cached listings, about 200 bytes each.
const LISTED: usize = 1 << 20;
const SINGLE: usize = 100_000;
/// How long "there is no such file" is believed in a static Dataset, where what exists never changes.
const NEGATIVE: Duration = Duration::from_secs(5);
/// Entries in one answer, so that it fits a frame.
const PAGE: usize = 8192;

/// The Dataset as configured, with what is known of its metadata. A new configuration is a new view.
pub(crate) struct View {
    pub(crate) namespace: Namespace<Source>,
    revalidate: Option<Duration>,
    listings: Cells<Arc<Vec<Entry>>>,
    attrs: Cells<Attr>,
    links: Cells<Vec<u8>>,
}

impl View {
    pub(crate) fn new(namespace: Namespace<Source>, revalidate: Option<Duration>) -> Self {
        let lifetime = Lifetime { revalidate };
        Self {
            namespace,
            revalidate,
            listings: Cells::new(LISTED, lifetime),
            attrs: Cells::new(SINGLE, lifetime),
            links: Cells::new(SINGLE, lifetime),
        }
    }

    /// How long metadata stays good; `None` for a static Dataset.
    pub(crate) fn revalidate(&self) -> Option<Duration> {
        self.revalidate
    }

    pub(crate) async fn stat(&self, path: &[u8]) -> Result<Attr, Failure> {
        let Some((parent, name)) = split(path) else { return Ok(directory()) };
        if let Some(listing) = self.listings.peek(parent) {
            return Ok(find(&listing?, name).ok_or(Failure::NotFound)?.attr.clone());
        }
        self.attrs.get(path, |_| 1, self.ask_attr(path)).await
    }

    /// Entries in the order of their names after `after`, and whether there are more.
    pub(crate) async fn list(
        &self,
        path: &[u8],
        after: Option<&[u8]>,
        limit: u32,
    ) -> Result<(Vec<Entry>, bool), Failure> {
        let listing = self.listings.get(path, |entries| entries.len(), self.ask_listing(path)).await?;
        let start = after.map_or(0, |after| listing.partition_point(|entry| *entry.name <= *after));
        let rest = &listing[start..];
        let page = &rest[..rest.len().min(limit as usize).min(PAGE)];
        Ok((page.to_vec(), page.len() < rest.len()))
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

    async fn ask_attr(&self, path: &[u8]) -> Result<Attr, Failure> {
        let place = self.namespace.resolve(path);
        match place.mount {
            // The root of a mount is a directory even when its UFS is away.
            _ if !place.overlay.is_empty() => Ok(directory()),
            Some((_, b"")) => Ok(directory()),
            Some((source, inner)) => {
                let status = source.stat(inner).await.map_err(failure)?;
                Ok(attr(&source.spec.source, inner, status))
            }
            None => Err(Failure::NotFound),
        }
    }

    async fn ask_listing(&self, path: &[u8]) -> Result<Arc<Vec<Entry>>, Failure> {
        let place = self.namespace.resolve(path);
        if !place.exists_at_all() {
            return Err(Failure::NotFound);
        }
        let Place { mount, overlay } = place;
        let mut entries = match mount {
            Some((source, inner)) => match list(source, inner).await {
                Err(Failure::NotFound | Failure::NotADirectory) if !overlay.is_empty() => Vec::new(),
                listed => listed?,
            },
            None => Vec::new(),
        };
        entries.retain(|entry| !overlay.contains(&*entry.name));
        entries.extend(overlay.iter().map(|name| Entry { name: name.to_vec(), attr: directory() }));
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|a, b| a.name == b.name);
        Ok(Arc::new(entries))
    }
}

/// How long an answer is believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    revalidate: Option<Duration>,
}

impl Lifetime {
    /// `None` is forever.
    fn of<V>(self, answer: &Result<V, Failure>) -> Option<Duration> {
        match answer {
            Ok(_) => self.revalidate,
            Err(Failure::NotFound | Failure::NotADirectory) => {
                Some(self.revalidate.map_or(NEGATIVE, |interval| interval.min(NEGATIVE)))
            }
            Err(_) => Some(Duration::ZERO),
        }
    }
}

async fn list(source: &Source, inner: &[u8]) -> Result<Vec<Entry>, Failure> {
    let listed = source.list(inner).await.map_err(failure)?;
    let path_of = |name: &[u8]| if inner.is_empty() { name.to_vec() } else { [inner, b"/", name].concat() };
    Ok(listed
        .into_iter()
        .map(|entry| {
            let attr = attr(&source.spec.source, &path_of(&entry.name), entry.status);
            Entry { name: entry.name, attr }
        })
        .collect())
}

fn find<'a>(listing: &'a [Entry], name: &[u8]) -> Option<&'a Entry> {
    listing.binary_search_by(|entry| (*entry.name).cmp(name)).ok().map(|at| &listing[at])
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
