use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::rendezvous::{PlacementKey, score};

/// How many earlier generations a list remembers, so that a new owner can ask the previous one before the UFS.
const REMEMBERED: usize = 3;

/// One worker as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
pub struct Member {
    /// Stable across restarts (the pod's name): placement hashes the id, never the address.
    #[n(0)]
    pub id: String,
    /// `host:port` of the wire protocol. Numeric in Kubernetes, so that the data path needs no name service.
    #[n(1)]
    pub addr: String,
    /// Bytes of quota over all tiers; the share of extents owned is proportional to it. 0 owns nothing.
    #[n(2)]
    pub weight: u64,
}

/// A numbered list of workers. `former` holds what the list was before, newest first: a worker that finds itself the
/// owner of an extent it lacks asks the former owner before it asks the UFS. Former members may still be serving
/// (leaving ones hand over before they go) or be gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
pub struct MemberList {
    /// Grows by one with each change; 0 means "none yet".
    #[n(0)]
    pub epoch: u64,
    #[n(1)]
    pub members: Vec<Member>,
    #[serde(default)]
    #[n(2)]
    pub former: Vec<Vec<Member>>,
}

impl MemberList {
    /// The list that follows `self` when the workers are now `members`: `None` when nothing changed.
    /// A changed address keeps ownership (ids decide it) but is a new epoch all the same, so that everyone learns it.
    /// Former generations keep the newest known address of each id.
    #[must_use]
    pub fn next(&self, mut members: Vec<Member>) -> Option<Self> {
        members.sort_by(|a, b| a.id.cmp(&b.id));
        if members == self.members {
            return None;
        }
        let mut former = self.former.clone();
        if !self.members.is_empty() && !same_ownership(&self.members, &members) {
            former.insert(0, self.members.clone());
            former.truncate(REMEMBERED);
        }
        for old in former.iter_mut().flatten() {
            if let Some(now) = members.iter().find(|now| now.id == old.id) {
                old.addr.clone_from(&now.addr);
            }
        }
        Some(Self { epoch: self.epoch + 1, members, former })
    }

    /// The owner of `key`, or `None` when there is no member with weight.
    pub fn owner(&self, key: PlacementKey) -> Option<&Member> {
        owner_among(&self.members, key)
    }

    /// All members by falling claim to `key`: the first is the owner, the next stands in when it is sick.
    pub fn ranked(&self, key: PlacementKey) -> Vec<&Member> {
        let mut scored: Vec<_> =
            self.members.iter().filter(|m| m.weight > 0).map(|m| (score(key, &m.id, m.weight), m)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.id.cmp(&b.1.id)));
        scored.into_iter().map(|(_, m)| m).collect()
    }

    /// Who owned `key` in earlier generations, newest first, without the present owner and without repeats.
    pub fn former_owners(&self, key: PlacementKey) -> Vec<&Member> {
        let present = self.owner(key).map(|m| m.id.as_str());
        let mut found: Vec<&Member> = Vec::new();
        for generation in &self.former {
            if let Some(owner) = owner_among(generation, key)
                && Some(owner.id.as_str()) != present
                && found.iter().all(|m| m.id != owner.id)
            {
                found.push(owner);
            }
        }
        found
    }

    pub fn get(&self, id: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.id == id)
    }
}

fn owner_among(members: &[Member], key: PlacementKey) -> Option<&Member> {
    members.iter().filter(|m| m.weight > 0).max_by(|a, b| {
        score(key, &a.id, a.weight).total_cmp(&score(key, &b.id, b.weight)).then_with(|| b.id.cmp(&a.id))
    })
}

