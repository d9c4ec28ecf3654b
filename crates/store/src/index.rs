//! What is cached, in memory: shards of objects, each with its extents.
//!
//! Order of locks: a slot's state, then its object's `extents`, then nothing; a slot's state, then an object's `files`;
//! a shard, then an object's `extents`. Nobody waits for a slot while holding another slot, a shard or `extents`: eviction
//! only tries, and a promotion waits for the readers of the one slot that it holds.

use std::{
    collections::{BTreeMap, HashMap, hash_map},
    fs::File,
    hash::{BuildHasherDefault, Hasher},
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst},
    },
};

use parking_lot::{Mutex, RwLock};
use penstock_model::{Object, ObjectKey};

use crate::{
    blocks::BlockSums,
    evict::Node,
    page::{self, Mask},
};

const SHARDS: usize = 64;

/// Keys are hashes already.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
}

type Shard = HashMap<ObjectKey, Arc<Entry>, BuildHasherDefault<KeyHasher>>;

#[derive(Debug)]
pub(crate) struct Index {
    shards: Vec<RwLock<Shard>>,
}

/// One object version.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) object: Arc<Object>,
    extents: RwLock<Extents>,
    /// Per tier: extents that live there. The files exist while it is not 0; held while they are made or removed.
    pub(crate) files: Vec<Mutex<usize>>,
    /// Descriptors handed out: nothing is punched while there are any.
    pub(crate) pins: AtomicUsize,
}

#[derive(Debug, Default)]
struct Extents {
    slots: BTreeMap<u32, Arc<Slot>>,
    /// Out of the index; whoever wants to add looks the object up again.
    dead: bool,
}

/// One extent. Readers hold the state's read lock while they read the file: that is what keeps holes away.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) state: RwLock<SlotState>,
    /// Pages whose checksum was right when this process wrote or read them.
    pub(crate) verified: AtomicU16,
    /// Of pages that this process wrote or read whole.
    pub(crate) blocks: RwLock<BTreeMap<u32, BlockSums>>,
}

impl Slot {
    /// Keeps the checksums of the blocks of page `bit`.
    pub(crate) fn keep_blocks(&self, bit: u32, sums: BlockSums) {
        if !self.blocks.read().contains_key(&bit) {
            self.blocks.write().insert(bit, sums);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct SlotState {
    pub(crate) home: Option<Home>,
    pub(crate) pages: Mask,
    /// Pages that take space: those present, and bad ones whose blocks are still there.
    pub(crate) charged: Mask,
    pub(crate) sums: Box<[u64]>,
    /// Out of the index.
    pub(crate) gone: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) tier: usize,
    pub(crate) node: Arc<Node>,
}

impl SlotState {
    pub(crate) fn sum(&self, bit: u32) -> u64 {
        self.sums.get(bit as usize).copied().unwrap_or(0)
    }

    pub(crate) fn set_sum(&mut self, object: &Object, extent: u32, bit: u32, sum: u64) {
        if self.sums.is_empty() {
            let count = page::full_mask(object.size, extent).count_ones() as usize;
            self.sums = vec![0; count].into_boxed_slice();
        }
        self.sums[bit as usize] = sum;
    }
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect() }
    }

    fn shard(&self, key: ObjectKey) -> &RwLock<Shard> {
        &self.shards[(key.0 >> 64) as usize % SHARDS]
    }

    pub(crate) fn get(&self, key: ObjectKey) -> Option<Arc<Entry>> {
        self.shard(key).read().get(&key).cloned()
    }

    pub(crate) fn get_or_add(&self, object: &Object, tiers: usize) -> Arc<Entry> {
        if let Some(entry) = self.get(object.key) {
            return entry;
        }
        match self.shard(object.key).write().entry(object.key) {
            hash_map::Entry::Occupied(entry) => entry.get().clone(),
            hash_map::Entry::Vacant(place) => place.insert(Arc::new(Entry::new(object.clone(), tiers))).clone(),
        }
    }

    /// Takes the entry out when it has no extents left.
    pub(crate) fn forget_empty(&self, entry: &Arc<Entry>) {
        let mut shard = self.shard(entry.object.key).write();
        let mut extents = entry.extents.write();
        if extents.slots.is_empty() && !extents.dead {
            extents.dead = true;
            shard.remove(&entry.object.key);
        }
    }

    /// All entries of the moment; no lock is held afterwards.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Arc<Entry>> + '_ {
        self.shards.iter().flat_map(|shard| shard.read().values().cloned().collect::<Vec<_>>())
    }
}

impl Entry {
    fn new(object: Object, tiers: usize) -> Self {
        Self {
            object: Arc::new(object),
            extents: RwLock::default(),
            files: (0..tiers).map(|_| Mutex::new(0)).collect(),
            pins: AtomicUsize::new(0),
        }
    }

    pub(crate) fn slot(&self, extent: u32) -> Option<Arc<Slot>> {
        self.extents.read().slots.get(&extent).cloned()
    }

    /// `None` when the entry is out of the index.
    pub(crate) fn slot_or_add(&self, extent: u32) -> Option<Arc<Slot>> {
        if let Some(slot) = self.slot(extent) {
            return Some(slot);
        }
        let mut extents = self.extents.write();
        (!extents.dead).then(|| extents.slots.entry(extent).or_default().clone())
    }

    /// To be called with the slot's state locked for writing, `gone` set.
    pub(crate) fn remove_slot(&self, extent: u32) {
        self.extents.write().slots.remove(&extent);
    }

    pub(crate) fn slots(&self) -> Vec<(u32, Arc<Slot>)> {
        self.extents.read().slots.iter().map(|(extent, slot)| (*extent, slot.clone())).collect()
    }

    /// The tier that has all of the object.
    pub(crate) fn whole_in(&self) -> Option<usize> {
        let (size, slots) = (self.object.size, self.slots());
        let whole = |(extent, slot): &(u32, Arc<Slot>)| {
            let state = slot.state.read();
            state.home.as_ref().filter(|_| state.pages == page::full_mask(size, *extent)).map(|home| home.tier)
        };
        let first = slots.first().and_then(whole).filter(|_| slots.len() as u64 == page::extent_count(size));
        first.filter(|_| slots.iter().all(|one| whole(one) == first))
    }

    pub(crate) fn pin(self: &Arc<Self>) -> Pin {
        self.pins.fetch_add(1, SeqCst);
        Pin(self.clone())
    }

    pub(crate) fn pinned(&self) -> bool {
        self.pins.load(SeqCst) > 0
    }
}

/// Keeps an object's files whole and in place.
#[derive(Debug)]
pub(crate) struct Pin(Arc<Entry>);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, SeqCst);
    }
}

/// A read-only file that holds what was asked for: the whole object, or a range. Until this is dropped, nothing of the
/// object is evicted or removed; whoever gets a copy of the descriptor must have done with it by then.
#[derive(Debug)]
pub struct PinnedFile {
    pub(crate) file: File,
    pub(crate) _pin: Pin,
}

/// A part of a file, and the checksums of its blocks ([`penstock_model::BLOCK`]) as they were when they were made.
#[derive(Debug)]
pub struct Lent {
    pub file: PinnedFile,
    pub sums: Vec<u32>,
}

impl Deref for PinnedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl std::os::fd::AsFd for PinnedFile {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}
