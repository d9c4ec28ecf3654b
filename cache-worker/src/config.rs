//! The configuration directory: loaded whole, compared whole.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use penstock_placement::MemberList;
use penstock_wire::{
    Credential, CredentialError, Keys,
    config::{CLIENT_KEY_FILE, MEMBERS_FILE, MountConfig, PEER_KEY_FILE, WORKER_FILE, WorkerConfig},
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, time::sleep};

/// kubelet swaps a symlink and inotify sees nothing on some volumes, so the content itself is compared.
const POLL: Duration = Duration::from_millis(1500);

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not valid: {source}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Key(#[from] CredentialError),
}

/// Everything in the directory.
#[derive(Clone)]
pub struct Loaded {
    pub config: WorkerConfig,
    pub mounts: Vec<MountSpec>,
    /// `None` until the operator has numbered the first list.
    pub members: Option<MemberList>,
    pub keys: Keys,
}

/// One mount with its secrets read; no `Debug`, for their sake.
#[derive(Clone, PartialEq, Eq)]
pub struct MountSpec {
    pub source: String,
    pub path: String,
    /// Plain and secret options, or which secret cannot be read.
    pub options: Result<BTreeMap<String, String>, String>,
}

pub fn load(dir: &Path) -> Result<Loaded, ConfigError> {
    let config: WorkerConfig = parse(&dir.join(WORKER_FILE))?;
    let mounts = config.mounts.iter().map(|mount| resolve(dir, mount)).collect();
    let members = match parse(&dir.join(MEMBERS_FILE)) {
        Ok(list) => Some(list),
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let keys = Keys {
        client: Credential::from_file(&dir.join(CLIENT_KEY_FILE))?,
        peer: Credential::from_file(&dir.join(PEER_KEY_FILE))?,
    };
    Ok(Loaded { config, mounts, members, keys })
}

/// Waits until the directory holds a configuration; says once per different error what is wrong with it.
pub(crate) async fn first(dir: &Path) -> Loaded {
    let mut said = String::new();
    loop {
        match load(dir) {
            Ok(loaded) => return loaded,
            Err(error) => say_once(&mut said, &error),
        }
        sleep(POLL).await;
    }
}

/// Sends every configuration that differs from the one before. Ends when nobody listens.
pub(crate) async fn watch(dir: PathBuf, mut known: Loaded, changes: mpsc::Sender<Loaded>) {
    let mut said = String::new();
    while !changes.is_closed() {
        sleep(POLL).await;
        match load(&dir) {
            Ok(loaded) if loaded.same(&known) => said.clear(),
            Ok(loaded) => {
                known = loaded.clone();
                if changes.send(loaded).await.is_err() {
                    return;
                }
            }
            Err(error) => say_once(&mut said, &error),
        }
    }
}

fn say_once(said: &mut String, error: &ConfigError) {
    let text = error.to_string();
    if *said != text {
        tracing::warn!(error = text, "the configuration cannot be used; waiting for it to be mended");
        *said = text;
    }
}

impl Loaded {
    fn same(&self, other: &Self) -> bool {
        self.config == other.config && self.mounts == other.mounts && self.members == other.members
    }
}

fn resolve(dir: &Path, mount: &MountConfig) -> MountSpec {
    let secrets = mount.secret_options.iter().map(|(name, file)| {
        fs::read_to_string(dir.join(file)).map(|value| (name.clone(), value)).map_err(|error| {
            format!("secret option {name} cannot be read: {error}; check encryptOptions and its Secret")
        })
    });
    let plain = mount.options.iter().map(|(name, value)| Ok((name.clone(), value.clone())));
    MountSpec { source: mount.source.clone(), path: mount.path.clone(), options: plain.chain(secrets).collect() }
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let bytes = fs::read(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| ConfigError::Parse { path: path.into(), source })
}
