//! Checksums of a page and of its blocks, so that a small read need not read and hash the whole page.
//!
//! A page's checksum, which its record on disk holds, is the hash of its blocks' hashes: whoever makes or compares it has
//! those of the blocks too. They are kept in memory. One version has one content, so they stay true whatever becomes of
//! the page.

use std::ops::Range;

pub(crate) use penstock_model::BLOCK;
use penstock_model::{block_sums, short_sum};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// A page of so many blocks is read whole about as quickly as a part of it.
const FEW: usize = 16;

/// Of one page, one for each block: a thousandth of its bytes.
#[derive(Debug)]
pub(crate) struct BlockSums(Box<[u32]>);

/// The checksum of a page, and those of its blocks where they are worth being kept.
pub(crate) fn sums_of(page: &[u8]) -> (u64, Option<BlockSums>) {
    let mut whole = Xxh3::new();
    let hash = |block: &[u8]| {
        let hash = xxh3_64(block);
        whole.update(&hash.to_le_bytes());
        short_sum(hash)
    };
    let blocks: Box<[u32]> = page.chunks(BLOCK as usize).map(hash).collect();
    (whole.digest(), (blocks.len() > FEW).then_some(BlockSums(blocks)))
}

impl BlockSums {
    /// Whether `data`, whole blocks that begin `at` bytes into the page, is as it was.
    pub(crate) fn fit(&self, at: u64, data: &[u8]) -> bool {
        self.of(at, data.len() as u64).is_some_and(|known| *known == block_sums(data)[..])
    }

    /// Of the whole blocks that begin `at` bytes into the page; `None` when the page has fewer.
    pub(crate) fn of(&self, at: u64, len: u64) -> Option<&[u32]> {
        let first = (at / BLOCK) as usize;
        self.0.get(first..first + len.div_ceil(BLOCK) as usize)
    }
}

/// The whole blocks that hold `range` of an object of `size` bytes.
pub(crate) fn widen(range: &Range<u64>, size: u64) -> Range<u64> {
    range.start / BLOCK * BLOCK..range.end.next_multiple_of(BLOCK).min(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(blocks: u64) -> Vec<u8> {
        (0..blocks * BLOCK + 7).map(|at| (at / BLOCK * 31 + at % 251) as u8).collect()
    }

    #[test]
    fn only_the_right_bytes_at_their_own_place_fit() {
        let page = page(20);
        let sums = sums_of(&page).1.unwrap();
        let part = |from: u64, to: u64| &page[from as usize..to as usize];
        assert!(sums.fit(0, &page));
        assert!(sums.fit(BLOCK, part(BLOCK, 3 * BLOCK)));
        assert!(sums.fit(20 * BLOCK, part(20 * BLOCK, 20 * BLOCK + 7)));
        assert!(!sums.fit(0, part(BLOCK, 2 * BLOCK)));
        assert!(!sums.fit(20 * BLOCK, part(19 * BLOCK, 20 * BLOCK + 7)), "more blocks than the page has");
        let mut bad = part(BLOCK, 3 * BLOCK).to_vec();
        bad[BLOCK as usize + 9] ^= 1;
        assert!(!sums.fit(BLOCK, &bad));
    }

    #[test]
    fn a_page_has_another_checksum_when_any_byte_differs_or_blocks_change_places() {
        let page = page(3);
        let sum = sums_of(&page).0;
        for at in [0, BLOCK as usize, page.len() - 1] {
            let mut other = page.clone();
            other[at] ^= 1;
            assert_ne!(sums_of(&other).0, sum, "byte {at}");
        }
        let mut other = page.clone();
        other.rotate_left(BLOCK as usize);
        assert_ne!(sums_of(&other).0, sum);
        assert_ne!(sums_of(&page[..page.len() - 1]).0, sum);
        assert!(sums_of(&page).1.is_none(), "few blocks are not worth it");
    }

    #[test]
    fn ranges_widen_to_blocks_and_end_with_the_object() {
        assert_eq!(widen(&(BLOCK - 1..BLOCK + 1), 9 * BLOCK), 0..2 * BLOCK);
        assert_eq!(widen(&(BLOCK..BLOCK + 1), BLOCK + 3), BLOCK..BLOCK + 3);
    }
}
