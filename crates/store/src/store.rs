//! The store as its callers see it.

use std::{
    fmt, io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use parking_lot::RwLock;
use penstock_model::{EXTENT, Medium, Object, ObjectKey};

use crate::{
    candidates::Candidates,
    evict::Node,
    index::{Entry, Index, Lent, PinnedFile, SlotState},
    page,
    tier::{Tier, TierOptions},
};

/// The tiers of one worker. Cheap to clone; all clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) index: Index,
    pub(crate) tiers: Vec<Tier>,
    pub(crate) candidates: Candidates,
    pub(crate) counters: Counters,
    claims: RwLock<Claims>,
}

/// What an extent is to the worker that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Owner,
    /// It was the owner: what is here from that time is kept until the owner has it.
    FormerOwner,
    None,
}

/// Says what claim the worker has to an extent.
struct Claims(Box<dyn Fn(ObjectKey, u32) -> Claim + Send + Sync>);

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(..)")
    }
}

impl Inner {
    pub(crate) fn claim(&self, key: ObjectKey, extent: u32) -> Claim {
        (self.claims.read().0)(key, extent)
    }

    /// Counts an extent that is here as a replica, or as owned.
    fn assign(&self, entry: &Entry, extent: u32, state: &SlotState, replica: bool) {
        let Some(home) = &state.home else { return };
        let bytes = page::mask_bytes(entry.object.size, extent, state.pages);
        self.counters.lose(&home.node, bytes);
        self.tiers[home.tier].evict.reassign(&home.node, replica);
        self.counters.gain(&home.node, bytes);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    cached: AtomicU64,
    replicas: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) demoted: AtomicU64,
    pub(crate) promoted: AtomicU64,
    pub(crate) corrupt: AtomicU64,
}

impl Counters {
    fn of(&self, node: &Node) -> &AtomicU64 {
        if node.is_replica() { &self.replicas } else { &self.cached }
    }

    /// So many bytes of the extent are present now and were not before. Its state is locked.
    pub(crate) fn gain(&self, node: &Node, bytes: u64) {
        self.of(node).fetch_add(bytes, Relaxed);
    }

    /// The opposite of [`Self::gain`].
    pub(crate) fn lose(&self, node: &Node, bytes: u64) {
        self.of(node).fetch_sub(bytes, Relaxed);
    }
}

/// Why bytes were not kept. The bytes themselves are good: a caller that has them serves them all the same.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("bytes {start}..{end} of an object of {size} bytes are not whole pages of it")]
    Misaligned { start: u64, end: u64, size: u64 },
    #[error("the object is cached with another size ({cached} bytes, not {given})")]
    OtherSize { cached: u64, given: u64 },
    #[error("no tier has room")]
    Full,
    #[error("failed to write a cached file")]
    Io(#[from] io::Error),
}

/// One extent of which at least one page is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentInfo {
    pub object: Arc<Object>,
    /// Number of the extent in its object.
    pub extent: u32,
    /// Bytes of it that are present.
    pub present: u64,
    /// How often it was asked for lately, by the count that eviction goes by: 0 to 15, of use for comparing only.
    pub heat: u8,
    /// Its owner has it too.
    pub is_replica: bool,
}

impl ExtentInfo {
    /// Where the extent lies in its object.
    pub fn range(&self) -> Range<u64> {
        let start = u64::from(self.extent) * EXTENT;
        start..(start + EXTENT).min(self.object.size)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierStats {
    pub medium: Medium,
    pub quota: u64,
    /// Bytes, overhead included.
    pub used: u64,
    /// Whether anything is kept in it.
    pub usable: bool,
    /// Why the tier is not used, or not in full: a sentence for the user.
    pub trouble: Option<String>,
}

/// Numbers of the moment; counters run since the store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    pub tiers: Vec<TierStats>,
    /// Bytes of objects that are present, without overhead and without replicas.
    pub cached_bytes: u64,
    /// Bytes of replicas, in the same way.
    pub replica_bytes: u64,
    /// Bytes that left the store for want of room.
    pub evicted_bytes: u64,
    /// Bytes that went one tier down.
    pub demoted_bytes: u64,
    /// Bytes that went one tier up.
    pub promoted_bytes: u64,
    /// Pages dropped because their checksum was wrong or they could not be read.
    pub corrupt_pages: u64,
}

impl Store {
    /// Opens the tiers, highest first, and takes stock of what they hold. A tier that cannot be used stays out, with its
    /// `trouble` in [`Store::stats`]; with no usable tier every write fails with [`WriteError::Full`]. Blocks for the scan.
    #[allow(clippy::needless_pass_by_value, reason = "callers build the list for this call")]
    pub fn open(tiers: Vec<TierOptions>) -> Self {
        let tiers = tiers.iter().map(Tier::open).collect();
        let claims = RwLock::new(Claims(Box::new(|_, _| Claim::Owner)));
        let (index, candidates, counters) = (Index::new(), Candidates::default(), Counters::default());
        let inner = Inner { index, tiers, candidates, counters, claims };
        inner.take_stock();
        Self { inner: Arc::new(inner) }
    }

