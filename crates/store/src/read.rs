//! Reading: bytes, and descriptors of complete files.

use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use penstock_model::{BLOCK, Medium, Object, ObjectKey, block_sums};

use crate::{
    blocks,
    index::{Entry, Lent, PinnedFile, Slot, SlotState},
    page::{self, Mask},
    store::Inner,
};

impl Inner {
    pub(crate) fn read(&self, key: ObjectKey, offset: u64, len: usize) -> Option<Bytes> {
        if len == 0 {
            return Some(Bytes::new());
        }
        let entry = self.index.get(key)?;
        let size = entry.object.size;
        let end = offset.checked_add(len as u64).filter(|end| *end <= size)?;
        let blocks = blocks::widen(&(offset..end), size);
        let mut bytes = vec![0; (blocks.end - blocks.start) as usize];
        for (extent, pages) in page::split(&blocks) {
            let whole = page::run_bytes(size, extent, &pages);
            let part = blocks.start.max(whole.start)..blocks.end.min(whole.end);
            let into = &mut bytes[(part.start - blocks.start) as usize..(part.end - blocks.start) as usize];
            self.read_extent(&entry, extent, pages, part.start, into)?;
        }
        let skip = (offset - blocks.start) as usize;
        Some(Bytes::from(bytes).slice(skip..skip + len))
    }

    /// Fills `into` from byte `start` of the object on: whole blocks, which lie in `pages`.
    fn read_extent(
        &self,
        entry: &Arc<Entry>,
        extent: u32,
        pages: Range<u32>,
        start: u64,
        into: &mut [u8],
    ) -> Option<()> {
        let slot = entry.slot(extent)?;
        let mask = page::mask_of(pages);
        let bad = {
            let state = slot.state.read();
            let home = state.home.as_ref().filter(|_| state.pages & mask == mask)?;
            let tier = &self.tiers[home.tier];
            self.visit(home);
            match tier.open_data(entry.object.key, false) {
                Ok(file) => Locked { file: &file, object: &entry.object, extent, slot: &slot, state: &state }
                    .read(mask, start, into),
                Err(_) => mask,
            }
        };
        slot.verified.fetch_or(mask & !bad, Relaxed);
        if bad == 0 {
            return Some(());
        }
        self.drop_bad(entry, extent, &slot, bad);
        None
    }

    /// Every present page of an extent that this process has not verified yet is read; true when all are right.
    fn verify(&self, entry: &Arc<Entry>, extent: u32, slot: &Slot, file: &File) -> bool {
        let bad = {
            let state = slot.state.read();
            let locked = Locked { file, object: &entry.object, extent, slot, state: &state };
            let mut bad = 0;
            for run in page::runs(state.pages & !slot.verified.load(Relaxed)) {
                let bytes = page::run_bytes(entry.object.size, extent, &run);
                let mut into = vec![0; (bytes.end - bytes.start) as usize];
                bad |= locked.read(page::mask_of(run), bytes.start, &mut into);
            }
            slot.verified.fetch_or(state.pages & !bad, Relaxed);
            bad
        };
        if bad != 0 {
            self.drop_bad(entry, extent, slot, bad);
        }
        bad == 0
    }

    /// Takes bad pages out of the index. Their blocks stay, and stay charged, until the page is written again or the
    /// extent goes: someone may read the file through a descriptor.
    fn drop_bad(&self, entry: &Entry, extent: u32, slot: &Slot, bad: Mask) {
        let mut state = slot.state.write();
        let bad = bad & state.pages;
        let Some(home) = state.home.clone().filter(|_| bad != 0) else { return };
        let first = u64::from(extent) * u64::from(page::PAGES);
        for run in page::runs(bad) {
            let pages = first + u64::from(run.start)..first + u64::from(run.end);
            if let Err(error) = self.tiers[home.tier].clear_records(&entry.object, pages) {
                tracing::debug!(%error, "cannot mark a bad page as absent");
            }
        }
        state.pages &= !bad;
        slot.verified.fetch_and(!bad, Relaxed);
        self.counters.lose(&home.node, page::mask_bytes(entry.object.size, extent, bad));
        self.counters.corrupt.fetch_add(u64::from(bad.count_ones()), Relaxed);
        tracing::warn!(key = %format!("{:032x}", entry.object.key.0), extent, pages = bad.count_ones(), "dropped bad pages");
    }

