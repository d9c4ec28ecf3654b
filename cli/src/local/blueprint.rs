//! What `up` keeps of the plan, so that `scale` and `down` need no manifest.

use std::{collections::BTreeMap, fs, io, os::unix::fs::DirBuilderExt};

use penstock_plan::Keys;
use penstock_wire::{
    Credential,
    config::{CLIENT_KEY_FILE, PEER_KEY_FILE, PEER_PUBLIC_FILE, WorkerConfig},
};
use serde::{Deserialize, Serialize};

use super::{state::Folder, worker::write_secret};
use crate::plan::LocalPlan;

/// `blueprint.json`, readable by its owner only: it holds credentials.
#[derive(Serialize, Deserialize)]
pub(super) struct Blueprint {
    pub(super) dataset: String,
    /// Begins the workers' names.
    pub(super) worker: String,
    pub(super) config: WorkerConfig,
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl Blueprint {
    pub(super) fn new(plan: LocalPlan) -> Self {
        let LocalPlan { dataset, worker, config, files, replicas: _ } = plan;
        Self { dataset, worker, config, files }
    }

    pub(super) fn load(folder: &Folder) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(folder.path().join("blueprint.json"))?)?)
    }

    pub(super) fn save(&self, folder: &Folder) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.path())?;
        write_secret(&folder.path().join(CLIENT_KEY_FILE), &self.files[CLIENT_KEY_FILE])?;
        let public = self.key(PEER_KEY_FILE)?.public();
        write_secret(&folder.path().join(PEER_PUBLIC_FILE), public.to_hex().as_bytes())?;
        write_secret(&folder.path().join("blueprint.json"), &serde_json::to_vec(self)?)
    }

    /// The keys of this Dataset's earlier `up`, or new ones.
    pub(super) fn keys(folder: &Folder) -> io::Result<Keys> {
        match Self::load(folder) {
            Ok(earlier) => Ok(Keys { client: earlier.key(CLIENT_KEY_FILE)?, peer: earlier.key(PEER_KEY_FILE)? }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Keys::generate().map_err(io::Error::other),
            Err(error) => Err(error),
        }
    }

    pub(super) fn key(&self, file: &str) -> io::Result<Credential> {
        let text = self.files.get(file).map(|text| String::from_utf8_lossy(text)).unwrap_or_default();
        Credential::from_hex(&text).map_err(io::Error::other)
    }
}
