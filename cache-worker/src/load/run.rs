//! One load, from its order to its end.

mod objects;

use std::{collections::HashSet, ops::Range, sync::Arc, time::Duration};

use parking_lot::Mutex;
use penstock_model::{EXTENT, Kind, Object, ObjectKey, Path};
use penstock_wire::message::{Failure, LoadOrder, LoadProgress, LoadState, Pattern, Reach};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::sleep,
};

use self::objects::{Count, Evict, Files, Objects, Wanted};
use super::{Parts, targets::Targets};
use crate::{
    metadata::Catalog,
    throttle::Throttle,
    walk::{self, Visit},
};

/// Fetches of one load at once.
const FETCHES: usize = 64;
/// Bytes of one load on their way at once, in units of [`UNIT`], and while readers are about.
const ROOM: u32 = 128;
const UNIT: u64 = 512 << 10;
/// While readers are about, a fetch takes so many times the room that it needs.
const POLITE: u32 = 8;
/// Readers are about for so long after one asked.
const ABOUT: Duration = Duration::from_millis(500);
/// Failed files that are named.
const NAMED: usize = 10;
const PASSES: usize = 3;
/// After a pass that could not go on or left something; between two passes that look for changes.
const AGAIN: Duration = Duration::from_secs(5);
const FOLLOW: Duration = Duration::from_secs(30);

struct Load {
    parts: Arc<Parts>,
    order: LoadOrder,
    targets: Targets,
    throttle: Option<Throttle>,
    room: Semaphore,
    progress: Arc<Mutex<LoadProgress>>,
    failed: Mutex<HashSet<ObjectKey>>,
}

pub(super) async fn run(parts: Arc<Parts>, order: LoadOrder, progress: Arc<Mutex<LoadProgress>>) {
    let targets = match Targets::new(&order.targets) {
        Ok(targets) => targets,
        Err(reason) => return refuse(&parts, &progress, reason),
    };
    let load = Arc::new(Load {
        targets,
        throttle: order.bandwidth.map(Throttle::new),
        room: Semaphore::new(ROOM as usize),
        failed: Mutex::default(),
        parts,
        order,
        progress,
    });
    let mut lists = load.parts.members.lists();
    let mut renew = load.order.load_metadata;
    loop {
        let epoch = lists.borrow_and_update().epoch;
        let passed = tokio::select! {
            passed = load.passes(epoch, renew) => passed,
            _ = lists.changed() => continue,
        };
        renew = load.order.follow;
        let pause = match passed {
            Ok(()) if load.order.follow => FOLLOW,
            Ok(()) => Duration::MAX,
            Err(failure) => {
                tracing::debug!(id = load.order.id, %failure, "a load cannot go on; it will be tried again");
                load.note(&Path::new(), &failure.to_string());
                AGAIN
            }
        };
        tokio::select! {
            () = sleep(pause.min(Duration::from_hours(24 * 365))) => {}
            _ = lists.changed() => {}
        }
    }
}

/// Nothing can be done as ordered.
fn refuse(parts: &Parts, progress: &Mutex<LoadProgress>, reason: String) {
    let mut progress = progress.lock();
    (progress.state, progress.epoch) = (LoadState::Done, parts.members.list().epoch);
    (progress.failed_files, progress.failures) = (1, vec![("/".into(), reason)]);
}

impl Load {
    /// As many passes as it takes, within reason: a tier may be out of use for a moment, or files may change.
    async fn passes(self: &Arc<Self>, epoch: u64, renew: bool) -> Result<(), Failure> {
        for pass in 1..=PASSES {
            self.pass(epoch, renew && pass == 1).await?;
            if pass == PASSES || self.is_reached() {
                break;
            }
            sleep(AGAIN).await;
        }
        self.progress.lock().state = LoadState::Done;
        Ok(())
    }

    /// Whether another pass would change nothing.
    fn is_reached(&self) -> bool {
        let progress = self.progress.lock();
        let wanted = if self.order.evict { 0 } else { progress.bytes };
        progress.failed_files > 0 || progress.cached_bytes == wanted
    }

    async fn pass(self: &Arc<Self>, epoch: u64, renew: bool) -> Result<(), Failure> {
        self.failed.lock().clear();
        let id = self.order.id.clone();
        *self.progress.lock() = LoadProgress { id, epoch, ..LoadProgress::default() };
        let catalog = self.parts.catalogs.current();
        if renew && self.parts.members.is_first() {
            self.forget(&catalog).await;
        }
        let mut total = Count::default();
        self.walk(&catalog, &mut total).await?;
        {
            let mut progress = self.progress.lock();
            (progress.files, progress.bytes, progress.cached_bytes) = (total.files, total.bytes, total.cached);
            progress.done_bytes = if self.order.evict { 0 } else { total.cached };
            progress.state = LoadState::Running;
        }
        if self.order.evict {
            self.evict(&catalog).await?;
        } else {
            self.fetch(&catalog).await?;
        }
        let mut left = Count::default();
        self.walk(&catalog, &mut left).await?;
        let mut progress = self.progress.lock();
        (progress.files, progress.bytes, progress.cached_bytes) = (left.files, left.bytes, left.cached);
        progress.done_bytes = left.bytes;
        Ok(())
    }

