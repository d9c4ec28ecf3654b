//! The curve beside exact stack distances, on four kinds of traces, over one and several workers.

use std::collections::HashMap;

use penstock_curve::{Curve, Fleet, Reuse, Sampler};
use penstock_model::{ObjectKey, PAGE};

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Pages by Zipf's law, the rank mixed so that neighbours are not alike.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(pages: u64, exponent: f64) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=pages)
                .map(|rank| {
                    sum += (rank as f64).powf(-exponent);
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let at = random.next() * self.0[self.0.len() - 1];
        let rank = self.0.partition_point(|sum| *sum < at) as u64;
        rank.wrapping_mul(0x9e37_79b9) % self.0.len() as u64
    }
}

const PAGES: u64 = 60_000;
const READS: usize = 900_000;

fn cyclic(_: &mut Random) -> Vec<u64> {
    (0..READS as u64).map(|n| n % PAGES).collect()
}

fn zipf(random: &mut Random) -> Vec<u64> {
    let zipf = Zipf::new(PAGES, 0.9);
    (0..READS).map(|_| zipf.draw(random)).collect()
}

/// A scan in rounds beside reads by Zipf's law of other pages.
fn mixed(random: &mut Random) -> Vec<u64> {
    let (zipf, mut scan) = (Zipf::new(PAGES, 1.0), 0);
    let mut one = |_| {
        if random.next() < 0.5 {
            return PAGES + zipf.draw(random);
        }
        scan += 1;
        scan % (PAGES / 2)
    };
    (0..READS).map(&mut one).collect()
}

/// The pages that are read move on with time.
fn shifting(random: &mut Random) -> Vec<u64> {
    let zipf = Zipf::new(PAGES / 2, 0.8);
    (0..READS).map(|n| zipf.draw(random) + (n / 100_000) as u64 * PAGES / 8).collect()
}

/// Hit ratios of a cache of the least recently read pages, by exact distances; `sizes` in pages.
fn exact(trace: &[u64], sizes: &[u64]) -> Vec<f64> {
    let (mut last, mut tree) = (HashMap::new(), vec![0_i64; trace.len() + 1]);
    let add = |tree: &mut Vec<i64>, at: usize, by: i64| {
        let mut at = at + 1;
        while at < tree.len() {
            tree[at] += by;
            at += at & at.wrapping_neg();
        }
    };
    let sum = |tree: &Vec<i64>, at: usize| {
        let (mut at, mut sum) = (at + 1, 0);
        while at > 0 {
            sum += tree[at];
            at &= at - 1;
        }
        sum
    };
    let mut hits = vec![0_u64; sizes.len()];
    for (now, page) in trace.iter().enumerate() {
        if let Some(before) = last.insert(*page, now) {
            let distance = (last.len() as i64 - sum(&tree, before) + 1) as u64;
            for (hits, size) in hits.iter_mut().zip(sizes) {
                *hits += u64::from(distance <= *size);
            }
            add(&mut tree, before, -1);
        }
        add(&mut tree, now, 1);
    }
    hits.into_iter().map(|hits| hits as f64 / trace.len() as f64).collect()
}

fn key(page: u64) -> (ObjectKey, u64) {
    // Objects of 16 pages.
    (ObjectKey(u128::from(page / 16).wrapping_mul(0x1234_5678_9abc_def1_0f1e_2d3c_4b5a_6978)), page % 16)
}

/// What so many workers say together: each page is read at its owner.
fn sampled(trace: &[u64], workers: usize) -> Curve {
    let samplers: Vec<Sampler> = (0..workers).map(|_| Sampler::default()).collect();
    let fleet = Fleet { epoch: 1, members: workers as u64 };
    for page in trace {
        let (key, at) = key(*page);
        let owner = (key.0 >> 40) as usize % workers;
        samplers[owner].read(key, 16 * PAGE, at * PAGE..(at + 1) * PAGE, fleet);
    }
    let mut curve = Curve::default();
    for sampler in &samplers {
        curve.add(&Reuse::default(), &sampler.told());
    }
    curve
}

type Make = fn(&mut Random) -> Vec<u64>;

fn worst(make: Make) -> f64 {
    let sizes: Vec<u64> = (1..=16).map(|n| n * PAGES * 11 / 80).collect();
    let mut worst = 0.0_f64;
    for seed in 1..=2 {
        let trace = make(&mut Random(seed));
        let exact = exact(&trace, &sizes);
        for workers in [1, 4] {
            let curve = sampled(&trace, workers);
            for (size, exact) in sizes.iter().zip(&exact) {
                let error = curve.recent((size * PAGE) as f64) - exact;
                if error.abs() > 0.01 {
                    eprintln!("seed {seed}, {workers} workers, {size} pages: exact {exact:.4}, off by {error:+.4}");
                }
                worst = worst.max(error.abs());
            }
        }
    }
    worst
}

#[test]
fn the_error_is_at_most_two_hundredths() {
    let kinds: [(&str, Make); 4] = [("cyclic", cyclic), ("zipf", zipf), ("mixed", mixed), ("shifting", shifting)];
    let errors = kinds.map(|(name, make)| (name, worst(make)));
    eprintln!("{errors:?}");
    assert!(errors.iter().all(|(_, error)| *error <= 0.02), "{errors:?}");
}
