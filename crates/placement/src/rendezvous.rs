use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// A well-mixed 64-bit hash of what is placed: an extent of an object, or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlacementKey(pub u64);

impl PlacementKey {
    /// The key of the `index`-th extent of the object whose 128-bit key is `object`.
    pub fn extent(object: u128, index: u64) -> Self {
        Self(xxh3_64_with_seed(&object.to_le_bytes(), index))
    }

    /// The key of a directory, by its path in the Dataset (no leading or trailing slash; the root is empty).
    pub fn directory(path: &[u8]) -> Self {
        Self(xxh3_64(path))
    }

    /// Spreads small numbers over the key space.
    pub fn spread(n: u64) -> Self {
        Self(xxh3_64(&n.to_le_bytes()))
    }
}

/// The claim of member `id` to `key`: the greatest wins.
///
/// Weighted rendezvous hashing, `-w / ln(u)` with `u` uniform in (0, 1): a member's chance to win is `w / Σw`
/// (Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005).
pub(crate) fn score(key: PlacementKey, id: &str, weight: u64) -> f64 {
    let hash = xxh3_64_with_seed(id.as_bytes(), key.0);
    // The top 53 bits, and a half so that neither 0 nor 1 comes out.
    let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -(weight as f64) / uniform.ln()
}