    /// What is known of the targets' directories is asked anew.
    async fn forget(&self, catalog: &Catalog) {
        for path in self.targets.paths.iter().chain(&self.targets.roots) {
            // A path is forgotten with its directory's listing, so a name in it stands for all.
            let inner = if path.is_empty() { b"-".to_vec() } else { [path, b"/-".as_slice()].concat() };
            for path in [path, &inner] {
                catalog.forget(path);
                self.parts.members.spread_forget(path).await;
            }
        }
    }

    /// Shows every file of the targets, as an object.
    async fn walk(&self, catalog: &Catalog, objects: &mut impl Objects) -> Result<(), Failure> {
        for path in &self.targets.paths {
            match catalog.stat(path).await.map(|told| told.value) {
                Ok(attr) if attr.kind == Kind::File => {
                    let mut files = Files { load: self, all: true, objects };
                    files.file(path.clone(), attr);
                    files.pause().await;
                }
                Ok(_) => self.below(catalog, path.clone(), true, objects).await?,
                Err(Failure::NotFound | Failure::NotADirectory) => {
                    self.note(path, "there is no such file or directory");
                }
                Err(failure) => return Err(failure),
            }
        }
        for root in &self.targets.roots {
            self.below(catalog, root.clone(), false, objects).await?;
        }
        Ok(())
    }

    /// Of the files below `root` all, or those that a glob matches.
    async fn below(&self, catalog: &Catalog, root: Path, all: bool, objects: &mut impl Objects) -> Result<(), Failure> {
        let mut directories = vec![root];
        while let Some(directory) = directories.pop() {
            let mut files = Files { load: self, all, objects };
            match walk::directory(catalog, &self.parts.members, &directory, &mut files).await {
                Ok(below) => directories.extend(below),
                // Removed meanwhile.
                Err(Failure::NotFound | Failure::NotADirectory) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// The parts of an object that this worker owns.
    fn mine(&self, object: &Object) -> impl Iterator<Item = Range<u64>> {
        let (key, size) = (object.key, object.size);
        let extents = (0..size.div_ceil(EXTENT)).map(move |n| n * EXTENT..((n + 1) * EXTENT).min(size));
        extents.filter(move |extent| self.parts.members.owns(key, extent.start))
    }

    fn present(&self, object: &Object, extent: &Range<u64>) -> u64 {
        let missing = self.parts.store.missing(&object.key, object.size, extent.clone());
        extent.end - extent.start - missing.iter().map(|hole| hole.end - hole.start).sum::<u64>()
    }

    async fn fetch(self: &Arc<Self>, catalog: &Catalog) -> Result<(), Failure> {
        let (sender, mut jobs) = mpsc::channel(FETCHES);
        let walked = async {
            // Goes with the walk, and the fetches end when they have caught up.
            let mut wanted = Wanted::new(sender);
            self.walk(catalog, &mut wanted).await
        };
        let fetched = async {
            let mut fetches = JoinSet::new();
            while let Some((object, extent)) = jobs.recv().await {
                while fetches.len() >= FETCHES {
                    fetches.join_next().await;
                }
                fetches.spawn(self.clone().fetch_one(object, extent));
            }
            fetches.join_all().await;
        };
        tokio::join!(walked, fetched).0
    }

    async fn fetch_one(self: Arc<Self>, object: Arc<Object>, extent: Range<u64>) {
        let missing = extent.end - extent.start - self.present(&object, &extent);
        let units = missing.div_ceil(UNIT) as u32;
        let units = if self.parts.readers.are_about(ABOUT) { (units * POLITE).min(ROOM) } else { units };
        // Never closed.
        let _room = self.room.acquire_many(units).await;
        if let Some(throttle) = &self.throttle {
            throttle.take(missing).await;
        }
        match self.parts.fills.keep(&object, extent, Pattern::Sequential, Reach::Owner).await {
            Ok(()) => self.progress.lock().done_bytes += missing,
            // Another version, or gone: the count at the end tells what is there.
            Err(Failure::Stale | Failure::NotFound) => {
                self.parts.catalogs.current().forget(&object.path);
                self.parts.members.spread_forget(&object.path).await;
            }
            Err(failure) => {
                if self.failed.lock().insert(object.key) {
                    self.note(&object.path, &failure.to_string());
                }
            }
        }
    }

    async fn evict(&self, catalog: &Catalog) -> Result<(), Failure> {
        self.walk(catalog, &mut Evict).await
    }

    fn note(&self, path: &[u8], reason: &str) {
        let mut progress = self.progress.lock();
        let path = format!("/{}", String::from_utf8_lossy(path));
        if progress.failures.iter().any(|(known, _)| *known == path) {
            return;
        }
        progress.failed_files += 1;
        if progress.failures.len() < NAMED {
            progress.failures.push((path, reason.to_owned()));
        }
    }
}
