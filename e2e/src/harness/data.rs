//! Data of known content.

use std::collections::BTreeMap;

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::image::hex;
use crate::s3::SeaweedFs;

/// Files in a bucket, and what each of them must be.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Path below the bucket, to length and SHA-256.
    pub files: BTreeMap<String, (usize, String)>,
}

impl Tree {
    /// Makes the bucket and stores `files` (path and length), filled with noise that depends on path and `seed`. Blocks.
    pub fn store(s3: &SeaweedFs, bucket: &str, seed: u64, files: &[(&str, usize)]) -> Result<Self> {
        s3.create_bucket(bucket)?;
        let mut tree = Self::default();
        for (path, length) in files {
            tree.put(s3, bucket, path, &noise(seed ^ u64::from(checksum(path)), *length))?;
        }
        Ok(tree)
    }

    /// Stores one more, or changes one. Blocks.
    pub fn put(&mut self, s3: &SeaweedFs, bucket: &str, path: &str, data: &[u8]) -> Result<()> {
        s3.put(bucket, path, data)?;
        self.files.insert(path.to_owned(), (data.len(), hex(&Sha256::digest(data))));
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        self.files.values().map(|(length, _)| *length as u64).sum()
    }

    /// As `sha256sum` prints and reads it, with `folder` (empty, or with a slash at its end) before each path.
    pub fn sums(&self, folder: &str) -> String {
        self.files.iter().flat_map(|(path, (_, sum))| [sum, "  ", folder, path, "\n"]).collect()
    }
}

fn checksum(text: &str) -> u32 {
    text.bytes().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
}

/// Bytes that do not compress and differ everywhere (splitmix64).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        data.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    data.truncate(length);
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_its_length_and_depends_on_its_seed() {
        assert_eq!(noise(1, 13).len(), 13);
        assert_eq!(noise(1, 13), noise(1, 20)[..13]);
        assert_ne!(noise(1, 100), noise(2, 100));
    }
}
