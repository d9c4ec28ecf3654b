//! From the strings of a request to what we mean by them. Everything that a caller can get wrong is found here.

use std::{
    collections::HashMap,
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::{
    proto::csi::{VolumeCapability, volume_capability::AccessType},
    state::{PodRef, StateDir},
};
use crate::spec::{KeyHex, MountSpec, Tuning};

pub const ATTRIBUTE_DATASET: &str = "dataset";
pub const ATTRIBUTE_ENDPOINT: &str = "endpoint";
/// Optional: the most bytes of readahead per open file.
pub const ATTRIBUTE_READAHEAD: &str = "readaheadBytes";
pub const ATTRIBUTE_PURPOSE: &str = "purpose";
pub const PURPOSE_WORKER_SOCKET: &str = "worker-socket";
pub const SECRET_CLIENT_KEY: &str = "client.key";
pub const SECRET_PEER_PUBLIC: &str = "peer.pub";
/// Kubelet adds these by itself (`podInfoOnMount`): a pod's author has no say in them.
pub const POD_EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
pub const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
pub const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
pub const POD_NAME: &str = "csi.storage.k8s.io/pod.name";

/// A request that no retry can make right.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("{0} is missing in the request")]
    Missing(&'static str),
    #[error("volume_capability must be a file system: a Dataset cannot be a block device")]
    Block,
    #[error("{field} {path:?} must be an absolute path without . and ..")]
    OddPath { field: &'static str, path: String },
    #[error("{field} {path:?} lies outside of the kubelet directory {}", dir.display())]
    OutsideKubelet { field: &'static str, path: String, dir: PathBuf },
    #[error("{field} {path:?} cannot be looked up: {error}")]
    Lookup { field: &'static str, path: String, error: String },
    #[error("volume attribute {0} is missing")]
    MissingAttribute(&'static str),
    #[error("volume attribute {name} is {value:?}, but must be {must}")]
    BadAttribute { name: &'static str, value: String, must: &'static str },
    #[error("secret client.key is missing: name the Secret of the Dataset's client in nodeStageSecretRef")]
    MissingKey,
    #[error("secret {0} must be 64 hexadecimal digits")]
    BadKey(&'static str),
    #[error(
        "secret peer.pub is missing beside client.key: the operator writes both into the Secret NAME-client; upgrade \
         the operator before the nodes' plugin"
    )]
    MissingPublic,
    #[error(
        "an inline volume of this driver serves only workers (attribute purpose: worker-socket): to read a Dataset, mount the PersistentVolumeClaim of its name"
    )]
    Ephemeral,
    #[error(
        "pod {pod:?} is no worker of Dataset {dataset}: only the pods of StatefulSet {dataset}-worker get a socket directory"
    )]
    NotAWorker { pod: String, dataset: String },
}

type Map = HashMap<String, String>;

/// A field that must not be empty.
pub fn required<'a>(name: &'static str, value: &'a str) -> Result<&'a str, RequestError> {
    if value.is_empty() { Err(RequestError::Missing(name)) } else { Ok(value) }
}

/// The pod that a volume is published for, where kubelet says so.
pub fn pod(context: &Map) -> Option<PodRef> {
    let named = |name| context.get(name).cloned();
    Some(PodRef { namespace: named(POD_NAMESPACE)?, name: named(POD_NAME)?, uid: named(POD_UID)? })
}

/// Any access mode is welcome (who may write is decided by the mount, which is read-only), block devices are not.
pub fn check_capability(capability: Option<&VolumeCapability>) -> Result<(), RequestError> {
    match capability.and_then(|c| c.access_type.as_ref()) {
        Some(AccessType::Mount(_)) => Ok(()),
        Some(AccessType::Block(_)) => Err(RequestError::Block),
        None => Err(RequestError::Missing("volume_capability")),
    }
}

