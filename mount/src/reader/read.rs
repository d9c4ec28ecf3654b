//! Reads of bytes: from the holder where they will come soonest, and from a second one when they are late.

use std::{
    collections::hash_map::RandomState,
    future::Future,
    hash::BuildHasher,
    pin::pin,
    time::{Duration, Instant},
};

use penstock_model::{EXTENT, Object};
use penstock_wire::{
    Address, CallError,
    message::{Pattern, Reach, Request, Response},
};
use tokio::time::timeout;

use super::{
    Cluster, View,
    holders::{Extent, choose},
};

/// One read of bytes, which lie in one extent.
#[derive(Clone, Debug)]
pub(super) struct Read<'a> {
    pub(super) object: &'a Object,
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) pattern: Pattern,
}

impl Read<'_> {
    fn request(&self, reach: Reach) -> Request {
        let Self { object, offset, len, pattern } = self.clone();
        Request::Read { object: object.clone(), offset, len, pattern, reach }
    }

    fn extent(&self) -> Extent {
        (self.object.key, self.offset / EXTENT)
    }
}

impl Cluster {
    /// The workers to ask, by falling claim, but for one of several holders that goes before all.
    pub(super) fn order(&self, view: &View, read: &Read<'_>) -> Vec<Address> {
        let ranked = view.ranked(read.object.key.placement(read.offset));
        let (epoch, now) = (view.members.epoch, Instant::now());
        let holders = self.holders.of(epoch, read.extent(), read.pattern, now).min(ranked.len());
        let mut order = ranked;
        if holders > 1 {
            let loads: Vec<_> = order[..holders].iter().map(|address| self.loads.of(address, now)).collect();
            // Keyed anew for each, which is all the randomness that is needed.
            let draw = RandomState::new().hash_one(read.offset);
            order[..holders].swap(0, choose(&loads, read.len.into(), draw));
        }
        self.health.healthy_first(order)
    }

    /// Asks `address`, and `next` for what it has in its store when the answer is late.
    pub(super) async fn read_from(
        &self,
        view: &View,
        address: &Address,
        next: Option<&Address>,
        read: &Read<'_>,
    ) -> Result<Response, CallError> {
        let (begun, len) = (Instant::now(), u64::from(read.len));
        let first = async {
            let _asked = self.loads.ask(address, len);
            let answer = self.call(address, read.request(Reach::Ufs)).await;
            if let Ok(response) = &answer {
                self.learn(view, address, read, response);
            }
            answer
        };
        let answer = match (next, self.stragglers.late_after(len)) {
            (Some(next), Some(late)) => {
                let second = async {
                    let _asked = self.loads.ask(next, len);
                    self.pool.call(next, read.request(Reach::Cache)).await
                };
                sooner(first, second, late, || self.stragglers.may_ask_again()).await
            }
            _ => first.await,
        };
        if answer.is_ok() {
            self.stragglers.answered(len, begun.elapsed());
        }
        answer
    }

    /// The owner's word on who holds the extent.
    fn learn(&self, view: &View, address: &Address, read: &Read<'_>, response: &Response) {
        let holders = match response {
            Response::SharedData { holders, .. } => *holders,
            _ => 1,
        };
        let key = read.object.key.placement(read.offset);
        if view.owner(key) == Some(address) {
            self.holders.learn(view.members.epoch, read.extent(), holders, Instant::now());
        }
    }
}

/// The answer of `first`, or the good one of `second` when that comes before it. `second` begins when `first` is `late` and
/// it `may`. The other is given up.
async fn sooner<E>(
    first: impl Future<Output = Result<Response, E>>,
    second: impl Future<Output = Result<Response, E>>,
    late: Duration,
    may: impl FnOnce() -> bool,
) -> Result<Response, E> {
    let mut first = pin!(first);
    if let Ok(answer) = timeout(late, &mut first).await {
        return answer;
    }
    if !may() {
        return first.await;
    }
    tokio::select! {
        biased;
        answer = &mut first => answer,
        answer = second => if answer.is_ok() { answer } else { first.await },
    }
}
