//! One stream socket of either family, read and written through a shared reference.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use bytes::{BufMut, BytesMut};
use rustix::fs::sendfile;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    Shutdown, recvmsg, sendmsg, shutdown, sockopt,
};
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
};

use crate::Address;

/// How long a peer may leave sent bytes or probes unacknowledged before the connection counts as cut.
const DEAD_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(crate) async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(addr) => Self::tcp(TcpStream::connect(addr).await?),
            Address::Unix(path) => Ok(Self::Unix(UnixStream::connect(path).await?)),
        }
    }

    pub(crate) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, Duration::from_secs(5))?;
        sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(2))?;
        sockopt::set_tcp_keepcnt(&stream, 3)?;
        sockopt::set_tcp_user_timeout(&stream, DEAD_AFTER.as_millis() as u32)?;
        Ok(Self::Tcp(stream))
    }

    pub(crate) fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Appends what there is; 0 at the end of the stream.
    pub(crate) async fn read_some(&self, into: &mut impl BufMut) -> io::Result<usize> {
        loop {
            self.ready(Interest::READABLE).await?;
            let result = match self {
                Self::Tcp(s) => s.try_read_buf(into),
                Self::Unix(s) => s.try_read_buf(into),
            };
            if !would_block(&result) {
                return result;
            }
        }
    }

    /// As [`Self::read_some`], and takes the descriptors that travel with the bytes.
    pub(crate) async fn read_with_fds(&self, into: &mut BytesMut, fds: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
        let Self::Unix(stream) = self else { return self.read_some(into).await };
        loop {
            stream.ready(Interest::READABLE).await?;
            let result = stream.try_io(Interest::READABLE, || receive(stream, into, fds));
            if !would_block(&result) {
                return result;
            }
        }
    }

    pub(crate) async fn write_all(&self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match self.try_write(parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => IoSlice::advance_slices(&mut parts, n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what goes without waiting.
    pub(crate) fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.try_write_vectored(parts),
            Self::Unix(s) => s.try_write_vectored(parts),
        }
    }

    /// As [`Self::try_write`], with `fd` attached to the first of the bytes. Unix sockets only.
    pub(crate) fn try_write_with_fd(&self, bytes: &[u8], fd: &OwnedFd) -> io::Result<usize> {
        let Self::Unix(stream) = self else { return Err(io::ErrorKind::Unsupported.into()) };
        stream.try_io(Interest::WRITABLE, || send(stream, bytes, fd))
    }

    /// As [`Self::try_write`], and says that more follows at once: small packets wait for it.
    pub(crate) fn try_write_more(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_io(|socket| Ok(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::MORE)?))
    }

    /// Sends bytes of a file from where the kernel has them.
    pub(crate) fn try_send_file(&self, file: &dyn AsFd, range: Range<u64>) -> io::Result<usize> {
        let (mut at, count) = (range.start, (range.end - range.start) as usize);
        self.try_io(|socket| Ok(sendfile(socket, file, Some(&mut at), count)?))
    }

    fn try_io(&self, write: impl FnOnce(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.try_io(Interest::WRITABLE, || write(s.as_fd())),
            Self::Unix(s) => s.try_io(Interest::WRITABLE, || write(s.as_fd())),
        }
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.ready(Interest::WRITABLE).await
    }

    /// Ends both directions, so that whoever waits on the socket wakes.
    pub(crate) fn shut(&self) {
        let result = match self {
            Self::Tcp(s) => shutdown(s.as_fd(), Shutdown::Both),
            Self::Unix(s) => shutdown(s.as_fd(), Shutdown::Both),
        };
        // Not connected any more: just what is wanted.
        let _ = result;
    }

    async fn ready(&self, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.ready(interest).await?,
            Self::Unix(s) => s.ready(interest).await?,
        };
        Ok(())
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

fn send(stream: &UnixStream, bytes: &[u8], fd: &OwnedFd) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

fn receive(stream: &UnixStream, into: &mut BytesMut, fds: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut chunk = [0u8; 8 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(stream, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    into.extend_from_slice(&chunk[..message.bytes]);
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    Ok(message.bytes)
}
