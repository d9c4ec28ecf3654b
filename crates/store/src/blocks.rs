//! Checksums of the parts of a page, so that a small read need not read and hash the whole of it.
//!
//! They are made in memory when part of a page is read for the first time, from the page once its own checksum was right.
//! One version has one content, so they stay true whatever becomes of the page.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of one block; the last of an object may be shorter.
pub(crate) const BLOCK: u64 = 4 << 10;

/// Of one page, one for each block: a thousandth of its bytes.
#[derive(Debug)]
pub(crate) struct BlockSums(Box<[u32]>);

impl BlockSums {
    pub(crate) fn of(page: &[u8]) -> Self {
        Self(page.chunks(BLOCK as usize).map(sum).collect())
    }

    /// Whether `data`, whole blocks that begin `at` bytes into the page, is as it was.
    pub(crate) fn fit(&self, at: u64, data: &[u8]) -> bool {
        let sums = self.0.get((at / BLOCK) as usize..).unwrap_or_default();
        let mut blocks = data.chunks(BLOCK as usize).zip(sums);
        data.len().div_ceil(BLOCK as usize) <= sums.len() && blocks.all(|(block, known)| sum(block) == *known)
    }
}

/// Half of the hash: a bad block passes once in 2³² times.
fn sum(block: &[u8]) -> u32 {
    xxh3_64(block) as u32
}

/// The whole blocks that hold `range` of an object of `size` bytes.
pub(crate) fn widen(range: &Range<u64>, size: u64) -> Range<u64> {
    range.start / BLOCK * BLOCK..range.end.next_multiple_of(BLOCK).min(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_bytes_at_their_own_place_fit() {
        let page: Vec<u8> = (0..5 * BLOCK + 7).map(|at| (at / BLOCK * 31 + at % 251) as u8).collect();
        let sums = BlockSums::of(&page);
        let part = |from: u64, to: u64| &page[from as usize..to as usize];
        assert!(sums.fit(0, &page));
        assert!(sums.fit(BLOCK, part(BLOCK, 3 * BLOCK)));
        assert!(sums.fit(5 * BLOCK, part(5 * BLOCK, 5 * BLOCK + 7)));
        assert!(!sums.fit(0, part(BLOCK, 2 * BLOCK)));
        assert!(!sums.fit(5 * BLOCK, part(4 * BLOCK, 5 * BLOCK + 7)), "more blocks than the page has");
        let mut bad = part(BLOCK, 3 * BLOCK).to_vec();
        bad[BLOCK as usize + 9] ^= 1;
        assert!(!sums.fit(BLOCK, &bad));
    }

    #[test]
    fn ranges_widen_to_blocks_and_end_with_the_object() {
        assert_eq!(widen(&(BLOCK - 1..BLOCK + 1), 9 * BLOCK), 0..2 * BLOCK);
        assert_eq!(widen(&(BLOCK..BLOCK + 1), BLOCK + 3), BLOCK..BLOCK + 3);
    }
}
