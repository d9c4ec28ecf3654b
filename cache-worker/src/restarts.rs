//! Workers that only start again: whoever asks one for bytes waits for it, rather than for the UFS.

use std::{collections::HashMap, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// By worker id, until when it is waited for.
#[derive(Debug, Default)]
pub(crate) struct Restarts(watch::Sender<HashMap<String, Instant>>);

impl Restarts {
    /// `id` is away, and waited for `within` that time; it is back when that is zero.
    pub(crate) fn expect(&self, id: String, within: Duration) {
        let now = Instant::now();
        self.0.send_modify(|away| {
            away.insert(id, now + within);
            away.retain(|_, until| now < *until);
        });
    }

    /// Only those stay that `is_there` is true of.
    pub(crate) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.0.send_if_modified(|away| {
            let before = away.len();
            away.retain(|id, _| is_there(id));
            away.len() < before
        });
    }

    pub(crate) fn is_away(&self, id: &str) -> bool {
        self.0.borrow().get(id).is_some_and(|until| Instant::now() < *until)
    }

    /// Returns when `id` is not away, or has been away for too long.
    pub(crate) async fn back(&self, id: &str) {
        let mut away = self.0.subscribe();
        loop {
            let until = away.borrow_and_update().get(id).copied();
            let Some(until) = until.filter(|until| Instant::now() < *until) else { return };
            // Some other worker may have come or gone meanwhile.
            let _ = timeout_at(until, away.changed()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn who_is_away_is_waited_for_until_it_is_back_or_the_time_is_over() {
        let restarts = Restarts::default();
        let begun = Instant::now();
        restarts.back("w-0").await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody is away");
        restarts.expect("w-0".into(), LONG);
        restarts.expect("w-1".into(), 2 * LONG);
        assert!(restarts.is_away("w-0") && restarts.is_away("w-1") && !restarts.is_away("w-2"));
        let back_after = async |id: &str| {
            restarts.back(id).await;
            begun.elapsed()
        };
        let (first, second, ()) = tokio::join!(back_after("w-0"), back_after("w-1"), async {
            tokio::time::sleep(LONG / 5).await;
            restarts.expect("w-1".into(), Duration::ZERO);
        });
        assert_eq!((first, second), (LONG, LONG / 5));
        assert!(!restarts.is_away("w-0") && !restarts.is_away("w-1"));
        restarts.expect("w-2".into(), LONG);
        let begun = Instant::now();
        tokio::join!(restarts.back("w-2"), async { restarts.retain(|id| id != "w-2") });
        assert_eq!(begun.elapsed(), Duration::ZERO, "it has left");
    }
}
