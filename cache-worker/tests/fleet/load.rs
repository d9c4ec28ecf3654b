//! Loads: what reaches the UFS, what is told, and what is in the cache afterwards.

use penstock_wire::message::{LoadOrder, LoadProgress, LoadState, LoadTarget};

use super::*;

impl Fleet {
    async fn order(&self, orders: &[LoadOrder]) {
        for worker in &self.workers {
            let request = Request::SetLoads(orders.to_vec());
            self.operator.call(&worker.address(), request).await.unwrap();
        }
    }

    /// The sum over all workers, once all are done by the present list.
    async fn loaded(&self, id: &str) -> LoadProgress {
        let mut sum = LoadProgress::default();
        eventually("the load is done", async || {
            sum = LoadProgress { id: id.into(), state: LoadState::Done, ..LoadProgress::default() };
            for worker in &self.workers {
                let stats = self.stats(worker).await;
                let Some(part) = stats.loads.iter().find(|load| load.id == id) else { return false };
                if part.state != LoadState::Done || part.epoch != self.list.epoch {
                    return false;
                }
                sum.files += part.files;
                sum.bytes += part.bytes;
                sum.done_bytes += part.done_bytes;
                sum.cached_bytes += part.cached_bytes;
                sum.failed_files += part.failed_files;
                sum.failures.extend(part.failures.clone());
            }
            true
        })
        .await;
        sum
    }
}

fn all(id: &str) -> LoadOrder {
    LoadOrder { id: id.into(), ..LoadOrder::default() }
}

fn bytes(files: &BTreeMap<String, Bytes>) -> u64 {
    files.values().map(|content| content.len() as u64).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_fetches_every_byte_once_and_readers_then_fetch_nothing() {
    let (fleet, files) = Fleet::over_files(4).await;
    let some = files.keys().next().unwrap();
    let object = fleet.object(some).await;
    fleet.read(&object, Pattern::Sequential).await.unwrap();
    fleet.order(&[all("a")]).await;
    let loaded = fleet.loaded("a").await;
    let total = bytes(&files);
    assert_eq!((loaded.files, loaded.bytes, loaded.cached_bytes), (files.len() as u64, total, total));
    assert_eq!((loaded.done_bytes, loaded.failed_files), (total, 0), "{:?}", loaded.failures);
    assert_eq!(fleet.s3.sent_bytes(), total, "what was there already is not fetched");
    fleet.check(&files).await;
    assert_eq!(fleet.s3.sent_bytes(), total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_and_globs_say_what_is_loaded_and_what_is_evicted() {
    let mut fleet = Fleet::new(0).await;
    for (path, size) in [("a/1.csv", 5 << 20), ("a/b/2.csv", 300_000), ("a/b/3.txt", 100), ("c/4.csv", 7), ("empty", 0)]
    {
        fleet.s3.put("data", path, noise(size, size)).unwrap();
    }
    fleet.scale(2).await;
    let path = |path: &str| LoadTarget::Path(path.into());
    let targets = vec![path("c"), path("empty"), path("gone"), LoadTarget::Glob("a/**/*.csv".into())];
    fleet.order(&[LoadOrder { targets, ..all("some") }]).await;
    let some = fleet.loaded("some").await;
    assert_eq!((some.files, some.bytes, some.cached_bytes), (4, (5 << 20) + 300_007, (5 << 20) + 300_007));
    assert!(some.failures.iter().all(|(path, reason)| path == "/gone" && reason.contains("no such file")), "{some:?}");

    let evict = LoadOrder { targets: vec![path("a")], evict: true, ..all("out") };
    fleet.order(&[evict]).await;
    let out = fleet.loaded("out").await;
    assert_eq!((out.files, out.bytes, out.cached_bytes), (3, (5 << 20) + 300_100, 0));
    let mut cached = 0;
    for worker in &fleet.workers {
        cached += fleet.stats(worker).await.cached_bytes;
    }
    assert_eq!(cached, 7, "what was not evicted stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_goes_on_through_restarts_and_follows_scaling() {
    let (mut fleet, files) = Fleet::over_files(2).await;
    let slow = LoadOrder { bandwidth: Some(16 << 20), ..all("slow") };
    fleet.order(std::slice::from_ref(&slow)).await;
    eventually("it has begun", async || fleet.s3.sent_bytes() > 0).await;
    fleet.workers[1].stop().await;
    fleet.workers[1].start();
    fleet.ready(&fleet.workers[1]).await;
    fleet.scale(4).await;
    fleet.order(&[slow]).await;
    let loaded = fleet.loaded("slow").await;
    assert_eq!((loaded.files, loaded.bytes), (files.len() as u64, bytes(&files)));
    assert_eq!(loaded.cached_bytes, bytes(&files), "{:?}", loaded.failures);
    fleet.check(&files).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_load_takes_what_is_new_and_what_cannot_be_read_is_named() {
    let mut fleet = Fleet::with(0, common::Plan { revalidate_ms: Some(200), ..common::Plan::default() }).await;
    fleet.s3.put("data", "d/a", noise(1, 1000)).unwrap();
    fleet.s3.put_archived("data", "d/b", noise(2, 1000)).unwrap();
    fleet.scale(2).await;
    fleet.order(&[all("once")]).await;
    let once = fleet.loaded("once").await;
    assert_eq!((once.files, once.bytes, once.cached_bytes, once.failed_files), (2, 2000, 1000, 1));
    assert_eq!(once.failures[0].0, "/d/b", "{once:?}");
    fleet.s3.remove("data", "d/b");
    fleet.s3.put("data", "d/c", noise(3, 500)).unwrap();
    sleep(Duration::from_millis(300)).await;
    fleet.order(&[LoadOrder { load_metadata: true, ..all("again") }]).await;
    let again = fleet.loaded("again").await;
    assert_eq!((again.files, again.bytes, again.cached_bytes, again.failed_files), (2, 1500, 1500, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_taken_back_ends() {
    let (fleet, _) = Fleet::over_files(2).await;
    fleet.order(&[LoadOrder { bandwidth: Some(1 << 20), ..all("slow") }]).await;
    eventually("it has begun", async || fleet.s3.sent_bytes() > 0).await;
    fleet.order(&[]).await;
    for worker in &fleet.workers {
        assert_eq!(fleet.stats(worker).await.loads, []);
    }
}
