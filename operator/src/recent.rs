//! What this process saw of each Dataset lately, apart from what the API server keeps: numbers and decisions over time.

use std::collections::HashMap;

use jiff::Timestamp;
use parking_lot::Mutex;
use penstock_plan::{autoscaling::Past, numbers::History};

/// By the Dataset's UID.
#[derive(Default)]
pub struct Recent(Mutex<HashMap<String, Seen>>);

struct Seen {
    numbers: History,
    past: Past,
}

impl Recent {
    /// Looks at, or adds to, what is remembered of a Dataset.
    pub fn with<T>(&self, uid: &str, now: Timestamp, look: impl FnOnce(&mut History, &mut Past) -> T) -> T {
        let mut all = self.0.lock();
        let begin = || Seen { numbers: History::default(), past: Past::new(now) };
        let seen = all.entry(uid.to_owned()).or_insert_with(begin);
        look(&mut seen.numbers, &mut seen.past)
    }

    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}
