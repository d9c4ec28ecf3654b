//! A node plugin in this process, with real mounts in a directory of its own.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use penstock_mount::csi::{
    CsiOptions, mounts,
    proto::csi::{
        NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodeStageVolumeRequest,
        NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
        node_client::NodeClient,
        volume_capability::{AccessType, MountVolume},
    },
    run_until,
    state::{ProcessId, StagedRecord, StateDir},
};
use rustix::{
    mount::UnmountFlags,
    process::{Pid, Signal},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

pub(crate) const KEY: &str = "6b65792d6b65792d6b65792d6b65792d6b65792d6b65792d6b65792d6b65792d";
pub(crate) const VOLUME: &str = "ns/prices/0b8f";

pub(crate) struct Rig {
    pub(crate) options: CsiOptions,
    /// Where the volume says that workers are; nothing is there unless a test listens.
    pub(crate) endpoint: String,
    folder: tempfile::TempDir,
    stop: CancellationToken,
    server: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let kubelet = root.join("kubelet");
        for dir in ["plugins", "pods", "registry"] {
            fs::create_dir_all(kubelet.join(dir)).unwrap();
        }
        let options = CsiOptions {
            endpoint: format!("unix://{}", root.join("csi.sock").display()),
            registration_dir: Some(kubelet.join("registry")),
            kubelet_dir: Some(kubelet),
            kubelet_registration_path: None,
            node_id: "node-1".to_owned(),
            state_dir: root.join("state"),
            http_port: None,
            driver_name: "csi.penstock.dev".to_owned(),
            mount_program: Some(crate::double::program(&root)),
        };
        let endpoint = "198.18.0.1:9440".to_owned();
        let mut rig = Self { options, endpoint, folder, stop: CancellationToken::new(), server: None };
        rig.boot().await;
        rig
    }

    async fn boot(&mut self) {
        self.stop = CancellationToken::new();
        self.server = Some(tokio::spawn(run_until(self.options.clone(), self.stop.clone())));
        for _ in 0..500 {
            if self.socket().exists() && self.registration_socket().exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the plugin does not listen");
    }

    pub(crate) async fn halt(&mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take() {
            server.await.unwrap().unwrap();
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.halt().await;
        self.boot().await;
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root().join("csi.sock")
    }

    pub(crate) fn registration_socket(&self) -> PathBuf {
        self.root().join("kubelet/registry/csi.penstock.dev-reg.sock")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root().join("kubelet/plugins/globalmount")
    }

    pub(crate) fn target(&self, pod: &str) -> PathBuf {
        self.root().join("kubelet/pods").join(pod)
    }

    pub(crate) async fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(channel(&self.socket()).await)
    }

    pub(crate) fn stage_request(&self) -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: VOLUME.to_owned(),
            staging_target_path: text(&self.staging()),
            volume_capability: mount_capability(),
            secrets: secrets(),
            volume_context: map(&[("dataset", "ns/prices"), ("endpoint", &self.endpoint)]),
            ..Default::default()
        }
    }

    pub(crate) fn publish_request(&self, pod: &str) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: VOLUME.to_owned(),
            staging_target_path: text(&self.staging()),
            target_path: text(&self.target(pod)),
            volume_capability: mount_capability(),
            readonly: true,
            volume_context: map(&[("dataset", "ns/prices"), ("endpoint", &self.endpoint)]),
            ..Default::default()
        }
    }

    pub(crate) async fn stage(&self) -> Result<(), Status> {
        self.node().await.node_stage_volume(self.stage_request()).await.map(drop)
    }

    pub(crate) async fn publish(&self, pod: &str) -> Result<(), Status> {
        self.node().await.node_publish_volume(self.publish_request(pod)).await.map(drop)
    }

    pub(crate) async fn unpublish(&self, pod: &str) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest { volume_id: VOLUME.to_owned(), target_path: text(&self.target(pod)) };
        self.node().await.node_unpublish_volume(request).await.map(drop)
    }

    pub(crate) async fn unstage(&self) -> Result<(), Status> {
        let request =
            NodeUnstageVolumeRequest { volume_id: VOLUME.to_owned(), staging_target_path: text(&self.staging()) };
        self.node().await.node_unstage_volume(request).await.map(drop)
    }

    pub(crate) async fn stats(&self, pod: &str) -> Result<NodeGetVolumeStatsResponse, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: VOLUME.to_owned(),
            volume_path: text(&self.target(pod)),
            ..Default::default()
        };
        Ok(self.node().await.node_get_volume_stats(request).await?.into_inner())
    }

    pub(crate) fn read(&self, pod: &str) -> std::io::Result<String> {
        fs::read_to_string(self.target(pod).join(crate::double::FILE))
    }

    /// The serving processes that the plugin has recorded.
    pub(crate) fn processes(&self) -> Vec<ProcessId> {
        let records = StateDir::new(self.options.state_dir.clone()).load_all::<StagedRecord>();
        records.into_iter().filter_map(|record| record.process).collect()
    }

    pub(crate) fn process(&self) -> Pid {
        Pid::from_raw(self.processes()[0].pid).unwrap()
    }

    /// Our mounts, outermost first.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let root = self.root();
        let entries = mounts::parse(&fs::read("/proc/self/mountinfo").unwrap());
        entries.into_iter().map(|entry| entry.mount_point).filter(|path| path.starts_with(&root)).collect()
    }
}

/// Leaves nothing behind, also after a failed test.
impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
        for process in self.processes() {
            if is_running(process) {
                let pid = Pid::from_raw(process.pid).unwrap();
                rustix::process::kill_process(pid, Signal::KILL).ok();
            }
        }
        for path in self.mounts().iter().rev() {
            rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).ok();
        }
    }
}

/// Whether exactly this process runs (a zombie does not).
pub(crate) fn is_running(process: ProcessId) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    fields.first().is_some_and(|state| *state != "Z")
        && fields.get(19) == Some(&process.start_ticks.to_string().as_str())
}

/// What kubelet hands over from the Dataset's client Secret.
pub(crate) fn secrets() -> HashMap<String, String> {
    map(&[("client.key", KEY), ("peer.pub", KEY)])
}

pub(crate) async fn channel(socket: &Path) -> Channel {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    endpoint.connect().await.unwrap()
}

pub(crate) fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn mount_capability() -> Option<VolumeCapability> {
    let mount = AccessType::Mount(MountVolume::default());
    Some(VolumeCapability { access_type: Some(mount), access_mode: None })
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
