//! Manifests as a cluster takes them: YAML documents of which local mode uses a Dataset, its CacheRuntime and Secrets.

use std::{collections::BTreeMap, path::Path};

use penstock_api::{CacheRuntime, Dataset};
use serde::Deserialize;

/// What local mode needs out of a file of manifests.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub dataset: Dataset,
    pub runtime: CacheRuntime,
    /// Secret name to key to value.
    pub(crate) secrets: Secrets,
}

/// Secret name to key to raw value.
pub(crate) type Secrets = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("cannot read {file}: {source}")]
    Read { file: String, source: std::io::Error },
    #[error("document {number} is not a manifest: {message}")]
    Parse { number: usize, message: String },
    #[error("there is no {kind}: a local cache needs one Dataset and one CacheRuntime, and may have Secrets")]
    Missing { kind: &'static str },
    #[error("there is more than one {kind} ({first:?} and {second:?}): give each Dataset a file of its own")]
    Several { kind: &'static str, first: String, second: String },
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    kind: String,
}

/// A Secret's two ways to carry values.
#[derive(Deserialize)]
struct Secret {
    metadata: Named,
    #[serde(default)]
    data: BTreeMap<String, k8s_openapi::ByteString>,
    #[serde(default, rename = "stringData")]
    string_data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl Manifest {
    /// `NAMESPACE/NAME`.
    pub fn dataset_id(&self) -> String {
        let namespace = self.dataset.metadata.namespace.as_deref().unwrap_or("default");
        format!("{namespace}/{}", self.dataset.metadata.name.as_deref().unwrap_or_default())
    }

    pub fn read(file: &Path) -> Result<Self, ManifestError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ManifestError::Read { file: file.display().to_string(), source })?;
        Self::parse(&text)
    }

    /// Documents of other kinds (pods, namespaces) are passed over: the same file serves a cluster.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let (mut datasets, mut runtimes, mut secrets) = (Vec::new(), Vec::new(), Secrets::new());
        for (index, document) in text.split("\n---").enumerate() {
            let number = index + 1;
            let document = document.trim_start_matches('-');
            if document.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
                continue;
            }
            match typed::<Head>(document, number)?.kind.as_str() {
                "Dataset" => datasets.push(typed::<Dataset>(document, number)?),
                "CacheRuntime" => runtimes.push(typed::<CacheRuntime>(document, number)?),
                "Secret" => add_secret(&mut secrets, typed(document, number)?),
                _ => {}
            }
        }
        Ok(Self { dataset: only("Dataset", datasets)?, runtime: only("CacheRuntime", runtimes)?, secrets })
    }
}

fn typed<T: serde::de::DeserializeOwned>(document: &str, number: usize) -> Result<T, ManifestError> {
    serde_saphyr::from_str(document).map_err(|error| ManifestError::Parse { number, message: error.to_string() })
}

fn add_secret(secrets: &mut Secrets, secret: Secret) {
    let values = secrets.entry(secret.metadata.name).or_default();
    values.extend(secret.data.into_iter().map(|(key, value)| (key, value.0)));
    values.extend(secret.string_data.into_iter().map(|(key, value)| (key, value.into_bytes())));
}

fn only<T: kube::ResourceExt>(kind: &'static str, found: Vec<T>) -> Result<T, ManifestError> {
    let mut found = found.into_iter();
    let first = found.next().ok_or(ManifestError::Missing { kind })?;
    match found.next() {
        None => Ok(first),
        Some(second) => Err(ManifestError::Several { kind, first: first.name_any(), second: second.name_any() }),
    }
}
