//! What lies on disk after a restart, a crash, harm, or on a medium that is too small.

use std::{fs, os::unix::fs::FileExt, path::Path};

use penstock_model::{EXTENT, Medium, PAGE};
use penstock_store::{Store, WriteError};

use crate::support::{MIB, content, corrupt, disk_use, files, object, pages, ssd, tier, write_all};

#[test]
fn a_new_process_finds_what_the_old_one_kept() {
    let dir = tempfile::tempdir().unwrap();
    let object = object(1, EXTENT + 3 * PAGE + 9);
    let store = ssd(dir.path(), 64 * MIB);
    for run in [0..2, 5..9, 18..20] {
        let (at, data) = pages(&object, run);
        store.write(&object, at, &data).unwrap();
    }
    let (before, missing) = (store.stats(), store.missing(&object.key, object.size, 0..object.size));
    assert_eq!(missing, vec![2 * PAGE..5 * PAGE, 9 * PAGE..18 * PAGE]);
    drop(store);
    let store = ssd(dir.path(), 64 * MIB);
    assert_eq!(store.stats(), before);
    assert_eq!(store.missing(&object.key, object.size, 0..object.size), missing);
    let range = 18 * PAGE + 7..object.size;
    let got = store.read(&object.key, range.start, (range.end - range.start) as usize).unwrap();
    assert!(got[..] == content(&object, range)[..]);
    let mut extents = store.extents();
    extents.sort_by_key(|extent| extent.extent);
    assert_eq!(*extents[0].object, object);
    assert_eq!(extents.iter().map(|extent| extent.present).collect::<Vec<_>>(), vec![6 * PAGE, PAGE + 9]);
    assert_eq!(extents[1].range(), EXTENT..object.size);
}

#[test]
fn a_lowered_quota_is_kept_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = ssd(dir.path(), 64 * MIB);
    (0..20).for_each(|n| write_all(&store, &object(n, MIB)));
    drop(store);
    let store = ssd(dir.path(), 6 * MIB);
    let used = store.stats().tiers[0].used;
    assert!(used <= 6 * MIB && used > 3 * MIB && disk_use(dir.path()) <= used);
}

#[test]
fn a_flipped_byte_costs_its_page_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let object = object(1, 4 * PAGE);
    let store = ssd(dir.path(), 64 * MIB);
    write_all(&store, &object);
    corrupt(dir.path(), &object, PAGE + 77);
    assert!(store.read(&object.key, 0, PAGE as usize).is_some());
    assert!(store.read(&object.key, PAGE, 1).is_none());
    assert_eq!(store.missing(&object.key, object.size, 0..object.size), vec![PAGE..2 * PAGE]);
    assert_eq!(store.stats().corrupt_pages, 1);
    write_all(&store, &object);
    assert!(store.read(&object.key, 0, object.size as usize).unwrap()[..] == content(&object, 0..object.size)[..]);
    drop(store);
    corrupt(dir.path(), &object, 3 * PAGE);
    let store = ssd(dir.path(), 64 * MIB);
    assert!(store.open_complete(&object.key).is_none(), "an unverified page was handed out");
    assert_eq!(store.missing(&object.key, object.size, 0..object.size), vec![3 * PAGE..4 * PAGE]);
}

#[test]
fn torn_and_foreign_files_do_not_disturb_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = ssd(dir.path(), 64 * MIB);
    let objects: Vec<_> = (0..4).map(|n| object(n, PAGE + 1)).collect();
    objects.iter().for_each(|object| write_all(&store, object));
    drop(store);
    let path = |n: usize, ext: &str| {
        let name = format!("{:032x}", objects[n].key.0);
        dir.path().join("objects").join(&name[..2]).join(format!("{name}.{ext}"))
    };
    fs::OpenOptions::new().write(true).open(path(0, "meta")).unwrap().set_len(30).unwrap();
    fs::remove_file(path(1, "data")).unwrap();
    fs::remove_file(path(2, "meta")).unwrap();
    fs::write(dir.path().join("objects/README"), "not ours").unwrap();
    fs::write(path(3, "data").with_file_name("x.meta"), "not ours").unwrap();
    fs::create_dir(dir.path().join("objects/zz")).unwrap();
    let store = ssd(dir.path(), 64 * MIB);
    assert_eq!(store.stats().cached_bytes, PAGE + 1);
    assert!(store.read(&objects[3].key, 0, 9).is_some());
    let left = files(dir.path()).iter().filter(|path| path.extension().is_some_and(|ext| ext == "data")).count();
    assert_eq!(left, 1);
    assert!(dir.path().join("objects/README").exists() && dir.path().join("objects/zz").exists());
    objects.iter().for_each(|object| write_all(&store, object));
    assert!(objects.iter().all(|object| store.open_complete(&object.key).is_some()));
}

