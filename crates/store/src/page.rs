//! Geometry of an object: pages, extents, and what they take on a medium. Pure.

use std::ops::Range;

use penstock_model::{EXTENT, PAGE};

/// Pages of one extent; one bit each in a [`Mask`].
pub(crate) const PAGES: u32 = (EXTENT / PAGE) as u32;

/// Pages of one extent, bit 0 the first.
pub(crate) type Mask = u16;

const _: () = assert!(PAGES == Mask::BITS);

/// Kernel memory (tmpfs) or table space (disks) behind one file, an estimate from above.
const INODE: u64 = 1 << 10;
/// Directory space for the names of an object's two files.
const NAMES: u64 = 128;
/// ext4 keeps 4 runs in the inode and 340 in each further block; a page is at most a few runs.
const RUNS_PER_BLOCK: u64 = 340;

pub(crate) fn page_count(size: u64) -> u64 {
    size.div_ceil(PAGE)
}

pub(crate) fn extent_count(size: u64) -> u64 {
    size.div_ceil(EXTENT)
}

/// Bytes of page `page` of an object of `size` bytes; all but the last are whole.
pub(crate) fn page_len(size: u64, page: u64) -> u64 {
    size.saturating_sub(page * PAGE).min(PAGE)
}

/// All pages that extent `extent` has.
pub(crate) fn full_mask(size: u64, extent: u32) -> Mask {
    let first = u64::from(extent) * u64::from(PAGES);
    let count = page_count(size).saturating_sub(first).min(u64::from(PAGES)) as u32;
    mask_of(0..count)
}

pub(crate) fn mask_of(pages: Range<u32>) -> Mask {
    let below = |n: u32| if n >= PAGES { Mask::MAX } else { (1 << n) - 1 };
    below(pages.end) & !below(pages.start)
}

/// Runs of set bits, in order.
pub(crate) fn runs(mask: Mask) -> Vec<Range<u32>> {
    let mut found: Vec<Range<u32>> = Vec::new();
    for bit in (0..PAGES).filter(|bit| mask & (1 << bit) != 0) {
        match found.last_mut() {
            Some(last) if last.end == bit => last.end = bit + 1,
            _ => found.push(bit..bit + 1),
        }
    }
    found
}

/// Byte range in the object of a run of pages of an extent.
pub(crate) fn run_bytes(size: u64, extent: u32, run: &Range<u32>) -> Range<u64> {
    let base = u64::from(extent) * EXTENT;
    base + u64::from(run.start) * PAGE..(base + u64::from(run.end) * PAGE).min(size)
}

/// Bytes of the object that the pages in `mask` hold.
pub(crate) fn mask_bytes(size: u64, extent: u32, mask: Mask) -> u64 {
    bytes_rounded(size, extent, mask, 1)
}

/// What these pages take on a medium with blocks of `block` bytes.
pub(crate) fn bytes_rounded(size: u64, extent: u32, mask: Mask, block: u64) -> u64 {
    let first = u64::from(extent) * u64::from(PAGES);
    (0..PAGES)
        .filter(|bit| mask & (1 << bit) != 0)
        .map(|bit| page_len(size, first + u64::from(bit)).next_multiple_of(block))
        .sum()
}

/// What an object takes on a medium before its first page: checksum file, inodes, names, block lists.
pub(crate) fn object_overhead(size: u64, meta_len: u64, block: u64) -> u64 {
    let pages = page_count(size);
    let lists = if pages > 4 { (1 + pages / RUNS_PER_BLOCK) * block } else { 0 };
    meta_len.next_multiple_of(block) + 2 * INODE + NAMES + lists
}

/// The parts of a byte range by extent: (extent, first page in it, end page in it).
pub(crate) fn split(range: &Range<u64>) -> impl Iterator<Item = (u32, Range<u32>)> + use<> {
    let (start, end) = (range.start / PAGE, range.end.div_ceil(PAGE));
    let per = u64::from(PAGES);
    let extents = if start < end { start / per..(end - 1) / per + 1 } else { 0..0 };
    extents.map(move |extent| {
        let base = extent * per;
        (extent as u32, (start.max(base) - base) as u32..((end - base).min(per)) as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_runs_agree() {
        for (range, mask) in [(0..0, 0), (0..16, 0xffff), (3..5, 0b1_1000), (15..16, 0x8000)] {
            assert_eq!(mask_of(range.clone()), mask);
            assert_eq!(runs(mask), if range.is_empty() { vec![] } else { vec![range] });
        }
        assert_eq!(runs(0b1011), vec![0..2, 3..4]);
    }

    #[test]
    fn the_last_page_and_extent_are_short() {
        let size = EXTENT + PAGE + 5;
        assert_eq!(full_mask(size, 0), 0xffff);
        assert_eq!(full_mask(size, 1), 0b11);
        assert_eq!(full_mask(size, 2), 0);
        assert_eq!(mask_bytes(size, 1, 0b11), PAGE + 5);
        assert_eq!(bytes_rounded(size, 1, 0b11, 4096), PAGE + 4096);
        assert_eq!(run_bytes(size, 1, &(1..2)), EXTENT + PAGE..size);
    }

    #[test]
    fn ranges_split_at_extents() {
        assert_eq!(split(&(0..0)).count(), 0);
        assert_eq!(split(&(1..2)).collect::<Vec<_>>(), vec![(0, 0..1)]);
        assert_eq!(split(&(EXTENT - 1..EXTENT + 1)).collect::<Vec<_>>(), vec![(0, 15..16), (1, 0..1)]);
    }
}
