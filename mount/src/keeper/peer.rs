//! Who is at the other end of a socket.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use rustix::fs::Uid;

/// The user who connected, or who listens. Not by `rustix::net::sockopt::socket_peercred`: to a keeper in its container the
/// plugin has process number 0, being in the node's namespace, and there it cannot be.
#[allow(unsafe_code)]
pub(super) fn user(socket: impl AsFd) -> io::Result<Uid> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes, which is the size of `peer`, and any bytes make a `ucred`.
    let got =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut len) };
    if got == 0 { Ok(Uid::from_raw(peer.uid)) } else { Err(io::Error::last_os_error()) }
}
