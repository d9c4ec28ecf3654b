//! A window for what is new, and a main part that a newcomer enters only when it was seen clearly more often than what
//! would leave for it (after W-TinyLFU). What a scan brings passes through the window and leaves again; what is kept stays
//! and gives hits at the scan's next round.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{Node, Policy, sketch::Sketch};

const OUT: u8 = 0;
const WINDOW: u8 = 1;
const MAIN: u8 = 2;

/// The window's share of the capacity.
const WINDOW_SHARE: f64 = 0.05;
/// Main nodes that are compared for the next victim.
const SAMPLE: usize = 8;
/// How much more often a newcomer must have been seen: in a cyclic scan it is exactly one visit ahead of those that the
/// scan has not reached yet in this round, and must not displace them.
const MARGIN: u8 = 1;

#[derive(Debug)]
pub(crate) struct TinyLfu {
    window: VecDeque<Arc<Node>>,
    /// In no order.
    main: Vec<Arc<Node>>,
    window_bytes: u64,
    main_bytes: u64,
    /// Nodes that are in, and those in the window's queue that are not any more.
    live: usize,
    dead: usize,
    main_room: u64,
    sketch: Sketch,
    seed: u64,
}

impl TinyLfu {
    /// `capacity` is what the tier holds after an eviction, in bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        // Objects are seldom smaller than this on average; more of them only blur the counts.
        let sketch = Sketch::new((capacity / (64 << 10)).clamp(1 << 10, 1 << 22));
        let main_room = (capacity as f64 * (1.0 - WINDOW_SHARE)) as u64;
        let (window, main) = (VecDeque::new(), Vec::new());
        Self { window, main, window_bytes: 0, main_bytes: 0, live: 0, dead: 0, main_room, sketch, seed: 1 }
    }

    fn seen(&self, node: &Node) -> u8 {
        self.sketch.count(node.hash)
    }

    fn count(&mut self, node: &Node) {
        let period = 10 * self.live.max(16) as u64;
        self.sketch.add(node.hash, period);
    }

    fn bytes_of(&mut self, place: u8) -> Option<&mut u64> {
        match place {
            WINDOW => Some(&mut self.window_bytes),
            MAIN => Some(&mut self.main_bytes),
            _ => None,
        }
    }

    fn enter(&mut self, node: &Arc<Node>, place: u8) {
        node.place.store(place, Relaxed);
        let bytes = node.bytes.load(Relaxed);
        if let Some(sum) = self.bytes_of(place) {
            *sum += bytes;
        }
        if place == WINDOW {
            self.window.push_back(node.clone());
        } else {
            node.index.store(self.main.len(), Relaxed);
            self.main.push(node.clone());
        }
        self.live += 1;
    }

    /// Takes the node out; one of the window stays in its queue as dead.
    fn leave(&mut self, node: &Node) -> u8 {
        let place = node.place.swap(OUT, Relaxed);
        let bytes = node.bytes.load(Relaxed);
        let Some(sum) = self.bytes_of(place) else { return OUT };
        *sum -= bytes;
        self.live -= 1;
        if place == MAIN {
            let at = node.index.load(Relaxed);
            self.main.swap_remove(at);
            if let Some(moved) = self.main.get(at) {
                moved.index.store(at, Relaxed);
            }
        }
        place
    }

    fn drop_dead(&mut self) {
        if self.dead > 64 && self.dead * 2 > self.window.len() {
            self.window.retain(|node| node.place.load(Relaxed) == WINDOW);
            self.dead = 0;
        }
    }

    fn pop_window(&mut self) -> Option<Arc<Node>> {
        let node = self.front()?;
        self.window.pop_front();
        self.leave(&node);
        Some(node)
    }

    /// The oldest of the window; drops what has left it.
    fn front(&mut self) -> Option<Arc<Node>> {
        while let Some(node) = self.window.front() {
            if node.place.load(Relaxed) == WINDOW {
                return Some(node.clone());
            }
            self.dead = self.dead.saturating_sub(1);
            self.window.pop_front();
        }
        None
    }

    /// The least seen of a few, drawn from all over main: neighbours in a queue came together and are alike.
    fn weakest(&mut self) -> Option<Arc<Node>> {
        let count = self.main.len();
        let draw = |seed: &mut u64| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*seed >> 33) as usize % count
        };
        let drawn: Vec<usize> = (0..SAMPLE.min(count)).map(|_| draw(&mut self.seed)).collect();
        drawn.into_iter().map(|at| &self.main[at]).min_by_key(|node| self.seen(node)).cloned()
    }
}

impl Policy for TinyLfu {
    fn insert(&mut self, node: &Arc<Node>, bytes: u64) {
        node.bytes.store(bytes, Relaxed);
        self.enter(node, WINDOW);
        self.count(node);
    }

