use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Extents of a run: neighbours whose scores are drawn together.
const RUN: usize = 16;

/// What is placed: an extent of an object, or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlacementKey {
    /// A well-mixed hash of the run of neighbours that it belongs to.
    run: u64,
    /// Its number in the run, less than [`RUN`].
    place: usize,
}

impl PlacementKey {
    /// The key of the `index`-th extent of the object whose 128-bit key is `object`.
    pub fn extent(object: u128, index: u64) -> Self {
        let run = xxh3_64_with_seed(&object.to_le_bytes(), index / RUN as u64);
        Self { run, place: (index % RUN as u64) as usize }
    }

    /// The key of a directory, by its path in the Dataset (no leading or trailing slash; the root is empty).
    pub fn directory(path: &[u8]) -> Self {
        Self { run: xxh3_64(path), place: 0 }
    }
}

/// The claim of member `id` to `key`: the greatest wins.
///
/// Weighted rendezvous hashing, `-w / ln(u)` with `u` uniform in (0, 1): a member's chance to win is `w / Σw`
/// (Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005).
///
/// A member's draws for the extents of a run are stratified: one from each sixteenth of (0, 1). So who wins one extent of a
/// run is less likely to win another, and a run is spread more evenly over the members than by independent draws, while each
/// draw by itself is uniform and those of different members are independent.
pub(crate) fn score(key: PlacementKey, id: &str, weight: u64) -> f64 {
    let hash = xxh3_64_with_seed(id.as_bytes(), key.run);
    let stratum = shuffled(hash)[key.place];
    let within = xxh3_64_with_seed(&hash.to_le_bytes(), key.place as u64);
    // As many bits as leave the sum exact, and a half so that neither 0 nor 1 comes out.
    let within = ((within >> 16) as f64 + 0.5) / (1u64 << 48) as f64;
    let uniform = (f64::from(stratum) + within) / RUN as f64;
    -(weight as f64) / uniform.ln()
}

/// The numbers below [`RUN`] in an order that `hash` draws (Fisher and Yates; 16! is less than 2⁴⁵).
fn shuffled(mut hash: u64) -> [u8; RUN] {
    let mut order: [u8; RUN] = std::array::from_fn(|at| at as u8);
    for last in (1..RUN).rev() {
        let choices = last as u64 + 1;
        order.swap(last, (hash % choices) as usize);
        hash /= choices;
    }
    order
}
