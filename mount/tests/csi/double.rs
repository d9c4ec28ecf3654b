//! A stand-in for `penstock-mount serve`: a file system with one file, so that these tests need no workers.

use std::{
    ffi::OsStr,
    os::fd::{FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr,
    ReplyData, ReplyEntry, ReplyStatfs, Request, Session, SessionACL,
};
use penstock_mount::{csi::daemon::READY_LINE, spec::MountSpec};

pub(crate) const FILE: &str = "greeting";
pub(crate) const CONTENT: &str = "served by a process of its own";
/// The stand-in gives up instead of serving this Dataset.
pub(crate) const REFUSED: &str = "ns/refused";

const FD_VARIABLE: &str = "PENSTOCK_TEST_FUSE_FD";

/// Writes a program that takes `serve --fuse-fd N` and runs the stand-in out of this test binary.
pub(crate) fn program(folder: &Path) -> PathBuf {
    let path = folder.join("serve-double");
    let own = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\n[ \"$1 $2\" = 'serve --fuse-fd' ] || exit 64\n{FD_VARIABLE}=$3 exec '{}' --ignored --exact {} --nocapture\n",
        own.display(),
        "double::stands_in_for_the_serving_process"
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[test]
#[ignore = "is not a test: runs as the serving process of the other ones"]
fn stands_in_for_the_serving_process() {
    let Ok(number) = std::env::var(FD_VARIABLE) else { return };
    let spec: MountSpec = serde_json::from_reader(std::io::stdin()).unwrap();
    if spec.dataset == REFUSED {
        std::process::exit(1);
    }
    // SAFETY: the plugin gave us this descriptor, and nothing else here knows of it.
    #[allow(unsafe_code)]
    let fuse = unsafe { OwnedFd::from_raw_fd(number.parse().unwrap()) };
    let session = Session::from_fd(OneFile, fuse, SessionACL::All, Config::default()).unwrap();
    println!("\n{READY_LINE}");
    session.run().ok();
    std::process::exit(0);
}

struct OneFile;

const TTL: Duration = Duration::ZERO;

fn attributes(ino: INodeNo) -> FileAttr {
    let root = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        size: if root { 0 } else { CONTENT.len() as u64 },
        blocks: 1,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if root { FileType::Directory } else { FileType::RegularFile },
        perm: if root { 0o555 } else { 0o444 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 512,
        flags: 0,
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            reply.entry(&TTL, &attributes(INodeNo(2)), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(ino));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(CONTENT.as_bytes().get(offset as usize..).unwrap_or_default());
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1000, 400, 400, 10, 4, 4096, 255, 4096);
    }
}
