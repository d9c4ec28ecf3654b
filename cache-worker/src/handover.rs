//! Handing extents over to those who own them by the present list.

mod courier;
mod newcomers;

use std::{cmp::Reverse, collections::HashSet, sync::Arc, time::Duration};

use futures::StreamExt;
use parking_lot::Mutex;
use penstock_model::ObjectKey;
use penstock_placement::MemberList;
use penstock_store::{Claim, ExtentInfo};
use penstock_wire::message::Handover;
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub(crate) use self::{courier::Courier, newcomers::settle};
use crate::members::Members;

/// Extents on their way at once: their bytes are in memory.
const CONCURRENT: usize = 4;
/// What is filled during a pass goes with the next.
const PASSES: usize = 4;
/// How many of the ranked members are tried.
const CANDIDATES: usize = 2;
/// How soon a worker that is to end is taken off the member list, if its pod goes. A container that only starts again stays
/// on it, and goes on serving for so long.
const NOTICE: Duration = Duration::from_secs(5);
/// So many rounds in a row that move nothing end a hand-over before its time: nobody takes what is left, as when all
/// workers go at once.
const FRUITLESS: u32 = 2;
/// Between two looks at a hand-over.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) struct Drains {
    courier: Arc<Courier>,
    members: Arc<Members>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    progress: Handover,
    /// What the owners by the list `epoch` have already.
    epoch: u64,
    done: HashSet<Identity>,
}

/// Object, extent, and how many of its bytes were present.
type Identity = (ObjectKey, u32, u64);

impl Drains {
    pub(crate) fn new(courier: Arc<Courier>, members: Arc<Members>) -> Self {
        Self { courier, members, state: Mutex::default() }
    }

    pub(crate) fn progress(&self) -> Handover {
        self.state.lock().progress
    }

    /// Begins, unless it is under way or all was handed over for the present list. What could not be handed over is tried
    /// again.
    pub(crate) fn begin(self: &Arc<Self>) {
        let progress = &mut self.state.lock().progress;
        if progress.running || self.is_done(progress) {
            return;
        }
        progress.running = true;
        tokio::spawn(self.clone().run());
    }

    fn is_done(&self, progress: &Handover) -> bool {
        progress.finished_epoch == self.members.list().epoch && progress.left_bytes == 0
    }

    /// Hands all over if a list without this worker comes within [`NOTICE`], for `patience` at most. Whether it came.
    pub(crate) async fn leave(self: &Arc<Self>, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut lists = self.members.lists();
        let settled = lists.wait_for(|list| self.members.has_left(list) || !self.members.has_others(list));
        if !matches!(timeout(NOTICE.min(patience), settled).await, Ok(Ok(list)) if self.members.has_others(&list)) {
            return self.members.has_left(&self.members.list());
        }
        tracing::info!("handing over before the end");
        let handed_over = async {
            let (mut left, mut fruitless) = (u64::MAX, 0);
            while self.members.has_left(&self.members.list()) && !self.is_done(&self.progress()) {
                self.begin();
                while self.progress().running {
                    sleep(LOOK).await;
                }
                let now_left = self.progress().left_bytes;
                fruitless = if now_left < left { 0 } else { fruitless + 1 };
                if fruitless == FRUITLESS {
                    return;
                }
                left = now_left;
            }
        };
        if timeout_at(deadline, handed_over).await.is_err() {
            tracing::warn!(left = self.progress().left_bytes, "the time to hand over is over");
        }
        true
    }

    async fn run(self: Arc<Self>) {
        for _ in 0..PASSES {
            let list = self.members.list();
            let moving = self.moving(&list);
            if moving.is_empty() {
                break;
            }
            let errands = moving.into_iter().map(|extent| self.hand_over(list.clone(), extent));
            let moved: Vec<_> = futures::stream::iter(errands).buffer_unordered(CONCURRENT).collect().await;
            self.state.lock().done.extend(moved.into_iter().flatten());
        }
        // Counts what is left: an extent may have been evicted on its way.
        let list = self.members.list();
        self.moving(&list);
        let progress = &mut self.state.lock().progress;
        progress.running = false;
        progress.finished_epoch = list.epoch;
        let Handover { moved_bytes, left_bytes, .. } = progress;
        tracing::info!(epoch = list.epoch, moved = moved_bytes, left = left_bytes, "hand-over finished");
    }

    /// What is still to be handed over for `list`; its bytes are the progress' `left_bytes`.
    fn moving(&self, list: &MemberList) -> Vec<ExtentInfo> {
        let (mut extents, claim) = (self.courier.store.extents(), self.members.claims());
        let mut state = self.state.lock();
        if state.epoch != list.epoch {
            state.epoch = list.epoch;
            state.done.clear();
        }
        let mine = |extent: &ExtentInfo| list.owner(extent.object.key.placement(extent.range().start));
        extents.retain(|extent| {
            mine(extent).is_some_and(|owner| !self.members.is_me(owner)) && !state.done.contains(&identity(extent))
        });
        sort(&mut extents, claim);
        state.progress.left_bytes = extents.iter().map(|extent| extent.present).sum();
        extents
    }

    /// Returns the extent's identity when its new owner has it.
    async fn hand_over(&self, list: Arc<MemberList>, extent: ExtentInfo) -> Option<Identity> {
        let ranked = list.ranked(extent.object.key.placement(extent.range().start));
        let takers: Vec<_> = ranked.into_iter().filter(|m| !self.members.is_me(m)).take(CANDIDATES).collect();
        let moved = |len| {
            let progress = &mut self.state.lock().progress;
            progress.moved_bytes += len;
            progress.left_bytes = progress.left_bytes.saturating_sub(len);
        };
        if !self.courier.send(&extent, &takers, moved).await {
            return None;
        }
        // A leaving worker keeps its copy until it goes: readers with the old list still come.
        if self.members.is_member() {
            self.courier.store.remove_extent(&extent.object.key, extent.extent);
        }
        Some(identity(&extent))
    }
}

/// In the order in which they go, for the time may end: what only this worker may have before what was copied from its
/// owner, and of each the hottest first.
fn sort(extents: &mut [ExtentInfo], claim: impl Fn(ObjectKey, u32) -> Claim) {
    let is_copy = |extent: &ExtentInfo| claim(extent.object.key, extent.extent) == Claim::None;
    extents.sort_by_cached_key(|extent| (is_copy(extent), Reverse(extent.heat)));
}

fn identity(extent: &ExtentInfo) -> Identity {
    (extent.object.key, extent.extent, extent.present)
}

#[cfg(test)]
mod tests {
    use penstock_model::{Object, Version};

    use super::*;

    #[test]
    fn what_is_asked_for_most_goes_first_and_copies_go_last() {
        let object = |key| Object { key: ObjectKey(key), path: b"f".to_vec(), version: Version("v".into()), size: 1 };
        let extent =
            |(key, heat)| ExtentInfo { object: Arc::new(object(key)), extent: 0, present: 1, heat, is_replica: false };
        let mut extents: Vec<_> = [(1, 0), (2, 9), (3, 15), (4, 3)].map(extent).to_vec();
        sort(&mut extents, |key, _| if key.0 == 3 { Claim::None } else { Claim::FormerOwner });
        assert_eq!(extents.iter().map(|extent| extent.object.key.0).collect::<Vec<_>>(), [2, 4, 1, 3]);
    }
}