    /// Tries tiers that cannot be used once more, and looks whether the others still have the room of their quotas. To be
    /// called by one task from time to time. Blocks, for a tier that can be used now as long as [`Store::open`].
    pub fn recheck(&self) {
        self.inner.take_stock();
    }

    /// Moves up one of the extents that proved themselves in a lower tier: false when there are none for now. To be called by
    /// one task from time to time, until it returns false. Blocks for disk I/O; readers of the extent go on meanwhile.
    pub fn promote_next(&self) -> bool {
        self.inner.promote_next()
    }

    /// From now on `claims` tells what is owned. All else that comes is a replica, and so is what is here without any claim:
    /// replicas leave before all others, to make room for a replica nothing else leaves, and they never go down a tier.
    /// Before the first call everything is owned.
    pub fn claim(&self, claims: impl Fn(ObjectKey, u32) -> Claim + Send + Sync + 'static) {
        *self.inner.claims.write() = Claims(Box::new(claims));
        for entry in self.inner.index.entries() {
            for (extent, slot) in entry.slots() {
                let state = slot.state.read();
                match self.inner.claim(entry.object.key, extent) {
                    Claim::Owner => self.inner.assign(&entry, extent, &state, false),
                    Claim::FormerOwner => {}
                    Claim::None => self.inner.assign(&entry, extent, &state, true),
                }
            }
        }
    }

    /// The owner has got `range` from here. Where that is all that is here of an extent, this worker has a replica only.
    pub fn taken_over(&self, object: &ObjectKey, range: Range<u64>) {
        let Some(entry) = self.inner.index.get(*object) else { return };
        for (extent, pages) in page::split(&range) {
            let Some(slot) = entry.slot(extent) else { continue };
            let state = slot.state.read();
            if state.pages & !page::mask_of(pages) == 0 && self.inner.claim(*object, extent) != Claim::Owner {
                self.inner.assign(&entry, extent, &state, true);
            }
        }
    }

    /// Bytes that replicas can take in the tier with most room for them: what is free below its `high`, and what replicas
    /// take now.
    pub fn room_for_replicas(&self) -> u64 {
        let usable = self.inner.tiers.iter().filter(|tier| tier.usable());
        let room = |tier: &Tier| {
            let owned = tier.quota.used().saturating_sub(tier.evict.replica_bytes());
            tier.high.saturating_sub(owned)
        };
        usable.map(room).max().unwrap_or(0)
    }

    /// The parts of `range` (widened to whole pages, cut at `size`) that are absent, in order and joined where they touch.
    pub fn missing(&self, object: &ObjectKey, size: u64, range: Range<u64>) -> Vec<Range<u64>> {
        let range = range.start..range.end.min(size);
        let entry = self.inner.index.get(*object).filter(|entry| entry.object.size == size);
        let mut found: Vec<Range<u64>> = Vec::new();
        for (extent, pages) in page::split(&range) {
            let slot = entry.as_ref().and_then(|entry| entry.slot(extent));
            let present = slot.map_or(0, |slot| slot.state.read().pages);
            for run in page::runs(page::mask_of(pages) & !present) {
                let bytes = page::run_bytes(size, extent, &run);
                match found.last_mut() {
                    Some(last) if last.end == bytes.start => last.end = bytes.end,
                    _ => found.push(bytes),
                }
            }
        }
        found
    }

