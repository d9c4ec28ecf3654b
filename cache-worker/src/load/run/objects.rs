//! What a load does with the objects of its targets while it goes through them: counts, has them fetched, evicts.

use std::{ops::Range, sync::Arc};

use penstock_model::{Attr, EXTENT, Object, Path};
use tokio::sync::mpsc;

use super::Load;
use crate::walk::Visit;

/// An extent that is to be fetched.
pub(super) type Job = (Arc<Object>, Range<u64>);

/// Who is shown the objects of a load's targets.
pub(super) trait Objects: Send {
    fn object(&mut self, load: &Load, object: Object);

    /// As [`Visit::pause`].
    fn pause(&mut self, _: &Load) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Shows files as objects.
pub(super) struct Files<'a, O> {
    pub(super) load: &'a Load,
    /// Or those that a glob matches.
    pub(super) all: bool,
    pub(super) objects: &'a mut O,
}

impl<O: Objects> Visit for Files<'_, O> {
    fn file(&mut self, path: Path, attr: Attr) {
        if let Some((key, version)) = attr.object
            && (self.all || self.load.targets.matches(&path))
        {
            self.objects.object(self.load, Object { key, path, version, size: attr.size });
        }
    }

    async fn pause(&mut self) {
        self.objects.pause(self.load).await;
    }
}

#[derive(Default)]
pub(super) struct Count {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) cached: u64,
}

impl Objects for Count {
    fn object(&mut self, load: &Load, object: Object) {
        // Of an empty file, the extent that it does not have.
        self.files += u64::from(load.parts.members.owns(object.key, 0));
        for extent in load.mine(&object) {
            self.bytes += extent.end - extent.start;
            self.cached += load.present(&object, &extent);
        }
    }
}

/// Has fetched what is missing of this worker's share. The walk waits for the fetches, so that a large tree takes no
/// memory.
pub(super) struct Wanted {
    found: Vec<Arc<Object>>,
    jobs: mpsc::Sender<Job>,
}

impl Wanted {
    pub(super) fn new(jobs: mpsc::Sender<Job>) -> Self {
        Self { found: Vec::new(), jobs }
    }
}

impl Objects for Wanted {
    fn object(&mut self, load: &Load, object: Object) {
        if load.mine(&object).next().is_some() {
            self.found.push(Arc::new(object));
        }
    }

    async fn pause(&mut self, load: &Load) {
        for object in self.found.drain(..) {
            for extent in load.mine(&object) {
                if load.present(&object, &extent) < extent.end - extent.start {
                    // The receiver lives as long as the walk.
                    let _ = self.jobs.send((object.clone(), extent)).await;
                }
            }
        }
    }
}

pub(super) struct Evict;

impl Objects for Evict {
    fn object(&mut self, load: &Load, object: Object) {
        for extent in 0..object.size.div_ceil(EXTENT) {
            load.parts.store.remove_extent(&object.key, extent as u32);
        }
        load.progress.lock().done_bytes += load.mine(&object).map(|extent| extent.end - extent.start).sum::<u64>();
    }
}
