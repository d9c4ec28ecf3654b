//! How a Dataset appears as a file system: the FUSE front ([`fs`]), the reader behind it ([`reader`]) and the process
//! that serves one mounted Dataset ([`serve`]). The CSI services that start such processes are in `csi`.

pub mod csi;
pub mod spec;
