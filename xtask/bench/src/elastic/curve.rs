//! The curve beside exact distances, and what its sampler costs.

use std::{hint::black_box, time::Instant};

use penstock_curve::{Curve, Fleet, Reuse, Sampler};
use penstock_model::{EXTENT, ObjectKey, PAGE, Version};
use penstock_testkit::traces::{Kind, exact_hit_ratios};

use crate::{
    figures::{Better, Case, Goal},
    process,
};

/// Pages of an extent; objects are of one each.
const EXTENT_PAGES: u64 = EXTENT / PAGE;
/// Samplers whose memory is measured together.
const SAMPLERS: usize = 64;
/// More than a worker can serve, bytes per second.
const FULL_LOAD: f64 = 10e9;
/// One read by a mount, the smallest that is usual.
const READ: u64 = 128 << 10;

pub(super) fn cases(quick: bool) -> anyhow::Result<[Case; 3]> {
    let (pages, reads, seeds) = if quick { (100_000, 1_500_000, 1) } else { (1_000_000, 12_000_000, 3) };
    let mut errors = Vec::new();
    for seed in 1..=seeds {
        let of_kind = Kind::ALL.map(|kind| error(kind, pages, reads, seed));
        errors.push(of_kind.into_iter().fold(0.0, f64::max));
    }
    let goal = Goal { at_most: Some(0.02), ..Goal::default() };
    let error = Case::new("elastic-curve-error", "hits", Better::Lower, &errors, goal);
    Ok([error, bytes()?, cpu()])
}

/// The worst error at 16 sizes, of four workers together.
fn error(kind: Kind, pages: u64, reads: usize, seed: u64) -> f64 {
    const WORKERS: usize = 4;
    let reads = kind.reads(pages, reads, seed);
    let objects = objects(2 * pages / EXTENT_PAGES + 1);
    let samplers: [Sampler; WORKERS] = Default::default();
    let fleet = Fleet { epoch: 1, members: WORKERS as u64 };
    for page in &reads {
        let (key, at) = (objects[(page / EXTENT_PAGES) as usize], page % EXTENT_PAGES * PAGE);
        samplers[(key.0 >> 64) as usize % WORKERS].read(key, EXTENT, at..at + PAGE, fleet);
    }
    let mut curve = Curve::default();
    for sampler in &samplers {
        curve.add(&Reuse::default(), &sampler.told());
    }
    let sizes: Vec<u64> = (1..=16).map(|n| n * pages * 11 / 80).collect();
    let exact = exact_hit_ratios(&reads, &sizes);
    let errors = sizes.iter().zip(exact).map(|(size, exact)| (curve.recent((size * PAGE) as f64) - exact).abs());
    let worst = errors.fold(0.0, f64::max);
    eprintln!("elastic-curve-error: {kind:?}, seed {seed}: {worst:.4}");
    worst
}

fn objects(count: u64) -> Vec<ObjectKey> {
    let version = Version("1".into());
    (0..count).map(|number| ObjectKey::new("bench", &number.to_le_bytes(), &version)).collect()
}

fn scan(sampler: &Sampler, objects: &[ObjectKey], step: u64) {
    for key in objects {
        for at in (0..EXTENT).step_by(step as usize) {
            sampler.read(*key, EXTENT, at..at + step, Fleet::ALONE);
        }
    }
}

/// Memory of one that has seen more pages than it can keep.
fn bytes() -> anyhow::Result<Case> {
    let objects = objects(4_000);
    let before = process::memory(std::process::id(), "RssAnon")?;
    let samplers: Vec<Sampler> = (0..SAMPLERS).map(|_| Sampler::default()).collect();
    for sampler in &samplers {
        scan(sampler, &objects, PAGE);
    }
    let after = process::memory(std::process::id(), "RssAnon")?;
    black_box(&samplers);
    let each = after.saturating_sub(before) as f64 / SAMPLERS as f64 / f64::from(1 << 20);
    let goal = Goal { at_most: Some(1.0), ..Goal::default() };
    Ok(Case::new("elastic-curve-bytes", "MiB", Better::Lower, &[each], goal))
}

/// The part of a core at full load, once the sample is full.
fn cpu() -> Case {
    let (sampler, objects) = (Sampler::default(), objects(20_000));
    scan(&sampler, &objects, PAGE);
    let parts: Vec<f64> = (0..5)
        .map(|_| {
            let begun = Instant::now();
            scan(&sampler, &objects, READ);
            black_box(sampler.told());
            begun.elapsed().as_secs_f64() / (objects.len() as u64 * EXTENT) as f64 * FULL_LOAD
        })
        .collect();
    let goal = Goal { at_most: Some(0.01), ..Goal::default() };
    Case::new("elastic-curve-cpu", "core", Better::Lower, &parts, goal)
}
