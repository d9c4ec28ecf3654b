//! What local mode remembers between commands: one folder per Dataset.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use penstock_placement::MemberList;
use serde::{Deserialize, Serialize};

use super::process::Process;

/// `state.json` of one Dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) workers: Vec<Worker>,
    pub(super) members: MemberList,
    pub(super) mount: Option<Mount>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Worker {
    pub(super) id: String,
    /// `host:port` of the wire protocol.
    pub(super) addr: String,
    pub(super) http: String,
    pub(super) process: Process,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mount {
    pub(super) dir: PathBuf,
    pub(super) process: Process,
}

/// Where one Dataset's state lies.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// `base/NAMESPACE.NAME`; a namespace has no dot, so two Datasets never share one.
    pub(super) fn new(base: &Path, dataset: &str) -> Self {
        Self(base.join(dataset.replace('/', ".")))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn worker(&self, id: &str) -> PathBuf {
        self.0.join("workers").join(id)
    }

    pub(super) fn sockets(&self) -> PathBuf {
        self.0.join("sockets")
    }

    /// Memory tiers lie on the machine's tmpfs, in a folder that tells whose they are.
    pub(super) fn memory(&self, id: &str) -> PathBuf {
        let whole = std::path::absolute(&self.0).unwrap_or_else(|_| self.0.clone());
        let name = whole.to_string_lossy().trim_start_matches('/').replace('/', "+");
        let owner = rustix::process::getuid().as_raw();
        Path::new("/dev/shm").join(format!("penstock-{owner}")).join(name).join(id)
    }

    pub(super) fn load(&self) -> io::Result<State> {
        match fs::read(self.0.join("state.json")) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn save(&self, state: &State) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let fresh = self.0.join("state.json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(state)?)?;
        fs::rename(fresh, self.0.join("state.json"))
    }
}
