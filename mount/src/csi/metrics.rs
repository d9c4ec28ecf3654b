//! What the plugin counts, and where it shows it: `/metrics` and `/healthz`.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Arc, atomic::AtomicU64},
};

use anyhow::Context;
use axum::{Router, extract::State, http::header, routing::get};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tokio::net::TcpListener;

use super::volumes::Volumes;

/// Counters of all volumes of this node.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Sessions that a new process has taken over from one that ended.
    pub takeovers: Counter,
    /// Sessions that ended under their readers, because nobody held the descriptor or no process could go on.
    pub lost: Counter,
}

/// On all addresses, of IPv6 too where the node has it.
pub(super) async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    };
    listener.with_context(|| format!("cannot listen on port {port} (--http-port)"))
}

pub(super) async fn serve(listener: TcpListener, volumes: Arc<Volumes>) {
    let routes =
        Router::new().route("/healthz", get(async || "ok\n")).route("/metrics", get(metrics)).with_state(volumes);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "metrics are not served any more");
    }
}

async fn metrics(State(volumes): State<Arc<Volumes>>) -> ([(header::HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text(&volumes))
}

fn text(volumes: &Volumes) -> String {
    let gauge = |value: u64| {
        let gauge = Gauge::<u64, AtomicU64>::default();
        gauge.set(value);
        gauge
    };
    let mut registry = Registry::with_prefix("penstock_mount");
    let served = volumes.staged.lock().values().filter(|staged| staged.is_served()).count() as u64;
    let kept = u64::from(volumes.connections.are_kept());
    registry.register("volumes", "Datasets that are mounted and served on this node", gauge(served));
    registry.register("keeper_connected", "1 while a keeper has copies of the mounts' descriptors", gauge(kept));
    registry.register("takeovers", "Sessions taken over by a new process", volumes.metrics.takeovers.clone());
    registry.register("lost_sessions", "Sessions that ended under their readers", volumes.metrics.lost.clone());
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}
