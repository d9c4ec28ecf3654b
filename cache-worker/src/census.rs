//! How big the Dataset is: one walk over all its mounts, by one worker for all.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use penstock_model::{Attr, Path};
use penstock_wire::message::Failure;
use tokio::time::{Instant, sleep};

use crate::{
    members::Members,
    metadata::Catalog,
    walk::{self, Visit},
};

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
    pub(crate) async fn run(&self, members: &Members, catalog: impl Fn() -> Arc<Catalog>) {
        let mut walked: Option<(Arc<Catalog>, Option<Instant>)> = None;
        loop {
            sleep(TICK).await;
            let catalog = catalog();
            let due = walked
                .as_ref()
                .is_none_or(|(of, next)| !Arc::ptr_eq(of, &catalog) || next.is_some_and(|next| Instant::now() >= next));
            if !members.is_first() {
                *self.count.lock() = None;
                walked = None;
            } else if due {
                let next = match walk(&catalog, members).await {
                    Ok(count) => {
                        *self.count.lock() = Some(count);
                        catalog.revalidate().map(|interval| interval.max(INTERVAL))
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot count the Dataset's files");
                        Some(AFTER_FAILURE)
                    }
                };
                walked = Some((catalog, next.map(|pause| Instant::now() + pause)));
            }
        }
    }
}

impl Visit for Count {
    fn file(&mut self, _: Path, attr: Attr) {
        self.bytes += attr.size;
        self.files += 1;
    }
}

/// Asks each directory's owner, so that nobody lists what is listed already.
async fn walk(catalog: &Catalog, members: &Members) -> Result<Count, Failure> {
    let mut count = Count::default();
    let mut directories = vec![Vec::new()];
    while let Some(directory) = directories.pop() {
        match walk::directory(catalog, members, &directory, &mut count).await {
            Ok(below) => directories.extend(below),
            // Removed meanwhile, or an empty bucket.
            Err(Failure::NotFound | Failure::NotADirectory) => {}
            Err(failure) => return Err(failure),
        }
        sleep(BREATH).await;
    }
    Ok(count)
}
