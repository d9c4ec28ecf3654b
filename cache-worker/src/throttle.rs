//! Not more than so many bytes per second.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// What was not used may be caught up with for so long.
const SLACK: Duration = Duration::from_millis(250);

pub(crate) struct Throttle {
    rate: f64,
    /// When the next bytes may go.
    next: Mutex<Instant>,
}

impl Throttle {
    /// `rate` in bytes per second.
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate: rate.max(1) as f64, next: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` may go.
    pub(crate) async fn take(&self, bytes: u64) {
        let start = {
            let mut next = self.next.lock();
            let start = (*next).max(Instant::now() - SLACK);
            *next = start + Duration::from_secs_f64(bytes as f64 / self.rate);
            start
        };
        sleep_until(start).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_pauses_are_not_made_up_for() {
        let (throttle, begun) = (Throttle::new(1000), Instant::now());
        for _ in 0..100 {
            throttle.take(100).await;
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((9.6..=10.0).contains(&took), "{took}");
        tokio::time::advance(Duration::from_mins(1)).await;
        let begun = Instant::now();
        for _ in 0..100 {
            throttle.take(100).await;
        }
        assert!(begun.elapsed().as_secs_f64() > 9.5, "{:?}", begun.elapsed());
    }
}
