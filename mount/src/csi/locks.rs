//! Calls about one volume come one after the other.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

/// One asynchronous lock per name, gone when nobody holds or awaits it.
#[derive(Debug, Default)]
pub struct Locks {
    named: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Locks {
    pub async fn lock(&self, name: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut named = self.named.lock();
            named.retain(|_, lock| lock.strong_count() > 0);
            let found = named.get(name).and_then(Weak::upgrade);
            found.unwrap_or_else(|| {
                let fresh = Arc::new(tokio::sync::Mutex::new(()));
                named.insert(name.to_owned(), Arc::downgrade(&fresh));
                fresh
            })
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_about_one_volume_wait_for_each_other_and_others_do_not() {
        let locks = Locks::default();
        let held = locks.lock("a").await;
        locks.lock("b").await;
        let wait = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(wait, locks.lock("a")).await.is_err());
        drop(held);
        locks.lock("a").await;
        locks.lock("c").await;
        assert!(locks.named.lock().len() <= 2);
    }
}
