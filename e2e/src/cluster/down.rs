//! Takes a cluster down, whatever is left of it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::process::Process;
use super::state::{self, State};
use super::{cgroup, network, up};

/// Removes all processes, namespaces, cgroups and files. The caller holds the lock.
///
/// Goes on after a failure and returns the first one; a second call then does the rest.
pub(super) fn remove_all() -> Result<()> {
    let state = State::load().unwrap_or_else(|error| {
        eprintln!("the cluster's record is damaged ({error}); removing what has its names");
        None
    });
    if let Some(state) = &state {
        state.nodes.iter().filter_map(|node| node.init.as_ref()).for_each(Process::kill);
        state.control_plane.iter().for_each(|process| process.stop(Duration::from_secs(3)));
    }
    // What an interrupted `up` started before it could write its record.
    noted().iter().for_each(Process::kill);
    let results = [
        network::remove().context("removing the cluster's network"),
        cgroup::remove().context("removing the cluster's cgroups"),
        remove_folder().context("removing the cluster's files"),
    ];
    results.into_iter().collect()
}

fn noted() -> Vec<Process> {
    let nodes = fs::read_dir(state::node_folder("")).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = nodes.chain([up::control_plane_folder()]).map(|folder| folder.join("logs"));
    folders.flat_map(|folder| Process::noted_in(&folder)).collect()
}

fn remove_folder() -> Result<()> {
    let folder = state::folder();
    if !folder.exists() {
        return Ok(());
    }
    // The record goes last: with it, an interrupted `down` can be repeated.
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path()).with_context(|| entry.path().display().to_string())?;
        }
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}
