//! Which runtimes take a new default image now: a few at once, so that a bad one spoils no more than those.

use std::collections::HashSet;

use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use penstock_api::CacheRuntime;

#[derive(Debug)]
pub struct Turns {
    limit: usize,
    /// Those that may not say so in their status yet.
    taken: Mutex<HashSet<ObjectRef<CacheRuntime>>>,
}

impl Turns {
    pub fn new(limit: usize) -> Self {
        Self { limit, taken: Mutex::default() }
    }

    /// Whether `runtime` may change images now. It keeps its turn while it `wants` it; one that says that it is being
    /// updated has its turn, whichever operator gave it. An image of its own needs none.
    pub fn turn(&self, runtime: &CacheRuntime, wants: bool, all: &Store<CacheRuntime>) -> bool {
        let this = ObjectRef::from_obj(runtime);
        if !wants || runtime.spec.worker.image.is_some() {
            self.taken.lock().remove(&this);
            return true;
        }
        let updating = all.state_filter(is_updating);
        let mut taken = self.taken.lock();
        taken.retain(|other| all.get(other).is_some());
        let holders: HashSet<_> =
            updating.iter().map(|other| ObjectRef::from_obj(other.as_ref())).chain(taken.iter().cloned()).collect();
        let may = holders.contains(&this) || holders.len() < self.limit;
        if may {
            taken.insert(this);
        }
        may
    }
}

/// To an image that is not its own.
fn is_updating(runtime: &CacheRuntime) -> bool {
    runtime.spec.worker.image.is_none() && runtime.status.as_ref().is_some_and(|status| status.update.is_some())
}

#[cfg(test)]
mod tests {
    use kube::runtime::{reflector, watcher};
    use penstock_api::{CacheRuntimeStatus, UpdateStatus};
    use serde_json::json;

    use super::*;

    fn runtime(name: &str) -> CacheRuntime {
        let object = json!({
            "metadata": {"name": name, "namespace": "ns"},
            "spec": {"tieredStore": {"levels": [{"mediumType": "MEM", "quota": "1Gi"}]}}
        });
        serde_json::from_value(object).unwrap()
    }

    fn updating(name: &str) -> CacheRuntime {
        let status = CacheRuntimeStatus { update: Some(UpdateStatus::default()), ..CacheRuntimeStatus::default() };
        CacheRuntime { status: Some(status), ..runtime(name) }
    }

    fn store(runtimes: impl IntoIterator<Item = CacheRuntime>) -> Store<CacheRuntime> {
        let (store, mut writer) = reflector::store();
        for runtime in runtimes {
            writer.apply_watcher_event(&watcher::Event::Apply(runtime));
        }
        store
    }

    #[test]
    fn so_many_at_once_and_the_next_when_one_is_done() {
        let turns = Turns::new(2);
        let all = store(["a", "b", "c"].map(runtime));
        let take = |name| turns.turn(&runtime(name), true, &all);
        assert_eq!(["a", "b", "c", "a"].map(take), [true, true, false, true]);
        turns.turn(&runtime("a"), false, &all);
        assert_eq!(["c", "a"].map(take), [true, false]);
    }

    #[test]
    fn what_statuses_tell_counts_after_a_restart_of_the_operator() {
        let turns = Turns::new(2);
        let all = store([updating("a"), updating("b"), runtime("c")]);
        assert!(!turns.turn(&runtime("c"), true, &all));
        assert!(turns.turn(&updating("a"), true, &all), "it goes on");
    }

    #[test]
    fn a_runtime_that_is_gone_holds_no_turn() {
        let turns = Turns::new(1);
        assert!(turns.turn(&runtime("a"), true, &store([runtime("a"), runtime("b")])));
        assert!(turns.turn(&runtime("b"), true, &store([runtime("b")])));
    }

    #[test]
    fn an_image_of_its_own_takes_no_turn() {
        let turns = Turns::new(1);
        let mut own = updating("own");
        own.spec.worker.image = Some("mine:1".into());
        let all = store([own.clone(), runtime("a")]);
        assert!(turns.turn(&own, true, &all));
        assert!(turns.turn(&runtime("a"), true, &all));
    }
}
