//! The life of the process: configuration, listeners, background work, a graceful end.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use penstock_store::{Store, TierOptions};
use penstock_wire::{Access, Caller, Host, Pool, config::SOCKET_FILE, listen, serve};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Loaded},
    http::{Ready, router},
    members::Members,
    metrics::Metrics,
    pins,
    source::Source,
    worker::Worker,
};

/// How long requests in flight may take at the end.
const GRACE: Duration = Duration::from_secs(25);
/// Between two looks at what is in trouble.
const PROBE: Duration = Duration::from_secs(5);
/// Between two looks at what asks for a higher tier.
const PROMOTE: Duration = Duration::from_secs(1);
/// Extents that move up after one look: 256 MiB at most, so that readers keep most of the disk.
const PROMOTIONS: usize = 64;

#[derive(Clone, Debug)]
pub struct Options {
    /// Holds the files of [`penstock_wire::config`].
    pub config_dir: PathBuf,
    /// This worker's name in member lists.
    pub id: String,
    /// `host:port` of the wire protocol.
    pub listen: String,
    /// `host:port` of health and metrics.
    pub http: String,
    /// Where `worker.sock` is made, if anywhere.
    pub socket_dir: Option<PathBuf>,
    /// How long it may hand over before it stops, if it is taken off the member list. Zero: nobody starts it again if
    /// it is not.
    pub hand_over: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: io::Error },
    #[error("the task that opens the store failed: {0}")]
    Store(#[from] tokio::task::JoinError),
}

/// Runs a worker until `shutdown`, then hands over what it has if it is to leave, and finishes what is in flight.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), RunError> {
    let http = bind(&options.http).await?;
    let wire = bind(&options.listen).await?;
    let ready = Ready::default();
    let mut background = JoinSet::new();
    background.spawn({
        let app = router(ready.clone());
        async move {
            if let Err(error) = axum::serve(http, app).await {
                tracing::error!(%error, "health and metrics are not served any more");
            }
        }
    });
    let loaded = tokio::select! {
        loaded = config::first(&options.config_dir) => loaded,
        () = shutdown.cancelled() => return Ok(()),
    };
    let worker = start(&options.id, &loaded).await?;
    spawn_background(&mut background, &worker, options.config_dir.clone(), loaded.clone());
    let _ = ready.set(worker.clone());
    tracing::info!(id = options.id, dataset = loaded.config.dataset, listen = options.listen, "serving");
    let socket = options.socket_dir.as_deref().and_then(bind_socket);
    // It serves while it hands over.
    let stop = CancellationToken::new();
    let serving = async {
        let (dataset, name) = (loaded.config.dataset.clone(), options.id.clone());
        let host = Host { dataset, name, keys: loaded.keys.clone() };
        let tcp = serve(wire, host.clone(), worker.clone(), stop.clone());
        let unix = async {
            if let Some(socket) = socket {
                serve(socket, host, worker.clone(), stop.clone()).await;
            }
        };
        tokio::join!(tcp, unix);
    };
    let overdue = async {
        shutdown.cancelled().await;
        worker.leave(options.hand_over).await;
        stop.cancel();
        worker.changes.close();
        sleep(GRACE).await;
    };
    tokio::select! {
        () = serving => tracing::info!("stopped"),
        () = overdue => tracing::warn!("stopped with requests in flight: they took longer than {} s", GRACE.as_secs()),
    }
    // Nothing of this worker, its sockets and its tiers' locks is left when this returns.
    background.shutdown().await;
    Ok(())
}

async fn start(id: &str, loaded: &Loaded) -> Result<Arc<Worker>, RunError> {
    let tiers: Vec<_> = loaded.config.tiers.iter().map(TierOptions::from).collect();
    let store = tokio::task::spawn_blocking(move || Store::open(tiers)).await?;
    let metrics = Arc::new(Metrics::new());
    let (dataset, access) = (loaded.config.dataset.clone(), Access::Peer(loaded.keys.peer.clone()));
    let pool = Pool::new(Caller { dataset, name: id.to_owned(), access });
    let members = Arc::new(Members::new(id.to_owned(), pool, metrics.clone()));
    if let Some(list) = &loaded.members {
        members.adopt(list.clone());
    }
    Ok(Arc::new(Worker::new(loaded, store, members, metrics)))
}

fn spawn_background(tasks: &mut JoinSet<()>, worker: &Arc<Worker>, dir: PathBuf, loaded: Loaded) {
    let (notify, mut changes) = mpsc::channel(1);
    tasks.spawn(config::watch(dir, loaded, notify));
    let w = worker.clone();
    tasks.spawn(async move {
        w.probe(Source::is_new).await;
        while let Some(loaded) = changes.recv().await {
            tracing::info!("the configuration changed");
            w.reload(&loaded);
            // Most changes are of the member list alone: every worker of a fleet would list every mount for each.
            w.probe(Source::is_new).await;
        }
    });
    let w = worker.clone();
    tasks.spawn(async move {
        loop {
            sleep(PROBE).await;
            w.probe(Source::is_troubled).await;
        }
    });
    let recheck = |store: &Store| {
        store.recheck();
        false
    };
    tasks.spawn(again(PROBE, 1, worker.store.clone(), recheck));
    tasks.spawn(again(PROMOTE, PROMOTIONS, worker.store.clone(), Store::promote_next));
    let w = worker.clone();
    tasks.spawn(async move { w.census.run(&w.members, || w.catalog()).await });
    let members = worker.members.clone();
    tasks.spawn(async move {
        members.learn_from_all().await;
        // Whoever waits for an earlier life of this worker need not any longer.
        members.spread_restart(Duration::ZERO).await;
        members.follow().await;
    });
    let w = worker.clone();
    tasks.spawn(async move {
        let mut lists = w.members.lists();
        // What an earlier life of this worker saw of the first list, it has done.
        let mut is_first = true;
        loop {
            lists.borrow_and_update();
            let (store, claims) = (w.store.clone(), w.members.claims());
            let _ = tokio::task::spawn_blocking(move || store.claim(claims)).await;
            let settled = async {
                if !is_first {
                    w.settle().await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = settled => {}
                another = lists.changed() => if another.is_err() { return },
            }
            is_first = false;
        }
    });
    let pins = worker.pins.clone();
    tasks.spawn(async move {
        loop {
            sleep(pins::SWEEP).await;
            pins.sweep();
        }
    });
}

/// Does `work`, which blocks, after each pause: while it returns true, and so many times at most.
async fn again(pause: Duration, times: usize, store: Store, work: fn(&Store) -> bool) {
    loop {
        sleep(pause).await;
        for _ in 0..times {
            let store = store.clone();
            if !tokio::task::spawn_blocking(move || work(&store)).await.unwrap_or(false) {
                break;
            }
        }
    }
}

async fn bind(address: &str) -> Result<TcpListener, RunError> {
    listen(address).await.map_err(|source| RunError::Listen { address: address.to_owned(), source })
}

/// Without its socket a worker serves its node over TCP like any other.
fn bind_socket(dir: &Path) -> Option<UnixListener> {
    let path = dir.join(SOCKET_FILE);
    // Left by a predecessor.
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(&path).inspect_err(|error| tracing::warn!(path = %path.display(), %error, "no unix socket")).ok()
}
