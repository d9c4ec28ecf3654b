//! How a Dataset appears as a file system: the FUSE front ([`fuse`]) of the file system ([`fs`]), the reader behind it
//! ([`reader`]) and the process that serves one mounted Dataset ([`serve`]). The CSI services that start such processes
//! are in [`csi`].

#[cfg(test)]
extern crate self as penstock_mount;

pub mod backend;
pub mod csi;
pub mod fs;
pub mod fuse;
pub mod journal;
mod kernel;
pub mod reader;
pub mod serve;
pub mod spec;

#[cfg(test)]
#[path = "../tests/common/memory.rs"]
mod testing;