    pub(crate) fn lend(&self, key: ObjectKey, range: &Range<u64>) -> Option<Lent> {
        let entry = self.index.get(key).filter(|entry| range.end <= entry.object.size)?;
        if blocks::widen(range, entry.object.size) != *range {
            return None;
        }
        // Pinned first, as in `open_complete`.
        let pin = entry.pin();
        let mut parts = page::split(range);
        let (extent, pages) = parts.next().filter(|_| parts.next().is_none())?;
        let (slot, mask) = (entry.slot(extent)?, page::mask_of(pages.clone()));
        let state = slot.state.read();
        let home = state.home.as_ref().filter(|_| state.pages & slot.verified.load(Relaxed) & mask == mask)?;
        let tier = Some(&self.tiers[home.tier]).filter(|tier| tier.medium == Medium::Mem)?;
        self.visit(home);
        let file = tier.open_data(key, false).ok()?;
        let sums =
            Locked { file: &file, object: &entry.object, extent, slot: &slot, state: &state }.sums(pages, range)?;
        Some(Lent { file: PinnedFile { file, _pin: pin }, sums })
    }

    pub(crate) fn open_complete(&self, key: ObjectKey) -> Option<PinnedFile> {
        let entry = self.index.get(key)?;
        // Pinned first: whoever evicts looks at the pins with the slot locked, so either it sees this pin or what
        // follows sees the hole.
        let pin = entry.pin();
        let file = self.tiers[entry.whole_in()?].open_data(key, false).ok()?;
        let slots = entry.slots();
        slots.iter().filter_map(|(_, slot)| slot.state.read().home.clone()).for_each(|home| self.visit(&home));
        let right = slots.iter().all(|(extent, slot)| self.verify(&entry, *extent, slot, &file));
        right.then_some(PinnedFile { file, _pin: pin })
    }
}

/// An extent whose state is locked.
pub(crate) struct Locked<'a> {
    pub(crate) file: &'a File,
    pub(crate) object: &'a Object,
    pub(crate) extent: u32,
    pub(crate) slot: &'a Slot,
    pub(crate) state: &'a SlotState,
}

impl Locked<'_> {
    /// Fills `into` from byte `start` of the object on. Returns those of the pages in `mask`, all that it lies in, whose
    /// bytes are not right.
    pub(crate) fn read(&self, mask: Mask, start: u64, into: &mut [u8]) -> Mask {
        if let Err(error) = self.file.read_exact_at(into, start) {
            tracing::warn!(%error, "cannot read a cached file");
            return mask;
        }
        let end = start + into.len() as u64;
        let mut bad = 0;
        for bit in page::runs(mask).into_iter().flatten() {
            let page = page::run_bytes(self.object.size, self.extent, &(bit..bit + 1));
            let part = page.start.max(start)..page.end.min(end);
            let bytes = &mut into[(part.start - start) as usize..(part.end - start) as usize];
            let right = if part == page { self.fits(bit, bytes) } else { self.read_part(bit, &page, &part, bytes) };
            bad |= Mask::from(!right) << bit;
        }
        bad
    }

    /// Of the blocks of `range`, whole ones in `pages`; `None` when a page turns out to be bad.
    fn sums(&self, pages: Range<u32>, range: &Range<u64>) -> Option<Vec<u32>> {
        let mut sums = Vec::with_capacity((range.end - range.start).div_ceil(BLOCK) as usize);
        for bit in pages {
            let page = page::run_bytes(self.object.size, self.extent, &(bit..bit + 1));
            let part = page.start.max(range.start)..page.end.min(range.end);
            let (at, len) = (part.start - page.start, part.end - part.start);
            if let Some(known) = self.slot.blocks.read().get(&bit) {
                sums.extend_from_slice(known.of(at, len)?);
                continue;
            }
            // A page of few blocks: theirs are not kept.
            let mut bytes = vec![0; (page.end - page.start) as usize];
            if self.read(1 << bit, page.start, &mut bytes) != 0 {
                return None;
            }
            sums.extend(block_sums(&bytes[at as usize..(at + len) as usize]));
        }
        Some(sums)
    }

    /// Whether `bytes`, a whole page, are right.
    fn fits(&self, bit: u32, bytes: &[u8]) -> bool {
        let (sum, blocks) = blocks::sums_of(bytes);
        let right = sum == self.state.sum(bit);
        if let Some(blocks) = blocks.filter(|_| right) {
            self.slot.keep_blocks(bit, blocks);
        }
        right
    }

    /// Whether `bytes`, read from `part` of a page, are right. Without checksums of its blocks the whole page is read
    /// instead.
    fn read_part(&self, bit: u32, page: &Range<u64>, part: &Range<u64>, bytes: &mut [u8]) -> bool {
        let at = part.start - page.start;
        if let Some(sums) = self.slot.blocks.read().get(&bit) {
            return sums.fit(at, bytes);
        }
        let mut whole = vec![0; (page.end - page.start) as usize];
        if self.read(1 << bit, page.start, &mut whole) != 0 {
            return false;
        }
        bytes.copy_from_slice(&whole[at as usize..at as usize + bytes.len()]);
        true
    }
}
