//! The keeper's side: one thread, no state but the descriptors.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::Bound,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with},
    process::geteuid,
};

use super::{
    message::{self, Answer, NEXT, PUT, REMOVE, Request, VERSION},
    peer,
};

/// Volumes of one node; a node has some hundred pods.
const NAMES: usize = 4096;
/// Plugins that talk to us at once: one, and another one that comes while it goes.
const CONNECTIONS: usize = 16;

#[derive(Default)]
struct Kept(BTreeMap<String, (String, Vec<OwnedFd>)>);

/// Keeps descriptors for whoever connects to `socket` as this user, for ever.
pub fn run(socket: &Path) -> io::Result<()> {
    let listener = bind_anew(socket)?;
    let mut kept = Kept::default();
    let mut connections: Vec<OwnedFd> = Vec::new();
    loop {
        let ready = wait(&listener, &connections)?;
        let mut at = 0;
        connections.retain(|connection| {
            at += 1;
            !ready[at] || kept.serve(connection)
        });
        if ready[0]
            && let Ok(connection) = accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
            && connections.len() < CONNECTIONS
            && is_ours(&connection)
        {
            connections.push(connection);
        }
    }
}

/// Listens for this user only, in place of a keeper that is gone.
fn bind_anew(path: &Path) -> io::Result<OwnedFd> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let fresh = path.with_extension("new");
    for old in [&fresh, path] {
        match fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    bind(&listener, &SocketAddrUnix::new(&fresh)?)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    listen(&listener, CONNECTIONS as i32)?;
    // Found only once it listens.
    fs::rename(&fresh, path)?;
    Ok(listener)
}

/// For the listener and each connection whether it can be read.
fn wait(listener: &OwnedFd, connections: &[OwnedFd]) -> io::Result<Vec<bool>> {
    let all = std::iter::once(listener).chain(connections);
    let mut watched: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    loop {
        match poll(&mut watched, None) {
            Err(Errno::INTR) => {}
            polled => {
                polled?;
                return Ok(watched.iter().map(|fd| !fd.revents().is_empty()).collect());
            }
        }
    }
}

fn is_ours(connection: &OwnedFd) -> bool {
    let user = peer::user(connection);
    let ours = user.as_ref().is_ok_and(|user| *user == geteuid());
    if !ours {
        eprintln!("refused a connection of another user: {user:?}");
    }
    ours
}

impl Kept {
    /// Answers one request. False when the connection is over.
    fn serve(&mut self, connection: &OwnedFd) -> bool {
        let request = match message::receive::<Request>(connection) {
            Ok(Some((request, descriptors))) => Ok((request, descriptors)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error),
            Ok(None) | Err(_) => return false,
        };
        let (answer, descriptors) = match request {
            Ok((request, descriptors)) => self.answer(request, descriptors),
            Err(error) => (refusal(error.to_string()), &[][..]),
        };
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        message::send(connection, &answer, &descriptors).is_ok()
    }

    fn answer(&mut self, request: Request, descriptors: Vec<OwnedFd>) -> (Answer, &[OwnedFd]) {
        let done = Answer { version: VERSION, ..Answer::default() };
        let answer = match (request.verb.as_str(), request.name) {
            (PUT | REMOVE, None) => refusal(format!("{}: a name is missing", request.verb)),
            (PUT, Some(name)) if self.0.len() >= NAMES && !self.0.contains_key(&name) => {
                refusal(format!("{NAMES} names are kept already: remove some"))
            }
            (PUT, Some(name)) => {
                self.0.insert(name, (request.label.unwrap_or_default(), descriptors));
                done
            }
            (REMOVE, Some(name)) => {
                self.0.remove(&name);
                done
            }
            (NEXT, _) => return self.next(request.after),
            (other, _) => refusal(format!("verb {other:?} is not known to this keeper")),
        };
        (answer, &[])
    }

    fn next(&self, after: Option<String>) -> (Answer, &[OwnedFd]) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        match self.0.range((from, Bound::Unbounded)).next() {
            None => (Answer { version: VERSION, ..Answer::default() }, &[]),
            Some((name, (label, descriptors))) => {
                let (name, label) = (Some(name.clone()), Some(label.clone()));
                (Answer { version: VERSION, name, label, error: None }, descriptors)
            }
        }
    }
}

fn refusal(error: String) -> Answer {
    Answer { version: VERSION, error: Some(error), ..Answer::default() }
}
