//! Which extent leaves a tier when it must shrink: one algorithm per file behind [`Policy`].

mod sketch;
mod tiny_lfu;
mod window;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;
use penstock_model::ObjectKey;
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
    /// Another worker's; changed under the lock of [`Eviction`] only.
    replica: AtomicBool,
}

impl Node {
    pub(crate) fn new(key: ObjectKey, extent: u32) -> Arc<Self> {
        let hash = xxh3_64_with_seed(&key.0.to_le_bytes(), u64::from(extent));
        let (bytes, visited) = (AtomicU64::new(0), AtomicU64::new(0));
        let (place, left, index) = (AtomicU8::new(0), AtomicU8::new(0), AtomicUsize::new(0));
        let replica = AtomicBool::new(false);
        Arc::new(Self { key, extent, hash, bytes, place, left, index, visited, replica })
    }

    pub(crate) fn is_replica(&self) -> bool {
        self.replica.load(Relaxed)
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
    /// A node that was in another policy until now, with the bytes it had.
    fn adopt(&mut self, node: &Arc<Node>);
    /// How often the extent was seen lately, in the policy's own measure.
    fn heat(&self, node: &Node) -> u8;
    fn len(&self) -> usize;
    /// Of all nodes that are in.
    fn bytes(&self) -> u64;
}

/// One policy for what the worker owns and one for replicas, with their lock, and the rule for what counts as one visit.
///
/// A sequential reader touches an extent dozens of times in a row; that is one visit, not popularity. A touch counts only
/// when at least a sixteenth of the resident extents were visited since the last one that counted. Ticks number counted
/// visits, so no clock is involved.
pub(crate) struct Eviction {
    policies: Mutex<Policies>,
    tick: AtomicU64,
    gap: AtomicU64,
}

struct Policies {
    owned: Box<dyn Policy>,
    replicas: Box<dyn Policy>,
}

impl Policies {
    fn of(&mut self, node: &Node) -> &mut dyn Policy {
        if node.is_replica() { &mut *self.replicas } else { &mut *self.owned }
    }

    fn gap(&self) -> u64 {
        (self.owned.len() + self.replicas.len()) as u64 / 16 + 1
    }
}

impl std::fmt::Debug for Eviction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eviction").field("tick", &self.tick).field("gap", &self.gap).finish_non_exhaustive()
    }
}

impl Eviction {
    pub(crate) fn new(owned: Box<dyn Policy>, replicas: Box<dyn Policy>) -> Self {
        let policies = Mutex::new(Policies { owned, replicas });
        Self { policies, tick: AtomicU64::new(0), gap: AtomicU64::new(1) }
    }

    fn next_tick(&self) -> u64 {
        self.tick.fetch_add(1, Relaxed) + 1
    }

    pub(crate) fn insert(&self, node: &Arc<Node>, bytes: u64, replica: bool) {
        let mut policies = self.policies.lock();
        let now = self.next_tick();
        node.replica.store(replica, Relaxed);
        node.visited.store(now, Relaxed);
        policies.of(node).insert(node, bytes, now);
        self.gap.store(policies.gap(), Relaxed);
    }

    /// Moves the node to where it belongs now. A victim on its way out moves when it is put back.
    pub(crate) fn reassign(&self, node: &Arc<Node>, replica: bool) {
        let mut policies = self.policies.lock();
        if node.is_replica() == replica {
            return;
        }
        let from = policies.of(node);
        let before = from.len();
        from.remove(node);
        let was_in = from.len() < before;
        node.replica.store(replica, Relaxed);
        if was_in {
            policies.of(node).adopt(node);
        }
    }

    pub(crate) fn grow(&self, node: &Node, bytes: i64) {
        self.policies.lock().of(node).grow(node, bytes);
    }

    /// True when it counted as a visit.
    pub(crate) fn touch(&self, node: &Node) -> bool {
        let tick = self.tick.load(Relaxed);
        if tick.saturating_sub(node.visited.load(Relaxed)) < self.gap.load(Relaxed) {
            return false;
        }
        let now = self.next_tick();
        node.visited.store(now, Relaxed);
        self.policies.lock().of(node).visit(node, now);
        true
    }

    /// Tells of a visit that counted in a tier below. True when the extent would displace something here.
    pub(crate) fn visit_below(&self, node: &Node) -> bool {
        let now = self.next_tick();
        self.policies.lock().of(node).visit_below(node, now)
    }

    pub(crate) fn heat(&self, node: &Node) -> u8 {
        self.policies.lock().of(node).heat(node)
    }

    pub(crate) fn remove(&self, node: &Node) {
        self.policies.lock().of(node).remove(node);
    }

    /// The next of the replicas, or the next of what is owned.
    pub(crate) fn victim(&self, replica: bool) -> Option<Arc<Node>> {
        let mut policies = self.policies.lock();
        if replica { policies.replicas.victim() } else { policies.owned.victim() }
    }

    pub(crate) fn put_back(&self, nodes: &[Arc<Node>]) {
        let mut policies = self.policies.lock();
        for node in nodes {
            policies.of(node).put_back(node);
        }
    }

    pub(crate) fn replica_bytes(&self) -> u64 {
        self.policies.lock().replicas.bytes()
    }
}
