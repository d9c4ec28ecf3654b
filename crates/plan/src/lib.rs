//! From what a user wrote to what shall be: pure, and shared by the operator and local mode.
//!
//! [`validate`] turns manifests into values that nothing needs to refuse later; [`config`] says what a worker is told;
//! [`autoscaling`] decides how many workers there shall be, from [`numbers`] with a history; [`scaling`] who is a member
//! and when leaving workers may go; [`rollout`] which worker is updated next; [`load`] what workers load; [`names`] are those of everything that belongs
//! to a Dataset.

pub mod autoscaling;
pub mod config;
pub mod load;
pub mod names;
pub mod numbers;
pub mod rollout;
pub mod scaling;
pub mod validate;

pub use names::Names;
pub use penstock_wire::Keys;