#[test]
fn bytes_without_a_record_are_freed_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = ssd(dir.path(), 64 * MIB);
    let object = object(1, EXTENT);
    let (at, data) = pages(&object, 0..1);
    store.write(&object, at, &data).unwrap();
    drop(store);
    let data = files(dir.path()).into_iter().find(|path| path.extension().is_some_and(|ext| ext == "data")).unwrap();
    let file = fs::OpenOptions::new().write(true).open(data).unwrap();
    file.write_all_at(&vec![1; 2 * MIB as usize], MIB).unwrap();
    file.sync_all().unwrap();
    let store = ssd(dir.path(), 64 * MIB);
    assert!(disk_use(dir.path()) <= store.stats().tiers[0].used);
    assert!(store.read(&object.key, 0, PAGE as usize).is_some());
}

fn trouble(dir: &Path, quota: u64) -> String {
    let store = ssd(dir, quota);
    assert!(matches!(store.write(&object(1, 5), 0, b"12345"), Err(WriteError::Full)));
    assert!(store.read(&object(1, 5).key, 0, 5).is_none());
    store.stats().tiers[0].trouble.clone().unwrap()
}

#[test]
fn a_tier_that_cannot_be_used_says_why_and_the_next_one_serves() {
    let dir = tempfile::tempdir().unwrap();
    assert!(trouble(&dir.path().join("none"), MIB).contains("No such file"));
    assert!(trouble(dir.path(), 1 << 60).contains("larger than its medium"));
    assert!(trouble(Path::new("/proc"), 0).contains("not writable"));
    let holder = ssd(dir.path(), 64 * MIB);
    assert!(trouble(dir.path(), MIB).contains("in use by another process"));
    let waiting = ssd(dir.path(), 64 * MIB);
    assert!(!waiting.stats().tiers[0].usable);
    write_all(&holder, &object(7, PAGE));
    drop(holder);
    waiting.recheck();
    let stats = waiting.stats();
    assert!(stats.tiers[0].usable && stats.tiers[0].trouble.is_none(), "{stats:?}");
    assert!(waiting.read(&object(7, PAGE).key, 0, PAGE as usize).is_some(), "what was there is found");
    write_all(&waiting, &object(8, PAGE));
    drop(waiting);
    let none = tier(Medium::Mem, &dir.path().join("none"), MIB);
    let store = Store::open(vec![none, tier(Medium::Ssd, dir.path(), 64 * MIB)]);
    write_all(&store, &object(1, PAGE));
    assert!(store.open_complete(&object(1, PAGE).key).is_some());
}

#[test]
fn odd_writes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = ssd(dir.path(), 64 * MIB);
    let thing = object(1, 2 * PAGE + 5);
    for (at, len) in [(1, PAGE), (0, PAGE - 1), (2 * PAGE, 4), (2 * PAGE, 6)] {
        let refused = store.write(&thing, at, &vec![0; len as usize]);
        assert!(matches!(refused, Err(WriteError::Misaligned { .. })), "{at} {len}");
    }
    write_all(&store, &thing);
    let longer = penstock_model::Object { size: 3 * PAGE, ..thing };
    assert!(matches!(store.write(&longer, 0, &vec![0; PAGE as usize]), Err(WriteError::OtherSize { .. })));
    assert_eq!(store.missing(&longer.key, longer.size, 0..1), vec![0..PAGE]);
    assert_eq!(store.read(&longer.key, 3 * PAGE, 1), None);
}

/// A mount that goes when the test ends, also by panic.
struct Tmpfs(tempfile::TempDir);

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_medium_refuses_writes_and_serves_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if let Err(error) = rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, Some(c"size=8m")) {
        eprintln!("skipped: mounting a tmpfs needs root ({error})");
        return;
    }
    let mount = Tmpfs(dir);
    let store = ssd(mount.0.path(), 8 * MIB);
    assert_eq!(store.stats().tiers[0].trouble, None);
    let first = object(0, MIB);
    write_all(&store, &first);
    // Somebody else fills the medium.
    let _ = fs::write(mount.0.path().join("theirs"), vec![7; 8 * MIB as usize]);
    let refused = (1..8).filter(|n| store.write(&object(*n, MIB), 0, &content(&object(*n, MIB), 0..MIB)).is_err());
    assert!(refused.count() > 0);
    store.recheck();
    let short = store.stats().tiers[0].clone();
    assert!(short.usable && short.trouble.is_some_and(|text| text.contains("larger than what its medium has left")));
    fs::remove_file(mount.0.path().join("theirs")).unwrap();
    store.recheck();
    assert_eq!(store.stats().tiers[0].trouble, None);
    (1..40).for_each(|n| write_all(&store, &object(n, MIB)));
    for n in 0..40 {
        let object = object(n, MIB);
        if let Some(bytes) = store.read(&object.key, 0, MIB as usize) {
            assert!(bytes[..] == content(&object, 0..MIB)[..]);
        }
    }
    let stats = store.stats();
    assert!(disk_use(mount.0.path()) <= stats.tiers[0].used && stats.tiers[0].used <= 8 * MIB);
    drop(store);
    assert_eq!(ssd(mount.0.path(), 8 * MIB).stats().cached_bytes, stats.cached_bytes);
}
