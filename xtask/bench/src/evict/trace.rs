//! What is read, in which order.

use super::Cache;

/// Objects by number, of which the first `warm` reads are not counted.
pub(super) struct Trace {
    names: Vec<u64>,
    warm: usize,
}

impl Trace {
    /// `objects` in order, again and again; the first quarter of the rounds warms.
    pub(super) fn cyclic(objects: u64, rounds: u64) -> Self {
        let names = (0..rounds).flat_map(|_| 0..objects).collect();
        Self { names, warm: (rounds / 4 * objects) as usize }
    }

    /// Object n is read with a probability in proportion to 1/n; the first quarter of the `reads` warms.
    pub(super) fn zipf(objects: u64, reads: usize, seed: u64) -> Self {
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=objects)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        let mut draw = uniform(seed);
        let name = |at: f64| sums.partition_point(|below| *below < at) as u64;
        Self { names: (0..reads).map(|_| name(draw() * sum)).collect(), warm: reads / 4 }
    }

    /// Hits per read.
    pub(super) fn hit_ratio(&self, cache: &mut dyn Cache) -> anyhow::Result<f64> {
        let (warm, counted) = self.names.split_at(self.warm);
        let mut count = |names: &[u64]| {
            let hits = names.iter().map(|name| cache.read(*name).map(usize::from));
            hits.sum::<anyhow::Result<usize>>()
        };
        count(warm)?;
        Ok(count(counted)? as f64 / counted.len() as f64)
    }
}

/// Numbers from 0 to 1 (splitmix64).
fn uniform(mut state: u64) -> impl FnMut() -> f64 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
