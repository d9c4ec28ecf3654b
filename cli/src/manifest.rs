//! Manifests as a cluster takes them: YAML documents of which local mode uses a Dataset, its CacheRuntime and Secrets.

use std::{collections::BTreeMap, path::Path};

use k8s_openapi::api::core::v1::ConfigMap;
use penstock_api::{CacheRuntime, DataLoad, Dataset, autoscaling::ConfigMapKey};
use penstock_plan::autoscaling::CalendarTexts;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

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

/// A DataLoad to be done now.
#[derive(Clone, Debug)]
pub struct Order {
    pub load: DataLoad,
    /// Values of ConfigMaps of the same file.
    pub(crate) texts: CalendarTexts,
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("cannot read {file}: {source}")]
    Read { file: String, source: std::io::Error },
    #[error("document {number} is not a manifest: {message}")]
    Parse { number: usize, message: String },
    #[error("there is no {kind} in it: {needs}")]
    Missing { kind: &'static str, needs: &'static str },
    #[error("there is more than one {kind} ({first:?} and {second:?}): give each a file of its own")]
    Several { kind: &'static str, first: String, second: String },
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
        Self::parse(&text_of(file)?)
    }

    /// Documents of other kinds (pods, namespaces) are passed over: the same file serves a cluster.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let (mut datasets, mut runtimes, mut secrets) = (Vec::new(), Vec::new(), Secrets::new());
        for (number, document) in documents(text)? {
            match document["kind"].as_str() {
                Some("Dataset") => datasets.push(typed::<Dataset>(document, number)?),
                Some("CacheRuntime") => runtimes.push(typed::<CacheRuntime>(document, number)?),
                Some("Secret") => add_secret(&mut secrets, typed(document, number)?),
                _ => {}
            }
        }
        Ok(Self {
            dataset: only("Dataset", datasets, CACHE)?,
            runtime: only("CacheRuntime", runtimes, CACHE)?,
            secrets,
        })
    }
}

impl Order {
    pub fn read(file: &Path) -> Result<Self, ManifestError> {
        Self::parse(&text_of(file)?)
    }

    /// Documents of other kinds are passed over.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let (mut loads, mut texts) = (Vec::new(), CalendarTexts::new());
        for (number, document) in documents(text)? {
            match document["kind"].as_str() {
                Some("DataLoad") => loads.push(typed::<DataLoad>(document, number)?),
                Some("ConfigMap") => {
                    let map = typed::<ConfigMap>(document, number)?;
                    let name = map.metadata.name.unwrap_or_default();
                    let named = |(key, text)| (ConfigMapKey { name: name.clone(), key }, text);
                    texts.extend(map.data.unwrap_or_default().into_iter().map(named));
                }
                _ => {}
            }
        }
        Ok(Self { load: only("DataLoad", loads, "write one; docs/loading.md has examples")?, texts })
    }

    /// `NAMESPACE/NAME` of its Dataset.
    pub fn dataset_id(&self) -> String {
        let namespace = self.load.metadata.namespace.as_deref().unwrap_or("default");
        format!("{namespace}/{}", self.load.spec.dataset)
    }
}

const CACHE: &str = "a local cache needs one Dataset and one CacheRuntime, and may have Secrets";

fn text_of(file: &Path) -> Result<String, ManifestError> {
    std::fs::read_to_string(file).map_err(|source| ManifestError::Read { file: file.display().to_string(), source })
}

/// With their numbers, from 1.
fn documents(text: &str) -> Result<Vec<(usize, Value)>, ManifestError> {
    let mut bytes = text.as_bytes();
    let numbered = serde_saphyr::read::<_, Value>(&mut bytes).zip(1..).map(|(document, number)| {
        let document = document.map_err(|error| ManifestError::Parse { number, message: error.to_string() })?;
        Ok((number, document))
    });
    numbered.collect()
}

fn typed<T: DeserializeOwned>(document: Value, number: usize) -> Result<T, ManifestError> {
    serde_json::from_value(document).map_err(|error| ManifestError::Parse { number, message: error.to_string() })
}

fn add_secret(secrets: &mut Secrets, secret: Secret) {
    let values = secrets.entry(secret.metadata.name).or_default();
    values.extend(secret.data.into_iter().map(|(key, value)| (key, value.0)));
    values.extend(secret.string_data.into_iter().map(|(key, value)| (key, value.into_bytes())));
}

fn only<T: kube::ResourceExt>(kind: &'static str, found: Vec<T>, needs: &'static str) -> Result<T, ManifestError> {
    let mut found = found.into_iter();
    let first = found.next().ok_or(ManifestError::Missing { kind, needs })?;
    match found.next() {
        None => Ok(first),
        Some(second) => Err(ManifestError::Several { kind, first: first.name_any(), second: second.name_any() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_apart_as_yaml_does() {
        let text = "%YAML 1.2\n--- # the data\nkind: Dataset\nmetadata:\n  name: a\n  annotations:\n    note: |\n      \
                    ---\n      not a document\nspec: {mounts: [{mountPoint: 'local:///x'}]}\n...\n---\n# nothing\n--- \
                    {kind: CacheRuntime, metadata: {name: a}, spec: {tieredStore: {levels: []}}}\n---\nkind: Secret\n\
                    metadata: {name: s}\nstringData: {key: hush}\n";
        let manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.dataset_id(), "default/a");
        let annotations = manifest.dataset.metadata.annotations.unwrap();
        assert_eq!(annotations["note"], "---\nnot a document\n");
        assert_eq!(manifest.secrets["s"]["key"], b"hush");
    }

    #[test]
    fn a_document_that_is_no_manifest_is_told_by_its_number() {
        let error = Manifest::parse("kind: Pod\n---\nkind: Dataset\nmetadata: {name: a}\n").unwrap_err();
        assert!(error.to_string().starts_with("document 2 is not a manifest: "), "{error}");
    }
}
