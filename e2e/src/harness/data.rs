//! Data of known content.

use std::collections::BTreeMap;

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::image::hex;
use crate::noise::{noise, seed_of};
use crate::s3::SeaweedFs;

/// Files in a bucket, and what each of them must be.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// What [`Tree::store`] made its files of.
    pub seed: u64,
    /// Path below the bucket, to length and SHA-256.
    pub files: BTreeMap<String, (usize, String)>,
}

impl Tree {
    /// Makes the bucket and stores `files` (path and length), filled with noise that depends on path and `seed`. Blocks.
    pub fn store(s3: &SeaweedFs, bucket: &str, seed: u64, files: &[(&str, usize)]) -> Result<Self> {
        s3.create_bucket(bucket)?;
        let mut tree = Self { seed, ..Self::default() };
        for (path, length) in files {
            tree.put(s3, bucket, path, &noise(seed_of(seed, path), *length))?;
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

    /// `LENGTH PATH` of each file, as `penstock-e2e-reader` reads it.
    pub fn lengths(&self) -> String {
        self.files
            .iter()
            .flat_map(|(path, (length, _))| [length.to_string(), " ".into(), path.clone(), "\n".into()])
            .collect()
    }
}
