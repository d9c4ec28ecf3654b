//! From pages of a store, in its order, to stretches of a listing in the order of keys.

use std::collections::{BTreeMap, BTreeSet};

use penstock_model::{Kind, listing_key};
use penstock_ufs::{ListedEntry, ListedPage, Status};
use tokio::time::Instant;

use super::packed::Packed;

/// Entries of one stretch, at most.
const STRETCH: usize = 4096;

/// Holds back what has come before its turn.
pub(super) struct Sorter {
    /// By key.
    held: BTreeMap<Vec<u8>, ListedEntry>,
    /// When the oldest of them was asked for.
    oldest: Option<Instant>,
    /// Names that other mounts of the Dataset have here.
    hidden: BTreeSet<Vec<u8>>,
    reached: Vec<u8>,
    /// Came after its turn: the store lists in another order than it says.
    pub(super) late: Vec<ListedEntry>,
}

impl Sorter {
    pub(super) fn new(mounts: BTreeSet<Vec<u8>>, now: Instant) -> Self {
        let held = mounts.iter().map(|name| (listing_key(name, Kind::Directory), directory(name))).collect();
        Self { held, oldest: Some(now), hidden: mounts, reached: Vec::new(), late: Vec::new() }
    }

    /// What is sure now.
    pub(super) fn take(&mut self, page: ListedPage, asked: Instant) -> Vec<Packed> {
        for entry in page.entries {
            let key = listing_key(&entry.name, entry.status.kind);
            if self.hidden.contains(&entry.name) {
                continue;
            }
            if key < self.reached {
                self.late.push(entry);
            } else {
                self.held.insert(key, entry);
            }
        }
        self.reached = std::mem::take(&mut self.reached).max(page.settled);
        let rest = self.held.split_off(&self.reached);
        let sure = std::mem::replace(&mut self.held, rest);
        let oldest = self.oldest.replace(asked).unwrap_or(asked);
        pack(sure, oldest)
    }

    /// The rest, when nothing more comes.
    pub(super) fn finish(&mut self, asked: Instant) -> Vec<Packed> {
        let oldest = self.oldest.take().unwrap_or(asked);
        pack(std::mem::take(&mut self.held), oldest)
    }

    /// All of a listing anew, with what came late.
    pub(super) fn mend<'a>(&mut self, told: impl IntoIterator<Item = &'a Packed>, asked: Instant) -> Vec<Packed> {
        let entries = told.into_iter().flat_map(|packed| (0..packed.len()).map(|at| packed.entry(at)));
        let entries = entries.chain(std::mem::take(&mut self.late));
        pack(entries.map(|entry| (listing_key(&entry.name, entry.status.kind), entry)).collect(), asked)
    }
}

fn pack(entries: BTreeMap<Vec<u8>, ListedEntry>, asked: Instant) -> Vec<Packed> {
    let mut entries = entries.into_values().peekable();
    std::iter::from_fn(|| entries.peek().is_some().then(|| Packed::pack(entries.by_ref().take(STRETCH), asked)))
        .collect()
}

fn directory(name: &[u8]) -> ListedEntry {
    let status = Status { kind: Kind::Directory, size: 0, mtime_ns: 0, mode: None, version: None };
    ListedEntry { name: name.to_vec(), status }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::packed::tests::{entry, key},
        *,
    };

    proptest! {
        /// The model: all entries sorted at once. A store that keeps its promise has nothing late, and another one loses nothing.
        #[test]
        fn however_pages_are_cut_the_listing_is_the_same(
            mut entries in prop::collection::vec(entry(), 0..40),
            cuts in prop::collection::vec(1usize..8, 40),
            lying: bool,
        ) {
            let mounts = BTreeSet::from([b"a".to_vec(), b"zz".to_vec()]);
            if !lying {
                entries.sort_by_key(key);
            }
            let mut unique = BTreeSet::new();
            entries.retain(|entry| unique.insert(key(entry)));
            let (mut rest, mut told) = (&entries[..], Vec::new());
            let mut sorter = Sorter::new(mounts.clone(), Instant::now());
            for cut in cuts {
                let (page, left) = rest.split_at(cut.min(rest.len()));
                let settled = page.last().map_or(Vec::new(), key);
                told.extend(sorter.take(ListedPage { entries: page.to_vec(), settled }, Instant::now()));
                rest = left;
            }
            told.extend(sorter.finish(Instant::now()));
            if sorter.late.is_empty() {
                prop_assert!(told.iter().all(|packed| packed.len() > 0));
            } else {
                prop_assert!(lying);
                told = sorter.mend(&told, Instant::now());
            }
            let found: Vec<_> = told.iter().flat_map(|packed| (0..packed.len()).map(|at| packed.entry(at))).collect();
            let shown = entries.iter().filter(|entry| !mounts.contains(&entry.name)).cloned();
            let mut wanted: Vec<_> = shown.chain(mounts.iter().map(|name| directory(name))).collect();
            wanted.sort_by_key(key);
            prop_assert_eq!(found, wanted);
        }
    }
}
