//! The first publish of a Dataset on a node: a real worker on a real S3 server, and the real plugin behind its socket.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use penstock_mount::csi::proto::csi::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    VolumeCapability,
    node_client::NodeClient,
    volume_capability::{AccessType, MountVolume},
};
use penstock_testkit::{
    process::{ChildGuard, Spawn, free_port},
    s3::{S3Options, S3Server},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tonic::transport::{Channel, Endpoint};

use super::program;

const DATASET: &str = "bench/prices";
const VOLUME: &str = "bench/prices/0";
const CLIENT_KEY: &str = "11f1e2d3c4b5a69788796a5b4c3d2e1f11f1e2d3c4b5a69788796a5b4c3d2e1f";
const PEER_KEY: &str = "22f1e2d3c4b5a69788796a5b4c3d2e1f22f1e2d3c4b5a69788796a5b4c3d2e1f";
const CONTENT: &str = "read through the mount";

/// Seconds of `runs` first publishes (stage and publish), each with a worker and a plugin that know nothing yet.
pub(super) async fn first_publishes(runs: usize) -> anyhow::Result<Vec<f64>> {
    let server = S3Server::start(S3Options::default()).await?;
    server.put("data", "file", CONTENT)?;
    let mut seconds = Vec::new();
    for _ in 0..runs {
        seconds.push(Node::start(&server).await?.first_publish().await?);
    }
    eprintln!("first publishes: {seconds:.3?} s");
    Ok(seconds)
}

/// A node with one worker on it.
struct Node {
    endpoint: String,
    client: NodeClient<Channel>,
    _processes: [ChildGuard; 2],
    folder: tempfile::TempDir,
}

impl Node {
    async fn start(server: &S3Server) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("penstock-bench.").tempdir()?;
        for dir in ["config", "sockets", "tier", "kubelet/plugins", "kubelet/pods"] {
            fs::create_dir_all(folder.path().join(dir))?;
        }
        let (endpoint, http) = (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
        configure(folder.path(), server, &endpoint)?;
        let at = |name: &str| folder.path().join(name);
        let worker = Spawn::new(program("penstock-worker"), at("worker.log"))
            .args(["--id", "prices-worker-0", "--listen", &endpoint, "--http", &http])
            .arg("--config-dir")
            .arg(at("config"))
            .arg("--socket-dir")
            .arg(at("sockets"))
            .start()?;
        let socket = at("csi.sock");
        let plugin = Spawn::new(program("penstock-mount"), at("plugin.log"))
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

    async fn first_publish(mut self) -> anyhow::Result<f64> {
        let staging = self.text("kubelet/plugins/globalmount");
        let target = self.text("kubelet/pods/reader");
        let begun = Instant::now();
        self.client.node_stage_volume(self.stage(&staging)).await?;
        self.client.node_publish_volume(self.publish(&staging, &target)).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let file = Path::new(&target).join("file");
        let read = tokio::task::spawn_blocking(move || fs::read_to_string(file)).await?;
        let volume_id = VOLUME.to_owned();
        let unpublish = NodeUnpublishVolumeRequest { volume_id: volume_id.clone(), target_path: target };
        self.client.node_unpublish_volume(unpublish).await?;
        let unstage = NodeUnstageVolumeRequest { volume_id, staging_target_path: staging };
        self.client.node_unstage_volume(unstage).await?;
        ensure!(read? == CONTENT, "the mount shows something else");
        Ok(seconds)
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
fn configure(folder: &Path, server: &S3Server, endpoint: &str) -> anyhow::Result<()> {
    let worker = json!({
        "dataset": DATASET,
        "mounts": [{
            "source": "s3://data", "path": "", "options": {"endpoint": server.endpoint()},
            "secretOptions": {"access-key": "ufs-0-access-key", "secret-key": "ufs-0-secret-key"}
        }],
        "tiers": [{"medium": "MEM", "dir": folder.join("tier"), "quota": 64 << 20, "high": 0.95, "low": 0.9}],
        "revalidateMs": 30_000, "uid": 0, "gid": 0
    });
    let members = json!({
        "epoch": 1, "former": [],
        "members": [{"id": "prices-worker-0", "addr": endpoint, "weight": 64 << 20}]
    });
    let config = folder.join("config");
    for (file, content) in [
        ("worker.json", worker.to_string().as_str()),
        ("members.json", members.to_string().as_str()),
        ("client.key", CLIENT_KEY),
        ("peer.key", PEER_KEY),
        ("ufs-0-access-key", server.access_key()),
        ("ufs-0-secret-key", server.secret_key()),
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
