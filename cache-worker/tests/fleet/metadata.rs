//! Names and attributes, as they change.

use penstock_wire::message::{Change, Stats};
use tokio::time::timeout;

use super::{
    common::{Plan, Worker},
    *,
};

const INTERVAL: Duration = Duration::from_millis(400);

impl Fleet {
    /// Whose metadata is looked at again after [`INTERVAL`].
    async fn revalidating(workers: usize) -> Self {
        Self::with(workers, Plan { revalidate_ms: Some(INTERVAL.as_millis() as u64), ..Plan::default() }).await
    }

    fn put(&self, path: &str, content: impl Into<Bytes>) {
        self.s3.put("data", path, content).unwrap();
    }

    /// Waits until each worker has asked each of its mounts for a sign of life, as it does once when it starts.
    async fn probed(&self) {
        for worker in &self.workers {
            let serving = |stats: &Stats| stats.mounts.iter().all(|mount| mount.health == MountHealth::Serving);
            eventually("all mounts serve", async || serving(&self.stats(worker).await)).await;
        }
    }

    /// Where each worker's record of changes ends.
    async fn listen(&self) -> Vec<u64> {
        let mut ends = Vec::new();
        for worker in &self.workers {
            ends.push(self.changes(worker, None).await.0);
        }
        ends
    }

