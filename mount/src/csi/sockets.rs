//! Where the workers of a node listen: `ROOT/NAMESPACE/DATASET/POD_UID` is a link to the target of the pod's own volume, a
//! small file system in memory. Whatever a pod puts there, it takes no space of the node, and is gone with the volume.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// Room for a socket and little else. Any user may write: whoever the pod runs as. Nobody reaches it but its containers,
/// because kubelet lets only root pass the parents of a volume.
pub const OPTIONS: &str = "size=64k,nr_inodes=16,mode=0777";

#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the socket directory {}: {source}", path.display())]
pub struct SocketDirError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Makes the link of one worker pod, in place of an earlier one. Only root passes its parents.
pub fn link(root: &Path, directory: &Path, target: &Path) -> Result<(), SocketDirError> {
    let failed = |source| SocketDirError { action: "create", path: directory.to_owned(), source };
    remove(root, directory)?;
    let made = directory.parent().map_or(Ok(()), |parent| {
        fs::create_dir_all(root)?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)
    });
    made.and_then(|()| symlink(target, directory)).map_err(failed)
}

pub fn leads_to(directory: &Path, target: &Path) -> bool {
    fs::read_link(directory).is_ok_and(|linked| linked == target)
}

/// Removes the link of one worker pod, and parents that became empty. A path that is not three levels below `root` is left
/// alone.
pub fn remove(root: &Path, directory: &Path) -> Result<(), SocketDirError> {
    if directory.strip_prefix(root).map_or(0, |inner| inner.components().count()) != 3 {
        return Ok(());
    }
    match fs::remove_file(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(SocketDirError { action: "remove", path: directory.to_owned(), source });
        }
        _ => {}
    }
    // Not empty is the usual case: other workers of this node.
    for parent in directory.ancestors().skip(1).take(2) {
        fs::remove_dir(parent).ok();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_comes_and_goes_with_its_empty_parents() {
        let folder = tempfile::tempdir().unwrap();
        let (root, target) = (folder.path().join("sockets"), folder.path().join("target"));
        let (one, two) = (root.join("ns/d/uid-1"), root.join("ns/d/uid-2"));
        for directory in [&one, &two, &one] {
            link(&root, directory, &target).unwrap();
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&root.join("ns/d")), mode(&root)), (0o700, 0o700));
        assert!(leads_to(&one, &target) && !leads_to(&one, folder.path()));
        remove(&root, &one).unwrap();
        remove(&root, &one).unwrap();
        assert!(!leads_to(&one, &target) && leads_to(&two, &target));
        remove(&root, &two).unwrap();
        assert!(root.exists() && !root.join("ns").exists());
    }

    #[test]
    fn what_is_not_a_worker_s_link_stays() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("ns/d");
        fs::create_dir_all(&inner).unwrap();
        remove(folder.path(), &inner).unwrap();
        remove(&folder.path().join("other"), &inner).unwrap();
        assert!(inner.exists());
    }
}
