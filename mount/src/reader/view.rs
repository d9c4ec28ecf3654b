use std::{collections::HashMap, time::Duration};

use penstock_placement::{MemberList, PlacementKey};
use penstock_wire::{Address, message::Description};

use crate::backend::Facts;

/// What the workers have told of themselves.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) members: MemberList,
    pub(super) facts: Option<Facts>,
    /// By member id, parsed once.
    addresses: HashMap<String, Address>,
}

impl View {
    pub(super) fn new(description: Description) -> Self {
        let facts = Facts {
            revalidate: description.revalidate_ms.map(Duration::from_millis),
            uid: description.uid,
            gid: description.gid,
            workers: description.members.members.len(),
        };
        let members = description.members;
        let addresses = members.members.iter().map(|m| (m.id.clone(), Address::Tcp(m.addr.clone()))).collect();
        Self { members, facts: Some(facts), addresses }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.values()
    }

    pub(super) fn owner(&self, key: PlacementKey) -> Option<&Address> {
        self.members.owner(key).and_then(|owner| self.addresses.get(&owner.id))
    }

    /// Where to ask for `key`, the owner first.
    pub(super) fn ranked(&self, key: PlacementKey) -> Vec<Address> {
        self.members.ranked(key).into_iter().filter_map(|member| self.addresses.get(&member.id)).cloned().collect()
    }
}
