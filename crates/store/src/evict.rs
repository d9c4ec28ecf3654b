//! Which extent leaves a tier when it must shrink: one algorithm per file behind [`Policy`].

mod sketch;
mod tiny_lfu;
mod window;

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;
use penstock_wire::message::ObjectKey;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(crate) use tiny_lfu::TinyLfu;

/// One extent in one tier, as the policy sees it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) key: ObjectKey,
    pub(crate) extent: u32,
    hash: u64,
    /// Written by the policy only, under its lock.
    bytes: AtomicU64,
    place: AtomicU8,
    /// Where it was before it left.
    left: AtomicU8,
    index: AtomicUsize,
    /// Tick of the visit that was counted last.
    visited: AtomicU64,
}

impl Node {
    pub(crate) fn new(key: ObjectKey, extent: u32) -> Arc<Self> {
        let hash = xxh3_64_with_seed(&key.0.to_le_bytes(), u64::from(extent));
        let (bytes, visited) = (AtomicU64::new(0), AtomicU64::new(0));
        let (place, left, index) = (AtomicU8::new(0), AtomicU8::new(0), AtomicUsize::new(0));
        Arc::new(Self { key, extent, hash, bytes, place, left, index, visited })
    }
}

/// An eviction algorithm. It decides only; the caller moves bytes. Calls come under one lock, never over disk I/O. `now`
/// numbers the visits that count, of this tier and of those below it that were told.
pub(crate) trait Policy: Send {
    /// A new extent of `bytes`, which counts as a visit. The caller guarantees that the node is not in the policy.
    fn insert(&mut self, node: &Arc<Node>, bytes: u64, now: u64);
    /// More (or, on `bytes` < 0, less) of a node.
    fn grow(&mut self, node: &Node, bytes: i64);
    /// One more visit of the extent.
    fn visit(&mut self, node: &Node, now: u64);
    /// One more visit of an extent of a tier below. True when it would displace something here.
    fn visit_below(&mut self, node: &Node, now: u64) -> bool;
    /// The extent has left the tier for another reason than [`Policy::victim`]; no effect on a node that is not in.
    fn remove(&mut self, node: &Node);
    /// The next to leave; it is out of the policy from now on.
    fn victim(&mut self) -> Option<Arc<Node>>;
    /// A victim that cannot leave now (pinned, being read): in again, with the bytes it had.
    fn put_back(&mut self, node: &Arc<Node>);
    fn len(&self) -> usize;
}

/// A policy with its lock, and the rule for what counts as one visit.
///
/// A sequential reader touches an extent dozens of times in a row; that is one visit, not popularity. A touch counts only
/// when at least a sixteenth of the resident extents were visited since the last one that counted. Ticks number counted
/// visits, so no clock is involved.
pub(crate) struct Eviction {
    policy: Mutex<Box<dyn Policy>>,
    tick: AtomicU64,
    gap: AtomicU64,
}

impl std::fmt::Debug for Eviction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eviction").field("tick", &self.tick).field("gap", &self.gap).finish_non_exhaustive()
    }
}

impl Eviction {
    pub(crate) fn new(policy: Box<dyn Policy>) -> Self {
        Self { policy: Mutex::new(policy), tick: AtomicU64::new(0), gap: AtomicU64::new(1) }
    }

    fn next_tick(&self) -> u64 {
        self.tick.fetch_add(1, Relaxed) + 1
    }

    pub(crate) fn insert(&self, node: &Arc<Node>, bytes: u64) {
        let mut policy = self.policy.lock();
        let now = self.next_tick();
        node.visited.store(now, Relaxed);
        policy.insert(node, bytes, now);
        self.gap.store(policy.len() as u64 / 16 + 1, Relaxed);
    }

    pub(crate) fn grow(&self, node: &Node, bytes: i64) {
        self.policy.lock().grow(node, bytes);
    }

    /// True when it counted as a visit.
    pub(crate) fn touch(&self, node: &Node) -> bool {
        let tick = self.tick.load(Relaxed);
        if tick.saturating_sub(node.visited.load(Relaxed)) < self.gap.load(Relaxed) {
            return false;
        }
        let now = self.next_tick();
        node.visited.store(now, Relaxed);
        self.policy.lock().visit(node, now);
        true
    }

    /// Tells of a visit that counted in a tier below. True when the extent would displace something here.
    pub(crate) fn visit_below(&self, node: &Node) -> bool {
        let now = self.next_tick();
        self.policy.lock().visit_below(node, now)
    }

    pub(crate) fn remove(&self, node: &Node) {
        self.policy.lock().remove(node);
    }

    pub(crate) fn victim(&self) -> Option<Arc<Node>> {
        self.policy.lock().victim()
    }

    pub(crate) fn put_back(&self, nodes: &[Arc<Node>]) {
        let mut policy = self.policy.lock();
        for node in nodes {
            policy.put_back(node);
        }
    }
}
