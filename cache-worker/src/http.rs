//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use crate::worker::Worker;

/// Set once the worker has its configuration and listens.
pub(crate) type Ready = Arc<OnceLock<Arc<Worker>>>;

pub(crate) fn router(ready: Ready) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(ready)
}

async fn readyz(State(ready): State<Ready>) -> impl IntoResponse {
    match ready.get() {
        Some(_) => (StatusCode::OK, "ok\n"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "waiting for the configuration\n"),
    }
}

async fn metrics(State(ready): State<Ready>) -> impl IntoResponse {
    let text = ready.get().map(|worker| worker.metrics.text(&worker.store.stats())).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
