//! The plugin's side. Calls block, for a bounded time.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

use super::{
    message::{self, Answer, Item, NEXT, PUT, REMOVE, Request},
    peer,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("the keeper cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    #[error("the keeper hung up")]
    Gone,
    #[error("the keeper refuses: {0}")]
    Refused(String),
}

/// A connection with the keeper.
#[derive(Debug)]
pub struct Client(OwnedFd);

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Client {
    /// `NotFound` and `ConnectionRefused`: no keeper runs.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let connection = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        for direction in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&connection, direction, Some(PATIENCE))?;
        }
        connect(&connection, &SocketAddrUnix::new(socket)?)?;
        // Descriptors are handed to root or to ourselves only.
        let uid = peer::user(&connection)?;
        if !uid.is_root() && uid != rustix::process::geteuid() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{uid:?} listens there")));
        }
        Ok(Self(connection))
    }

    /// Has descriptors kept under a name, in place of earlier ones.
    pub fn put(&self, name: &str, label: &str, descriptors: &[BorrowedFd<'_>]) -> Result<(), KeeperError> {
        let (name, label) = (Some(name.to_owned()), Some(label.to_owned()));
        self.call(&Request { verb: PUT.into(), name, label, after: None }, descriptors).map(drop)
    }

    /// Has a name let go, if it is there.
    pub fn remove(&self, name: &str) -> Result<(), KeeperError> {
        self.call(&Request { verb: REMOVE.into(), name: Some(name.to_owned()), ..Request::default() }, &[]).map(drop)
    }

    /// What is kept under the first name after `after`.
    pub fn next(&self, after: Option<&str>) -> Result<Option<Item>, KeeperError> {
        let request = Request { verb: NEXT.into(), after: after.map(str::to_owned), ..Request::default() };
        let (answer, descriptors) = self.call(&request, &[])?;
        Ok(answer.name.map(|name| Item { name, label: answer.label.unwrap_or_default(), descriptors }))
    }

    /// All that is kept.
    pub fn all(&self) -> Result<Vec<Item>, KeeperError> {
        let mut items: Vec<Item> = Vec::new();
        while let Some(item) = self.next(items.last().map(|item| item.name.as_str()))? {
            items.push(item);
        }
        Ok(items)
    }

    fn call(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(Answer, Vec<OwnedFd>), KeeperError> {
        message::send(&self.0, request, descriptors)?;
        let (answer, descriptors) = message::receive::<Answer>(&self.0)?.ok_or(KeeperError::Gone)?;
        match answer.error {
            Some(error) => Err(KeeperError::Refused(error)),
            None => Ok((answer, descriptors)),
        }
    }
}
