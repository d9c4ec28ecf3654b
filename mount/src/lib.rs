//! How a Dataset appears as a file system. The parts know each other by seams only:
//!
//! ```text
//! csi ─► serve ─┬─► fuse ──(tree)──┐        the kernel's protocol
//!               ├─► fs ────(tree)──┴─► session: journal, what outlives a process
//!               └─► reader ─(backend)─ fs
//! ```
//!
//! [`serve`] composes them into the process that serves one mounted Dataset; the CSI services that start such processes are
//! in [`csi`], and the [`keeper`] holds the descriptors of mounts while no plugin runs.

#[cfg(test)]
extern crate self as penstock_mount;

pub mod backend;
pub mod csi;
pub mod fs;
pub mod fuse;
pub mod keeper;
mod kernel;
mod path;
pub mod reader;
pub mod serve;
pub mod session;
pub mod spec;
pub mod tree;

#[cfg(test)]
#[path = "../tests/common/memory.rs"]
mod testing;
