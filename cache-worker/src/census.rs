//! How big the Dataset is: one walk over all its mounts, by one worker for all.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use penstock_ufs::UfsError;
use penstock_wire::message::Kind;
use tokio::time::{Instant, sleep};

use crate::{members::Members, metadata::View, source::Source};

const TICK: Duration = Duration::from_secs(2);
/// Between walks that succeed, at least; a static Dataset is walked once per configuration.
const INTERVAL: Duration = Duration::from_mins(10);
const AFTER_FAILURE: Duration = Duration::from_mins(1);
/// Between two directories, so that a walk is never what a UFS notices.
const BREATH: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

#[derive(Default)]
pub(crate) struct Census {
    count: Mutex<Option<Count>>,
}

impl Census {
    pub(crate) fn count(&self) -> Option<Count> {
        *self.count.lock()
    }

    /// Walks whenever this worker's id is the lowest of the list and a walk is due.
    pub(crate) async fn run(&self, members: &Members, view: impl Fn() -> Arc<View>) {
        let mut walked: Option<(Arc<View>, Option<Instant>)> = None;
        loop {
            sleep(TICK).await;
            let view = view();
            let due = walked
                .as_ref()
                .is_none_or(|(of, next)| !Arc::ptr_eq(of, &view) || next.is_some_and(|next| Instant::now() >= next));
            if !members.is_first() {
                *self.count.lock() = None;
                walked = None;
            } else if due {
                let next = match walk(&view).await {
                    Ok(count) => {
                        *self.count.lock() = Some(count);
                        view.revalidate().map(|interval| interval.max(INTERVAL))
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot count the Dataset's files");
                        Some(AFTER_FAILURE)
                    }
                };
                walked = Some((view, next.map(|pause| Instant::now() + pause)));
            }
        }
    }
}

async fn walk(view: &View) -> Result<Count, UfsError> {
    let mut count = Count::default();
    for source in view.namespace.mounts() {
        walk_mount(source, &mut count).await?;
    }
    Ok(count)
}

async fn walk_mount(source: &Source, count: &mut Count) -> Result<(), UfsError> {
    let mut directories = vec![Vec::new()];
    while let Some(directory) = directories.pop() {
        let visited = source.visit(&directory, |entry| match entry.status.kind {
            Kind::File => {
                count.bytes += entry.status.size;
                count.files += 1;
            }
            Kind::Directory if directory.is_empty() => directories.push(entry.name),
            Kind::Directory => directories.push([&directory, &b"/"[..], &entry.name].concat()),
            Kind::Symlink => {}
        });
        match visited.await {
            // Removed meanwhile, or an empty bucket.
            Err(UfsError::NotFound | UfsError::NotADirectory) => {}
            visited => visited?,
        }
        sleep(BREATH).await;
    }
    Ok(())
}
