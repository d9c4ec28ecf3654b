//! What a restarted plugin must know: one small JSON file per staged and per published path. Keys are never in there.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A Dataset that is mounted (or about to be) at a staging path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StagedRecord {
    pub volume_id: String,
    pub staging_path: PathBuf,
    /// `namespace/name`.
    pub dataset: String,
    pub endpoints: Vec<String>,
    /// Who serves it, once that process runs.
    #[serde(default)]
    pub process: Option<ProcessId>,
}

/// A process, told apart from a later one with the same number by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start_ticks: u64,
}

/// What is bound at a target path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedRecord {
    pub volume_id: String,
    pub target_path: PathBuf,
    pub what: Published,
    /// Unknown to records of older plugins, and where kubelet does not say.
    #[serde(default)]
    pub pod: Option<PodRef>,
}

/// A pod of one life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Published {
    #[serde(rename_all = "camelCase")]
    Dataset { staging_path: PathBuf },
    #[serde(rename_all = "camelCase")]
    Socket { directory: PathBuf },
}

/// A record and the path that it is about.
pub trait Record: Serialize + DeserializeOwned {
    const FOLDER: &'static str;
    fn path(&self) -> &Path;
}

impl Record for StagedRecord {
    const FOLDER: &'static str = "staged";
    fn path(&self) -> &Path {
        &self.staging_path
    }
}

impl Record for PublishedRecord {
    const FOLDER: &'static str = "published";
    fn path(&self) -> &Path {
        &self.target_path
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the record {}: {source}", path.display())]
pub struct StateError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The root of the workers' socket directories.
    pub fn sockets(&self) -> PathBuf {
        self.root.join("sockets")
    }

    /// Writes or replaces the record of its path; a reader sees the old or the new one.
    pub fn save<R: Record>(&self, record: &R) -> Result<(), StateError> {
        let file = self.file::<R>(record.path());
        let text = serde_json::to_vec_pretty(record).map_err(io::Error::other);
        let fresh = file.with_extension("new");
        text.and_then(|text| {
            fs::create_dir_all(self.root.join(R::FOLDER))?;
            fs::write(&fresh, text)?;
            fs::rename(&fresh, &file)
        })
        .map_err(|source| StateError { action: "write", path: file, source })
    }

    /// Removes the record of `path`, if there is one.
    pub fn remove<R: Record>(&self, path: &Path) -> Result<(), StateError> {
        let file = self.file::<R>(path);
        match fs::remove_file(&file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StateError { action: "remove", path: file, source })
            }
            _ => Ok(()),
        }
    }

    /// The record of `path`; `None` also for one that cannot be read, which the log tells.
    pub fn load<R: Record>(&self, path: &Path) -> Option<R> {
        read(&self.file::<R>(path)).filter(|record: &R| record.path() == path)
    }

    /// Every readable record.
    pub fn load_all<R: Record>(&self) -> Vec<R> {
        let Ok(entries) = fs::read_dir(self.root.join(R::FOLDER)) else {
            return Vec::new();
        };
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        files.filter(|file| file.extension().is_some_and(|e| e == "json")).filter_map(|file| read(&file)).collect()
    }

    /// Paths can be longer than a file name may be: files are named by a hash of theirs.
    fn file<R: Record>(&self, path: &Path) -> PathBuf {
        let hash = xxhash_rust::xxh3::xxh3_128(path.as_os_str().as_bytes());
        self.root.join(R::FOLDER).join(format!("{hash:032x}.json"))
    }
}

fn read<R: Record>(file: &Path) -> Option<R> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "a record cannot be read");
            return None;
        }
    };
    serde_json::from_slice(&text)
        .inspect_err(|error| tracing::warn!(file = %file.display(), %error, "a record cannot be understood"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_again_by_path_until_removed() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path().join("state"));
        let record = PublishedRecord {
            volume_id: "v".into(),
            target_path: "/t".into(),
            what: Published::Socket { directory: "/s".into() },
            pod: Some(PodRef { namespace: "n".into(), name: "p".into(), uid: "u".into() }),
        };
        assert_eq!(state.load::<PublishedRecord>(Path::new("/t")), None);
        state.save(&record).unwrap();
        assert_eq!(state.load(Path::new("/t")), Some(record.clone()));
        assert_eq!(state.load_all::<PublishedRecord>(), [record]);
        assert!(state.load_all::<StagedRecord>().is_empty());
        state.remove::<PublishedRecord>(Path::new("/t")).unwrap();
        state.remove::<PublishedRecord>(Path::new("/t")).unwrap();
        assert!(state.load_all::<PublishedRecord>().is_empty());
    }

    #[test]
    fn a_broken_record_is_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path().into());
        fs::create_dir(folder.path().join("staged")).unwrap();
        fs::write(folder.path().join("staged/00.json"), "{").unwrap();
        assert!(state.load_all::<StagedRecord>().is_empty());
    }
}
