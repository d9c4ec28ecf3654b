//! Checksums of blocks: made when bytes come from their UFS, kept beside them, and sent along with them.

use xxhash_rust::xxh3::xxh3_64;

/// Bytes that one checksum is for; the last of a range may be fewer.
pub const BLOCK: u64 = 4 << 10;

/// Of each block of `bytes`, which begins with one.
pub fn block_sums(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(BLOCK as usize).map(|block| short_sum(xxh3_64(block))).collect()
}

/// Half of the hash: a bad block passes once in 2³² times.
pub fn short_sum(hash: u64) -> u32 {
    hash as u32
}
