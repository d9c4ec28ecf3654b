//! Answers by path: asked once by whoever comes first, shared by those who come meanwhile, kept for their lifetime.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use penstock_wire::message::Failure;
use tokio::{sync::OnceCell, time::Instant};

use super::Lifetime;

pub(super) struct Cells<V> {
    map: Mutex<Map<V>>,
    clock: AtomicU64,
    /// Sum of the weights that are kept.
    capacity: usize,
    lifetime: Lifetime,
}

struct Map<V> {
    cells: HashMap<Vec<u8>, Arc<Cell<V>>>,
    weight: usize,
}

struct Cell<V> {
    answer: OnceCell<Answer<V>>,
    used: AtomicU64,
}

struct Answer<V> {
    result: Result<V, Failure>,
    weight: usize,
    /// `None` is forever.
    until: Option<Instant>,
}

impl<V> Cell<V> {
    /// Being asked, or still good.
    fn usable(&self) -> bool {
        self.answer.get().is_none_or(|answer| answer.until.is_none_or(|until| Instant::now() < until))
    }

    fn weight(&self) -> usize {
        self.answer.get().map_or(0, |answer| answer.weight)
    }
}

impl<V: Clone> Cells<V> {
    pub(super) fn new(capacity: usize, lifetime: Lifetime) -> Self {
        let map = Mutex::new(Map { cells: HashMap::new(), weight: 0 });
        Self { map, clock: AtomicU64::new(0), capacity, lifetime }
    }

    pub(super) async fn get(
        &self,
        path: &[u8],
        weigh: impl FnOnce(&V) -> usize,
        ask: impl Future<Output = Result<V, Failure>>,
    ) -> Result<V, Failure> {
        let cell = self.cell(path);
        let mut asked = false;
        let answer = cell
            .answer
            .get_or_init(|| async {
                let result = ask.await;
                asked = true;
                let weight = result.as_ref().map_or(1, weigh).max(1);
                let until = self.lifetime.of(&result).map(|lifetime| Instant::now() + lifetime);
                Answer { result, weight, until }
            })
            .await;
        if asked {
            self.account(path, &cell);
        }
        answer.result.clone()
    }

    /// An answer that is not good any more.
    pub(super) fn outdated(&self, path: &[u8]) -> Option<Result<V, Failure>> {
        let cell = self.map.lock().cells.get(path).filter(|cell| !cell.usable())?.clone();
        Some(cell.answer.get()?.result.clone())
    }

    pub(super) fn forget(&self, path: &[u8]) {
        self.map.lock().remove(path);
    }

    fn cell(&self, path: &[u8]) -> Arc<Cell<V>> {
        let mut map = self.map.lock();
        let now = self.clock.fetch_add(1, Relaxed);
        if let Some(cell) = map.cells.get(path).filter(|cell| cell.usable()) {
            cell.used.store(now, Relaxed);
            return cell.clone();
        }
        map.remove(path);
        let cell = Arc::new(Cell { answer: OnceCell::new(), used: AtomicU64::new(now) });
        map.cells.insert(path.to_vec(), cell.clone());
        cell
    }

    /// Adds a fresh answer's weight, and drops the least recently used quarter when all weigh too much.
    fn account(&self, path: &[u8], cell: &Arc<Cell<V>>) {
        let mut map = self.map.lock();
        if !map.cells.get(path).is_some_and(|kept| Arc::ptr_eq(kept, cell)) {
            return;
        }
        map.weight += cell.weight();
        if map.weight <= self.capacity {
            return;
        }
        let mut by_use: Vec<_> = map.cells.iter().map(|(path, cell)| (cell.used.load(Relaxed), path.clone())).collect();
        by_use.sort_unstable();
        // The newest stays, however heavy it is.
        by_use.pop();
        for (_, path) in by_use {
            if map.weight <= self.capacity / 4 * 3 {
                break;
            }
            map.remove(&path);
        }
    }
}

impl<V> Map<V> {
    fn remove(&mut self, path: &[u8]) {
        if let Some(cell) = self.cells.remove(path) {
            self.weight = self.weight.saturating_sub(cell.weight());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, time::Duration};

    use super::*;

    fn cells(capacity: usize, revalidate: Option<Duration>) -> Cells<usize> {
        Cells::new(capacity, Lifetime { revalidate })
    }

    /// The answer, if there is a good one.
    fn peek(cells: &Cells<usize>, path: &[u8]) -> Option<Result<usize, Failure>> {
        let map = cells.map.lock();
        let cell = map.cells.get(path).filter(|cell| cell.usable())?;
        Some(cell.answer.get()?.result.clone())
    }

    async fn ask(cells: &Cells<usize>, path: &[u8], asked: &AtomicUsize) -> Result<usize, Failure> {
        let ask = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(asked.fetch_add(1, Relaxed))
        };
        cells.get(path, |_| 1, ask).await
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_together_ask_once_and_again_only_when_it_is_old() {
        let (cells, asked) = (cells(10, Some(Duration::from_secs(1))), AtomicUsize::new(0));
        let (a, b) = tokio::join!(ask(&cells, b"a", &asked), ask(&cells, b"a", &asked));
        assert_eq!((a, b), (Ok(0), Ok(0)));
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!((ask(&cells, b"a", &asked).await, peek(&cells, b"a")), (Ok(0), Some(Ok(0))));
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!((peek(&cells, b"a"), ask(&cells, b"a", &asked).await), (None, Ok(1)));
        assert_eq!(cells.outdated(b"a"), None);
        tokio::time::advance(Duration::from_millis(1100)).await;
        assert_eq!(cells.outdated(b"a"), Some(Ok(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_not_kept_but_absence_is_for_a_while() {
        let cells = cells(10, None);
        for (failure, kept) in [(Failure::NotFound, true), (Failure::Ufs("500".into()), false)] {
            assert_eq!(cells.get(b"x", |_| 1, async { Err(failure.clone()) }).await, Err(failure));
            assert_eq!(cells.get(b"x", |_| 1, async { Ok(7) }).await.is_err(), kept);
            cells.forget(b"x");
        }
    }

    #[tokio::test]
    async fn the_longest_unused_goes_first_and_weights_add_up() {
        let (cells, asked) = (cells(8, None), AtomicUsize::new(0));
        for path in 0..9u8 {
            ask(&cells, &[path], &asked).await.unwrap();
            ask(&cells, &[0], &asked).await.unwrap();
        }
        assert!(peek(&cells, &[0]).is_some() && peek(&cells, &[8]).is_some() && peek(&cells, &[1]).is_none());
        let map = cells.map.lock();
        assert_eq!(map.weight, map.cells.len());
    }
}
