//! The plugin's side of the keeper: it gets a copy of each connection that the plugin holds, and lets go what the plugin
//! does. What is held is compared with what was told, so a keeper that was restarted gets everything again.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::connections::{Connection, Connections, Kept};
use crate::keeper::{Client, KeeperError};

/// How often a keeper is looked for while there is none.
const RETRY: Duration = Duration::from_millis(200);
/// How long a plugin that is told to end waits for a keeper that is being replaced. Kubelet gives it 30 s.
const FAREWELL: Duration = Duration::from_secs(10);

/// What a former plugin gave to the keeper, by staging path. Blocks. Nothing where no keeper runs.
pub fn kept(socket: &Path) -> BTreeMap<PathBuf, Connection> {
    let items = match Client::connect(socket) {
        Ok(client) => client.all(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return BTreeMap::new();
        }
        Err(error) => Err(error.into()),
    };
    let items = items.unwrap_or_else(|error| {
        tracing::error!(socket = %socket.display(), %error, "what the keeper holds cannot be had: mounts will be made anew");
        Vec::new()
    });
    let usable = items.into_iter().filter_map(|item| {
        let name = item.name.clone();
        match Connection::from_item(item) {
            Ok(connection) => Some((name.into(), connection)),
            Err(error) => {
                tracing::error!(name, %error, "a session that the keeper holds cannot be used");
                None
            }
        }
    });
    usable.collect()
}

/// Has the keeper at `socket` follow, for as long as the connections are there.
pub fn start(connections: &Arc<Connections>, socket: PathBuf) -> io::Result<()> {
    let (changed, connections) = (connections.changed(), Arc::downgrade(connections));
    std::thread::Builder::new().name("keeper".to_owned()).spawn(move || follow(&socket, &changed, &connections))?;
    Ok(())
}

/// Before the plugin ends: waits until the keeper that is found at `socket` now has every mount, where a keeper ever ran.
/// With the plugin's container end the mounts that no keeper has.
pub async fn entrust(connections: &Connections, socket: &Path) {
    if connections.any() && socket.exists() && !connections.are_entrusted(FAREWELL).await {
        tracing::warn!("no keeper has the mounts: they end with this plugin's container");
    }
}

fn follow(socket: &Path, changed: &OwnedFd, connections: &Weak<Connections>) {
    let mut absent = false;
    while connections.strong_count() > 0 {
        let place = file_at(socket);
        match Client::connect(socket) {
            Ok(client) => {
                tracing::info!(socket = %socket.display(), "connected with the keeper");
                absent = false;
                if let Err(error) = tell(&client, || file_at(socket) == place, changed, connections) {
                    tracing::warn!(%error, "the keeper is gone: until it is back, mounts end with this plugin");
                }
            }
            Err(error) if !absent => {
                tracing::warn!(socket = %socket.display(), %error, "no keeper: mounts end with this plugin");
                absent = true;
            }
            Err(_) => {}
        }
        if let Some(connections) = connections.upgrade() {
            connections.tell(Kept::default());
        }
        wait(&[changed.as_fd()], Some(RETRY)).ok();
        drain(changed);
    }
}

/// Tells one keeper every change, until it or the connections are gone, or another keeper has taken its place.
fn tell(
    client: &Client,
    in_place: impl Fn() -> bool,
    changed: &OwnedFd,
    connections: &Weak<Connections>,
) -> Result<(), KeeperError> {
    let mut told: BTreeMap<String, Weak<Connection>> =
        client.all()?.into_iter().map(|item| (item.name, Weak::new())).collect();
    loop {
        drain(changed);
        let Some(connections) = connections.upgrade() else { return Ok(()) };
        // One that is ending may still answer while its successor listens.
        if !in_place() {
            return Err(KeeperError::Gone);
        }
        let (wanted, change) = connections.wanted();
        for name in told.keys().filter(|name| !wanted.contains_key(*name)) {
            client.remove(name)?;
        }
        for (name, connection) in &wanted {
            if told.get(name).is_none_or(|told| !std::ptr::eq(told.as_ptr(), Arc::as_ptr(connection))) {
                put(client, name, connection)?;
            }
        }
        told = wanted.iter().map(|(name, connection)| (name.clone(), Arc::downgrade(connection))).collect();
        connections.tell(Kept { connected: true, change });
        drop((wanted, connections));
        // Nothing is sent unasked: readable means gone.
        if wait(&[changed.as_fd(), client.as_fd()], None)?[1] {
            return Err(KeeperError::Gone);
        }
    }
}

/// Which file lies at the path: each keeper makes its own. Inodes are used again, so the time belongs to it.
fn file_at(socket: &Path) -> Option<(u64, i64, i64)> {
    socket.metadata().ok().map(|found| (found.ino(), found.ctime(), found.ctime_nsec()))
}

fn put(client: &Client, name: &str, connection: &Connection) -> Result<(), KeeperError> {
    match client.put(name, Connection::LABEL, &connection.descriptors()) {
        Err(KeeperError::Refused(error)) => {
            tracing::warn!(name, error, "the keeper does not take a mount: it ends with this plugin");
            Ok(())
        }
        put => put,
    }
}

/// Which of them can be read.
fn wait(fds: &[impl AsFd], limit: Option<Duration>) -> io::Result<Vec<bool>> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut watched: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    while let Err(error) = poll(&mut watched, limit.as_ref()) {
        if error != Errno::INTR {
            return Err(error.into());
        }
    }
    Ok(watched.iter().map(|fd| !fd.revents().is_empty()).collect())
}

fn drain(changed: &OwnedFd) {
    let _ = rustix::io::read(changed, &mut [0; 8]);
}
