//! Our store and the caches that it is compared with, of the same number of bytes.

use anyhow::{Context, ensure};
use foyer_memory::{CacheBuilder, EvictionConfig, LfuConfig, S3FifoConfig};
use penstock_model::{Medium, Object, ObjectKey, Version};
use penstock_store::{Store, TierOptions, WriteError};
use tempfile::TempDir;

use super::{QUOTA, SIZE};

pub(super) const NAMES: [&str; 4] = [Tier::NAME, "foyer S3-FIFO", "foyer W-TinyLFU", "moka W-TinyLFU"];

/// Keeps what it sees fit of what is read.
pub(super) trait Cache {
    /// Reads an object, and on a miss gives it to the cache. True for a hit.
    fn read(&mut self, name: u64) -> anyhow::Result<bool>;
}

/// Empty.
pub(super) fn open(name: &str) -> anyhow::Result<Box<dyn Cache>> {
    Ok(match name {
        "foyer S3-FIFO" => Box::new(Foyer::open(S3FifoConfig::default())),
        "foyer W-TinyLFU" => Box::new(Foyer::open(LfuConfig::default())),
        "moka W-TinyLFU" => Box::new(Moka::open()),
        _ => Box::new(Tier::open()?),
    })
}

/// A memory tier with the watermarks that a Dataset gets by default.
pub(super) struct Tier {
    store: Store,
    data: Vec<u8>,
    _folder: TempDir,
}

impl Tier {
    pub(super) const NAME: &str = "penstock";

    fn open() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("penstock-evict.").tempdir_in("/dev/shm")?;
        let dir = folder.path().to_owned();
        let store = Store::open(vec![TierOptions { medium: Medium::Mem, dir, quota: QUOTA, high: 0.95, low: 0.9 }]);
        let trouble = store.stats().tiers.first().and_then(|tier| tier.trouble.clone());
        ensure!(trouble.is_none(), "{}", trouble.unwrap_or_default());
        Ok(Self { store, data: vec![0x5a; SIZE as usize], _folder: folder })
    }
}

impl Cache for Tier {
    fn read(&mut self, name: u64) -> anyhow::Result<bool> {
        let (path, version) = (format!("{name:08}").into_bytes(), Version("1".to_owned()));
        let object = Object { key: ObjectKey::new("bench", &path, &version), path, version, size: SIZE };
        if self.store.read(&object.key, 0, SIZE as usize).is_some() {
            return Ok(true);
        }
        match self.store.write(&object, 0, &self.data) {
            Ok(()) | Err(WriteError::Full) => Ok(false),
            Err(error) => Err(error).context("writing into the tier"),
        }
    }
}

/// One shard, so that the whole of it follows one policy.
struct Foyer(foyer_memory::Cache<u64, ()>);

impl Foyer {
    fn open(policy: impl Into<EvictionConfig>) -> Self {
        let builder = CacheBuilder::new(QUOTA as usize).with_shards(1).with_eviction_config(policy);
        Self(builder.with_weighter(|_: &u64, (): &()| SIZE as usize).build())
    }
}

impl Cache for Foyer {
    fn read(&mut self, name: u64) -> anyhow::Result<bool> {
        let hit = self.0.get(&name).is_some();
        if !hit {
            self.0.insert(name, ());
        }
        Ok(hit)
    }
}

struct Moka(moka::sync::Cache<u64, ()>);

impl Moka {
    fn open() -> Self {
        Self(moka::sync::Cache::builder().max_capacity(QUOTA).weigher(|_, ()| SIZE as u32).build())
    }
}

impl Cache for Moka {
    fn read(&mut self, name: u64) -> anyhow::Result<bool> {
        let hit = self.0.get(&name).is_some();
        if !hit {
            self.0.insert(name, ());
        }
        // Otherwise it puts its decisions off.
        self.0.run_pending_tasks();
        Ok(hit)
    }
}
