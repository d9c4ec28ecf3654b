use penstock_wire::message::Change;

use super::*;
use crate::{backend::Changed, testing::MemoryBackend};

fn file_system() -> (Arc<MemoryBackend>, FileSystem) {
    let backend = Arc::new(MemoryBackend::default());
    backend.set_facts(Facts { revalidate: None, uid: 7, gid: 8, workers: 1 });
    backend.add(b"dir/a", b"hello");
    backend.add(b"b", b"");
    backend.add_link(b"l", b"dir/a");
    (backend.clone(), FileSystem::new(backend, Tuning::default()))
}

async fn find(fs: &FileSystem, path: &str) -> Stat {
    let mut ino = ROOT;
    let mut stat = None;
    for name in path.split('/') {
        let Found::Entry(found) = fs.lookup(ino, name.as_bytes()).await.unwrap() else { panic!("no {path}") };
        ino = found.ino;
        stat = Some(found);
    }
    stat.unwrap()
}

#[tokio::test]
async fn a_file_is_found_and_read_and_owned_as_the_dataset_says() {
    let (_, fs) = file_system();
    let stat = find(&fs, "dir/a").await;
    assert_eq!((stat.uid, stat.gid, stat.attr.size, stat.ttl), (7, 8, 5, STATIC_FILE));
    let opened = fs.open(stat.ino, false).await.unwrap();
    assert_eq!(&fs.read(opened.handle, 1, 100).await.unwrap()[..], b"ello");
    assert_eq!(&fs.read(opened.handle, 5, 100).await.unwrap()[..], b"");
    fs.release(opened.handle);
    assert_eq!(fs.read(opened.handle, 0, 1).await, Err(Errno::BADF));
}

#[tokio::test]
async fn a_second_lookup_within_the_time_asks_no_worker() {
    let (backend, fs) = file_system();
    find(&fs, "dir/a").await;
    let asked = backend.stats();
    find(&fs, "dir/a").await;
    assert_eq!(backend.stats(), asked);
}

#[tokio::test]
async fn errors_have_their_errno() {
    let (_, fs) = file_system();
    let (file, link, dir) = (find(&fs, "b").await.ino, find(&fs, "l").await.ino, find(&fs, "dir").await.ino);
    assert_eq!(fs.lookup(file, b"x").await.unwrap_err(), Errno::NOTDIR);
    assert_eq!(fs.lookup(ROOT, &[b'x'; NAME_MAX + 1]).await.unwrap_err(), Errno::NAMETOOLONG);
    assert!(matches!(fs.lookup(ROOT, b"none").await, Ok(Found::Nothing(ttl)) if ttl == lookup::NEGATIVE));
    assert_eq!(fs.open(file, true).await.err(), Some(Errno::ROFS));
    assert_eq!(fs.open(dir, false).await.err(), Some(Errno::ISDIR));
    assert_eq!(fs.opendir(file).err(), Some(Errno::NOTDIR));
    assert_eq!(fs.readlink(file).await.err(), Some(Errno::INVAL));
    assert_eq!(fs.readlink(link).await.unwrap(), b"dir/a");
    assert_eq!(fs.getattr(12345).await.err(), Some(Errno::STALE));
}

#[tokio::test]
async fn an_object_that_changes_under_a_handle_is_stale_and_new_for_who_opens_it_again() {
    let (backend, fs) = file_system();
    backend.set_facts(Facts { revalidate: Some(Duration::ZERO), uid: 0, gid: 0, workers: 1 });
    let old = find(&fs, "dir/a").await.ino;
    let handle = fs.open(old, false).await.unwrap().handle;
    backend.add(b"dir/a", b"other");
    assert_eq!(fs.read(handle, 0, 5).await, Err(Errno::STALE));
    assert_eq!(fs.getattr(old).await.unwrap().attr.size, 5, "an open file keeps its attributes");
    assert_eq!(fs.open(old, false).await.err(), Some(Errno::STALE), "so that the kernel looks up again");
    let new = find(&fs, "dir/a").await.ino;
    assert_ne!(old, new);
    let reopened = fs.open(new, false).await.unwrap().handle;
    assert_eq!(&fs.read(reopened, 0, 5).await.unwrap()[..], b"other");
    fs.release(handle);
    assert_eq!(fs.getattr(old).await.err(), Some(Errno::STALE));
}