    /// Bytes `offset..offset + len`, all or nothing. Checksums of all that is read are compared; a page that fails is
    /// dropped and the answer is `None`. Counts as a visit. Blocks for disk I/O.
    pub fn read(&self, object: &ObjectKey, offset: u64, len: usize) -> Option<Bytes> {
        self.inner.read(*object, offset, len)
    }

    /// A file to take bytes `range`, which lie in one extent, from: where a memory tier has them and this process has
    /// verified them, and where they are whole blocks. Counts as a visit. Does not block.
    pub fn lend(&self, object: &ObjectKey, range: Range<u64>) -> Option<Lent> {
        self.inner.lend(*object, &range)
    }

    /// Keeps `data` at `offset`: whole pages, but for the object's last. Pages that are present already stay as they are
    /// (one version has one content). Extents make room one by one: in a small tier the former of a write may have left for
    /// the latter. On an error some of the pages may have been kept. Blocks for disk I/O.
    pub fn write(&self, object: &Object, offset: u64, data: &[u8]) -> Result<(), WriteError> {
        self.inner.write(object, offset, data)
    }

    /// The object's file, when all of it is present in one tier and every page was verified by this process; pages that
    /// were not yet are read now. Blocks for disk I/O. `None` for an empty object.
    pub fn open_complete(&self, object: &ObjectKey) -> Option<PinnedFile> {
        self.inner.open_complete(*object)
    }

    /// Every extent that is present, in no order.
    pub fn extents(&self) -> Vec<ExtentInfo> {
        let of_entry = |entry: Arc<crate::index::Entry>| {
            entry.slots().into_iter().filter_map(move |(extent, slot)| {
                let (pages, home) = {
                    let state = slot.state.read();
                    (state.pages, state.home.clone())
                };
                let present = page::mask_bytes(entry.object.size, extent, pages);
                let heat = home.as_ref().map_or(0, |home| self.inner.tiers[home.tier].evict.heat(&home.node));
                let is_replica = home.is_some_and(|home| home.node.is_replica());
                let object = entry.object.clone();
                (present > 0).then_some(ExtentInfo { object, extent, present, heat, is_replica })
            })
        };
        self.inner.index.entries().flat_map(of_entry).collect()
    }

    /// Drops one extent; waits for readers of it. False when it is absent or the object is pinned.
    pub fn remove_extent(&self, object: &ObjectKey, extent: u32) -> bool {
        self.inner.index.get(*object).is_some_and(|entry| self.inner.remove(&entry, extent))
    }

    /// Drops an object; waits for its readers. False when nothing of it was removed: absent or pinned.
    pub fn remove_object(&self, object: &ObjectKey) -> bool {
        let Some(entry) = self.inner.index.get(*object) else { return false };
        let removed = entry.slots().into_iter().map(|(extent, _)| self.inner.remove(&entry, extent));
        removed.fold(false, |any, one| any | one)
    }

    /// Drops the objects for which `keep` is false, pinned ones excepted. Returns how many it dropped.
    pub fn retain(&self, mut keep: impl FnMut(&Object) -> bool) -> usize {
        let unwanted: Vec<_> = self.inner.index.entries().filter(|entry| !keep(&entry.object)).collect();
        unwanted.iter().filter(|entry| self.remove_object(&entry.object.key)).count()
    }

    pub fn stats(&self) -> StoreStats {
        let tier = |tier: &Tier| TierStats {
            medium: tier.medium,
            quota: tier.quota.limit(),
            used: tier.quota.used(),
            usable: tier.usable(),
            trouble: tier.trouble(),
        };
        let counters = &self.inner.counters;
        StoreStats {
            tiers: self.inner.tiers.iter().map(tier).collect(),
            cached_bytes: counters.cached.load(Relaxed),
            replica_bytes: counters.replicas.load(Relaxed),
            evicted_bytes: counters.evicted.load(Relaxed),
            demoted_bytes: counters.demoted.load(Relaxed),
            promoted_bytes: counters.promoted.load(Relaxed),
            corrupt_pages: counters.corrupt.load(Relaxed),
        }
    }
}
