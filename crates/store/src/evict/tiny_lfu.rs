//! A window for what is new, and a main part that a newcomer enters only when it was seen clearly more often than what
//! would leave for it (after W-TinyLFU). What a scan brings passes through the window and leaves again; what is kept stays
//! and gives hits at the scan's next round.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{Node, Policy, sketch::Sketch, window::Window};

const OUT: u8 = 0;
const WINDOW: u8 = 1;
const MAIN: u8 = 2;

/// Main nodes that are compared for the next victim.
const SAMPLE: usize = 8;
/// How much more often a newcomer must have been seen: in a cyclic scan it is exactly one visit ahead of those that the
/// scan has not reached yet in this round, and must not displace them.
const MARGIN: u8 = 1;
/// Extents of the usual size that the window holds at least: what is being written cannot leave, and with nothing beside it in
/// the window its next page would push something out of main.
const IN_FLIGHT: u64 = 2;
/// Counts halve after so many visits per resident: rarely, because they are what tells the popular from the rest.
const MEMORY: u64 = 40;
/// A resident counts half for every so many visits, per resident, that it was not among: a former favourite leaves long before its
/// count has halved.
const STALE: u64 = 6;

#[derive(Debug)]
pub(crate) struct TinyLfu {
    capacity: u64,
    share: Window,
    window: VecDeque<Arc<Node>>,
    /// In no order.
    main: Vec<Arc<Node>>,
    window_bytes: u64,
    main_bytes: u64,
    /// Nodes that are in, and those in the window's queue that are not any more.
    live: usize,
    dead: usize,
    sketch: Sketch,
    now: u64,
    seed: u64,
}

impl TinyLfu {
    /// `capacity` is what the tier holds after an eviction, in bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        // Objects are seldom smaller than this on average; more of them only blur the counts.
        let sketch = Sketch::new((capacity / (64 << 10)).clamp(1 << 10, 1 << 22));
        let (window, main) = (VecDeque::new(), Vec::new());
        Self {
            capacity,
            share: Window::new(),
            window,
            main,
            window_bytes: 0,
            main_bytes: 0,
            live: 0,
            dead: 0,
            sketch,
            now: 0,
            seed: 1,
        }
    }

    fn main_room(&self) -> u64 {
        let window = (self.capacity as f64 * self.share.share()) as u64;
        let usual = (self.window_bytes + self.main_bytes) / self.live.max(1) as u64;
        self.capacity.saturating_sub(window.max(IN_FLIGHT * usual))
    }

    fn seen(&self, node: &Node) -> u8 {
        self.sketch.count(node.hash)
    }

    fn seen_lately(&self, node: &Node) -> u8 {
        let unseen = self.now.saturating_sub(node.visited.load(Relaxed));
        let halvings = unseen / (STALE * self.live.max(1) as u64);
        self.seen(node) >> halvings.min(7)
    }

    fn count(&mut self, node: &Node, hit: bool, now: u64) {
        self.now = now;
        self.sketch.add(node.hash, MEMORY * self.live.max(16) as u64);
        self.share.asked(hit, self.live);
    }

    /// Whether the one is to be kept rather than the other.
    fn beats(&self, newcomer: &Node, resident: &Node) -> bool {
        self.seen(newcomer) > self.seen_lately(resident) + MARGIN
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
        node.left.store(place, Relaxed);
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
        drawn.into_iter().map(|at| &self.main[at]).min_by_key(|node| self.seen_lately(node)).cloned()
    }
}

impl Policy for TinyLfu {
    fn insert(&mut self, node: &Arc<Node>, bytes: u64, now: u64) {
        node.bytes.store(bytes, Relaxed);
        self.enter(node, WINDOW);
        self.count(node, false, now);
    }

    fn grow(&mut self, node: &Node, bytes: i64) {
        node.bytes.store(node.bytes.load(Relaxed).saturating_add_signed(bytes), Relaxed);
        if let Some(sum) = self.bytes_of(node.place.load(Relaxed)) {
            *sum = sum.saturating_add_signed(bytes);
        }
    }

    fn visit(&mut self, node: &Node, now: u64) {
        self.count(node, true, now);
    }

    fn visit_below(&mut self, node: &Node, now: u64) -> bool {
        self.count(node, false, now);
        let room = self.main_bytes + node.bytes.load(Relaxed) <= self.main_room();
        room || self.weakest().is_some_and(|weakest| self.beats(node, &weakest))
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
            let newcomer = self.front().filter(|_| self.main_bytes <= self.main_room());
            let Some(newcomer) = newcomer else {
                let weakest = weakest?;
                self.leave(&weakest);
                return Some(weakest);
            };
            self.pop_window();
            if self.main_bytes + newcomer.bytes.load(Relaxed) <= self.main_room() {
                self.enter(&newcomer, MAIN);
                continue;
            }
            let Some(weakest) = weakest.filter(|old| self.beats(&newcomer, old)) else {
                return Some(newcomer);
            };
            self.leave(&weakest);
            self.enter(&newcomer, MAIN);
            return Some(weakest);
        }
    }

    fn put_back(&mut self, node: &Arc<Node>) {
        // What is being written is in the window, and must not get past the comparison in this way.
        let place = node.left.load(Relaxed);
        self.enter(node, place);
    }

    fn adopt(&mut self, node: &Arc<Node>) {
        // Never to the window: the other policy's queue may still have the node, and would take it for one of its own.
        self.enter(node, MAIN);
    }

    fn heat(&self, node: &Node) -> u8 {
        self.seen_lately(node)
    }

    fn len(&self) -> usize {
        self.live
    }

    fn bytes(&self) -> u64 {
        self.window_bytes + self.main_bytes
    }
}

#[cfg(test)]
mod tests;
