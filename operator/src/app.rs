//! The process: leader election around the controller, and the HTTP server beside it.

use std::sync::Arc;

use kube::Client;
use penstock_wire::Credential;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    args::Args,
    controller::{self, Settings, build::WorkerDefaults},
    http::HttpServer,
    lease::{LeaderElection, Led, Timing},
    metrics::Metrics,
    prerequisites::{self, Place},
    readiness::Readiness,
    tasks::{self, Tasks},
    worker_api::WireWorkers,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to read the cluster's address and credentials: {0}")]
    Config(#[from] kube::config::InferConfigError),
    #[error("failed to make a client of the API server: {0}")]
    Client(#[from] kube::Error),
    #[error("failed to serve on --http-addr {address}: {source}")]
    Http { address: std::net::SocketAddr, source: std::io::Error },
    #[error("failed to make a name for the election: {0}")]
    Identity(#[from] penstock_wire::CredentialError),
    #[error("lost the lease {0}; another operator may lead, so this one ends")]
    LostLease(String),
    #[error(transparent)]
    Task(#[from] tasks::Ended),
}

/// Runs until `stop`, until leadership is lost, or until a background task ends.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    let client = Client::try_from(kube::Config::infer().await?)?;
    let (metrics, readiness, doubt) = (Arc::new(Metrics::default()), Readiness::default(), Arc::<Notify>::default());
    let http_error = |source| Error::Http { address: args.http_addr, source };
    let http = HttpServer::bind(args.http_addr).await.map_err(http_error)?;
    let mut tasks = Tasks::default();
    // Probes are answered until the end, while reconciles finish.
    tasks.spawn("HTTP server", serve(http, metrics.clone(), readiness.clone()));
    // Who waits for the lease is as ready as who leads: both are asked.
    let place = Place { own: args.namespace.clone(), watched: args.watch_namespace.clone() };
    let check = prerequisites::follow(client.clone(), place, doubt.clone(), readiness.clone());
    tasks.spawn("check of prerequisites", check);
    let led = tokio::select! {
        led = lead(&args, client, metrics, doubt, &stop) => led,
        ended = tasks.ended() => Err(ended.into()),
    };
    readiness.stop();
    led
}

async fn serve(http: HttpServer, metrics: Arc<Metrics>, readiness: Readiness) {
    if let Err(error) = http.serve(metrics.registry(), readiness, CancellationToken::new()).await {
        tracing::error!(%error, "the HTTP server failed");
    }
}

async fn lead(
    args: &Args,
    client: Client,
    metrics: Arc<Metrics>,
    watch_failed: Arc<Notify>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let suffix = Credential::generate()?.to_hex();
    let identity = format!("{}_{}", args.identity, &suffix[..8]);
    let election = LeaderElection::new(client.clone(), &args.namespace, &args.lease_name, &identity, Timing::default());
    let settings = Settings {
        worker_image: args.worker_image.clone(),
        worker_defaults: WorkerDefaults { pull_secrets: args.worker_image_pull_secrets.clone(), ids: args.worker_ids },
        updating_runtimes: args.updating_runtimes,
        namespace: args.watch_namespace.clone(),
        watch_failed,
    };
    let control = |stop| controller::run(client, settings, Arc::new(WireWorkers::default()), metrics, stop);
    match election.lead(stop, control).await {
        Led::Never => Ok(()),
        Led::Ended(controlled) => Ok(controlled?),
        Led::Lost => Err(Error::LostLease(args.lease_name.clone())),
    }
}
