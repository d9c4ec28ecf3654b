//! One cgroup per node, as the kubelet's `cgroupRoot`, in every hierarchy that is mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const ROOT: &str = "/sys/fs/cgroup";

/// Name of the cgroup (from the root of each hierarchy) that holds a node's pods.
pub(super) fn name(node: &str) -> String {
    format!("pns-{node}")
}

/// Creates the node's cgroups.
pub(super) fn create(node: &str) -> Result<()> {
    let name = name(node);
    if is_unified() {
        let controllers = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers"))?;
        let folder = Path::new(ROOT).join(&name);
        fs::create_dir_all(&folder).with_context(|| format!("creating cgroup {}", folder.display()))?;
        for controller in controllers.split_whitespace() {
            // Some controllers cannot be passed on; the kubelet names those that it misses.
            let _ = fs::write(Path::new(ROOT).join("cgroup.subtree_control"), format!("+{controller}"));
            let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        return Ok(());
    }
    for hierarchy in hierarchies()? {
        let folder = hierarchy.join(&name);
        fs::create_dir_all(&folder).with_context(|| format!("creating cgroup {}", folder.display()))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // A new cpuset of version 1 is empty, and nothing can run in it.
            if let Ok(value) = fs::read(hierarchy.join(file)) {
                fs::write(folder.join(file), value).with_context(|| format!("writing {file} of {name}"))?;
            }
        }
    }
    Ok(())
}

/// Removes every cgroup of every node, once their processes are gone.
pub(super) fn remove() -> Result<()> {
    let mut roots = hierarchies()?;
    roots.push(ROOT.into());
    let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pns-"));
    let left = || roots.iter().flat_map(|root| subfolders(root)).filter(ours).collect::<Vec<_>>();
    for _ in 0..50 {
        if left().iter().all(|folder| remove_tree(folder)) {
            return Ok(());
        }
        // The kernel lets go of a dead process's cgroup a moment after its parent was told.
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("cgroups could not be removed (a process still runs in them?): {:?}", left());
}

/// Removes a cgroup with all below it; whether that worked.
fn remove_tree(folder: &Path) -> bool {
    let children = subfolders(folder).iter().filter(|child| !remove_tree(child)).count();
    children == 0 && (fs::remove_dir(folder).is_ok() || !folder.exists())
}

fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Folders of the mounted hierarchies; of version 1 one per controller.
fn hierarchies() -> Result<Vec<PathBuf>> {
    if is_unified() {
        return Ok(vec![ROOT.into()]);
    }
    // Controllers that are mounted together show as symbolic links beside their common folder.
    let mut found: Vec<_> = subfolders(Path::new(ROOT));
    found.retain(|folder| folder.join("cgroup.procs").exists());
    if found.is_empty() {
        bail!("no cgroup hierarchy is mounted under {ROOT}");
    }
    Ok(found)
}

/// Real folders in a folder; none when it is not readable.
fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}
