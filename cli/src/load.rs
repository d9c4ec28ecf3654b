//! `penstock load`: hands a DataLoad to a cluster, and shows how far it is.

use std::path::PathBuf;

use clap::Args;
use futures::{TryStreamExt, pin_mut};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use penstock_api::{DataLoad, DataLoadPhase, DataLoadStatus};

use crate::{
    cluster::{self, NoCluster},
    manifest::{ManifestError, Order},
    progress::Progress,
};

const MANAGER: &str = "penstock-cli";

#[derive(Args)]
pub struct Load {
    /// Manifest of one DataLoad.
    #[arg(short, long)]
    file: PathBuf,
    /// Show how far it is until it is complete or has failed.
    #[arg(short, long)]
    watch: bool,
    /// Namespace of the DataLoad, where the manifest names none [default: the kubeconfig's].
    #[arg(short, long)]
    namespace: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Cluster(#[from] NoCluster),
    #[error("the API server does not take DataLoad '{name}': {source}")]
    Apply { name: String, source: kube::Error },
    #[error("cannot watch DataLoad '{name}': {source}")]
    Watch { name: String, source: watcher::Error },
    #[error("DataLoad '{0}' was deleted meanwhile")]
    Deleted(String),
    #[error("DataLoad '{name}' has failed: {message}")]
    Failed { name: String, message: String },
}

impl Load {
    pub async fn run(self) -> Result<(), LoadError> {
        let load = Order::read(&self.file)?.load;
        let client = cluster::client().await?;
        let namespace = load.namespace().or(self.namespace).unwrap_or_else(|| client.default_namespace().to_owned());
        let (api, name) = (Api::<DataLoad>::namespaced(client, &namespace), load.name_any());
        let applied = api.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(&load)).await;
        let applied = applied.map_err(|source| LoadError::Apply { name: name.clone(), source })?;
        println!("DataLoad {namespace}/{name} of Dataset {} is with the cluster", load.spec.dataset);
        if !self.watch {
            return Ok(());
        }
        let progress = Progress::new(&name);
        let status = ended(&api, &applied, |status| progress.show(status)).await?;
        progress.finish(&status);
        succeeded(&name, &status)
    }
}

/// Waits until the load as it was applied has ended; its last status.
async fn ended(
    api: &Api<DataLoad>,
    applied: &DataLoad,
    mut show: impl FnMut(&DataLoadStatus),
) -> Result<DataLoadStatus, LoadError> {
    let (name, generation) = (applied.name_any(), applied.metadata.generation);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher(api.clone(), config).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.try_next().await.map_err(|source| LoadError::Watch { name: name.clone(), source })? {
        let load = match event {
            watcher::Event::Apply(load) | watcher::Event::InitApply(load) => load,
            watcher::Event::Delete(_) => break,
            watcher::Event::Init | watcher::Event::InitDone => continue,
        };
        let status = load.status.unwrap_or_default();
        if status.observed_generation >= generation {
            show(&status);
            if has_ended(&status) {
                return Ok(status);
            }
        }
    }
    Err(LoadError::Deleted(name))
}

pub(crate) fn has_ended(status: &DataLoadStatus) -> bool {
    matches!(status.phase, Some(DataLoadPhase::Complete | DataLoadPhase::Failed))
}

/// What the condition says of it.
pub(crate) fn message(status: &DataLoadStatus) -> &str {
    status.conditions.first().map(|condition| condition.message.as_str()).unwrap_or_default()
}

pub(crate) fn succeeded(name: &str, status: &DataLoadStatus) -> Result<(), LoadError> {
    if status.phase == Some(DataLoadPhase::Complete) {
        println!("DataLoad {name}: {}", message(status));
        return Ok(());
    }
    Err(LoadError::Failed { name: name.to_owned(), message: message(status).to_owned() })
}
