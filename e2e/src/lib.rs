//! A real Kubernetes cluster on one machine, and what the end-to-end tests need around it.

pub mod cluster;
pub mod harness;
pub mod image;
pub mod kubectl;
pub mod noise;
pub mod pods;
pub mod reader;
pub mod s3;
