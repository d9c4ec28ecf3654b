//! What is read in which order, the same for the same seed, and what a cache could hit of it.

use std::collections::HashMap;

/// Numbers from 0 to 1 (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    pub fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Things of which number n, from 0, is drawn in proportion to 1/(n+1)^exponent.
pub struct Zipf(Vec<f64>);

impl Zipf {
    pub fn new(things: u64, exponent: f64) -> Self {
        let weights = (1..=things).map(|rank| (rank as f64).powf(-exponent));
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self(sums.collect())
    }

    pub fn draw(&self, random: &mut Random) -> u64 {
        let at = random.draw() * self.0.last().copied().unwrap_or_default();
        self.0.partition_point(|sum| *sum < at) as u64
    }
}

/// How a fund's programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rounds over all.
    Cyclic,
    /// Some things much more often than others.
    Zipf,
    /// Both, of different things.
    Mixed,
    /// Some things more often than others, and others as time goes on.
    Shifting,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Cyclic, Self::Zipf, Self::Mixed, Self::Shifting];

    /// So many `reads` of about so many `pages`.
    pub fn reads(self, pages: u64, reads: usize, seed: u64) -> Vec<u64> {
        let mut random = Random::new(seed);
        match self {
            Self::Cyclic => (0..reads as u64).map(|read| read % pages).collect(),
            Self::Zipf => {
                let zipf = Zipf::new(pages, 0.9);
                (0..reads).map(|_| zipf.draw(&mut random)).collect()
            }
            Self::Mixed => {
                let (zipf, half) = (Zipf::new(pages / 2, 1.0), pages / 2);
                let mut scanned = 0;
                let read = |_| {
                    if random.draw() < 0.5 {
                        return half + zipf.draw(&mut random);
                    }
                    scanned += 1;
                    scanned % half
                };
                (0..reads).map(read).collect()
            }
            Self::Shifting => {
                let zipf = Zipf::new(pages / 2, 0.8);
                let moved = |read: usize| read as u64 * (pages / 2) / reads as u64;
                (0..reads).map(|read| zipf.draw(&mut random) + moved(read)).collect()
            }
        }
    }
}

/// The hit ratios of caches of the last `sizes` pages read, by the exact distances of all reads.
pub fn exact_hit_ratios(reads: &[u64], sizes: &[u64]) -> Vec<f64> {
    let (mut last, mut in_use) = (HashMap::new(), Fenwick(vec![0; reads.len() + 1]));
    let mut hits = vec![0_u64; sizes.len()];
    for (now, page) in reads.iter().enumerate() {
        if let Some(before) = last.insert(*page, now) {
            let distance = last.len() as u64 - in_use.sum(before) + 1;
            for (hits, size) in hits.iter_mut().zip(sizes) {
                *hits += u64::from(distance <= *size);
            }
            in_use.change(before, |count| *count -= 1);
        }
        in_use.change(now, |count| *count += 1);
    }
    hits.into_iter().map(|hits| hits as f64 / reads.len() as f64).collect()
}

/// Sums over places from the first one on.
struct Fenwick(Vec<u64>);

impl Fenwick {
    fn change(&mut self, place: usize, change: impl Fn(&mut u64)) {
        let mut at = place + 1;
        while at < self.0.len() {
            change(&mut self.0[at]);
            at += at & at.wrapping_neg();
        }
    }

    fn sum(&self, place: usize) -> u64 {
        let (mut at, mut sum) = (place + 1, 0);
        while at > 0 {
            sum += self.0[at];
            at &= at - 1;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_hit_by_what_holds_all() {
        assert_eq!(exact_hit_ratios(&[1, 2, 3, 1, 2, 3], &[2, 3]), [0.0, 0.5]);
        assert_eq!(exact_hit_ratios(&[1, 1, 2, 1], &[1, 2]), [0.25, 0.5]);
    }
}
