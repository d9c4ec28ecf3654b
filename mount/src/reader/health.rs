use std::collections::HashSet;

use parking_lot::RwLock;
use penstock_wire::Address;

/// Who has failed to answer lately.
#[derive(Debug, Default)]
pub(super) struct Health(RwLock<HashSet<Address>>);

impl Health {
    /// Whether this is news.
    pub(super) fn mark(&self, address: &Address) -> bool {
        self.0.write().insert(address.clone())
    }

    pub(super) fn clear(&self, address: &Address) {
        self.0.write().remove(address);
    }

    /// The same addresses, those that have failed moved to the end. The order is kept otherwise.
    pub(super) fn healthy_first(&self, addresses: Vec<Address>) -> Vec<Address> {
        let sick = self.0.read();
        if sick.is_empty() {
            return addresses;
        }
        let (last, mut first): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| sick.contains(address));
        first.extend(last);
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sick_come_last_until_they_recover() {
        let health = Health::default();
        let all: Vec<Address> = ["a:1", "b:1", "c:1"].iter().map(|a| a.parse().unwrap()).collect();
        assert!(health.mark(&all[0]) && !health.mark(&all[0]));
        assert_eq!(health.healthy_first(all.clone()), [all[1].clone(), all[2].clone(), all[0].clone()]);
        health.clear(&all[0]);
        assert_eq!(health.healthy_first(all.clone()), all);
    }
}
