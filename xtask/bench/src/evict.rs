//! What a tier that is too small for the trace still hits: the real store on real files, beside other caches' policies.

mod caches;
mod trace;

use std::{borrow::Borrow, collections::BTreeMap};

use self::{
    caches::{Cache, Tier},
    trace::Trace,
};
use super::figures::{Better, Case, Goal, median};

/// Bytes that every cache may take: the tier's quota, overhead included, and the others' capacity in bytes of objects.
const QUOTA: u64 = 1 << 30;
/// Bytes of one object.
const SIZE: u64 = 1 << 20;
/// Objects that a cache without overhead holds.
const HELD: u64 = QUOTA / SIZE;

type Ratios = BTreeMap<&'static str, Vec<f64>>;

pub(super) fn run(quick: bool) -> anyhow::Result<Vec<Case>> {
    let seeds = 1..=if quick { 1 } else { 5 };
    let cyclic = Trace::cyclic(HELD * 3 / 2, 40);
    let zipf = |seed| Trace::zipf(HELD * 10, HELD as usize * 80, seed);
    // A scan has no chance in it, but the policies have.
    let cyclic = compare("cyclic", seeds.clone().map(|_| &cyclic))?;
    let zipf = compare("zipf", seeds.map(zipf))?;
    let as_peers = Goal { of_best_peer: Some(1.0), ..Goal::default() };
    Ok(vec![
        case("evict-cyclic", &cyclic, Goal { at_least: Some(0.5), ..as_peers }),
        case("evict-zipf", &zipf, as_peers),
    ])
}

fn compare<T: Borrow<Trace>>(what: &str, traces: impl Iterator<Item = T>) -> anyhow::Result<Ratios> {
    let mut ratios = Ratios::new();
    for trace in traces {
        for name in caches::NAMES {
            let mut cache = caches::open(name)?;
            ratios.entry(name).or_default().push(trace.borrow().hit_ratio(&mut *cache)?);
        }
    }
    for (name, values) in &ratios {
        let (least, most) = values.iter().fold((1.0_f64, 0.0_f64), |(low, high), one| (low.min(*one), high.max(*one)));
        eprintln!("{what}: {name} {:.4} hits ({least:.4} to {most:.4})", median(values.clone()));
    }
    Ok(ratios)
}

fn case(name: &str, ratios: &Ratios, goal: Goal) -> Case {
    let case = Case::new(name, "hits", Better::Higher, &ratios[Tier::NAME], goal);
    let peers = ratios.iter().filter(|(name, _)| **name != Tier::NAME);
    peers.fold(case, |case, (name, values)| case.peer(name, values))
}
