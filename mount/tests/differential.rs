//! A mount compared with the directory that it shows. Needs /dev/fuse and root.
#![allow(clippy::unwrap_used)]

#[path = "common/mounted.rs"]
mod mounted;
#[path = "common/tree.rs"]
mod tree;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt, symlink},
    path::Path,
    sync::Arc,
};

use mounted::{Mounted, without_passthrough};
use penstock_mount::spec::Tuning;
use proptest::{prelude::*, test_runner::TestRunner};
use tree::Tree;

const SIZES: [usize; 7] = [0, 1, 4095, 131_073, (1 << 20) + 1, (4 << 20) - 1, (9 << 20) + 12_345];

fn grow(root: &Path) {
    for (i, dir) in ["", "a", "a/b", "z"].iter().enumerate() {
        fs::create_dir_all(root.join(dir)).unwrap();
        for (j, size) in SIZES.iter().enumerate() {
            let data: Vec<u8> = (0..*size).map(|at| (at.wrapping_mul(31) >> 3) as u8 ^ (i * 7 + j) as u8).collect();
            fs::write(root.join(dir).join(format!("f{j}")), data).unwrap();
        }
    }
    fs::create_dir(root.join("empty")).unwrap();
    symlink("a/b/f3", root.join("link")).unwrap();
    symlink("nowhere", root.join("z/broken")).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Read {
        file: usize,
        at: f64,
        len: usize,
    },
    /// So many reads of this length, one after the other.
    Scan {
        file: usize,
        at: f64,
        len: usize,
        count: usize,
    },
    Stat(usize),
    List(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![1usize..5000, 100_000usize..300_000, 1usize << 20..3 << 20];
    let step = prop_oneof![
        (any::<usize>(), 0.0..1.05, len.clone()).prop_map(|(file, at, len)| Step::Read { file, at, len }),
        (any::<usize>(), 0.0..1.0, len, 1usize..12).prop_map(|(file, at, len, count)| Step::Scan {
            file,
            at,
            len,
            count
        }),
        any::<usize>().prop_map(Step::Stat),
        any::<usize>().prop_map(Step::List),
    ];
    prop::collection::vec(step, 1..30)
}

fn read(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let (mut data, mut done) = (vec![0; len], 0);
    while done < len {
        match file.read_at(&mut data[done..], offset + done as u64).unwrap() {
            0 => break,
            n => done += n,
        }
    }
    data.truncate(done);
    data
}

/// What an entry is, as far as a read-only mount shows it.
fn facts(path: &Path) -> (u32, u64, i64, Option<std::path::PathBuf>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let size = if metadata.is_dir() { 0 } else { metadata.len() };
    let target = metadata.is_symlink().then(|| fs::read_link(path).unwrap());
    (metadata.mode(), size, metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(), target)
}

fn listing(dir: &Path) -> BTreeMap<OsString, (u32, u64, i64, Option<std::path::PathBuf>)> {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap()).map(|e| (e.file_name(), facts(&e.path()))).collect()
}

fn compare(real: &Path, shown: &Path, step: &Step) {
    let dirs = ["", "a", "a/b", "z", "empty"];
    let files: Vec<String> =
        dirs[..4].iter().flat_map(|d| (0..SIZES.len()).map(move |j| format!("{d}/f{j}"))).collect();
    let pick = |i: usize| files[i % files.len()].trim_start_matches('/');
    let open = |i: usize| (File::open(real.join(pick(i))).unwrap(), File::open(shown.join(pick(i))).unwrap());
    match *step {
        Step::Read { file, at, len } => {
            let (a, b) = open(file);
            let offset = (a.metadata().unwrap().len() as f64 * at) as u64;
            assert!(read(&a, offset, len) == read(&b, offset, len), "{} at {offset} for {len}", pick(file));
        }
        Step::Scan { file, at, len, count } => {
            let (a, b) = open(file);
            let start = (a.metadata().unwrap().len() as f64 * at) as u64;
            for offset in (0..count as u64).map(|i| start + i * len as u64) {
                assert!(read(&a, offset, len) == read(&b, offset, len), "{} at {offset} for {len}", pick(file));
            }
        }
        Step::Stat(file) => assert_eq!(facts(&real.join(pick(file))), facts(&shown.join(pick(file)))),
        Step::List(dir) => {
            let dir = dirs[dir % dirs.len()];
            assert_eq!(listing(&real.join(dir)), listing(&shown.join(dir)));
        }
    }
}

fn mount_shows_its_tree(tree: Tree, tuning: Tuning, cases: u32) {
    let real = tree.root.clone();
    let mount = Mounted::with(Arc::new(tree), tuning);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            // Half of the cases begin without what the kernel keeps.
            if steps.len() % 2 == 0 {
                let _ = fs::write("/proc/sys/vm/drop_caches", "3");
            }
            for step in &steps {
                compare(&real, mount.path(), step);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_mount_shows_the_very_tree() {
    let real = tempfile::tempdir().unwrap();
    grow(real.path());
    mount_shows_its_tree(Tree { root: real.path().into(), local: false }, without_passthrough(), 24);
}

#[test]
fn with_little_room_for_readahead_the_bytes_are_the_same() {
    let real = tempfile::tempdir().unwrap();
    grow(real.path());
    let tuning = Tuning { readahead_bytes: Some(2 << 20), readahead_total_bytes: 3 << 20, ..without_passthrough() };
    mount_shows_its_tree(Tree { root: real.path().into(), local: false }, tuning, 12);
}

#[test]
fn local_files_show_the_same_bytes_with_and_without_passthrough() {
    let real = tempfile::tempdir().unwrap();
    grow(real.path());
    for tuning in [Tuning::default(), without_passthrough()] {
        mount_shows_its_tree(Tree { root: real.path().into(), local: true }, tuning, 8);
    }
}
