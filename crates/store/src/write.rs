//! Writing: new pages into the highest tier that has room.

use std::{
    io,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use penstock_model::{Object, PAGE};

use crate::{
    blocks::sums_of,
    evict::Node,
    index::{Entry, Home, Slot, SlotState},
    meta,
    page::{self, Mask},
    quota::Reservation,
    store::{Claim, Inner, WriteError},
    tier,
};

/// Bytes of one extent on their way to a tier: the pages in `mask` of `data`, which begins at page `first`.
pub(crate) struct Batch<'a> {
    pub(crate) extent: u32,
    pub(crate) first: u32,
    pub(crate) mask: Mask,
    pub(crate) data: &'a [u8],
}

impl Batch<'_> {
    fn run(&self, size: u64, run: &Range<u32>) -> (&[u8], u64) {
        let bytes = page::run_bytes(size, self.extent, run);
        let from = (u64::from(run.start - self.first) * PAGE) as usize;
        (&self.data[from..from + (bytes.end - bytes.start) as usize], bytes.start)
    }
}

impl Inner {
    pub(crate) fn write(&self, object: &Object, offset: u64, data: &[u8]) -> Result<(), WriteError> {
        let (start, end, size) = (offset, offset.saturating_add(data.len() as u64), object.size);
        let whole = end <= size && start.is_multiple_of(PAGE) && (end == size || end.is_multiple_of(PAGE));
        if !whole {
            return Err(WriteError::Misaligned { start, end, size });
        }
        for (extent, pages) in page::split(&(start..end)) {
            let bytes = page::run_bytes(size, extent, &pages);
            let data = &data[(bytes.start - start) as usize..(bytes.end - start) as usize];
            self.write_extent(object, &Batch { extent, first: pages.start, mask: page::mask_of(pages), data })?;
        }
        Ok(())
    }

    fn write_extent(&self, object: &Object, batch: &Batch<'_>) -> Result<(), WriteError> {
        loop {
            let entry = self.index.get_or_add(object, self.tiers.len());
            if entry.object.size != object.size {
                return Err(WriteError::OtherSize { cached: entry.object.size, given: object.size });
            }
            let Some(slot) = entry.slot_or_add(batch.extent) else { continue };
            let mut state = slot.state.write();
            if state.gone {
                continue;
            }
            let done = self.write_slot(&entry, &slot, &mut state, batch);
            if state.home.is_none() {
                state.gone = true;
                entry.remove_slot(batch.extent);
                drop(state);
                self.index.forget_empty(&entry);
            }
            return done;
        }
    }

    fn write_slot(
        &self,
        entry: &Arc<Entry>,
        slot: &Slot,
        state: &mut SlotState,
        batch: &Batch<'_>,
    ) -> Result<(), WriteError> {
        let batch = Batch { mask: batch.mask & !state.pages, ..*batch };
        if batch.mask == 0 {
            if let Some(home) = &state.home {
                self.visit(home);
            }
            return Ok(());
        }
        let tiers = state.home.as_ref().map_or(0..self.tiers.len(), |home| home.tier..home.tier + 1);
        let mut last = WriteError::Full;
        for tier in tiers.filter(|tier| self.tiers[*tier].usable()) {
            match self.put(tier, entry, slot, state, &batch) {
                Ok(()) => {
                    slot.verified.fetch_or(batch.mask, Relaxed);
                    let bytes = page::mask_bytes(entry.object.size, batch.extent, batch.mask);
                    if let Some(home) = &state.home {
                        self.counters.gain(&home.node, bytes);
                    }
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Writes the batch into one tier, where the extent lives or will live. Pages and checksums of `state` follow.
    pub(crate) fn put(
        &self,
        tier: usize,
        entry: &Arc<Entry>,
        slot: &Slot,
        state: &mut SlotState,
        batch: &Batch<'_>,
    ) -> Result<(), WriteError> {
        let (block, size) = (self.tiers[tier].block(), entry.object.size);
        let new = batch.mask & !state.charged;
        let cost = page::bytes_rounded(size, batch.extent, new, block);
        let overhead = page::object_overhead(size, meta::file_len(&entry.object), block) + block;
        let need = if state.home.is_none() { cost + overhead } else { cost };
        let replica = match &state.home {
            Some(home) => home.node.is_replica(),
            None => self.claim(entry.object.key, batch.extent) != Claim::Owner,
        };
        let mut space = self.make_room(tier, need, replica).ok_or(WriteError::Full)?;
        let mut taken = cost;
        if state.home.is_none() {
            taken += self.attach(tier, entry, &mut space)?;
        }
        let sums = self.put_pages(tier, entry, slot, batch).map_err(|error| {
            self.undo(tier, entry, state, batch.extent, new);
            if tier::is_full(&error) {
                self.shrink_by(tier, 2 * need);
                return WriteError::Full;
            }
            tracing::warn!(%error, "cannot write a cached file");
            WriteError::Io(error)
        })?;
        space.commit(cost);
        state.charged |= new;
        state.pages |= batch.mask;
        for (bit, sum) in page::runs(batch.mask).into_iter().flatten().zip(sums) {
            state.set_sum(&entry.object, batch.extent, bit, sum);
        }
        if let Some(home) = &state.home {
            self.tiers[tier].evict.grow(&home.node, cost as i64);
            self.visit(home);
        } else {
            let node = Node::new(entry.object.key, batch.extent);
            self.tiers[tier].evict.insert(&node, taken, replica);
            state.home = Some(Home { tier, node });
        }
        Ok(())
    }

    /// Bytes first, then the records that vouch for them. Returns the checksums in the order of the pages.
    fn put_pages(&self, tier: usize, entry: &Entry, slot: &Slot, batch: &Batch<'_>) -> io::Result<Vec<u64>> {
        let (object, tier) = (&*entry.object, &self.tiers[tier]);
        let file = tier.open_data(object.key, true)?;
        let first = u64::from(batch.extent) * u64::from(page::PAGES);
        let mut all = Vec::new();
        for run in page::runs(batch.mask) {
            let (bytes, at) = batch.run(object.size, &run);
            let begin = all.len();
            for (bit, page) in run.clone().zip(bytes.chunks(PAGE as usize)) {
                let (sum, blocks) = sums_of(page);
                if let Some(blocks) = blocks {
                    slot.keep_blocks(bit, blocks);
                }
                all.push(sum);
            }
            file.write_all_at(bytes, at)?;
            tier.write_records(object, first + u64::from(run.start), &all[begin..])?;
        }
        Ok(all)
    }

    /// One more extent of the object in this tier; makes its files for the first. Returns what they take.
    fn attach(&self, tier: usize, entry: &Entry, space: &mut Reservation<'_>) -> Result<u64, WriteError> {
        let (mut extents, mut taken) = (entry.files[tier].lock(), 0);
        if *extents == 0 {
            let made = self.tiers[tier].create(&entry.object, space);
            made.map_err(|error| if tier::is_full(&error) { WriteError::Full } else { WriteError::Io(error) })?;
            taken = self.overhead(tier, &entry.object);
            space.commit(taken);
        }
        *extents += 1;
        Ok(taken)
    }

    /// After a failed write: frees what it may have taken.
    fn undo(&self, tier: usize, entry: &Entry, state: &SlotState, extent: u32, new: Mask) {
        if state.home.is_none() {
            self.detach(tier, entry, extent, new);
        } else {
            self.free(tier, entry, extent, new);
        }
    }

    pub(crate) fn overhead(&self, tier: usize, object: &Object) -> u64 {
        page::object_overhead(object.size, meta::file_len(object), self.tiers[tier].block())
    }
}
