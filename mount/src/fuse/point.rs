//! Mounting and unmounting by this process itself: with mount(2) where that is allowed, else by `fusermount3`.

use std::{
    fmt::Write as _,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::{Mode, OFlags},
    io::{Errno, IoSliceMut},
    mount::{MountFlags, UnmountFlags},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
        socketpair,
    },
    process::{getegid, geteuid},
};

use super::Options;

/// The file system type of our mounts.
pub const FS_TYPE: &str = "fuse.penstock";
const HELPER: &str = "fusermount3";
/// Where the helper finds the socket for the descriptor.
const HELPER_SOCKET: &str = "_FUSE_COMMFD";

/// `/dev/fuse`, opened and not yet mounted.
pub fn open_device() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// Mounts the connection at `dir`, read-only. The kernel's INIT waits in `fuse` for whoever reads it. With `checked` the
/// kernel compares owners and modes by itself.
pub fn mount(fuse: &OwnedFd, dir: &Path, options: &Options, checked: bool) -> io::Result<()> {
    let (fd, uid, gid) = (fuse.as_raw_fd(), geteuid().as_raw(), getegid().as_raw());
    let mut data = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid}");
    for (wanted, option) in [(options.allow_other, ",allow_other"), (checked, ",default_permissions")] {
        data.push_str(if wanted { option } else { "" });
    }
    let data = std::ffi::CString::new(data)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    Ok(rustix::mount::mount(source(options), dir, FS_TYPE, flags, data.as_c_str())?)
}

/// A new connection, mounted at `dir` with whatever rights this process has.
pub(super) fn mount_anyhow(dir: &Path, options: &Options) -> io::Result<OwnedFd> {
    let fuse = open_device()?;
    match mount(&fuse, dir, options, false) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => by_helper(dir, options),
        mounted => mounted.map(|()| fuse),
    }
}

/// `EBUSY` while someone uses the mount.
pub(super) fn unmount(dir: &Path) -> io::Result<()> {
    match rustix::mount::unmount(dir, UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) => run(Command::new(HELPER).arg("-u").arg("--").arg(dir)),
        unmounted => Ok(unmounted?),
    }
}

fn source(options: &Options) -> String {
    format!("penstock:{}", options.dataset)
}

/// The helper is allowed to mount for everybody; it sends the descriptor.
fn by_helper(dir: &Path, options: &Options) -> io::Result<OwnedFd> {
    // Without close-on-exec: the helper inherits its end.
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)?;
    let mut wanted = format!("ro,nosuid,nodev,noatime,subtype=penstock,fsname={}", source(options));
    if options.allow_other {
        let _ = wanted.write_str(",allow_other");
    }
    let mut helper = Command::new(HELPER);
    helper.arg("-o").arg(wanted).arg("--").arg(PathBuf::from(dir).canonicalize()?);
    run(helper.env(HELPER_SOCKET, theirs.as_raw_fd().to_string()))?;
    receive(&ours)
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output().map_err(|error| {
        let text = format!("without the right to mount, {HELPER} (package fuse3) is needed: {error}");
        io::Error::new(error.kind(), text)
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{HELPER}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

fn receive(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let (mut ancillary, mut byte) = (RecvAncillaryBuffer::new(&mut space), [0]);
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    fds.flatten().next().ok_or_else(|| io::Error::other(format!("{HELPER} sent no descriptor")))
}
