//! The operator: makes Kubernetes what Datasets and CacheRuntimes say.
//!
//! [`controller`] is the pipeline; its [`controller::validate`] and [`controller::plan`] know no API server, and local
//! mode plays their plans.

pub mod app;
pub mod args;
pub mod context;
pub mod controller;
pub mod http;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod telemetry;
pub mod watches;
pub mod worker_api;