/// Resolves a path of a request: its parent without symbolic links, as the mount table shows it, and inside
/// `kubelet_dir` if that is set. A parent that does not exist is taken as it is written.
pub fn resolve(field: &'static str, raw: &str, kubelet_dir: Option<&Path>) -> Result<PathBuf, RequestError> {
    let written = Path::new(required(field, raw)?);
    let odd = || RequestError::OddPath { field, path: raw.to_owned() };
    let plain = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    // `components` hides `.` inside a path, so the text is asked for it.
    if !written.is_absolute() || !written.components().all(plain) || raw.split('/').any(|part| part == ".") {
        return Err(odd());
    }
    let (Some(parent), Some(name)) = (written.parent(), written.file_name()) else {
        return Err(odd());
    };
    let lookup = |error: io::Error| RequestError::Lookup { field, path: raw.to_owned(), error: error.to_string() };
    let real = |path: &Path| match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        other => other.map_err(lookup),
    };
    let path = real(parent)?.join(name);
    match kubelet_dir {
        Some(dir) if !path.starts_with(real(dir)?) => {
            Err(RequestError::OutsideKubelet { field, path: raw.to_owned(), dir: dir.to_owned() })
        }
        _ => Ok(path),
    }
}

/// Of a Dataset, as its mounts hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    client: KeyHex,
    peer_public: String,
}

/// What to mount, from a volume's attributes. `None` as keys when there are no such secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `namespace/name`.
    pub dataset: String,
    pub endpoints: Vec<String>,
    pub keys: Option<Keys>,
    pub tuning: Tuning,
}

impl Source {
    pub fn parse(attributes: &Map, secrets: &Map) -> Result<Self, RequestError> {
        let attribute = |name: &'static str| {
            attributes.get(name).filter(|v| !v.is_empty()).ok_or(RequestError::MissingAttribute(name))
        };
        let dataset = attribute(ATTRIBUTE_DATASET)?.clone();
        if !dataset.split_once('/').is_some_and(|(namespace, name)| is_name(namespace) && is_name(name)) {
            let must = "NAMESPACE/NAME";
            return Err(RequestError::BadAttribute { name: ATTRIBUTE_DATASET, value: dataset, must });
        }
        let endpoint = attribute(ATTRIBUTE_ENDPOINT)?;
        let endpoints: Vec<String> = endpoint.split(',').map(|one| one.trim().to_owned()).collect();
        if !endpoints.iter().all(|one| is_endpoint(one)) {
            let must = "HOST:PORT, or several with commas between";
            return Err(RequestError::BadAttribute { name: ATTRIBUTE_ENDPOINT, value: endpoint.clone(), must });
        }
        Ok(Self { dataset, endpoints, keys: parse_keys(secrets)?, tuning: parse_tuning(attributes)? })
    }

    /// What the serving process is told, if the key is known.
    pub fn spec(&self, state: &StateDir) -> Option<MountSpec> {
        let Keys { client, peer_public } = self.keys.clone()?;
        Some(MountSpec {
            dataset: self.dataset.clone(),
            endpoints: self.endpoints.clone(),
            client_key: client,
            peer_public,
            socket_dir: Some(state.sockets().join(&self.dataset)),
            read_only: true,
            allow_other: true,
            tuning: self.tuning.clone(),
        })
    }
}

fn parse_tuning(attributes: &Map) -> Result<Tuning, RequestError> {
    let mut tuning = Tuning::default();
    if let Some(value) = attributes.get(ATTRIBUTE_READAHEAD) {
        let must = "a number of bytes";
        let bad = || RequestError::BadAttribute { name: ATTRIBUTE_READAHEAD, value: value.clone(), must };
        tuning.readahead_bytes = Some(value.parse().map_err(|_| bad())?);
    }
    Ok(tuning)
}

fn parse_keys(secrets: &Map) -> Result<Option<Keys>, RequestError> {
    let key = |name: &'static str| match secrets.get(name).map(|key| key.trim()) {
        Some(key) if key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(Some(key.to_owned())),
        Some(_) => Err(RequestError::BadKey(name)),
        None => Ok(None),
    };
    let Some(client) = key(SECRET_CLIENT_KEY)? else { return Ok(None) };
    let peer_public = key(SECRET_PEER_PUBLIC)?.ok_or(RequestError::MissingPublic)?;
    Ok(Some(Keys { client: KeyHex(client), peer_public }))
}

