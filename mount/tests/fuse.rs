//! The file system on real mounts. Needs /dev/fuse and root.
#![allow(clippy::unwrap_used)]

#[path = "common/memory.rs"]
mod memory;
#[path = "common/mounted.rs"]
mod mounted;

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, symlink},
    },
    path::Path,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use memory::{HELD, MemoryBackend};
use mounted::{Mounted, without_passthrough};
use penstock_mount::{
    backend::{Changed, Facts},
    spec::Tuning,
};
use penstock_wire::message::Change;
use rustix::io::Errno;

const FACTS: Facts = Facts { revalidate: None, uid: 1234, gid: 5678, workers: 1 };

fn memory() -> Arc<MemoryBackend> {
    let backend = Arc::new(MemoryBackend::default());
    backend.set_facts(FACTS);
    backend
}

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().and_then(|error| Errno::from_io_error(&error))
}

fn names(dir: impl AsRef<Path>) -> Vec<OsString> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn every_refusal_has_its_errno() {
    let backend = memory();
    backend.add(b"dir/file", b"content");
    backend.add_link(b"link", b"dir/file");
    let mount = Mounted::new(backend);
    let file = mount.join("dir/file");
    let table: [(&str, Option<Errno>, Errno); 13] = [
        ("no such file", errno(File::open(mount.join("none"))), Errno::NOENT),
        ("no such directory", errno(fs::read_dir(mount.join("none"))), Errno::NOENT),
        ("a file as a directory", errno(File::open(file.join("x"))), Errno::NOTDIR),
        ("listing a file", errno(fs::read_dir(&file)), Errno::NOTDIR),
        ("a name too long", errno(File::open(mount.join("x".repeat(1025)))), Errno::NAMETOOLONG),
        ("writing", errno(OpenOptions::new().write(true).open(&file)), Errno::ROFS),
        ("creating", errno(File::create(mount.join("new"))), Errno::ROFS),
        ("removing", errno(fs::remove_file(&file)), Errno::ROFS),
        ("making a directory", errno(fs::create_dir(mount.join("new"))), Errno::ROFS),
        ("renaming", errno(fs::rename(&file, mount.join("new"))), Errno::ROFS),
        ("linking", errno(symlink("x", mount.join("new"))), Errno::ROFS),
        (
            "changing the mode",
            errno(fs::set_permissions(&file, fs::metadata(mount.path()).unwrap().permissions())),
            Errno::ROFS,
        ),
        ("reading a link that is none", errno(fs::read_link(&file)), Errno::INVAL),
    ];
    for (what, got, expected) in table {
        assert_eq!(got, Some(expected), "{what}");
    }
    let mut value = [0u8; 16];
    assert_eq!(rustix::fs::getxattr(&file, "user.x", &mut value[..]), Err(Errno::OPNOTSUPP));
}

#[test]
fn attributes_are_those_of_the_dataset() {
    let backend = memory();
    backend.add(b"file", b"content");
    let mount = Mounted::new(backend);
    let metadata = fs::metadata(mount.join("file")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777, metadata.len()), (1234, 5678, 0o644, 7));
    assert_eq!(metadata.modified().unwrap(), UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_001));
    assert!(fs::metadata(mount.path()).unwrap().is_dir());
    let space = rustix::fs::statvfs(mount.path()).unwrap();
    assert_eq!((space.f_blocks, space.f_bavail, space.f_namemax), (0, 0, 1024));
}

#[test]
fn names_may_have_any_bytes() {
    let odd: [&[u8]; 9] = [
        b" ",
        b"-rf",
        b"a\nb",
        b"\xff\xfe not utf-8",
        "日本語".as_bytes(),
        b"back\\slash",
        b"...",
        b".hidden",
        &[b'n'; 255],
    ];
    let backend = memory();
    for name in odd {
        backend.add(name, name);
    }
    let mount = Mounted::new(backend);
    let listed: BTreeSet<OsString> = names(mount.path()).into_iter().collect();
    assert_eq!(listed, odd.iter().map(|name| OsStr::from_bytes(name).to_owned()).collect());
    for name in odd {
        assert_eq!(fs::read(mount.join(OsStr::from_bytes(name))).unwrap(), name);
    }
}

#[test]
fn names_longer_than_most_file_systems_allow_are_served() {
    let backend = memory();
    let long = "k".repeat(900);
    backend.add(long.as_bytes(), b"x");
    let mount = Mounted::new(backend);
    assert_eq!(names(mount.path()), [OsString::from(&long)]);
    assert_eq!(fs::read(mount.join(&long)).unwrap(), b"x");
}

#[test]
fn empty_files_and_empty_directories_are_there() {
    let backend = memory();
    backend.add(b"empty", b"");
    backend.add_directory(b"void");
    let mount = Mounted::new(backend.clone());
    assert_eq!(fs::read(mount.join("empty")).unwrap(), b"");
    assert!(names(mount.join("void")).is_empty());
    assert!(backend.reads().is_empty());
}