    async fn changes(&self, worker: &Worker, since: Option<u64>) -> (u64, Vec<Change>) {
        match self.client.call(&worker.address(), Request::Changes { since }).await.unwrap() {
            Response::Changes { next, changes } => (next, changes.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until all that is `wanted` was told, by whichever worker.
    async fn hear(&self, mut since: Vec<u64>, wanted: &[&str]) {
        let mut missing: Vec<Change> = wanted.iter().map(|path| Change::Entry(path.as_bytes().to_vec())).collect();
        eventually("all changes", async || {
            for (worker, since) in self.workers.iter().zip(&mut since) {
                let told = timeout(Duration::from_millis(100), self.changes(worker, Some(*since))).await;
                if let Ok((next, changes)) = told {
                    *since = next;
                    missing.retain(|change| !changes.contains(change));
                }
            }
            missing.is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_directory_is_listed_once_for_all_and_a_first_page_needs_little_of_it() {
    let fleet = Fleet::new(2).await;
    for i in 0..15_200 {
        fleet.put(&format!("big/f{i:05}"), "");
    }
    fleet.probed().await;
    fleet.s3.reset_counts();
    let key = PlacementKey::directory(b"big");
    let first = Request::List { path: "big".into(), after: None, limit: 1000 };
    let pages = join_all((0..8).map(|_| fleet.ask(key, first.clone()))).await;
    for page in pages {
        let Ok(Response::Entries { entries, more: true, .. }) = page else { panic!("{page:?}") };
        assert_eq!(entries[0].name, b"f00000");
    }
    let begun = fleet.s3.requests().list;
    assert!(begun < 12, "{begun} calls for a first page");
    let absent = fleet.stat("big/f00007x").await;
    assert_eq!((absent, fleet.s3.requests().head), (Err(Failure::NotFound), 0), "the listing has come past it");
    let names = fleet.names("big").await.unwrap();
    assert!(names.into_iter().eq((0..15_200).map(|i| format!("f{i:05}"))));
    // The root's besides, for the Dataset's size.
    let lists = fleet.s3.requests().list;
    assert!(lists <= 16 + 1, "{lists} calls");
    assert_eq!(fleet.stat("big/f15199").await.unwrap().size, 0);
    assert_eq!(fleet.s3.requests().head, 0);
}

/// Of the first worker only the count of the Dataset's files asks the UFS by itself, and it is over before the list changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_list_asks_no_ufs_and_a_new_mount_asks_its_own() {
    let mut fleet = Fleet::new(2).await;
    fleet.put("x", "");
    fleet.probed().await;
    eventually("the count of files", async || fleet.stats(&fleet.workers[0]).await.ufs_files.is_some()).await;
    fleet.s3.reset_counts();

    // As an operator's new list reaches a worker: by its file.
    let id = fleet.workers[1].member.id.clone();
    fleet.list.epoch += 1;
    fleet.write_config(&id);
    eventually("the new list", async || fleet.stats(&fleet.workers[1]).await.epoch == fleet.list.epoch).await;

    // Changes are taken in order: whatever the list asked for has been asked when the next one shows.
    fleet.mounts.push(mount(&fleet.s3, "deep/er"));
    fleet.write_config(&id);
    let mounts = async || fleet.stats(&fleet.workers[1]).await.mounts;
    eventually("the new mount", async || {
        let mounts = mounts().await;
        mounts.len() == 2 && mounts.iter().all(|mount| mount.health == MountHealth::Serving)
    })
    .await;
    assert_eq!(fleet.s3.requests().list, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_listens_hears_what_an_owner_finds_changed_and_what_a_read_does() {
    let fleet = Fleet::revalidating(2).await;
    for i in 0..5 {
        fleet.put(&format!("d/f{i}"), noise(i, 1000));
    }
    fleet.names("d").await.unwrap();
    fleet.put("other/x", "one");
    fleet.stat("other/x").await.unwrap();
    let since = fleet.listen().await;
    fleet.put("d/f1", "changed");
    fleet.put("d/new", "");
    fleet.s3.remove("data", "d/f3");
    fleet.put("other/x", "two");
    sleep(INTERVAL).await;
    fleet.names("d").await.unwrap();
    fleet.stat("other/x").await.unwrap();
    fleet.hear(since, &["d/f1", "d/f3", "d/new", "other/x"]).await;

    let object = fleet.object("d/f4").await;
    let since = fleet.listen().await;
    fleet.put("d/f4", noise(9, 1000));
    assert_eq!(fleet.read(&object, Pattern::Sequential).await, Err(Failure::Stale));
    fleet.hear(since, &["d/f4"]).await;
}

/// The model: what was put last. Whatever is shown is one version whole, and after the interval it is the last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_is_seen_within_the_interval_and_never_mixed() {
    let fleet = Fleet::revalidating(2).await;
    let path = |file: usize| format!("d{}/f{}", file % 3, file);
    let content = |file: usize, version: usize| noise(file * 1000 + version, 1000 + version);
    let mut model: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut random = 12345usize;
    for step in 0..12 {
        for _ in 0..4 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let file = (random >> 33) % 9;
            if (random >> 50).is_multiple_of(3) {
                fleet.s3.remove("data", &path(file));
                model.remove(&path(file));
            } else {
                fleet.put(&path(file), content(file, step));
                model.insert(path(file), (file, step));
            }
        }
        // At once: any version, but a whole one.
        for file in 0..9 {
            let Ok(attr) = fleet.stat(&path(file)).await else { continue };
            let (key, version) = attr.object.unwrap();
            let object = Object { key, path: path(file).into(), version, size: attr.size };
            match fleet.read(&object, Pattern::Random).await {
                Ok(data) => assert!(data == content(file, data.len() - 1000), "step {step}: a mixture of versions"),
                Err(failure) => assert!(matches!(failure, Failure::Stale | Failure::NotFound), "{failure:?}"),
            }
        }
        sleep(INTERVAL).await;
        for directory in 0..3 {
            let directory = format!("d{directory}");
            let wanted: Vec<_> =
                model.keys().filter_map(|path| Some(path.strip_prefix(&directory)?[1..].to_owned())).collect();
            let names = fleet.names(&directory).await.unwrap_or_default();
            assert_eq!(names, wanted, "step {step}");
        }
        for file in 0..9 {
            let size = fleet.stat(&path(file)).await.ok().map(|attr| attr.size);
            let wanted = model.get(&path(file)).map(|(_, version)| 1000 + *version as u64);
            assert_eq!(size, wanted, "step {step}: {}", path(file));
        }
    }
}
