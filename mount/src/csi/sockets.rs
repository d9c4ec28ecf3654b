//! The directories in which a node's workers listen: `ROOT/NAMESPACE/DATASET/POD_UID`.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the socket directory {}: {source}", path.display())]
pub struct SocketDirError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Makes the directory of one worker pod. Only root passes its parents, so that it can be writable for whichever user
/// the pod runs as: nobody else reaches it except through the pod's own mount.
pub fn create(root: &Path, directory: &Path) -> Result<(), SocketDirError> {
    let made = directory.parent().map_or(Ok(()), |parent| {
        fs::create_dir_all(root)?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)
    });
    made.and_then(|()| fs::DirBuilder::new().recursive(true).create(directory))
        .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o777)))
        .map_err(|source| SocketDirError { action: "create", path: directory.to_owned(), source })
}

/// Removes the directory of one worker pod with whatever the pod left there, and parents that became empty. A path
/// that is not three levels below `root` is left alone.
pub fn remove(root: &Path, directory: &Path) -> Result<(), SocketDirError> {
    if directory.strip_prefix(root).map_or(0, |inner| inner.components().count()) != 3 {
        return Ok(());
    }
    match fs::remove_dir_all(directory) {
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
    fn a_directory_comes_and_goes_with_its_empty_parents() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("sockets");
        let (one, two) = (root.join("ns/d/uid-1"), root.join("ns/d/uid-2"));
        for directory in [&one, &two, &one] {
            create(&root, directory).unwrap();
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&one), mode(&root.join("ns/d")), mode(&root)), (0o777, 0o700, 0o700));
        fs::write(one.join("worker.sock"), "").unwrap();
        remove(&root, &one).unwrap();
        remove(&root, &one).unwrap();
        assert!(!one.exists() && two.exists());
        remove(&root, &two).unwrap();
        assert!(root.exists() && !root.join("ns").exists());
    }

    #[test]
    fn what_is_not_a_worker_s_directory_stays() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("ns/d");
        fs::create_dir_all(&inner).unwrap();
        remove(folder.path(), &inner).unwrap();
        remove(&folder.path().join("other"), &inner).unwrap();
        assert!(inner.exists());
    }
}
