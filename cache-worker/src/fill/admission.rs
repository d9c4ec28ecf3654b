//! How many flights there are at once.

use penstock_model::{ObjectKey, PAGE};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes that are fetched or wait for the store to take them: a medium that is slower than the UFS slows the fetches.
pub(super) const IN_FLIGHT: u64 = 128 << 20;
/// Flights of more than a page for one object. This is less than a reader's window holds, so that the next is asked for
/// in the moment in which one lands: flights that share the UFS's link begin and end together, and the link would rest
/// until a reader has found them all.
const TURNS: usize = 8;
/// Objects share turns with those that have the same remainder.
const LANES: usize = 64;

pub(super) struct Admission {
    /// In KiB.
    room: Semaphore,
    turns: [Semaphore; LANES],
}

/// What a flight holds.
pub(super) struct Admitted<'a> {
    turn: Option<SemaphorePermit<'a>>,
    /// Until the store has taken the bytes.
    _room: Option<SemaphorePermit<'a>>,
}

impl Admitted<'_> {
    /// The bytes are here: the object's next flight may begin.
    pub(super) fn landed(&mut self) {
        self.turn = None;
    }
}

impl Admission {
    pub(super) fn new() -> Self {
        let turns = std::array::from_fn(|_| Semaphore::new(TURNS));
        Self { room: Semaphore::new((IN_FLIGHT >> 10) as usize), turns }
    }

    /// Waits until a flight of `len` bytes of the object may begin.
    pub(super) async fn enter(&self, key: ObjectKey, len: u64) -> Admitted<'_> {
        let turns = &self.turns[(key.0 % LANES as u128) as usize];
        // The room comes second: who waits for a turn takes none. Neither is ever closed.
        let turn = if len > PAGE { turns.acquire().await.ok() } else { None };
        let room = self.room.acquire_many(len.div_ceil(1 << 10) as u32).await.ok();
        Admitted { turn, _room: room }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use penstock_model::EXTENT;

    use super::*;

    #[test]
    fn an_object_has_so_many_turns_and_others_and_pages_do_not_wait_for_them() {
        let admission = Admission::new();
        let enter = |key, len| admission.enter(ObjectKey(key), len).now_or_never();
        let mut held: Vec<_> = (0..TURNS).map(|_| enter(1, EXTENT).unwrap()).collect();
        assert!(enter(1, EXTENT).is_none());
        assert!(enter(1, PAGE).is_some() && enter(2, EXTENT).is_some());
        held.pop();
        assert!(enter(1, EXTENT).is_some());
    }

    #[test]
    fn all_objects_share_the_room() {
        let admission = Admission::new();
        let enter = |key, len| admission.enter(ObjectKey(key), len).now_or_never();
        let held: Vec<_> = (0..u128::from(IN_FLIGHT / EXTENT)).map(|key| enter(key, EXTENT).unwrap()).collect();
        assert!(enter(63, EXTENT).is_none() && enter(63, PAGE).is_none());
        drop(held);
        assert!(enter(63, EXTENT).is_some());
    }
}
