//! The operator's plan of a manifest, for a machine in place of a cluster.

use std::collections::BTreeMap;

use penstock_plan::{
    Keys, config,
    validate::{self, Invalid, NamedSecret, SecretData, UsableBy, ValidTier},
};
use penstock_wire::config::{MEMBERS_FILE, WORKER_FILE, WorkerConfig};

use crate::manifest::Manifest;

/// What local mode carries out.
pub(crate) struct LocalPlan {
    /// `NAMESPACE/NAME`.
    pub(crate) dataset: String,
    /// Begins the workers' names, as in a cluster.
    pub(crate) worker: String,
    pub(crate) replicas: u32,
    /// Tiers have the directories that the user gave, or none: each worker gets its own.
    pub(crate) config: WorkerConfig,
    /// The files of a worker's configuration directory besides `worker.json`: keys and secret options.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

pub(crate) fn plan(manifest: &Manifest, keys: &Keys) -> Result<LocalPlan, Invalid> {
    // Secrets and Dataset come from one hand.
    let secret = |data: &BTreeMap<_, _>| NamedSecret { data: SecretData(data.clone()), usable_by: UsableBy::All };
    let secrets = manifest.secrets.iter().map(|(name, data)| (name.clone(), secret(data))).collect();
    validate::bind(&manifest.dataset, [&manifest.runtime], &[&manifest.dataset])?;
    let dataset = validate::dataset(&manifest.dataset, &secrets)?;
    let runtime = validate::runtime(&manifest.runtime)?;
    let given = |_: usize, tier: &ValidTier| tier.path.clone().unwrap_or_default().into();
    let config = config::worker_config(&dataset, &runtime, given);
    let mut files = config::config_files(&config, &dataset, keys).0;
    files.retain(|name, _| name != WORKER_FILE && name != MEMBERS_FILE);
    Ok(LocalPlan {
        dataset: dataset.names.id(),
        worker: dataset.names.worker(),
        replicas: runtime.replicas,
        config,
        files,
    })
}

#[cfg(test)]
mod tests {

    use super::*;

    fn planned(manifest: &str) -> Result<LocalPlan, String> {
        let keys = Keys::generate().unwrap();
        plan(&Manifest::parse(manifest).unwrap(), &keys).map_err(|error| error.to_string())
    }

    const LOCAL: &str = include_str!("../../examples/local.yaml");

    #[test]
    fn the_example_is_planned_as_a_cluster_would() {
        let plan = planned(LOCAL).unwrap();
        assert_eq!((plan.dataset.as_str(), plan.worker.as_str(), plan.replicas), ("default/local", "local-worker", 2));
        let paths: Vec<_> = plan.config.mounts.iter().map(|mount| mount.path.as_str()).collect();
        assert_eq!(paths, ["licences", "zones"]);
        assert_eq!(plan.files.keys().collect::<Vec<_>>(), ["client.key", "peer.key"]);
    }

    #[test]
    fn what_is_wrong_is_said_as_in_a_cluster() {
        let error = planned(&LOCAL.replacen("local://", "ftp://", 1)).err().unwrap();
        assert!(error.contains("ftp://") && error.contains("s3://"), "{error}");
    }
}
