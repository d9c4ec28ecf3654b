//! The configuration directory of a worker.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use penstock_model::TierConfig;
use penstock_wire::Keys;
use penstock_wire::config::{CLIENT_KEY_FILE, MountConfig, PEER_KEY_FILE, WORKER_FILE, WorkerConfig};
use xxhash_rust::xxh3::Xxh3;

use crate::validate::{ValidDataset, ValidRuntime, ValidTier};

/// Where the tiers of a worker pod are.
pub const TIER_ROOT: &str = "/var/lib/penstock";

/// The files of a worker's configuration directory, but for the member list. `Debug` shows their names only.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigFiles(pub BTreeMap<String, Vec<u8>>);

impl fmt::Debug for ConfigFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl ConfigFiles {
    /// A hash of names and contents.
    pub fn hash(&self) -> String {
        let mut hash = Xxh3::new();
        for (name, content) in &self.0 {
            for part in [name.as_bytes(), content] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        format!("{:032x}", hash.digest128())
    }
}

/// The directory of a worker pod's tier.
pub fn tier_dir(index: usize) -> PathBuf {
    Path::new(TIER_ROOT).join(format!("tier-{index}"))
}

/// What `worker.json` says. `dir` gives the directory of a tier: [`tier_dir`] in Kubernetes, the machine's own in local
/// mode.
pub fn worker_config(
    dataset: &ValidDataset,
    runtime: &ValidRuntime,
    dir: impl Fn(usize, &ValidTier) -> PathBuf,
) -> WorkerConfig {
    let mounts = dataset.mounts.iter().enumerate().map(|(index, mount)| MountConfig {
        source: mount.source.clone(),
        path: mount.path.clone(),
        options: mount.options.clone(),
        secret_options: mount.secret_options.0.keys().map(|o| (o.clone(), secret_file(index, o))).collect(),
    });
    let tiers = runtime.tiers.iter().enumerate().map(|(index, tier)| TierConfig {
        medium: tier.medium,
        dir: dir(index, tier),
        quota: tier.quota,
        high: tier.high,
        low: tier.low,
    });
    WorkerConfig {
        dataset: dataset.names.id(),
        mounts: mounts.collect(),
        tiers: tiers.collect(),
        revalidate_ms: dataset.revalidate.map(|d| d.as_millis() as u64),
        uid: dataset.uid,
        gid: dataset.gid,
        hand_over_bandwidth: runtime.drain_bandwidth,
    }
}

/// The configuration directory of a worker: `worker.json`, the secret options' files and the keys.
pub fn config_files(config: &WorkerConfig, dataset: &ValidDataset, keys: &Keys) -> ConfigFiles {
    // A struct of strings and numbers always serialises.
    let text = serde_json::to_vec_pretty(config).unwrap_or_default();
    let mut files: BTreeMap<String, Vec<u8>> = [
        (WORKER_FILE.to_owned(), text),
        (CLIENT_KEY_FILE.to_owned(), keys.client.to_hex().into_bytes()),
        (PEER_KEY_FILE.to_owned(), keys.peer.to_hex().into_bytes()),
    ]
    .into();
    for (index, mount) in dataset.mounts.iter().enumerate() {
        for (option, value) in &mount.secret_options.0 {
            files.insert(secret_file(index, option), value.clone());
        }
    }
    ConfigFiles(files)
}

/// The file of a mount's secret option. Keys of Secrets and file names allow `[-._a-zA-Z0-9]` only.
fn secret_file(index: usize, option: &str) -> String {
    let option: String =
        option.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' }).collect();
    format!("ufs-{index}-{option}")
}

#[cfg(test)]
mod tests {
    use penstock_api::autoscaling::ScaleIn;
    use std::time::Duration;

    use penstock_model::Medium;

    use super::*;
    use crate::{
        names::Names,
        validate::{SecretData, ValidMount},
    };

    fn valid() -> (ValidDataset, ValidRuntime) {
        let mount = ValidMount {
            source: "s3://b/p".into(),
            path: String::new(),
            options: [("region".to_owned(), "r".to_owned())].into(),
            secret_options: SecretData([("secretAccessKey".to_owned(), b"hush".to_vec())].into()),
        };
        let dataset = ValidDataset {
            names: Names::new("ns", "a"),
            mounts: vec![mount],
            revalidate: Some(Duration::from_secs(30)),
            uid: 7,
            gid: 8,
        };
        let tier = ValidTier { medium: Medium::Mem, quota: 1 << 30, high: 0.95, low: 0.9, path: None };
        let runtime = ValidRuntime {
            replicas: 2,
            tiers: vec![tier],
            drain_timeout: Duration::from_secs(9),
            drain_bandwidth: Some(9),
            scale_in: ScaleIn::HandOver,
            readahead: None,
        };
        (dataset, runtime)
    }

    #[test]
    fn the_whole_worker_configuration() {
        let (dataset, runtime) = valid();
        let config = worker_config(&dataset, &runtime, |index, _| tier_dir(index));
        let expected = serde_json::json!({
            "dataset": "ns/a",
            "mounts": [{"source": "s3://b/p", "path": "", "options": {"region": "r"},
                        "secretOptions": {"secretAccessKey": "ufs-0-secretAccessKey"}}],
            "tiers": [{"medium": "MEM", "dir": "/var/lib/penstock/tier-0", "quota": 1 << 30, "high": 0.95, "low": 0.9}],
            "revalidateMs": 30000, "uid": 7, "gid": 8,
            "handOverBandwidth": 9
        });
        assert_eq!(serde_json::to_value(config).unwrap(), expected);
    }

    #[test]
    fn secrets_are_in_files_of_their_own_and_change_the_hash_and_are_not_shown() {
        let (mut dataset, runtime) = valid();
        let keys = Keys::generate().unwrap();
        let config = worker_config(&dataset, &runtime, |index, _| tier_dir(index));
        let before = config_files(&config, &dataset, &keys);
        assert_eq!(before.0["ufs-0-secretAccessKey"], b"hush");
        assert!(!String::from_utf8_lossy(&before.0[WORKER_FILE]).contains("hush"));
        assert!(!format!("{before:?} {dataset:?}").contains("hush"));
        dataset.mounts[0].secret_options.0.insert("secretAccessKey".into(), b"other".to_vec());
        assert_ne!(before.hash(), config_files(&config, &dataset, &keys).hash());
    }
}
