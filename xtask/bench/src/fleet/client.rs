//! A node's plugin as its real process, called as kubelet calls it.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use penstock_mount::csi::proto::csi::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    VolumeCapability,
    node_client::NodeClient,
    volume_capability::{AccessType, MountVolume},
};
use penstock_testkit::process::ChildGuard;
use tonic::transport::{Channel, Endpoint};

use super::{CLIENT_KEY, DATASET, PEER_PUBLIC, Place};
use crate::program;

const VOLUME: &str = "bench/prices/0";

/// Ends when dropped.
pub(crate) struct Client {
    process: ChildGuard,
    node: PathBuf,
    /// First contact.
    endpoint: String,
}

impl Client {
    /// Starts the process; `folder` is that of all nodes.
    pub(super) fn start(place: &Place, folder: &Path, endpoint: &str) -> anyhow::Result<Self> {
        let node = folder.join(&place.name);
        for dir in ["kubelet/plugins", "kubelet/pods"] {
            fs::create_dir_all(node.join(dir))?;
        }
        let process = place
            .spawn(&program("penstock-mount"), node.join("plugin.log"))
            .args(["csi", "--node-id", &place.name, "--endpoint"])
            .arg(format!("unix://{}", node.join("csi.sock").display()))
            .arg("--kubelet-dir")
            .arg(node.join("kubelet"))
            .arg("--state-dir")
            .arg(node.join("state"))
            .start()?;
        Ok(Self { process, node, endpoint: endpoint.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it is ready; an error when it has ended.
    pub(super) fn is_ready(&mut self) -> anyhow::Result<bool> {
        self.process.ensure_running()?;
        Ok(std::os::unix::net::UnixStream::connect(self.node.join("csi.sock")).is_ok())
    }

    /// NodeStage and NodePublish; where the volume then is.
    pub(super) async fn mount(&mut self) -> anyhow::Result<PathBuf> {
        let mut plugin = self.connect().await?;
        plugin.node_stage_volume(self.stage()).await?;
        plugin.node_publish_volume(self.publish()).await?;
        Ok(self.target().into())
    }

    pub(super) async fn unmount(&mut self) -> anyhow::Result<()> {
        let (volume_id, mut plugin) = (VOLUME.to_owned(), self.connect().await?);
        let unpublish = NodeUnpublishVolumeRequest { volume_id: volume_id.clone(), target_path: self.target() };
        plugin.node_unpublish_volume(unpublish).await?;
        let unstage = NodeUnstageVolumeRequest { volume_id, staging_target_path: self.staging() };
        plugin.node_unstage_volume(unstage).await?;
        Ok(())
    }

    async fn connect(&self) -> anyhow::Result<NodeClient<Channel>> {
        let socket = self.node.join("csi.sock");
        Ok(NodeClient::new(Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect().await?))
    }

    fn staging(&self) -> String {
        self.node.join("kubelet/plugins/globalmount").display().to_string()
    }

    fn target(&self) -> String {
        self.node.join("kubelet/pods/reader").display().to_string()
    }

    fn context(&self) -> HashMap<String, String> {
        map([("dataset", DATASET), ("endpoint", &self.endpoint)])
    }

    fn stage(&self) -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: VOLUME.to_owned(),
            staging_target_path: self.staging(),
            volume_capability: Some(capability()),
            secrets: secrets(),
            volume_context: self.context(),
            ..NodeStageVolumeRequest::default()
        }
    }

    fn publish(&self) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: VOLUME.to_owned(),
            staging_target_path: self.staging(),
            target_path: self.target(),
            volume_capability: Some(capability()),
            readonly: true,
            volume_context: self.context(),
            secrets: secrets(),
            ..NodePublishVolumeRequest::default()
        }
    }
}

/// What kubelet would hand over.
fn secrets() -> HashMap<String, String> {
    map([("client.key", CLIENT_KEY), ("peer.pub", PEER_PUBLIC)])
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn capability() -> VolumeCapability {
    VolumeCapability { access_type: Some(AccessType::Mount(MountVolume::default())), access_mode: None }
}
