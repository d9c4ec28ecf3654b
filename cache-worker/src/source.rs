//! One mount's UFS as the worker uses it: timed, counted, tried again, and with its trouble remembered.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    FutureExt, Stream, StreamExt,
    stream::{self, BoxStream},
};
use parking_lot::Mutex;
use penstock_model::Version;
use penstock_ufs::{ListedPage, OpenMount, Status, Ufs, UfsError};
use penstock_wire::message::{Failure, MountHealth, MountTrouble, TroubleKind};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use crate::{config::MountSpec, metrics::Metrics};

/// Range reads in flight per mount: at most 4 MiB each.
const FETCHES: usize = 24;
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Source {
    pub(crate) spec: MountSpec,
    ufs: Result<Arc<dyn Ufs>, UfsError>,
    health: Mutex<MountHealth>,
    fetches: Semaphore,
    metrics: Arc<Metrics>,
}

impl Source {
    pub(crate) fn open(spec: MountSpec, metrics: Arc<Metrics>) -> Self {
        let ufs = open(&spec.source, spec.options.as_ref());
        let trouble = ufs.as_ref().err().and_then(trouble);
        let source = Self { spec, ufs, health: Mutex::default(), fetches: Semaphore::new(FETCHES), metrics };
        if let Some(trouble) = trouble {
            source.note(MountHealth::Trouble(trouble));
        }
        source
    }

    pub(crate) fn health(&self) -> MountHealth {
        self.health.lock().clone()
    }

    /// Nobody has asked the UFS for anything yet, so its health is not known.
    pub(crate) fn is_new(&self) -> bool {
        *self.health.lock() == MountHealth::Unknown
    }

    pub(crate) fn is_troubled(&self) -> bool {
        matches!(*self.health.lock(), MountHealth::Trouble(_))
    }

    pub(crate) async fn stat(&self, path: &[u8]) -> Result<Status, UfsError> {
        let ufs = self.ufs()?;
        self.attempt("stat", || ufs.stat(path)).await
    }

    /// The pages of a directory. The first is tried again when it fails; who has seen pages begins anew by himself.
    pub(crate) fn list<'a>(
        &'a self,
        path: &'a [u8],
    ) -> impl Stream<Item = Result<ListedPage, UfsError>> + Send + use<'a> {
        stream::try_unfold(None, async move |pages: Option<BoxStream<'a, _>>| {
            let (page, pages) = match pages {
                None => self.first_page(path).await?,
                Some(mut pages) => {
                    let next = pages.next();
                    let page = self.try_once("list", || next.map(Option::transpose)).await?;
                    (page, pages)
                }
            };
            Ok(page.map(|page| (page, Some(pages))))
        })
    }

    async fn first_page<'a>(
        &'a self,
        path: &'a [u8],
    ) -> Result<(Option<ListedPage>, BoxStream<'a, Result<ListedPage, UfsError>>), UfsError> {
        let ufs = self.ufs()?;
        self.attempt("list", || async {
            let mut pages = ufs.list(path);
            Ok((pages.next().await.transpose()?, pages))
        })
        .await
    }

    pub(crate) async fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, UfsError> {
        let ufs = self.ufs()?;
        self.attempt("read_link", || ufs.read_link(path)).await
    }

    pub(crate) async fn read(&self, path: &[u8], version: &Version, offset: u64, len: u64) -> Result<Bytes, UfsError> {
        let ufs = self.ufs()?;
        // Never closed.
        let _turn = self.fetches.acquire().await;
        let bytes = self.attempt("read", || ufs.read(path, version, offset, len)).await?;
        self.metrics.ufs_bytes.inc_by(bytes.len() as u64);
        if bytes.len() as u64 == len { Ok(bytes) } else { Err(UfsError::Changed) }
    }

    /// Asks the UFS for the first entries of the mount, so that `health` tells the truth.
    pub(crate) async fn probe(&self) {
        let Ok(ufs) = self.ufs() else { return };
        let first_page = self.try_once("probe", || async {
            match ufs.list(b"").next().await {
                Some(Err(UfsError::NotFound)) => Err(UfsError::Misconfigured(format!(
                    "mountPoint {:?} does not exist: correct it or create it",
                    self.spec.source
                ))),
                Some(Err(error)) => Err(error),
                Some(Ok(_)) | None => Ok(()),
            }
        });
        if timeout(PROBE_TIMEOUT, first_page).await.is_err() {
            let message = format!(
                "no answer within {} s: correct option endpoint, or look after the store and the way to it",
                PROBE_TIMEOUT.as_secs()
            );
            self.note(MountHealth::Trouble(MountTrouble { kind: TroubleKind::Unreachable, message }));
        }
    }

    fn ufs(&self) -> Result<&dyn Ufs, UfsError> {
        self.ufs.as_deref().map_err(UfsError::clone)
    }

    async fn attempt<T, F: Future<Output = Result<T, UfsError>>>(
        &self,
        operation: &'static str,
        ask: impl Fn() -> F,
    ) -> Result<T, UfsError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.try_once(operation, &ask).await {
                Err(UfsError::Unavailable(_)) => sleep(pause).await,
                result => return result,
            }
            pause *= 3;
        }
        self.try_once(operation, ask).await
    }

    async fn try_once<T, F: Future<Output = Result<T, UfsError>>>(
        &self,
        operation: &'static str,
        ask: impl FnOnce() -> F,
    ) -> Result<T, UfsError> {
        let begun = Instant::now();
        let result = ask().await;
        self.metrics.ufs_answered(operation, begun.elapsed());
        match &result {
            // One object may be denied (archived, or by policy) where the mount is not.
            Err(UfsError::Denied(_)) if operation == "read" => {}
            Err(error) => self.note(trouble(error).map_or(MountHealth::Serving, MountHealth::Trouble)),
            Ok(_) => self.note(MountHealth::Serving),
        }
        if let Err(error) = &result {
            self.metrics.ufs_error(error);
        }
        result
    }

    fn note(&self, now: MountHealth) {
        let mut health = self.health.lock();
        if *health == now {
            return;
        }
        let (mount, source) = (&self.spec.path, &self.spec.source);
        if let MountHealth::Trouble(trouble) = &now {
            tracing::warn!(mount, source, %trouble, "the UFS of a mount does not serve");
        } else {
            tracing::info!(mount, source, "the UFS of a mount serves");
        }
        *health = now;
    }
}

/// `None` for errors about one path, which say that the UFS answers.
fn trouble(error: &UfsError) -> Option<MountTrouble> {
    let kind = match error {
        UfsError::Denied(_) => TroubleKind::Denied,
        UfsError::Unavailable(_) => TroubleKind::Unreachable,
        UfsError::Misconfigured(_) => TroubleKind::Misconfigured,
        UfsError::NotFound | UfsError::NotADirectory | UfsError::Changed => return None,
    };
    Some(MountTrouble { kind, message: error.to_string() })
}

fn open(source: &str, options: Result<&BTreeMap<String, String>, &String>) -> Result<Arc<dyn Ufs>, UfsError> {
    let options = options.map_err(|text| UfsError::Misconfigured(text.clone()))?.clone();
    penstock_ufs::open(&OpenMount { source: source.to_owned(), options })
}

/// What a client is told.
pub(crate) fn failure(error: UfsError) -> Failure {
    match error {
        UfsError::NotFound => Failure::NotFound,
        UfsError::NotADirectory => Failure::NotADirectory,
        UfsError::Changed => Failure::Stale,
        UfsError::Denied(text) => Failure::Denied(text),
        UfsError::Unavailable(text) | UfsError::Misconfigured(text) => Failure::Ufs(text),
    }
}
