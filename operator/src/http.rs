//! `/healthz`, `/readyz` and `/metrics`: plain HTTP, read-only.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use penstock_wire::listen;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::readiness::Readiness;

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Shared {
    readiness: Readiness,
    registry: Arc<Registry>,
}

/// A server that has its port but does not serve yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl HttpServer {
    /// Takes the port; 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = listen(&address.to_string()).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then finishes what is in flight.
    pub async fn serve(self, registry: Arc<Registry>, readiness: Readiness, stop: CancellationToken) -> io::Result<()> {
        axum::serve(self.listener, router(Shared { readiness, registry }))
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shared)
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, String) {
    match shared.readiness.answer() {
        Ok(()) => (StatusCode::OK, "ok\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", why.join("\n"))),
    }
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &shared.registry) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, METRICS_TYPE)], text),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], String::new()),
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt;
    use prometheus_client::metrics::counter::Counter;
    use tower::ServiceExt;

    use super::*;

    async fn answer(shared: Shared, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(shared).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_and_metrics_are_what_the_process_says() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("reconciles", "Reconciles begun", counter.clone());
        counter.inc();
        let shared = Shared { readiness: Readiness::default(), registry: Arc::new(registry) };

        assert_eq!(answer(shared.clone(), "/healthz").await.0, StatusCode::OK);
        shared.readiness.report(vec!["no CRD".into(), "no right".into()]);
        let expected = (StatusCode::SERVICE_UNAVAILABLE, "not ready\nno CRD\nno right\n".to_owned());
        assert_eq!(answer(shared.clone(), "/readyz").await, expected);
        shared.readiness.report(Vec::new());
        assert_eq!(answer(shared.clone(), "/readyz").await.0, StatusCode::OK);
        let (status, text) = answer(shared, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("reconciles_total 1") && text.ends_with("# EOF\n"), "{text}");
    }

    #[tokio::test]
    async fn the_server_ends_when_told() {
        let server = HttpServer::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        assert_ne!(server.address().port(), 0);
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.serve(Arc::new(Registry::default()), Readiness::default(), stop.clone()));
        stop.cancel();
        task.await.unwrap().unwrap();
    }
}
