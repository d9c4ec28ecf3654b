//! What is read, in which order.

use penstock_testkit::traces::{Random, Zipf};

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
        let (zipf, mut random) = (Zipf::new(objects, 1.0), Random::new(seed));
        Self { names: (0..reads).map(|_| zipf.draw(&mut random)).collect(), warm: reads / 4 }
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