#[tokio::test]
async fn a_static_file_that_changed_all_the_same_is_seen_once_a_read_has_failed() {
    let (backend, fs) = file_system();
    let ino = find(&fs, "dir/a").await.ino;
    let handle = fs.open(ino, false).await.unwrap().handle;
    backend.add(b"dir/a", b"other");
    assert_eq!(fs.read(handle, 0, 5).await, Err(Errno::STALE));
    assert_eq!(fs.open(ino, false).await.err(), Some(Errno::STALE));
    assert_ne!(find(&fs, "dir/a").await.ino, ino);
}

#[tokio::test]
async fn names_that_are_looked_up_one_after_the_other_are_soon_known_and_a_change_is_seen_all_the_same() {
    let (backend, fs) = file_system();
    let files: Vec<String> = (0..3000).map(|i| format!("many/{i:04}")).collect();
    for file in &files {
        backend.add(file.as_bytes(), b"old");
    }
    let mut inos = Vec::new();
    for file in &files {
        inos.push(find(&fs, file).await.ino);
        tokio::task::yield_now().await;
    }
    assert!(backend.stats() < 50, "{} questions for {} names", backend.stats(), files.len());
    assert!(matches!(fs.lookup(find(&fs, "many").await.ino, b"2999x").await, Ok(Found::Nothing(_))));

    let (last, ino) = (&files[2999], inos[2999]);
    let handle = fs.open(ino, false).await.unwrap().handle;
    backend.add(last.as_bytes(), b"new");
    assert_eq!(fs.read(handle, 0, 3).await, Err(Errno::STALE));
    fs.forget(ino, 1);
    let opened = fs.open(find(&fs, last).await.ino, false).await.unwrap();
    assert_eq!(&fs.read(opened.handle, 0, 3).await.unwrap()[..], b"new");
}

