//! What the kernel shows of a FUSE connection outside of the protocol.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
};

/// How far the kernel reads ahead by itself, KiB: so that a sequential reader's requests are 1 MiB each.
const READAHEAD_KIB: u32 = 1024;

/// The number of the connection behind an opened and mounted `/dev/fuse`, where the kernel shows it.
pub(crate) fn connection_of(fuse: &impl AsFd) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fuse.as_fd().as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("fuse_connection:"))?.trim().parse().ok()
}

/// The kernel's own default of 128 KiB costs a round trip through this process for each. Takes root; a mount without it
/// is slower, not wrong.
pub(crate) fn widen_readahead(connection: u32) {
    let knob = format!("/sys/class/bdi/0:{connection}/read_ahead_kb");
    if let Err(error) = fs::write(&knob, READAHEAD_KIB.to_string()) {
        tracing::debug!(knob, %error, "the kernel's readahead stays as it is");
    }
}
