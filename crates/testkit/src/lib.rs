//! Real servers and doubles for tests, the demo and the benchmarks.

pub mod chart;
pub mod control_plane;
mod data;
pub mod net;
pub mod process;
pub mod proxy;
pub mod s3;
pub mod traces;

pub use data::noise;
pub use penstock_tools as tools;
