//! The process: leader election around the controller, and the HTTP server beside it.

use std::sync::Arc;

use kube::Client;
use penstock_wire::Credential;
use tokio_util::sync::CancellationToken;

use crate::{
    args::Args,
    controller::{self, Settings},
    http::{HttpServer, Readiness},
    lease::{LeaderElection, Timing},
    metrics::Metrics,
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
}

/// Runs until `stop` or until leadership is lost.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    let client = Client::try_from(kube::Config::infer().await?)?;
    let (metrics, readiness) = (Arc::new(Metrics::default()), Readiness::default());
    let http_error = |source| Error::Http { address: args.http_addr, source };
    let http = HttpServer::bind(args.http_addr).await.map_err(http_error)?;
    // The HTTP server ends last, so that probes are answered while reconciles finish.
    let http_stop = CancellationToken::new();
    let served = tokio::spawn(http.serve(metrics.registry(), readiness.clone(), http_stop.clone()));
    // Who waits for the lease is as ready as who leads: both do their work.
    readiness.set(true);
    let led = lead(&args, client, metrics, &stop).await;
    readiness.set(false);
    http_stop.cancel();
    let _ = served.await;
    led
}

async fn lead(args: &Args, client: Client, metrics: Arc<Metrics>, stop: &CancellationToken) -> Result<(), Error> {
    let suffix = Credential::generate()?.to_hex();
    let identity = format!("{}_{}", args.identity, &suffix[..8]);
    let election = LeaderElection::new(client.clone(), &args.namespace, &args.lease_name, &identity, Timing::default());
    let Some(leadership) = stop.run_until_cancelled(election.acquire()).await else { return Ok(()) };
    let ended = CancellationToken::new();
    let settings = Settings { worker_image: args.worker_image.clone(), namespace: args.watch_namespace.clone() };
    let control = controller::run(client, settings, Arc::new(WireWorkers::default()), metrics, ended.clone());
    let watch = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = leadership.lost.cancelled() => {}
        }
        ended.cancel();
    };
    tokio::join!(control, watch);
    let lost = !stop.is_cancelled();
    leadership.release().await;
    if lost { Err(Error::LostLease(args.lease_name.clone())) } else { Ok(()) }
}