    fn grow(&mut self, node: &Node, bytes: i64) {
        if let Some(sum) = self.bytes_of(node.place.load(Relaxed)) {
            *sum = sum.saturating_add_signed(bytes);
            node.bytes.store(node.bytes.load(Relaxed).saturating_add_signed(bytes), Relaxed);
        }
    }

    fn visit(&mut self, node: &Node) {
        self.count(node);
    }

    fn remove(&mut self, node: &Node) {
        if self.leave(node) == WINDOW {
            self.dead += 1;
            self.drop_dead();
        }
    }

    fn victim(&mut self) -> Option<Arc<Node>> {
        loop {
            let weakest = self.weakest();
            let Some(newcomer) = self.front() else {
                let weakest = weakest?;
                self.leave(&weakest);
                return Some(weakest);
            };
            self.pop_window();
            if self.main_bytes + newcomer.bytes.load(Relaxed) <= self.main_room {
                self.enter(&newcomer, MAIN);
                continue;
            }
            let Some(weakest) = weakest.filter(|old| self.seen(&newcomer) > self.seen(old) + MARGIN) else {
                return Some(newcomer);
            };
            self.leave(&weakest);
            self.enter(&newcomer, MAIN);
            return Some(weakest);
        }
    }

    fn put_back(&mut self, node: &Arc<Node>) {
        self.enter(node, MAIN);
    }

    fn len(&self) -> usize {
        self.live
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};

    use penstock_wire::message::ObjectKey;

    use super::*;

    const CAPACITY: usize = 1000;

    /// Hits of the accesses from `warm` on, with a cache of [`CAPACITY`] extents that evicts one at a time.
    fn hits(accesses: impl Iterator<Item = u64>, warm: usize) -> f64 {
        let mut policy = TinyLfu::new(CAPACITY as u64 * 100);
        let mut resident: HashMap<u64, Arc<Node>> = HashMap::new();
        let (mut hits, mut total) = (0, 0);
        for (at, name) in accesses.enumerate() {
            total += usize::from(at >= warm);
            if let Some(node) = resident.get(&name) {
                hits += usize::from(at >= warm);
                policy.visit(node);
                continue;
            }
            while resident.len() >= CAPACITY {
                resident.remove(&(policy.victim().unwrap().key.0 as u64)).unwrap();
            }
            let node = Node::new(ObjectKey(u128::from(name)), 0);
            policy.insert(&node, 100);
            resident.insert(name, node);
        }
        assert_eq!(policy.len(), resident.len());
        hits as f64 / total as f64
    }

    fn lru(accesses: impl Iterator<Item = u64>, warm: usize) -> f64 {
        let (mut queue, mut hits, mut total) = (VecDeque::new(), 0, 0);
        for (at, name) in accesses.enumerate() {
            total += usize::from(at >= warm);
            if let Some(place) = queue.iter().position(|other| *other == name) {
                queue.remove(place);
                hits += usize::from(at >= warm);
            }
            queue.push_back(name);
            if queue.len() > CAPACITY {
                queue.pop_front();
            }
        }
        hits as f64 / total as f64
    }

    /// Zipf with exponent 1 over `names` names, by inversion of the continuous law.
    fn zipf(names: f64, shift: u64) -> impl Iterator<Item = u64> {
        let mut seed = 7u64;
        std::iter::from_fn(move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = (seed >> 11) as f64 / (1u64 << 53) as f64;
            Some(names.powf(uniform) as u64 + shift)
        })
    }

    #[test]
    fn a_cyclic_scan_half_as_large_again_hits_more_than_half() {
        let cycle = (0..8 * 1500u64).map(|n| n % 1500);
        let ratio = hits(cycle, 1500);
        println!("cycle: {ratio:.3}");
        assert!(ratio > 0.58, "{ratio:.3}");
    }

    #[test]
    fn popular_names_are_kept_better_than_by_recency() {
        let (ours, recency) =
            (hits(zipf(20_000.0, 0).take(60_000), 20_000), lru(zipf(20_000.0, 0).take(60_000), 20_000));
        println!("zipf: {ours:.3}, recency alone {recency:.3}");
        assert!(ours > recency + 0.04, "{ours:.3}, recency alone {recency:.3}");
    }

    #[test]
    fn what_was_popular_is_forgotten_when_others_are() {
        let shifted = || zipf(20_000.0, 0).take(30_000).chain(zipf(20_000.0, 50_000).take(60_000));
        let (ours, recency) = (hits(shifted(), 50_000), lru(shifted(), 50_000));
        println!("shifted zipf: {ours:.3}, recency alone {recency:.3}");
        assert!(ours > recency, "{ours:.3}, recency alone {recency:.3}");
    }
}