/// Whether this volume is written into a pod's manifest instead of being a `PersistentVolume`.
pub fn is_ephemeral(attributes: &Map) -> bool {
    attributes.get(POD_EPHEMERAL).is_some_and(|value| value == "true")
}

/// The socket directory of the worker pod that asks, as `NAMESPACE/DATASET/POD_UID`. Namespace and name are the
/// pod's own, from kubelet. They keep other pods out, not an author who takes a worker's name: what a socket offers is
/// believed only from who holds the peer key.
pub fn worker_socket(attributes: &Map) -> Result<PathBuf, RequestError> {
    if attributes.get(ATTRIBUTE_PURPOSE).is_none_or(|value| value != PURPOSE_WORKER_SOCKET) {
        return Err(RequestError::Ephemeral);
    }
    let one = |name: &'static str| {
        let value = attributes.get(name).filter(|v| !v.is_empty()).ok_or(RequestError::MissingAttribute(name))?;
        let must = "a Kubernetes name without a namespace";
        if is_name(value) { Ok(value) } else { Err(RequestError::BadAttribute { name, value: value.clone(), must }) }
    };
    let (dataset, pod) = (one(ATTRIBUTE_DATASET)?, one(POD_NAME)?);
    if !is_worker(pod, dataset) {
        return Err(RequestError::NotAWorker { pod: pod.clone(), dataset: dataset.clone() });
    }
    Ok([one(POD_NAMESPACE)?, dataset, one(POD_UID)?].iter().collect())
}

/// Whether the pod is named as those of the Dataset's workers are.
fn is_worker(pod: &str, dataset: &str) -> bool {
    let ordinal = pod.strip_prefix(dataset).and_then(|rest| rest.strip_prefix("-worker-"));
    ordinal.is_some_and(|ordinal| !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit()))
}

/// A DNS subdomain (RFC 1123) as Kubernetes uses them: also safe as a file name.
fn is_name(text: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 253
        && text.as_bytes().first().is_some_and(edge)
        && text.as_bytes().last().is_some_and(edge)
        && text.bytes().all(|b| edge(&b) || b == b'-' || b == b'.')
}

