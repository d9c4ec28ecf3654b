//! Extents that wait to move up.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use crate::evict::Node;

/// More are not remembered: who is asked for again comes again.
const MOST: usize = 64;

/// Extents that proved themselves, in the order in which they did.
#[derive(Debug, Default)]
pub(crate) struct Candidates(Mutex<VecDeque<Arc<Node>>>);

impl Candidates {
    pub(crate) fn offer(&self, node: &Arc<Node>) {
        let mut waiting = self.0.lock();
        if waiting.len() < MOST && !waiting.iter().any(|other| Arc::ptr_eq(other, node)) {
            waiting.push_back(node.clone());
        }
    }

    pub(crate) fn next(&self) -> Option<Arc<Node>> {
        self.0.lock().pop_front()
    }
}
