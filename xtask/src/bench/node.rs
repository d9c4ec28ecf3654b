//! One worker and one node plugin, as real processes.

use std::{
    collections::HashMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::bail;
use penstock_e2e::s3::SeaweedFs;
use penstock_mount::csi::proto::csi::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    VolumeCapability,
    node_client::NodeClient,
    volume_capability::{AccessType, MountVolume},
};
use penstock_testkit::process::{ChildGuard, Spawn, free_port};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tonic::transport::{Channel, Endpoint};

use super::{link::Link, program};

const DATASET: &str = "bench/prices";
/// Where the plugin looks for the workers of its node.
const SOCKETS: &str = "state/sockets/bench/prices/uid-0";
const VOLUME: &str = "bench/prices/0";
const CLIENT_KEY: &str = "11f1e2d3c4b5a69788796a5b4c3d2e1f11f1e2d3c4b5a69788796a5b4c3d2e1f";
const PEER_KEY: &str = "22f1e2d3c4b5a69788796a5b4c3d2e1f22f1e2d3c4b5a69788796a5b4c3d2e1f";

/// A bucket, and how to reach it.
pub(super) struct Bucket {
    pub(super) endpoint: String,
    pub(super) name: String,
    pub(super) access_key: String,
    pub(super) secret_key: String,
}

impl Bucket {
    /// A new and empty one.
    pub(super) fn create(server: &SeaweedFs, name: &str) -> anyhow::Result<Self> {
        server.create_bucket(name)?;
        Ok(Self {
            endpoint: server.endpoint(),
            name: name.into(),
            access_key: SeaweedFs::ACCESS_KEY.into(),
            secret_key: SeaweedFs::SECRET_KEY.into(),
        })
    }
}

/// Where the reader's node is, as seen from the worker.
#[derive(Clone, Copy)]
pub(super) enum Reader<'a> {
    /// The same node.
    Here,
    /// Another one, at the other end of a link.
    Beyond(&'a Link),
}

impl Reader<'_> {
    fn worker_address(self) -> Ipv4Addr {
        match self {
            Self::Here => Ipv4Addr::LOCALHOST,
            Self::Beyond(_) => Link::HOST,
        }
    }

    /// Starts a program on the reader's node.
    fn spawn(self, program: &Path, log: PathBuf) -> Spawn {
        match self {
            Self::Here => Spawn::new(program, log),
            Self::Beyond(link) => Spawn::new("nsenter", log).arg(format!("--net={}", link.namespace())).arg(program),
        }
    }
}

/// One worker, and a node plugin.
pub(super) struct Node {
    endpoint: String,
    client: NodeClient<Channel>,
    _processes: [ChildGuard; 2],
    folder: tempfile::TempDir,
}

impl Node {
    /// With one memory tier of `quota` bytes in `/dev/shm`.
    pub(super) async fn start(bucket: &Bucket, quota: u64, reader: Reader<'_>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("penstock-bench.").tempdir_in("/dev/shm")?;
        // The plugin sees the sockets of its own node only.
        let sockets = if matches!(reader, Reader::Here) { SOCKETS } else { "sockets" };
        for dir in ["config", sockets, "tier", "kubelet/plugins", "kubelet/pods"] {
            fs::create_dir_all(folder.path().join(dir))?;
        }
        let (endpoint, http) =
            (format!("{}:{}", reader.worker_address(), free_port()?), format!("127.0.0.1:{}", free_port()?));
        configure(folder.path(), bucket, quota, &endpoint)?;
        let at = |name: &str| folder.path().join(name);
        let worker = Spawn::new(program("penstock-worker"), at("worker.log"))
            .args(["--id", "prices-worker-0", "--listen", &endpoint, "--http", &http])
            .arg("--config-dir")
            .arg(at("config"))
            .arg("--socket-dir")
            .arg(at(sockets))
            .start()?;
        let socket = at("csi.sock");
        let plugin = reader
            .spawn(&program("penstock-mount"), at("plugin.log"))
            .args(["csi", "--node-id", "node-1", "--endpoint", &format!("unix://{}", socket.display())])
            .arg("--kubelet-dir")
            .arg(at("kubelet"))
            .arg("--state-dir")
            .arg(at("state"))
            .start()?;
        wait("the worker", async || is_ready(&http).await).await?;
        wait("the plugin", async || UnixStream::connect(&socket).await.is_ok()).await?;
        let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect().await?;
        // The plugin ends first.
        Ok(Self { endpoint, client: NodeClient::new(channel), _processes: [plugin, worker], folder })
    }

