use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use penstock_model::{Medium, Object, ObjectKey, PAGE, Version};
use penstock_store::{Store, TierOptions};

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn object(number: u64, size: u64) -> Object {
    let (path, version) = (format!("dir/file-{number}").into_bytes(), Version(format!("v{number}")));
    Object { key: ObjectKey::new("s3://bucket", &path, &version), path, version, size }
}

/// What byte `at` of the object is; no two pages of any two objects are alike.
fn byte(object: &Object, at: u64) -> u8 {
    (object.key.0 as u64 ^ (at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()[(at % 8) as usize]
}

pub(crate) fn content(object: &Object, range: std::ops::Range<u64>) -> Vec<u8> {
    range.map(|at| byte(object, at)).collect()
}

/// Content of whole pages `pages`, cut at the object's end, with where it begins.
pub(crate) fn pages(object: &Object, pages: std::ops::Range<u64>) -> (u64, Vec<u8>) {
    let range = pages.start * PAGE..(pages.end * PAGE).min(object.size);
    (range.start, content(object, range))
}

pub(crate) fn write_all(store: &Store, object: &Object) {
    store.write(object, 0, &content(object, 0..object.size)).unwrap();
}

pub(crate) fn tier(medium: Medium, dir: &Path, quota: u64) -> TierOptions {
    TierOptions { medium, dir: dir.to_path_buf(), quota, high: 0.95, low: 0.8 }
}

pub(crate) fn ssd(dir: &Path, quota: u64) -> Store {
    Store::open(vec![tier(Medium::Ssd, dir, quota)])
}

/// Every file and folder under `objects`.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.join("objects")];
    while let Some(folder) = todo.pop() {
        for item in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if item.path().is_dir() {
                todo.push(item.path());
            }
            found.push(item.path());
        }
    }
    found
}

/// What the medium says that the tier takes.
pub(crate) fn disk_use(dir: &Path) -> u64 {
    files(dir).iter().filter_map(|path| std::fs::symlink_metadata(path).ok()).map(|meta| meta.blocks() * 512).sum()
}

/// Changes one byte in the cached data file of `object` where the file exists.
pub(crate) fn corrupt(dir: &Path, object: &Object, at: u64) {
    use std::os::unix::fs::FileExt;
    let name = format!("{:032x}.data", object.key.0);
    for path in files(dir).iter().filter(|path| path.ends_with(&name)) {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut one = [0];
        file.read_exact_at(&mut one, at).unwrap();
        file.write_all_at(&[one[0] ^ 0x40], at).unwrap();
    }
}
