//! The curve beside exact stack distances, on four kinds of reads, over one and several workers.

use penstock_curve::{Curve, Fleet, Reuse, Sampler};
use penstock_model::{ObjectKey, PAGE};
use penstock_testkit::traces::{Kind, exact_hit_ratios};

const PAGES: u64 = 60_000;
const READS: usize = 900_000;
/// Pages of an object.
const OBJECT: u64 = 16;

/// What so many workers say together: each page is read at its owner.
fn sampled(reads: &[u64], workers: usize) -> Curve {
    let samplers: Vec<Sampler> = (0..workers).map(|_| Sampler::default()).collect();
    let fleet = Fleet { epoch: 1, members: workers as u64 };
    for page in reads {
        let key = ObjectKey(u128::from(page / OBJECT + 1).wrapping_mul(0x1234_5678_9abc_def1_0f1e_2d3c_4b5a_6978));
        let (owner, at) = ((key.0 >> 40) as usize % workers, page % OBJECT);
        samplers[owner].read(key, OBJECT * PAGE, at * PAGE..(at + 1) * PAGE, fleet);
    }
    let mut curve = Curve::default();
    for sampler in &samplers {
        curve.add(&Reuse::default(), &sampler.told());
    }
    curve
}

fn worst_error(kind: Kind, seed: u64, workers: usize) -> f64 {
    let sizes: Vec<u64> = (1..=16).map(|n| n * PAGES * 11 / 80).collect();
    let reads = kind.reads(PAGES, READS, seed);
    let curve = sampled(&reads, workers);
    let exact = exact_hit_ratios(&reads, &sizes);
    let errors = sizes.iter().zip(exact).map(|(size, exact)| (curve.recent((size * PAGE) as f64) - exact).abs());
    errors.fold(0.0, f64::max)
}

#[test]
fn the_error_is_at_most_two_hundredths() {
    for kind in Kind::ALL {
        for (seed, workers) in [(1, 1), (2, 4)] {
            let error = worst_error(kind, seed, workers);
            eprintln!("{kind:?} over {workers} workers: {error:.4}");
            assert!(error <= 0.02, "{kind:?} over {workers} workers: {error:.4}");
        }
    }
}
