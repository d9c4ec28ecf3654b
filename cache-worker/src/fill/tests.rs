use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use futures::future::join_all;
use penstock_model::{Medium, PAGE, Version};
use penstock_store::TierOptions;

use super::{admission::IN_FLIGHT, *};

/// Gives bytes by a formula, slowly, and remembers what it gave.
#[derive(Default)]
struct Formula {
    given: Mutex<Vec<Range<u64>>>,
    fail: AtomicU64,
}

impl Origin for Formula {
    async fn fetch(&self, _: &Object, range: Range<u64>, _: Reach) -> Result<Bytes, Failure> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if self.fail.load(SeqCst) > 0 {
            self.fail.fetch_sub(1, SeqCst);
            return Err(Failure::Ufs("no".into()));
        }
        self.given.lock().push(range.clone());
        Ok(bytes_of(range))
    }
}

fn bytes_of(range: Range<u64>) -> Bytes {
    range.map(|i| (i / 7 % 251) as u8).collect::<Vec<_>>().into()
}

fn object() -> Arc<Object> {
    Arc::new(Object {
        key: ObjectKey(5),
        path: b"a".to_vec(),
        version: Version("v".into()),
        size: EXTENT + 3 * PAGE + 9,
    })
}

fn fills(dir: &tempfile::TempDir, quota: u64) -> Fills<Formula> {
    let tier = TierOptions { medium: Medium::Ssd, dir: dir.path().into(), quota, high: 0.95, low: 0.9 };
    Fills::new(Store::open(vec![tier]), Formula::default(), Arc::new(Metrics::new()))
}

async fn read(fills: &Fills<Formula>, range: Range<u64>, pattern: Pattern) {
    assert_eq!(fills.read(&object(), range.clone(), pattern, Reach::Ufs).await.unwrap(), bytes_of(range));
}

fn given(fills: &Fills<Formula>) -> Vec<Range<u64>> {
    let mut given = std::mem::take(&mut *fills.inner.origin.given.lock());
    given.sort_by_key(|range| range.start);
    given
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_miss_fetches_its_pages_a_sequential_one_the_rest_of_the_extent() {
    let dir = tempfile::tempdir().unwrap();
    let fills = fills(&dir, 64 << 20);
    read(&fills, PAGE + 5..PAGE + 9, Pattern::Random).await;
    assert_eq!(given(&fills), [PAGE..2 * PAGE]);
    read(&fills, PAGE - 1..2 * PAGE + 1, Pattern::Random).await;
    assert_eq!(given(&fills), [0..PAGE, 2 * PAGE..3 * PAGE]);
    read(&fills, 10..20, Pattern::Sequential).await;
    read(&fills, EXTENT - 1..EXTENT, Pattern::Random).await;
    assert_eq!(given(&fills), [3 * PAGE..EXTENT]);
    let size = object().size;
    read(&fills, EXTENT..EXTENT + 1, Pattern::Sequential).await;
    read(&fills, size - 3..size, Pattern::Sequential).await;
    assert_eq!(given(&fills), [EXTENT..size]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_requests_never_fetch_a_page_twice() {
    let dir = tempfile::tempdir().unwrap();
    let fills = fills(&dir, 64 << 20);
    let reads = (0..60u64).map(|i| {
        let start = (i * 977) % (EXTENT - PAGE * 3);
        let pattern = if i % 7 == 0 { Pattern::Sequential } else { Pattern::Random };
        read(&fills, start..start + 1 + (i * 7919) % (3 * PAGE), pattern)
    });
    join_all(reads).await;
    read(&fills, 0..EXTENT, Pattern::Random).await;
    assert_eq!(given(&fills).iter().map(|range| range.end - range.start).sum::<u64>(), EXTENT);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(fills.inner.flights.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_no_tier_takes_are_served_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let fills = fills(&dir, 1);
    read(&fills, 3..EXTENT, Pattern::Sequential).await;
    read(&fills, 3..EXTENT, Pattern::Random).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fetch_fails_those_who_waited_and_is_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let fills = fills(&dir, 64 << 20);
    fills.inner.origin.fail.store(1, SeqCst);
    let object = object();
    let waiting = (0..5).map(|_| fills.read(&object, 0..9, Pattern::Random, Reach::Ufs));
    assert!(join_all(waiting).await.iter().all(|r| *r == Err(Failure::Ufs("no".into()))));
    tokio::time::sleep(Duration::from_millis(20)).await;
    read(&fills, 0..9, Pattern::Random).await;
}

/// Gives nothing, and counts who waits for how much.
#[derive(Default)]
struct Silence(AtomicU64);

impl Origin for Silence {
    async fn fetch(&self, _: &Object, range: Range<u64>, _: Reach) -> Result<Bytes, Failure> {
        self.0.fetch_add(range.end - range.start, SeqCst);
        std::future::pending().await
    }
}

#[tokio::test]
async fn bytes_on_their_way_are_bounded_whatever_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let tier = TierOptions { medium: Medium::Ssd, dir: dir.path().into(), quota: 64 << 20, high: 0.95, low: 0.9 };
    let fills = Fills::new(Store::open(vec![tier]), Silence::default(), Arc::new(Metrics::new()));
    let objects: Vec<_> =
        (0..250).map(|key| Arc::new(Object { key: ObjectKey(key), size: 4 * EXTENT, ..(*object()).clone() })).collect();
    let one_byte = |at: usize| {
        let extent = (at % 4) as u64 * EXTENT;
        fills.read(&objects[at / 4], extent..extent + 1, Pattern::Sequential, Reach::Ufs)
    };
    let waiting = join_all((0..1000).map(one_byte));
    assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());
    let asked = fills.inner.origin.0.load(SeqCst);
    assert!((IN_FLIGHT / 2..=IN_FLIGHT).contains(&asked), "{asked} bytes on their way");
}
