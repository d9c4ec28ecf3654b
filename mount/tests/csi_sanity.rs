//! The conformance suite of the CSI community, over the services that we offer. Needs root and `/dev/fuse`.

#![allow(clippy::unwrap_used, clippy::unnecessary_wraps)]

#[path = "csi/double.rs"]
mod double;
#[path = "csi/rig.rs"]
#[allow(dead_code)]
mod rig;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use penstock_mount::csi::proto::csi::{
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse, ControllerServiceCapability,
    CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse, GetPluginCapabilitiesRequest,
    GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse, PluginCapability, ProbeRequest,
    ProbeResponse, Volume,
    controller_server::{Controller, ControllerServer},
    controller_service_capability::{Rpc, Type as Offer, rpc::Type as OfferedRpc},
    identity_client::IdentityClient,
    identity_server::{Identity, IdentityServer},
    node_server::NodeServer,
    plugin_capability::{Service, Type as Capability, service::Type as ServiceType},
};
use penstock_mount::csi::{NodeService, identity::IdentityService};
use rig::{KEY, Rig, map};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// Makes volumes for the suite, as the operator does with persistent volumes.
struct VolumeMaker;

#[tonic::async_trait]
impl Controller for VolumeMaker {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let volume = Volume {
            capacity_bytes: 0,
            volume_id: format!("ns/{}", request.into_inner().name),
            volume_context: map(&[("dataset", "ns/prices"), ("endpoint", "198.18.0.1:9440")]),
        };
        Ok(Response::new(CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(&self, _: Request<DeleteVolumeRequest>) -> Result<Response<DeleteVolumeResponse>, Status> {
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let rpc = Offer::Rpc(Rpc { r#type: OfferedRpc::CreateDeleteVolume.into() });
        let capabilities = vec![ControllerServiceCapability { r#type: Some(rpc) }];
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities }))
    }
}

/// Our identity, but with a controller: the suite's longest cases run only when the plugin claims one.
struct WithController(IdentityService);

#[tonic::async_trait]
impl Identity for WithController {
    async fn get_plugin_info(
        &self,
        request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        self.0.get_plugin_info(request).await
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let service = Capability::Service(Service { r#type: ServiceType::ControllerService.into() });
        let capabilities = vec![PluginCapability { r#type: Some(service) }];
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        self.0.probe(request).await
    }
}

/// Where the suite reaches a server: a socket beside it that answers a little late. The suite waits a minute for the next change of
/// its connection when that is ready before it first looks, as it is at a fast server on a busy machine.
fn late(server: &Path) -> PathBuf {
    let path = server.with_extension("late");
    let listener = UnixListener::bind(&path).unwrap();
    let server = server.to_owned();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(250)).await;
                let mut far = UnixStream::connect(server).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    path
}

/// Runs the suite in a directory for its mount points and returns how many cases passed.
async fn passed(folder: &Path, endpoint: &Path, controller: &Path, focus: &str) -> u32 {
    let near = late(endpoint);
    let controller = if controller == endpoint { near.clone() } else { late(controller) };
    let secrets = folder.join("secrets.yaml");
    let names = ["NodeStageVolumeSecret", "NodePublishVolumeSecret"];
    fs::write(
        &secrets,
        names.map(|name| format!("{name}:\n  client.key: \"{KEY}\"\n  peer.pub: \"{KEY}\"\n")).concat(),
    )
    .unwrap();
    let mut command = Command::new(penstock_testkit::tools::csi_sanity().unwrap());
    command
        .arg(format!("--csi.endpoint=unix://{}", near.display()))
        .arg(format!("--csi.controllerendpoint=unix://{}", controller.display()))
        .arg(format!("--csi.mountdir={}", folder.join("pods/sanity").display()))
        .arg(format!("--csi.stagingdir={}", folder.join("plugins/sanity").display()))
        .arg(format!("--csi.secrets={}", secrets.display()))
        .args(["--ginkgo.no-color", "--ginkgo.v", &format!("--ginkgo.focus={focus}")]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let summary =
        text.lines().filter(|line| line.contains(" Passed |") || line.starts_with("Ran ")).collect::<Vec<_>>();
    println!("{}", summary.join("\n"));
    let line = summary.iter().find(|line| line.contains(" Passed |")).unwrap();
    let before = line.split(" Passed").next().unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_conformance_suite_passes_for_the_plugin_as_it_ships() {
    let rig = Rig::start().await;
    let controller = rig.root().join("controller.sock");
    let listener = UnixListenerStream::new(UnixListener::bind(&controller).unwrap());
    let identity = IdentityService { driver_name: rig.options.driver_name.clone() };
    let volumes = Server::builder()
        .add_service(IdentityServer::new(identity))
        .add_service(ControllerServer::new(VolumeMaker))
        .serve_with_incoming(listener);
    let server = tokio::spawn(volumes);
    let mut client = IdentityClient::new(rig::channel(&rig.socket()).await);
    let offered = client.get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await.unwrap().into_inner();
    assert!(offered.capabilities.is_empty());

    let folder = rig.root().join("kubelet");
    let count = passed(&folder, &rig.socket(), &controller, "Identity Service|Node Service").await;
    assert!(count >= 20, "only {count} cases ran");
    assert!(rig.mounts().is_empty() && rig.processes().is_empty());
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_s_whole_life_of_a_volume_passes_also_when_repeated() {
    let mut rig = Rig::start().await;
    rig.halt().await;
    let socket = rig.root().join("both.sock");
    let listener = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    let identity = IdentityService { driver_name: rig.options.driver_name.clone() };
    let both = Server::builder()
        .add_service(IdentityServer::new(WithController(identity)))
        .add_service(ControllerServer::new(VolumeMaker))
        .add_service(NodeServer::new(NodeService::restore(&rig.options).await.unwrap()))
        .serve_with_incoming(listener);
    let server = tokio::spawn(both);
    let folder = rig.root().join("kubelet");
    let focus = "Node Service should (work|be idempotent)";
    assert_eq!(passed(&folder, &socket, &socket, focus).await, 2);
    assert!(rig.mounts().is_empty() && rig.processes().is_empty());
    server.abort();
}
