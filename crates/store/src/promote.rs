//! Moving up: what a tier's readers ask for again and again takes the place, one tier higher, of what is asked for less.
//!
//! Whether it does is the higher tier's policy to say, by the same counts that let in what is new. The copy is made later, off the
//! readers' path and beside them.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use parking_lot::RwLockUpgradableReadGuard;

use crate::{
    evict::Node,
    index::{Entry, Home},
    page,
    store::Inner,
};

/// An object that is whole in its tier is read by its descriptor, which a part of it elsewhere would end.
fn may_rise(entry: &Entry) -> bool {
    page::extent_count(entry.object.size) == 1 || entry.whole_in().is_none()
}

impl Inner {
    /// Somebody asked for the extent that lives there.
    pub(crate) fn visit(&self, home: &Home) {
        if self.tiers[home.tier].evict.touch(&home.node)
            && let Some(above) = self.above(home.tier)
            && self.tiers[above].evict.visit_below(&home.node)
        {
            self.candidates.offer(&home.node);
        }
    }

    fn above(&self, tier: usize) -> Option<usize> {
        (0..tier).rev().find(|tier| self.tiers[*tier].usable())
    }

    /// False when nothing waits.
    pub(crate) fn promote_next(&self) -> bool {
        let Some(node) = self.candidates.next() else { return false };
        if let Some(bytes) = self.promote(&node) {
            self.counters.promoted.fetch_add(bytes, Relaxed);
        }
        true
    }

    /// Bytes of the extent; `None` where it stays, or is not any more where it proved itself.
    fn promote(&self, node: &Arc<Node>) -> Option<u64> {
        let entry = self.index.get(node.key).filter(|entry| may_rise(entry))?;
        let slot = entry.slot(node.extent)?;
        // Readers go on while the copy is made; nothing is written, punched or moved meanwhile.
        let state = slot.state.upgradable_read();
        let from = state.home.as_ref().filter(|home| Arc::ptr_eq(&home.node, node))?.tier;
        let to = self.above(from).filter(|_| !self.in_use(from, &entry))?;
        let moved = self.copy_to(to, &entry, node.extent, &slot, &state)?;
        let mut state = RwLockUpgradableReadGuard::upgrade(state);
        if self.in_use(from, &entry) {
            self.leave(&entry, node.extent, &moved);
            return None;
        }
        self.settle(&entry, node.extent, &mut state, moved);
        Some(page::mask_bytes(entry.object.size, node.extent, state.pages))
    }
}
