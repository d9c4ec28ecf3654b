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
    main: VecDeque<Arc<Node>>,
    window_bytes: u64,
    main_bytes: u64,
    /// Nodes that are in, and those in the queues that are not any more.
    live: usize,
    dead: usize,
    capacity: u64,
    sketch: Sketch,
}

impl TinyLfu {
    /// `capacity` is what the tier holds after an eviction, in bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        let (window, main) = (VecDeque::new(), VecDeque::new());
        // Objects are seldom smaller than this on average; more of them only blur the counts.
        let sketch = Sketch::new((capacity / (64 << 10)).clamp(1 << 10, 1 << 22));
        Self { window, main, window_bytes: 0, main_bytes: 0, live: 0, dead: 0, capacity, sketch }
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
        let queue = if place == WINDOW { &mut self.window } else { &mut self.main };
        queue.push_back(node.clone());
        self.live += 1;
    }

    /// Marks as out; the caller has taken it from its queue or counts it as dead.
    fn leave(&mut self, node: &Node) -> bool {
        let place = node.place.swap(OUT, Relaxed);
        let bytes = node.bytes.load(Relaxed);
        let Some(sum) = self.bytes_of(place) else { return false };
        *sum -= bytes;
        self.live -= 1;
        true
    }

    fn drop_dead(&mut self) {
        if self.dead > 64 && self.dead > self.live {
            self.window.retain(|node| node.place.load(Relaxed) == WINDOW);
            self.main.retain(|node| node.place.load(Relaxed) == MAIN);
            self.dead = 0;
        }
    }

    fn pop_window(&mut self) -> Option<Arc<Node>> {
        while let Some(node) = self.window.pop_front() {
            if node.place.load(Relaxed) == WINDOW {
                self.leave(&node);
                return Some(node);
            }
            self.dead = self.dead.saturating_sub(1);
        }
        None
    }

    /// Brings the least seen of the next few to the front.
    fn rotate_main(&mut self) {
        let (mut best, mut left) = (None::<(u8, Arc<Node>)>, SAMPLE);
        while left > 0 {
            let Some(node) = self.main.pop_front() else { break };
            if node.place.load(Relaxed) != MAIN {
                self.dead = self.dead.saturating_sub(1);
                continue;
            }
            left -= 1;
            let seen = self.seen(&node);
            match best.take() {
                Some((least, kept)) if least <= seen => {
                    self.main.push_back(node);
                    best = Some((least, kept));
                }
                other => {
                    self.main.extend(other.map(|(_, kept)| kept));
                    best = Some((seen, node));
                }
            }
        }
        if let Some((_, node)) = best {
            self.main.push_front(node);
        }
    }

    fn pop_main(&mut self) -> Option<Arc<Node>> {
        let node = self.main.pop_front()?;
        self.leave(&node);
        Some(node)
    }

    fn window_room(&self) -> u64 {
        (self.capacity as f64 * WINDOW_SHARE) as u64
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
        if self.leave(node) {
            self.dead += 1;
            self.drop_dead();
        }
    }

    fn victim(&mut self) -> Option<Arc<Node>> {
        let main_room = self.capacity - self.window_room();
        while self.window_bytes > self.window_room() || self.main_bytes == 0 {
            let newcomer = self.pop_window()?;
            if self.main_bytes + newcomer.bytes.load(Relaxed) <= main_room {
                self.enter(&newcomer, MAIN);
                continue;
            }
            self.rotate_main();
            let stays = self.main.front().is_none_or(|old| self.seen(&newcomer) <= self.seen(old) + MARGIN);
            if stays {
                return Some(newcomer);
            }
            let leaving = self.pop_main();
            self.enter(&newcomer, MAIN);
            return leaving;
        }
        self.rotate_main();
        self.pop_main().or_else(|| self.pop_window())
    }

    fn put_back(&mut self, node: &Arc<Node>) {
        self.enter(node, MAIN);
    }

    fn len(&self) -> usize {
        self.live
    }
}