#[test]
fn links_lead_where_they_say() {
    let backend = memory();
    backend.add(b"dir/file", b"content");
    backend.add_link(b"there", b"dir/file");
    backend.add_link(b"nowhere", b"../../none");
    let mount = Mounted::new(backend);
    assert_eq!(fs::read(mount.join("there")).unwrap(), b"content");
    assert_eq!(fs::read_link(mount.join("nowhere")).unwrap(), Path::new("../../none"));
    assert_eq!(errno(File::open(mount.join("nowhere"))), Some(Errno::NOENT));
}

#[test]
fn a_directory_of_5000_lists_each_entry_once_and_numbers_agree_with_stat() {
    let backend = memory();
    let expected: Vec<OsString> = (0..5000).map(|i| format!("part-{i:05}.parquet").into()).collect();
    for name in &expected {
        backend.add(&[b"big/", name.as_bytes()].concat(), b"x");
    }
    let mount = Mounted::new(backend.clone());
    for _ in 0..2 {
        assert_eq!(names(mount.join("big")), expected);
    }
    let asked = backend.stats();
    for entry in fs::read_dir(mount.join("big")).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        assert_eq!((std::os::unix::fs::DirEntryExt::ino(&entry), metadata.len()), (metadata.ino(), 1));
    }
    assert!(backend.stats() - asked < 50, "{} questions for 5000 entries", backend.stats() - asked);
}

#[test]
fn concurrent_readers_of_one_file_see_its_bytes() {
    const SIZE: u64 = 24 << 20;
    let backend = memory();
    backend.add_patterned(b"file", SIZE);
    let mount = Mounted::with(backend, without_passthrough());
    let path = mount.join("file");
    std::thread::scope(|scope| {
        for reader in 0..8u64 {
            let path = &path;
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                let mut data = vec![0; 300_000];
                for step in 0..60u64 {
                    let offset = if reader < 4 {
                        step * 300_000
                    } else {
                        (step * 7_919_993 + reader * 1_000_003) % (SIZE - 300_000)
                    };
                    file.read_exact_at(&mut data, offset).unwrap();
                    assert!(data == MemoryBackend::pattern(offset, 300_000), "reader {reader} at {offset}");
                }
            });
        }
    });
}

#[test]
fn a_scan_asks_for_each_byte_once_and_small_random_reads_for_few() {
    const SIZE: u64 = 20 << 20;
    let backend = memory();
    backend.add_patterned(b"scan", SIZE);
    backend.add_patterned(b"points", 1 << 30);
    let mount = Mounted::with(backend.clone(), without_passthrough());
    let data = fs::read(mount.join("scan")).unwrap();
    assert!(data == MemoryBackend::pattern(0, SIZE));
    let asked: u64 = backend.reads().iter().map(|(_, len)| len).sum();
    assert!(asked <= SIZE + (1 << 20), "{asked} bytes asked for a file of {SIZE}");

    let before = backend.reads().len();
    let points = File::open(mount.join("points")).unwrap();
    for step in 1..20u64 {
        points.read_exact_at(&mut [0; 4096], step * 50_000_000).unwrap();
    }
    let asked: u64 = backend.reads()[before..].iter().map(|(_, len)| len).sum();
    assert!(asked <= 19 * (128 << 10), "{asked} bytes asked for 19 reads of 4 KiB");
}

#[test]
fn a_slow_read_holds_nobody_else_up() {
    let backend = memory();
    backend.add(b"slow", b"slow");
    backend.add(b"quick", b"quick");
    backend.delay_read(b"slow", HELD);
    let mount = Mounted::with(backend.clone(), without_passthrough());
    std::thread::scope(|scope| {
        let slow: Vec<_> = (0..8).map(|_| scope.spawn(|| fs::read(mount.join("slow")).unwrap())).collect();
        while backend.delayed() == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(fs::read(mount.join("quick")).unwrap(), b"quick");
        assert_eq!(names(mount.path()).len(), 2);
        assert!(slow.iter().all(|reader| !reader.is_finished()), "the slow ones were to wait meanwhile");
        backend.delay_read(b"slow", Duration::ZERO);
        for reader in slow {
            assert_eq!(reader.join().unwrap(), b"slow");
        }
    });
}