#[tokio::test]
async fn a_small_file_is_given_to_the_kernel_at_its_first_open_and_the_next_ones_are_fetched() {
    let (backend, fs) = file_system();
    let files: Vec<String> = (0..100).map(|i| format!("many/{i:03}")).collect();
    for file in &files {
        backend.add(file.as_bytes(), file.as_bytes());
    }
    for file in &files {
        let ino = find(&fs, file).await.ino;
        for first in [true, false] {
            let opened = fs.open(ino, false).await.unwrap();
            assert_eq!(opened.content.as_deref(), first.then_some(file.as_bytes()), "{file}");
            fs.release(opened.handle);
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(backend.reads().len(), files.len(), "each was fetched once");
    assert!(fs.neighbours.lock().len() > 1);

    let ino = find(&fs, "b").await.ino;
    assert_eq!(fs.open(ino, false).await.unwrap().content, None, "an empty file has none");
    let large = backend.add_patterned(b"large", 1 << 20);
    let ino = find(&fs, "large").await.ino;
    assert_eq!(fs.open(ino, false).await.unwrap().content, None, "of {} bytes", large.size);
}

#[tokio::test]
async fn a_small_file_that_cannot_be_fetched_opens_and_its_reader_is_told() {
    let (backend, fs) = file_system();
    let ino = find(&fs, "dir/a").await.ino;
    backend.fail_reads(2, ReadError::Ufs("down".into()));
    let opened = fs.open(ino, false).await.unwrap();
    assert_eq!(opened.content, None);
    assert_eq!(fs.read(opened.handle, 0, 5).await, Err(Errno::IO));
    assert_eq!(&fs.read(opened.handle, 0, 5).await.unwrap()[..], b"hello");
}

#[tokio::test]
async fn what_workers_tell_is_asked_for_anew_and_goes_on_to_the_kernel() {
    let (backend, fs) = file_system();
    let fs = Arc::new(fs);
    let mut kernel = fs.invalidations();
    tokio::spawn(FileSystem::follow(Arc::downgrade(&fs)));
    let (directory, old) = (find(&fs, "dir").await.ino, find(&fs, "dir/a").await.ino);
    backend.add(b"dir/a", b"other");
    backend.tell(Changed::Here(vec![Change::Entry(b"dir/a".to_vec()), Change::Entry(b"unknown/x".to_vec())]));
    let name = |parent, name: &str| Some(Invalidation { parent, name: name.into() });
    assert_eq!(kernel.recv().await, name(directory, "a"));
    let new = find(&fs, "dir/a").await.ino;
    assert_ne!(new, old);
    fs.forget(old, 1);

    backend.add(b"dir/a", b"once more");
    backend.tell(Changed::Here(vec![Change::Directory(b"dir".to_vec())]));
    assert_eq!(kernel.recv().await, name(directory, "a"));
    assert_ne!(find(&fs, "dir/a").await.ino, new);

    let asked = backend.stats();
    fs.heed(&Changed::Anywhere);
    find(&fs, "dir").await;
    assert_eq!(backend.stats(), asked + 1);
}

#[tokio::test]
async fn a_listing_with_attributes_counts_lookups_only_for_what_was_taken() {
    let (_, fs) = file_system();
    let handle = fs.opendir(ROOT).unwrap();
    let mut seen = Vec::new();
    fs.readdir(handle, 0, true, |entry| {
        seen.push((entry.name.to_vec(), entry.ino, entry.next));
        seen.len() < 4
    })
    .await
    .unwrap();
    let names: Vec<&[u8]> = seen.iter().map(|(name, ..)| &name[..]).collect();
    assert_eq!(names, [&b"."[..], b"..", b"b", b"dir"]);
    let taken = seen[2].1;
    assert!(fs.inodes.lock().get(taken).is_some());
    assert!(fs.inodes.lock().get(seen[3].1).is_none(), "the refused entry is not remembered");
    let mut rest = Vec::new();
    fs.readdir(handle, seen[2].2, false, |entry| {
        rest.push(entry.name.to_vec());
        true
    })
    .await
    .unwrap();
    assert_eq!(rest, [&b"dir"[..], b"l"]);
}

#[tokio::test]
async fn the_root_can_be_looked_at_before_any_worker_is_there() {
    let backend = Arc::new(MemoryBackend::default());
    let fs = FileSystem::new(backend, Tuning::default());
    let root = fs.getattr(ROOT).await.unwrap();
    assert_eq!((root.ino, root.attr.kind), (ROOT, Kind::Directory));
}

#[test]
fn paths_join_and_split() {
    assert_eq!(join(b"", b"a"), b"a");
    assert_eq!(join(b"a/b", b"c"), b"a/b/c");
    assert_eq!(parent(b"a/b/c"), b"a/b");
    assert_eq!(parent(b"a"), b"");
    assert_eq!(parent(b""), b"");
}

/// Reads 16 parts of a file, each in order, in turns of one read each; how many thousandths of the bytes were asked of the
/// workers. Each scan begins with a read of its own, and reads ahead a little where it will not go on.
async fn scan_sixteen_parts(handles: &[usize; 16]) -> u64 {
    const PART: u64 = 8 << 20;
    const LEN: u64 = 128 << 10;
    let (backend, fs) = file_system();
    let size = 16 * PART;
    backend.add_patterned(b"big", size);
    let ino = find(&fs, "big").await.ino;
    let mut opened = Vec::new();
    for _ in 0..16 {
        opened.push(fs.open(ino, false).await.unwrap().handle);
    }
    for step in 0..PART / LEN {
        let reads =
            (0..16u64).map(|part| fs.read(opened[handles[part as usize]], part * PART + step * LEN, LEN as u32));
        for data in futures::future::join_all(reads).await {
            assert_eq!(data.unwrap().len() as u64, LEN);
        }
    }
    let asked: Vec<u64> = backend.reads().iter().map(|(_, len)| *len).collect();
    println!("{} requests for {:.3} of the bytes", asked.len(), asked.iter().sum::<u64>() as f64 / size as f64);
    assert!(asked.len() < 16 * (8 + 4), "{} requests", asked.len());
    asked.iter().sum::<u64>() * 1000 / size
}

#[tokio::test]
async fn sixteen_scans_of_one_file_ask_for_its_bytes_once() {
    assert!(scan_sixteen_parts(&std::array::from_fn(|part| part)).await <= 1300, "through as many handles");
    assert!(scan_sixteen_parts(&[0; 16]).await <= 1300, "by threads that share a handle");
}
