//! Local mode: the operator's plan for a Dataset, carried out with processes in place of pods.

mod blueprint;
mod command;
mod fleet;
mod load;
mod process;
mod state;
mod worker;

pub use command::Command;
pub use fleet::{Fleet, FleetError, Report, UpOptions, WorkerReport};
pub use load::LocalLoadError;
pub use process::Process;
