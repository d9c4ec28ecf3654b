use std::collections::{HashMap, VecDeque};

use penstock_model::ObjectKey;

use super::*;
use crate::evict::Eviction;

/// Extents that the cache holds.
const CAPACITY: usize = 1000;
const BYTES: u64 = 100;

/// Accesses, of which those before `warm` are not counted.
struct Trace {
    names: Vec<u64>,
    warm: usize,
}

impl Trace {
    fn new(warm: usize, names: impl Iterator<Item = u64>) -> Self {
        Self { names: names.collect(), warm }
    }

    fn ratio(&self, mut hit: impl FnMut(u64) -> bool) -> f64 {
        let hits: Vec<bool> = self.names.iter().map(|name| hit(*name)).collect();
        let counted = &hits[self.warm..];
        counted.iter().filter(|hit| **hit).count() as f64 / counted.len() as f64
    }

    /// Hits with a cache that evicts one at a time.
    fn ours(&self) -> f64 {
        let evict = Eviction::new(Box::new(TinyLfu::new(CAPACITY as u64 * BYTES)), Box::new(TinyLfu::new(0)));
        let mut resident: HashMap<u64, Arc<Node>> = HashMap::new();
        self.ratio(|name| {
            if let Some(node) = resident.get(&name) {
                evict.touch(node);
                return true;
            }
            if resident.len() >= CAPACITY {
                let victim = evict.victim(false).unwrap();
                resident.remove(&(victim.key.0 as u64)).unwrap();
            }
            let node = Node::new(ObjectKey(u128::from(name)), 0);
            evict.insert(&node, BYTES, false);
            resident.insert(name, node);
            false
        })
    }

    fn recency(&self) -> f64 {
        let mut queue = VecDeque::new();
        self.ratio(|name| {
            let place = queue.iter().position(|other| *other == name);
            place.map(|place| queue.remove(place));
            queue.push_back(name);
            if queue.len() > CAPACITY {
                queue.pop_front();
            }
            place.is_some()
        })
    }
}

fn uniform(mut seed: u64) -> impl FnMut() -> f64 {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Zipf with exponent 1 over `names` names, by inversion of the continuous law.
fn zipf(names: f64, shift: u64) -> impl Iterator<Item = u64> {
    let mut draw = uniform(7);
    std::iter::from_fn(move || Some(names.powf(draw()) as u64 + shift))
}

fn cycle(names: u64, rounds: u64) -> Trace {
    Trace::new(names as usize * 4, (0..rounds * names).map(move |n| n % names))
}

/// Prints what `docs/store.md` tells.
fn compare(what: &str, trace: &Trace) -> (f64, f64) {
    let (ours, recency) = (trace.ours(), trace.recency());
    println!("{what}: {ours:.3}, recency alone {recency:.3}");
    (ours, recency)
}

#[test]
fn a_cyclic_scan_hits_nearly_as_much_as_can_be_held_of_it() {
    for (names, least) in [(900, 1.0), (1100, 0.80), (1500, 0.59), (3000, 0.28)] {
        let ratio = cycle(names, 20).ours();
        println!("cycle of {names}: {ratio:.3}");
        assert!(ratio >= least, "{ratio:.3} of a cycle of {names}");
    }
}

#[test]
fn popular_names_are_kept_better_than_by_recency() {
    let (ours, recency) = compare("zipf", &Trace::new(20_000, zipf(20_000.0, 0).take(60_000)));
    assert!(ours > recency + 0.05, "{ours:.3}, recency alone {recency:.3}");
}

#[test]
fn what_was_popular_is_forgotten_when_others_are() {
    let names = zipf(20_000.0, 0).take(30_000).chain(zipf(20_000.0, 50_000).take(60_000));
    let (ours, recency) = compare("shifted zipf", &Trace::new(50_000, names));
    assert!(ours > recency + 0.05, "{ours:.3}, recency alone {recency:.3}");
}

#[test]
fn popularity_that_shifts_again_and_again_is_followed() {
    let names = (0..6).flat_map(|part| zipf(20_000.0, part << 20).take(15_000));
    let (ours, recency) = compare("zipf, other names every 15,000", &Trace::new(15_000, names));
    assert!(ours > recency - 0.03, "{ours:.3}, recency alone {recency:.3}");
}

#[test]
fn scans_between_do_not_hurt_the_popular() {
    let mut fresh = 1 << 40..;
    let names = zipf(20_000.0, 0).take(60_000).enumerate().flat_map(move |(at, name)| {
        let scan = if at % 10_000 == 9_999 { 3000 } else { 0 };
        std::iter::once(name).chain(fresh.by_ref().take(scan)).collect::<Vec<_>>()
    });
    let (ours, recency) = compare("zipf with scans of 3 times the cache", &Trace::new(20_000, names));
    assert!(ours > recency + 0.02, "{ours:.3}, recency alone {recency:.3}");
}

#[test]
fn a_moving_working_set_makes_the_window_grow() {
    let (mut draw, mut newest) = (uniform(5), 0u64);
    let names = std::iter::repeat_with(move || {
        if draw() < 0.3 {
            newest += 1;
            return newest;
        }
        newest - (draw() * draw() * newest.min(800) as f64) as u64
    });
    let (ours, recency) = compare("working set that moves", &Trace::new(30_000, names.take(100_000)));
    assert!(ours > 0.85 * recency, "{ours:.3}, recency alone {recency:.3}");
}

#[test]
fn what_cannot_leave_comes_back_to_where_it_was() {
    let evict = Eviction::new(Box::new(TinyLfu::new(10 * BYTES)), Box::new(TinyLfu::new(0)));
    let nodes: Vec<_> = (0..20).map(|n| Node::new(ObjectKey(n), 0)).collect();
    for node in &nodes {
        evict.insert(node, BYTES, false);
    }
    let out: Vec<_> = std::iter::from_fn(|| evict.victim(false)).collect();
    assert_eq!(out.len(), nodes.len());
    let kept = |place: u8| nodes.iter().filter(|node| node.place.load(Relaxed) == place).count();
    assert_eq!(kept(OUT), 20);
    evict.put_back(&out);
    assert_eq!((kept(WINDOW), kept(MAIN)), (12, 8), "eight had gone into main");
    assert_eq!(std::iter::from_fn(|| evict.victim(false)).count(), nodes.len());
}
