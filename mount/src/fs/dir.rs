//! Reading a directory: pages from the workers, in the order of names, at most one of them in memory.

use std::sync::Arc;

use penstock_model::Entry;
use tokio::time::Instant;

use crate::backend::{Backend, ReadError};

/// Entries asked for at once.
pub(super) const PAGE: u32 = 1000;

/// A directory while it is open. Cookies are positions: entry `i` is followed by cookie `i + 1`.
pub(super) struct OpenDir {
    pub(super) ino: u64,
    pub(super) path: Arc<[u8]>,
    pub(super) state: tokio::sync::Mutex<Pages>,
}

#[derive(Default)]
pub(super) struct Pages {
    /// Where each page seen so far begins: position, and the key it comes after. Lets a reader seek back.
    starts: Vec<(u64, Option<Vec<u8>>)>,
    first: u64,
    entries: Arc<Vec<Entry>>,
    more: bool,
    /// When they were so; `None` before the first page.
    since: Option<Instant>,
}

/// A stretch of a directory: `entries[skip..]` begins at the position asked for.
pub(super) struct Stretch {
    pub(super) entries: Arc<Vec<Entry>>,
    pub(super) skip: usize,
    /// When they were so.
    pub(super) since: Instant,
}

impl Pages {
    /// Entries from `position` on; none at the end of the directory.
    pub(super) async fn at(&mut self, backend: &dyn Backend, path: &[u8], position: u64) -> Result<Stretch, ReadError> {
        if position == 0 {
            *self = Self::default();
        }
        if self.since.is_none() {
            self.load(backend, path, 0, None).await?;
        }
        if position < self.first {
            let start = self.starts.iter().rev().find(|(first, _)| *first <= position).cloned();
            let (first, after) = start.unwrap_or((0, None));
            self.load(backend, path, first, after).await?;
        }
        while self.more && position >= self.first + self.entries.len() as u64 {
            let next = self.first + self.entries.len() as u64;
            let after = self.entries.last().map(Entry::listing_key);
            self.load(backend, path, next, after).await?;
        }
        let skip = (position - self.first).min(self.entries.len() as u64) as usize;
        Ok(Stretch { entries: self.entries.clone(), skip, since: self.since.unwrap_or_else(Instant::now) })
    }

    async fn load(
        &mut self,
        backend: &dyn Backend,
        path: &[u8],
        first: u64,
        after: Option<Vec<u8>>,
    ) -> Result<(), ReadError> {
        let asked = Instant::now();
        let listing = backend.list(path, after.as_deref(), PAGE).await?;
        if self.starts.last().is_none_or(|(known, _)| *known < first) {
            self.starts.push((first, after));
        }
        // A page without entries that promises more would be asked for again without end.
        self.more = listing.more && !listing.entries.is_empty();
        self.first = first;
        self.entries = Arc::new(listing.entries);
        self.since = Some(asked.checked_sub(listing.age).unwrap_or(asked));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryBackend;

    async fn names(pages: &mut Pages, backend: &MemoryBackend, from: u64) -> Vec<Vec<u8>> {
        let (mut found, mut position) = (Vec::new(), from);
        loop {
            let stretch = pages.at(backend, b"", position).await.unwrap();
            let rest = &stretch.entries[stretch.skip..];
            if rest.is_empty() {
                return found;
            }
            found.extend(rest.iter().map(|e| e.name.clone()));
            position += rest.len() as u64;
        }
    }

    #[tokio::test]
    async fn every_entry_comes_once_in_order_also_after_seeking_back() {
        let backend = MemoryBackend::default();
        let expected: Vec<Vec<u8>> = (0..3456).map(|i| format!("f{i:05}").into_bytes()).collect();
        for name in &expected {
            backend.add(name, b"x");
        }
        let mut pages = Pages::default();
        assert_eq!(names(&mut pages, &backend, 0).await, expected);
        for from in [1, 999, 1000, 2500, 3455, 3456, 0] {
            assert_eq!(names(&mut pages, &backend, from).await, expected[from as usize..], "from {from}");
        }
    }

    #[tokio::test]
    async fn an_empty_directory_has_no_entries() {
        let backend = MemoryBackend::default();
        assert!(names(&mut Pages::default(), &backend, 0).await.is_empty());
    }
}