#[test]
fn a_changed_object_is_never_mixed_with_what_it_was() {
    let backend = memory();
    backend.set_facts(Facts { revalidate: Some(Duration::from_millis(100)), ..FACTS });
    let (old, new) = (vec![1u8; 3 << 20], vec![2u8; 3 << 20]);
    backend.add(b"file", &old);
    let mount = Mounted::with(backend.clone(), without_passthrough());
    let handle = File::open(mount.join("file")).unwrap();
    let mut start = [0; 4096];
    handle.read_exact_at(&mut start, 0).unwrap();
    backend.add(b"file", &new);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(fs::read(mount.join("file")).unwrap(), new, "who opens it anew gets the new version");
    handle.read_exact_at(&mut start, 0).unwrap();
    assert_eq!(start, [1; 4096], "what the old handle has read stays as it was");
    assert_eq!(errno(handle.read_exact_at(&mut [0; 4096], 3 << 20 >> 1)), Some(Errno::STALE));
}

#[test]
fn an_appearing_and_a_vanishing_file_are_noticed_within_the_interval() {
    let backend = memory();
    backend.set_facts(Facts { revalidate: Some(Duration::from_millis(100)), ..FACTS });
    backend.add(b"old", b"x");
    let mount = Mounted::new(backend.clone());
    assert!(mount.join("old").exists() && !mount.join("new").exists());
    backend.add(b"new", b"y");
    backend.remove(b"old");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!mount.join("old").exists() && mount.join("new").exists());
}

#[test]
fn what_workers_find_changed_the_kernel_hears_long_before_its_copy_is_old() {
    let backend = memory();
    for name in ["changed", "gone", "same"] {
        backend.add(name.as_bytes(), b"old");
    }
    backend.add(b"dir/inside", b"old");
    let mount = Mounted::new(backend.clone());
    let read = |name: &str| fs::read(mount.join(name)).ok();
    assert_eq!(["changed", "gone", "new", "same", "dir/inside"].map(read).iter().flatten().count(), 4);
    for name in ["changed", "new", "dir/inside"] {
        backend.add(name.as_bytes(), b"another");
    }
    backend.remove(b"gone");
    assert_eq!(read("changed").unwrap(), b"old", "a static Dataset is believed for long");
    let paths = ["changed", "gone", "new"].map(|name| Change::Entry(name.into()));
    backend.tell(Changed::Here(paths.into_iter().chain([Change::Directory(b"dir".to_vec())]).collect()));
    let another = Some(b"another".to_vec());
    let wanted = [another.clone(), None, another.clone(), Some(b"old".to_vec()), another];
    let begun = Instant::now();
    while ["changed", "gone", "new", "same", "dir/inside"].map(read) != wanted {
        assert!(begun.elapsed() < Duration::from_secs(3), "the kernel keeps what has changed");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_mount_without_workers_can_be_looked_at_and_unmounted() {
    let backend = Arc::new(MemoryBackend::default());
    backend.delay_stat(b"", Duration::from_mins(1));
    let mount = Mounted::new(backend);
    assert!(fs::metadata(mount.path()).unwrap().is_dir());
}

#[test]
fn a_page_of_a_file_can_be_mapped_and_read_in_small_pieces() {
    let backend = memory();
    backend.add_patterned(b"file", 5_000_001);
    let mount = Mounted::with(backend, without_passthrough());
    let mut file = File::open(mount.join("file")).unwrap();
    let mut seen = Vec::new();
    let mut piece = [0; 777];
    loop {
        match file.read(&mut piece).unwrap() {
            0 => break,
            n => seen.extend_from_slice(&piece[..n]),
        }
    }
    assert!(seen == MemoryBackend::pattern(0, 5_000_001));
}

/// Content is given to the kernel at open; a reader that has the same file open already may be waiting for a page of it.
#[test]
fn a_small_file_may_be_opened_by_many_at_once_while_its_pages_are_dropped() {
    const READERS: usize = 8;
    const FILES: u32 = 60;
    let backend = memory();
    let content = MemoryBackend::pattern(0, 100_000);
    for file in 0..FILES {
        backend.add(file.to_string().as_bytes(), &content);
        backend.delay_read(file.to_string().as_bytes(), Duration::from_millis(1));
    }
    let mount = Mounted::new(backend);
    let (done, all) = std::sync::mpsc::channel();
    for _ in 0..READERS {
        let (dir, content, done) = (mount.path().to_owned(), content.clone(), done.clone());
        std::thread::spawn(move || {
            for file in 0..FILES {
                let mut file = File::open(dir.join(file.to_string())).unwrap();
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                let mut data = Vec::new();
                file.read_to_end(&mut data).unwrap();
                assert!(data == content);
            }
            done.send(()).unwrap();
        });
    }
    for _ in 0..READERS {
        // Who fails ends the mount by force, and with it whatever waits for it.
        assert_eq!(all.recv_timeout(Duration::from_secs(20)), Ok(()), "readers wait for each other");
    }
}

/// [`Mounted`] looks at the mount table and the session when it goes.
#[test]
fn nothing_is_left_after_an_unmount() {
    let mount = Mounted::with(memory(), Tuning::default());
    let (_, dir) = (names(mount.path()), mount.path().to_owned());
    drop(mount);
    assert!(!dir.exists(), "the mount point could not be removed");
}