fn is_endpoint(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn attributes_and_the_secret_make_a_source() {
        let attributes =
            map(&[("dataset", "ns/d.1"), ("endpoint", "10.0.0.1:9440, [::1]:9440"), ("readaheadBytes", "0")]);
        let source =
            Source::parse(&attributes, &map(&[("client.key", &format!("{KEY}\n")), ("peer.pub", KEY)])).unwrap();
        assert_eq!(source.endpoints, ["10.0.0.1:9440", "[::1]:9440"]);
        let spec = source.spec(&StateDir::new("/state".into())).unwrap();
        assert_eq!(spec.socket_dir.unwrap(), Path::new("/state/sockets/ns/d.1"));
        assert_eq!((spec.client_key.0.as_str(), spec.tuning.readahead_bytes), (KEY, Some(0)));
        let keyless = Source::parse(&attributes, &Map::new()).unwrap();
        assert!(keyless.spec(&StateDir::new("/state".into())).is_none());
    }

    #[test]
    fn wrong_attributes_are_named() {
        let cases = [
            (map(&[("endpoint", "h:1")]), "volume attribute dataset is missing"),
            (map(&[("dataset", "ns/d")]), "volume attribute endpoint is missing"),
            (map(&[("dataset", "d"), ("endpoint", "h:1")]), "dataset is \"d\", but must be NAMESPACE/NAME"),
            (map(&[("dataset", "../d"), ("endpoint", "h:1")]), "dataset is \"../d\""),
            (map(&[("dataset", "a/b/c"), ("endpoint", "h:1")]), "dataset is \"a/b/c\""),
            (map(&[("dataset", "a/b"), ("endpoint", "h")]), "endpoint is \"h\", but must be HOST:PORT"),
            (map(&[("dataset", "a/b"), ("endpoint", "h:1,")]), "endpoint is \"h:1,\""),
            (
                map(&[("dataset", "a/b"), ("endpoint", "h:1"), ("readaheadBytes", "x")]),
                "readaheadBytes is \"x\", but must be a number",
            ),
        ];
        for (attributes, message) in cases {
            let error = Source::parse(&attributes, &Map::new()).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_bad_key_is_refused_without_showing_it() {
        let attributes = map(&[("dataset", "a/b"), ("endpoint", "h:1")]);
        let error = Source::parse(&attributes, &map(&[("client.key", "hunter2")])).unwrap_err();
        assert_eq!(error, RequestError::BadKey("client.key"));
        assert!(!error.to_string().contains("hunter2"));
        let error = Source::parse(&attributes, &map(&[("client.key", KEY)])).unwrap_err();
        assert_eq!(error, RequestError::MissingPublic);
    }

    #[test]
    fn a_worker_s_socket_directory_is_in_the_pod_s_own_namespace() {
        let good = [
            (POD_NAMESPACE, "ns"),
            (POD_UID, "u-1"),
            ("dataset", "d"),
            ("purpose", "worker-socket"),
            (POD_NAME, "d-worker-10"),
        ];
        assert_eq!(worker_socket(&map(&good)).unwrap(), Path::new("ns/d/u-1"));
        let mut foreign = map(&good);
        foreign.insert("dataset".into(), "other/d".into());
        assert!(matches!(worker_socket(&foreign), Err(RequestError::BadAttribute { name: "dataset", .. })));
        foreign.insert("dataset".into(), "..".into());
        assert!(matches!(worker_socket(&foreign), Err(RequestError::BadAttribute { name: "dataset", .. })));
        assert_eq!(worker_socket(&map(&good[..2])), Err(RequestError::Ephemeral));
        assert_eq!(worker_socket(&map(&good[1..])), Err(RequestError::MissingAttribute(POD_NAMESPACE)));
    }

    #[test]
    fn only_a_worker_of_the_dataset_gets_a_socket_directory() {
        for (pod, good) in [
            ("d-worker-0", true),
            ("d-worker-12", true),
            ("d-worker-x", false),
            ("e-worker-0", false),
            ("d-d-worker-0", false),
            ("notebook", false),
        ] {
            let asks = map(&[
                (POD_NAMESPACE, "ns"),
                (POD_UID, "u-1"),
                ("dataset", "d"),
                ("purpose", "worker-socket"),
                (POD_NAME, pod),
            ]);
            let answer = worker_socket(&asks);
            assert_eq!(answer.is_ok(), good, "{pod}");
            assert!(good || matches!(answer, Err(RequestError::NotAWorker { .. })), "{answer:?}");
        }
    }

    #[test]
    fn paths_are_absolute_plain_and_inside_the_kubelet_directory() {
        let folder = tempfile::tempdir().unwrap();
        let kubelet = folder.path().canonicalize().unwrap().join("kubelet");
        fs::create_dir_all(kubelet.join("pods")).unwrap();
        std::os::unix::fs::symlink("/", kubelet.join("escape")).unwrap();
        let resolve = |inner: &str| resolve("target_path", &format!("{}{inner}", kubelet.display()), Some(&kubelet));
        assert_eq!(resolve("/pods/t").unwrap(), kubelet.join("pods/t"));
        assert_eq!(resolve("/gone/x/t").unwrap(), kubelet.join("gone/x/t"));
        for odd in ["/pods/../t", "/pods/./t", "/.."] {
            assert!(matches!(resolve(odd), Err(RequestError::OddPath { .. })), "{odd}");
        }
        for outside in ["2/t", "/escape/t"] {
            assert!(matches!(resolve(outside), Err(RequestError::OutsideKubelet { .. })), "{outside}");
        }
        for odd in ["relative", "/"] {
            assert!(matches!(super::resolve("f", odd, None), Err(RequestError::OddPath { .. })), "{odd}");
        }
        assert_eq!(super::resolve("f", "", None), Err(RequestError::Missing("f")));
    }
}