    /// NodeStage and NodePublish; where the volume then is.
    pub(super) async fn mount(&mut self) -> anyhow::Result<PathBuf> {
        let (staging, target) = (self.staging(), self.target());
        self.client.node_stage_volume(self.stage(&staging)).await?;
        self.client.node_publish_volume(self.publish(&staging, &target)).await?;
        Ok(target.into())
    }

    pub(super) async fn unmount(&mut self) -> anyhow::Result<()> {
        let volume_id = VOLUME.to_owned();
        let unpublish = NodeUnpublishVolumeRequest { volume_id: volume_id.clone(), target_path: self.target() };
        self.client.node_unpublish_volume(unpublish).await?;
        let unstage = NodeUnstageVolumeRequest { volume_id, staging_target_path: self.staging() };
        self.client.node_unstage_volume(unstage).await?;
        Ok(())
    }

    /// The folder of the memory tier.
    pub(super) fn tier(&self) -> PathBuf {
        self.folder.path().join("tier")
    }

    fn staging(&self) -> String {
        self.text("kubelet/plugins/globalmount")
    }

    fn target(&self) -> String {
        self.text("kubelet/pods/reader")
    }

    fn text(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn context(&self) -> HashMap<String, String> {
        map([("dataset", DATASET), ("endpoint", &self.endpoint)])
    }

    fn stage(&self, staging: &str) -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: VOLUME.to_owned(),
            staging_target_path: staging.to_owned(),
            volume_capability: Some(capability()),
            secrets: map([("client.key", CLIENT_KEY)]),
            volume_context: self.context(),
            ..NodeStageVolumeRequest::default()
        }
    }

    fn publish(&self, staging: &str, target: &str) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: VOLUME.to_owned(),
            staging_target_path: staging.to_owned(),
            target_path: target.to_owned(),
            volume_capability: Some(capability()),
            readonly: true,
            volume_context: self.context(),
            secrets: map([("client.key", CLIENT_KEY)]),
            ..NodePublishVolumeRequest::default()
        }
    }
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn capability() -> VolumeCapability {
    VolumeCapability { access_type: Some(AccessType::Mount(MountVolume::default())), access_mode: None }
}

/// What the operator gives to a worker.
fn configure(folder: &Path, bucket: &Bucket, quota: u64, endpoint: &str) -> anyhow::Result<()> {
    let worker = json!({
        "dataset": DATASET,
        "mounts": [{
            "source": format!("s3://{}", bucket.name), "path": "", "options": {"endpoint": bucket.endpoint},
            "secretOptions": {"access-key": "ufs-0-access-key", "secret-key": "ufs-0-secret-key"}
        }],
        "tiers": [{"medium": "MEM", "dir": folder.join("tier"), "quota": quota, "high": 0.95, "low": 0.9}],
        "revalidateMs": 30_000, "uid": 0, "gid": 0
    });
    let members = json!({
        "epoch": 1, "former": [],
        "members": [{"id": "prices-worker-0", "addr": endpoint, "weight": quota}]
    });
    let config = folder.join("config");
    for (file, content) in [
        ("worker.json", worker.to_string().as_str()),
        ("members.json", members.to_string().as_str()),
        ("client.key", CLIENT_KEY),
        ("peer.key", PEER_KEY),
        ("ufs-0-access-key", bucket.access_key.as_str()),
        ("ufs-0-secret-key", bucket.secret_key.as_str()),
    ] {
        fs::write(config.join(file), content)?;
    }
    Ok(())
}

async fn is_ready(http: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(http).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    ask.await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

async fn wait(what: &str, mut holds: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        if Instant::now() > deadline {
            bail!("{what} is not ready after 20 s");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
