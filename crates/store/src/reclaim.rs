//! Making room: eviction, demotion to the next tier, removal.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use parking_lot::RwLockWriteGuard;

use crate::{
    evict::Node,
    index::{Entry, Slot, SlotState},
    page::{self, Mask},
    quota::Reservation,
    read::Locked,
    store::Inner,
    write::Batch,
};

/// Extents that one write evicts at most while its tier is between the watermarks: shrinking costs every writer a little
/// instead of one writer much. More than a write adds, so that the tier does get down to `low`.
const STEPS: usize = 4;
/// Victims in use that are passed over before a writer gives up.
const PATIENCE: usize = 256;

impl Inner {
    /// Reserves `need` bytes in a tier, after evicting what the watermarks or the quota ask for. A replica takes the place
    /// of other replicas only.
    pub(crate) fn make_room(&self, at: usize, need: u64, replica: bool) -> Option<Reservation<'_>> {
        let tier = &self.tiers[at];
        if need > tier.quota.limit() {
            return None;
        }
        if replica {
            while tier.quota.used() + need > tier.high {
                if !self.evict_from(at, true) {
                    return None;
                }
            }
            return tier.quota.reserve(need);
        }
        for _ in 0..STEPS {
            if !tier.start_shrinking(need) || !self.evict_one(at) {
                break;
            }
        }
        loop {
            if let Some(space) = tier.quota.reserve(need) {
                return Some(space);
            }
            if !self.evict_one(at) {
                return None;
            }
        }
    }

    /// Evicts until `bytes` less are used, or nothing more can go.
    pub(crate) fn shrink_by(&self, at: usize, bytes: u64) {
        let goal = self.tiers[at].quota.used().saturating_sub(bytes);
        while self.tiers[at].quota.used() > goal && self.evict_one(at) {}
    }

    /// A replica, or else what the worker owns. False when everything is in use or the tier is empty.
    fn evict_one(&self, at: usize) -> bool {
        self.evict_from(at, true) || self.evict_from(at, false)
    }

    fn evict_from(&self, at: usize, replicas: bool) -> bool {
        let evict = &self.tiers[at].evict;
        let mut in_use = Vec::new();
        let mut victims = std::iter::from_fn(|| evict.victim(replicas)).take(PATIENCE);
        let done = victims.any(|node| match self.try_evict(at, &node) {
            Some(false) => {
                in_use.push(node);
                false
            }
            done => done.is_some(),
        });
        // Only now: otherwise the next victim would be the same again.
        evict.put_back(&in_use);
        done
    }

    /// `Some(false)`: in use. `None`: it had left by another way.
    fn try_evict(&self, at: usize, node: &Arc<Node>) -> Option<bool> {
        let entry = self.index.get(node.key)?;
        let slot = entry.slot(node.extent)?;
        let Some(mut state) = slot.state.try_write() else { return Some(false) };
        state.home.as_ref().filter(|home| Arc::ptr_eq(&home.node, node))?;
        if self.in_use(at, &entry) {
            return Some(false);
        }
        let bytes = page::mask_bytes(entry.object.size, node.extent, state.pages);
        if !node.is_replica() && self.demote(at, &entry, node.extent, &slot, &mut state) {
            self.counters.demoted.fetch_add(bytes, Relaxed);
            return Some(true);
        }
        self.clear(&entry, node.extent, &slot, state);
        self.counters.evicted.fetch_add(bytes, Relaxed);
        Some(true)
    }

    /// Whether a hole in the object's file would be seen. Descriptors that an earlier process lent are not among the pins,
    /// but whoever reads through one keeps it locked. The last extent takes the whole file away, which nobody sees who
    /// has it open.
    pub(crate) fn in_use(&self, at: usize, entry: &Entry) -> bool {
        entry.pinned() || *entry.files[at].lock() > 1 && self.tiers[at].is_locked(entry.object.key)
    }

    /// Moves the extent to the next usable tier; false when that tier does not take it.
    fn demote(&self, at: usize, entry: &Arc<Entry>, extent: u32, slot: &Slot, state: &mut SlotState) -> bool {
        let Some(below) = (at + 1..self.tiers.len()).find(|tier| self.tiers[*tier].usable()) else { return false };
        let Some(moved) = self.copy_to(below, entry, extent, slot, state) else { return false };
        self.settle(entry, extent, state, moved);
        true
    }

    /// Copies the extent, whose `state` the caller has locked, to another tier. `None` when a page of it is bad or that tier
    /// does not take it. The copy's checksums are those of the original, so harm done meanwhile is found by the next reader.
    pub(crate) fn copy_to(
        &self,
        to: usize,
        entry: &Arc<Entry>,
        extent: u32,
        slot: &Slot,
        state: &SlotState,
    ) -> Option<SlotState> {
        let from = &self.tiers[state.home.as_ref()?.tier];
        let first = page::runs(state.pages).first()?.start;
        let bytes = page::run_bytes(entry.object.size, extent, &(first..page::PAGES - state.pages.leading_zeros()));
        let mut data = vec![0; (bytes.end - bytes.start) as usize];
        let file = from.open_data(entry.object.key, false).ok()?;
        let locked = Locked { file: &file, object: &entry.object, extent, slot, state };
        // Pages that are absent read as zeros or stale bytes; only present ones count.
        if locked.read(state.pages, bytes.start, &mut data) != 0 {
            return None;
        }
        let mut moved = SlotState::default();
        let batch = Batch { extent, first, mask: state.pages, data: &data };
        self.put(to, entry, slot, &mut moved, &batch).ok()?;
        Some(moved)
    }

    /// The extent is from now on where its copy is.
    pub(crate) fn settle(&self, entry: &Entry, extent: u32, state: &mut SlotState, moved: SlotState) {
        let bytes = page::mask_bytes(entry.object.size, extent, state.pages);
        if let (Some(from), Some(to)) = (&state.home, &moved.home) {
            self.counters.lose(&from.node, bytes);
            self.counters.gain(&to.node, bytes);
        }
        self.leave(entry, extent, state);
        *state = moved;
    }

    /// Takes what `state` tells of off its tier.
    pub(crate) fn leave(&self, entry: &Entry, extent: u32, state: &SlotState) {
        let Some(home) = &state.home else { return };
        let tier = &self.tiers[home.tier];
        tier.evict.remove(&home.node);
        self.detach(home.tier, entry, extent, state.charged);
        tier.quota.release(page::bytes_rounded(entry.object.size, extent, state.charged, tier.block()));
    }

    /// Takes an extent out of the index and off its tier.
    fn clear(&self, entry: &Arc<Entry>, extent: u32, slot: &Slot, mut state: RwLockWriteGuard<'_, SlotState>) {
        if let Some(home) = &state.home {
            self.counters.lose(&home.node, page::mask_bytes(entry.object.size, extent, state.pages));
        }
        self.leave(entry, extent, &state);
        *state = SlotState { gone: true, ..SlotState::default() };
        slot.verified.store(0, Relaxed);
        entry.remove_slot(extent);
        drop(state);
        self.index.forget_empty(entry);
    }

    /// One extent of the object less in this tier; the last takes the files with it. The extent's own space is the
    /// caller's to release, after this.
    pub(crate) fn detach(&self, tier: usize, entry: &Entry, extent: u32, pages: Mask) {
        let mut extents = entry.files[tier].lock();
        *extents -= 1;
        if *extents == 0 {
            self.tiers[tier].unlink(entry.object.key);
            self.tiers[tier].quota.release(self.overhead(tier, &entry.object));
        } else {
            drop(extents);
            self.free(tier, entry, extent, pages);
        }
    }

    /// Marks pages as absent, then frees their blocks.
    pub(crate) fn free(&self, tier: usize, entry: &Entry, extent: u32, pages: Mask) {
        let first = u64::from(extent) * u64::from(page::PAGES);
        for run in page::runs(pages) {
            let numbers = first + u64::from(run.start)..first + u64::from(run.end);
            let bytes = page::run_bytes(entry.object.size, extent, &run);
            let tier = &self.tiers[tier];
            let freed = tier.clear_records(&entry.object, numbers).and_then(|()| tier.punch(entry.object.key, &bytes));
            if let Err(error) = freed {
                tracing::warn!(%error, "cannot free part of a cached file");
            }
        }
    }

    pub(crate) fn remove(&self, entry: &Arc<Entry>, extent: u32) -> bool {
        let Some(slot) = entry.slot(extent) else { return false };
        let state = slot.state.write();
        if state.home.as_ref().is_none_or(|home| self.in_use(home.tier, entry)) {
            return false;
        }
        self.clear(entry, extent, &slot, state);
        true
    }

    /// After the scan at start: a quota may have been lowered since.
    pub(crate) fn fit_quota(&self, at: usize) {
        let quota = &self.tiers[at].quota;
        while quota.used() > quota.limit() && self.evict_one(at) {}
    }
}
