use super::*;
use crate::testing::MemoryBackend;

fn open(size: u64, bound: u64, total: u64) -> (Arc<MemoryBackend>, OpenObjects, Arc<OpenObject>) {
    let backend = Arc::new(MemoryBackend::default());
    let object = backend.add_patterned(b"f", size);
    let objects = OpenObjects::new(backend.clone(), total);
    let opened = objects.open(object, bound);
    (backend, objects, opened)
}

#[test]
fn ranges_are_cut_at_extents() {
    let cut: Vec<_> = extents(EXTENT - 1, 2 * EXTENT + 1).collect();
    assert_eq!(cut, [(EXTENT - 1, EXTENT), (EXTENT, 2 * EXTENT), (2 * EXTENT, 2 * EXTENT + 1)]);
}

#[tokio::test]
async fn a_random_read_asks_for_its_bytes_and_no_more() {
    let (backend, _, file) = open(64 << 20, 8 << 20, 64 << 20);
    let data = file.read(EXTENT - 10, 20, Pattern::Random, 0).await.unwrap();
    assert_eq!(data, MemoryBackend::pattern(EXTENT - 10, 20));
    let mut asked = backend.reads();
    asked.sort_unstable();
    assert_eq!(asked, [(EXTENT - 10, 10), (EXTENT, 10)]);
}

#[tokio::test]
async fn readers_of_one_block_share_one_flight() {
    let (backend, objects, file) = open(4 << 20, 8 << 20, 64 << 20);
    let other = objects.open(file.object.clone(), 8 << 20);
    let (a, b) = tokio::join!(file.read(0, 10, Pattern::Sequential, 0), other.read(5, 10, Pattern::Sequential, 0));
    assert_eq!((a.unwrap(), b.unwrap()), (MemoryBackend::pattern(0, 10), MemoryBackend::pattern(5, 10)));
    assert_eq!(backend.reads(), [(0, BLOCK)]);
}

#[tokio::test]
async fn what_is_kept_stays_within_the_bounds_of_object_and_mount() {
    for (bound, total, most) in [(4 << 20, 64 << 20, 4), (64 << 20, 3 << 20, 3)] {
        let (_, _, file) = open(64 << 20, bound, total);
        for index in 0..20 {
            let offset = index * BLOCK;
            let data = file.read(offset, BLOCK, Pattern::Sequential, 16 << 20).await.unwrap();
            assert_eq!(data, MemoryBackend::pattern(offset, BLOCK));
            let kept = file.blocks.lock().len();
            assert!(kept <= most, "{kept} blocks kept");
        }
    }
}

#[tokio::test]
async fn readers_of_many_files_share_the_bound_of_the_mount() {
    let backend = Arc::new(MemoryBackend::default());
    let objects = OpenObjects::new(backend.clone(), 3 << 20);
    let names = (0..40).map(|n: u32| n.to_string().into_bytes());
    let open = |name: Vec<u8>| objects.open(backend.add_patterned(&name, 4 << 20), 8 << 20);
    let files: Vec<_> = names.map(open).collect();
    for offset in [0, 4096, BLOCK - 1000, 2 * BLOCK] {
        for file in &files {
            let data = file.read(offset, 4096, Pattern::Sequential, BLOCK).await.unwrap();
            assert_eq!(data, MemoryBackend::pattern(offset, 4096));
        }
        let held: u64 = files.iter().map(|file| file.blocks.lock().len() as u64 * BLOCK).sum();
        assert!(held <= 3 << 20, "{held} bytes are held at {offset}");
    }
}

#[tokio::test]
async fn objects_that_are_read_at_once_share_the_room() {
    let (backend, objects, file) = open(64 << 20, 64 << 20, 12 << 20);
    let other = objects.open(backend.add_patterned(b"g", 64 << 20), 64 << 20);
    for file in [&file, &other] {
        file.read(0, 10, Pattern::Sequential, 63 << 20).await.unwrap();
    }
    let held = |file: &OpenObject| file.blocks.lock().len();
    assert_eq!((held(&file), held(&other)), (6, 3), "half of all, then half of the rest");
}

#[tokio::test]
async fn a_failed_block_is_tried_anew_by_the_next_reader() {
    let (backend, _, file) = open(4 << 20, 8 << 20, 64 << 20);
    backend.fail_reads(1, ReadError::Ufs("down".into()));
    assert_eq!(file.read(0, 10, Pattern::Sequential, 0).await, Err(ReadError::Ufs("down".into())));
    assert_eq!(file.read(0, 10, Pattern::Sequential, 0).await, Ok(MemoryBackend::pattern(0, 10)));
}

#[tokio::test(start_paused = true)]
async fn idle_blocks_are_swept() {
    let (_, objects, file) = open(4 << 20, 8 << 20, 64 << 20);
    file.read(0, 10, Pattern::Sequential, 2 << 20).await.unwrap();
    tokio::time::sleep(IDLE).await;
    objects.sweep();
    assert!(file.blocks.lock().is_empty());
}
