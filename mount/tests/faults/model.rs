//! What readers may see: for each file the versions that it had, as plain bytes.
#![allow(unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;

/// Around the borders of blocks (1 MiB), extents (4 MiB) and of what counts as small (128 KiB).
const SIZES: [usize; 7] = [1, 5_000, 131_072, 300_007, (1 << 20) + 1, (4 << 20) + 4_097, 9_000_001];

/// The files by number; their versions, the newest last.
#[derive(Default)]
pub struct Model(Mutex<BTreeMap<usize, Vec<Bytes>>>);

/// What a handle has shown so far: the versions that it may be of.
pub struct Witness {
    file: usize,
    size: u64,
    candidates: Vec<usize>,
}

impl Witness {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// A reader saw what no local file would have shown.
pub type Wrong = String;

impl Model {
    pub fn name(file: usize) -> String {
        format!("f{file}")
    }

    /// The next version of a file, of another length or of the same.
    pub fn replace(&self, file: usize, other_size: bool) -> Bytes {
        let mut files = self.0.lock();
        let versions = files.entry(file).or_default();
        let change = usize::from(other_size) * versions.len();
        let content = noise((file * 1_000 + versions.len()) as u64, SIZES[(file + change) % SIZES.len()]);
        versions.push(content.clone());
        content
    }

    /// A handle that was opened now and shows this size.
    pub fn open(&self, file: usize, size: u64) -> Result<Witness, Wrong> {
        let files = self.0.lock();
        let sizes = files[&file].iter().map(|content| content.len() as u64);
        let candidates: Vec<usize> = sizes.enumerate().filter(|(_, s)| *s == size).map(|(at, _)| at).collect();
        if candidates.is_empty() {
            Err(format!("f{file} never had {size} bytes"))
        } else {
            Ok(Witness { file, size, candidates })
        }
    }

    /// Judges an answer to a read of `len` bytes at `offset`. Whether the handle is still good.
    pub fn judge(
        &self,
        seen: &mut Witness,
        offset: u64,
        len: usize,
        answer: Result<Bytes, Errno>,
    ) -> Result<bool, Wrong> {
        let versions = self.0.lock()[&seen.file].clone();
        let data = match answer {
            Ok(data) => data,
            Err(Errno::STALE) if seen.candidates.iter().any(|at| at + 1 < versions.len()) => return Ok(false),
            Err(errno) => return Err(format!("f{} at {offset} for {len}: {errno}", seen.file)),
        };
        let end = (offset + len as u64).min(seen.size) as usize;
        let fits = |at: &usize| versions[*at].get((offset as usize).min(end)..end) == Some(&*data);
        let before = std::mem::take(&mut seen.candidates);
        seen.candidates = before.iter().copied().filter(fits).collect();
        if seen.candidates.is_empty() {
            let others: Vec<usize> = (0..versions.len()).filter(fits).collect();
            let length = data.len();
            return Err(format!(
                "f{} at {offset} for {len}: {length} bytes of none of its versions {before:?} (of {others:?}?)",
                seen.file
            ));
        }
        Ok(true)
    }

    /// Whether the handle shows what the file is now.
    pub fn is_newest(&self, seen: &Witness) -> bool {
        seen.candidates.contains(&(self.0.lock()[&seen.file].len() - 1))
    }
}

/// The same bytes for the same seed; no eight of them alike in any two contents or places (`SplitMix64`, Steele 2014).
fn noise(seed: u64, len: usize) -> Bytes {
    let words = (0..len.div_ceil(8) as u64).flat_map(|at| {
        let mut z = (seed << 32 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    });
    words.take(len).collect::<Vec<_>>().into()
}