fn same_ownership(a: &[Member], b: &[Member]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.id == b.id && a.weight == b.weight)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn members(ids: impl IntoIterator<Item = u32>) -> Vec<Member> {
        ids.into_iter()
            .map(|i| Member { id: format!("w-{i}"), addr: format!("198.18.0.{i}:1"), weight: 1 << 30 })
            .collect()
    }

    fn list(n: u32) -> MemberList {
        MemberList::default().next(members(0..n)).unwrap()
    }

    /// Of one object, in whatever place of its run.
    fn extent(index: u64) -> PlacementKey {
        PlacementKey::extent(1, index)
    }

    #[test]
    fn nothing_changed_is_no_new_epoch() {
        assert_eq!(list(3).next(members([2, 0, 1])), None);
    }

    #[test]
    fn a_moved_worker_keeps_its_extents_and_is_found_at_its_new_address_also_as_a_former_owner() {
        let grown = list(2).next(members(0..3)).unwrap();
        let mut moved = members(0..3);
        moved[0].addr = "198.18.9.9:1".into();
        let next = grown.next(moved).unwrap();
        assert_eq!((next.epoch, next.former.len()), (3, 1));
        assert!(next.former.iter().flatten().filter(|m| m.id == "w-0").all(|m| m.addr == "198.18.9.9:1"));
    }

    #[test]
    fn without_members_there_is_no_owner() {
        assert_eq!(MemberList::default().owner(extent(7)), None);
    }

    #[test]
    fn shares_follow_weights() {
        let mut weighted = members(0..2);
        weighted[1].weight *= 3;
        let list = MemberList::default().next(weighted).unwrap();
        let heavy = (0..20_000).filter(|i| list.owner(extent(*i)).unwrap().id == "w-1").count();
        assert!((14_600..15_400).contains(&heavy), "{heavy} of 20000, expected about 15000");
    }

    /// The share of the fullest of 10 members of 1,000 runs, as a multiple of the mean: 2.37 by independent draws.
    #[test]
    fn the_extents_of_a_run_are_spread_more_evenly_than_by_chance() {
        let list = list(10);
        let fullest = (0..1000u128).map(|object| {
            let mut counts = HashMap::<&str, u32>::new();
            for index in 0..16 {
                *counts.entry(&list.owner(PlacementKey::extent(object, index)).unwrap().id).or_default() += 1;
            }
            f64::from(*counts.values().max().unwrap()) / 1.6
        });
        let mean = fullest.sum::<f64>() / 1000.0;
        assert!(mean < 2.0, "{mean}");
    }

    proptest! {
        /// Growing moves extents only to the new workers, shrinking only from the leaving ones.
        #[test]
        fn only_what_must_move_moves(key: u64, small in 1u32..12, more in 1u32..6) {
            let (before, after) = (list(small), list(small + more));
            let (old, new) = (before.owner(extent(key)).unwrap(), after.owner(extent(key)).unwrap());
            prop_assert!(old.id == new.id || before.get(&new.id).is_none());
        }

        /// The model: ranked() is the order in which members would own the key if those before them left.
        #[test]
        fn ranked_is_succession(key: u64, n in 1u32..8) {
            let full = list(n);
            let ranked: Vec<_> = full.ranked(extent(key)).into_iter().cloned().collect();
            let mut left = full.members.clone();
            for expected in ranked {
                prop_assert_eq!(&owner_among(&left, extent(key)).unwrap().id, &expected.id);
                left.retain(|m| m.id != expected.id);
            }
        }

        /// After any history, the newest different owner is the first to be asked.
        #[test]
        fn former_owner_is_the_last_one(key: u64, sizes in prop::collection::vec(1u32..9, 1..4)) {
            let mut list = MemberList::default();
            let mut owners: Vec<String> = Vec::new();
            for n in sizes {
                list = list.next(members(0..n)).unwrap_or(list);
                owners.push(list.owner(extent(key)).unwrap().id.clone());
            }
            let present = owners.last().unwrap();
            let expected = owners.iter().rev().find(|o| *o != present);
            prop_assert_eq!(list.former_owners(extent(key)).first().map(|m| &m.id), expected);
        }
    }
}
