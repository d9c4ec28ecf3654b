//! The keeper: a process beside the node plugin that holds copies of its descriptors, so that mounts outlive the plugin.
//!
//! While anyone holds the descriptor of a FUSE connection the kernel keeps it: readers wait until a process serves them
//! again. The keeper is the part that is upgraded last, so it knows as little as possible: names, labels that it does not
//! read, and descriptors.

mod client;
mod message;
mod peer;
mod server;

use std::path::{Path, PathBuf};

pub use self::{
    client::{Client, KeeperError},
    message::Item,
    server::run,
};

/// Where a keeper listens: in a folder of its own, so that its pod need not see the rest of the state directory.
pub fn socket_in(state_dir: &Path) -> PathBuf {
    state_dir.join("keeper").join("keeper.sock")
}
