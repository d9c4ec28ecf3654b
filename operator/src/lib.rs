//! The operator: makes Kubernetes what Datasets and CacheRuntimes say.
//!
//! [`controller`] is the pipeline. Its pure middle, validation and planning, is the crate `penstock-plan`, which local mode
//! uses too.

pub mod app;
pub mod args;
pub mod context;
pub mod controller;
pub mod http;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod poller;
pub mod prerequisites;
pub mod readiness;
pub mod recent;
pub mod rights;
pub mod tasks;
pub mod telemetry;
pub mod turns;
pub mod uninstall;
pub mod watches;
pub mod worker_api;
