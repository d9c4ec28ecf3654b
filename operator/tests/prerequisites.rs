//! What the operator says, and does, when something that it cannot work without is missing or breaks.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share.

mod common;

use std::{path::Path, sync::Arc, time::Duration};

use k8s_openapi::{
    api::rbac::v1::{ClusterRole, PolicyRule},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
    client::Body,
};
use penstock_operator::{
    controller::{self, Settings, build::WorkerDefaults},
    metrics::Metrics,
    rights::{RIGHTS, Right},
};
use penstock_testkit::{
    control_plane::ControlPlane,
    process::{ChildGuard, Spawn, free_port},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use common::{CRDS, FakeWorkers, OPERATOR, wait_at_most};

/// Longer than the operator leaves its rights unasked.
const PATIENCE: Duration = Duration::from_mins(1);

/// An operator in a process of its own, with the rights of [`OPERATOR`].
struct Process {
    port: u16,
    guard: ChildGuard,
}

impl Process {
    fn start(plane: &ControlPlane, name: &str) -> Self {
        let kubeconfig = plane.folder().join(format!("{name}.kubeconfig"));
        std::fs::write(&kubeconfig, plane.kubeconfig_acting_as(OPERATOR)).unwrap();
        let port = free_port().unwrap();
        let spawn = Spawn::new(env!("CARGO_BIN_EXE_penstock-operator"), plane.folder().join(format!("{name}.log")))
            .args(["--worker-image=penstock:test", "--namespace=default"])
            .arg(format!("--http-addr=127.0.0.1:{port}"))
            .env("KUBECONFIG", kubeconfig);
        Self { port, guard: spawn.start().unwrap() }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.guard.log()).unwrap()
    }

    /// Status and body together; empty while nobody listens.
    async fn get(&self, path: &str) -> String {
        let mut text = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)).await {
            stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
            stream.read_to_string(&mut text).await.unwrap();
        }
        text
    }

    async fn is_ready(&self) {
        wait_at_most(PATIENCE, "ready", || async { self.get("/readyz").await.contains(" 200 ").then_some(()) }).await;
    }

    /// Waits until it is not ready for all these reasons; it is alive all the while.
    async fn is_unready(&self, reasons: &[&str]) {
        wait_at_most(PATIENCE, &format!("not ready: {reasons:?}"), || async {
            let answer = self.get("/readyz").await;
            (answer.contains(" 503 ") && reasons.iter().all(|reason| answer.contains(reason))).then_some(())
        })
        .await;
        assert!(self.get("/healthz").await.contains(" 200 "));
        let log = self.log();
        assert!(reasons.iter().all(|reason| log.contains(reason)), "{log}");
    }
}

/// Gives [`OPERATOR`] all rights of the table, but `without` a verb on a resource.
async fn grant(client: &Client, without: Option<(&str, &str)>) {
    let granted = |right: &Right| PolicyRule {
        api_groups: Some(vec![right.group.into()]),
        resources: Some(vec![right.resource.into()]),
        verbs: right.verbs.iter().filter(|v| without != Some((right.resource, v))).map(ToString::to_string).collect(),
        ..PolicyRule::default()
    };
    let rules: Vec<_> = RIGHTS.iter().map(granted).collect();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "test"}, "rules": rules
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "test"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "test"},
        "subjects": [{"kind": "ServiceAccount", "name": "penstock-operator", "namespace": "penstock-system"}]
    });
    let params = PatchParams::apply("test").force();
    let cluster_roles: Api<ClusterRole> = Api::all(client.clone());
    cluster_roles.patch("test", &params, &Patch::Apply(&role)).await.unwrap();
    let bindings: Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> = Api::all(client.clone());
    bindings.patch("test", &params, &Patch::Apply(&binding)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_a_missing_crd_at_the_start_and_one_that_is_removed_later() {
    let plane = ControlPlane::start().await.unwrap();
    grant(&plane.client(), None).await;
    let operator = Process::start(&plane, "operator");
    let (datasets, runtimes) =
        ("datasets.penstock.dev is not installed", "cacheruntimes.penstock.dev is not installed");
    operator.is_unready(&[datasets, runtimes, "install the chart's CRDs"]).await;
    plane.install_crds(CRDS).await.unwrap();
    operator.is_ready().await;

    let definitions: Api<CustomResourceDefinition> = Api::all(plane.client());
    definitions.delete("cacheruntimes.penstock.dev", &DeleteParams::default()).await.unwrap();
    operator.is_unready(&[runtimes]).await;
    plane.install_crds(CRDS).await.unwrap();
    operator.is_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_a_right_that_is_missing_or_withdrawn_on_every_replica() {
    let plane = ControlPlane::start().await.unwrap();
    plane.install_crds(CRDS).await.unwrap();
    grant(&plane.client(), Some(("persistentvolumes", "watch"))).await;
    let replicas = [Process::start(&plane, "first"), Process::start(&plane, "second")];
    for replica in &replicas {
        replica.is_unready(&["may not watch persistentvolumes;", "upgrade the Helm release"]).await;
    }
    grant(&plane.client(), None).await;
    for replica in &replicas {
        replica.is_ready().await;
    }
    grant(&plane.client(), Some(("secrets", "create"))).await;
    for replica in &replicas {
        replica.is_unready(&["may not create secrets in all namespaces;"]).await;
    }
    grant(&plane.client(), None).await;
    for replica in &replicas {
        replica.is_ready().await;
    }
}

#[tokio::test]
async fn a_watch_that_panics_ends_the_controller_and_is_named() {
    let api_server = tower::service_fn(|request: http::Request<Body>| async move {
        assert!(!Path::new(request.uri().path()).ends_with("pods"), "no pods today");
        std::future::pending::<Result<http::Response<Body>, std::io::Error>>().await
    });
    let client = Client::new(api_server, "default");
    let settings = Settings {
        worker_image: "penstock:test".into(),
        updating_runtimes: 1,
        worker_defaults: WorkerDefaults::default(),
        namespace: None,
        watch_failed: Arc::default(),
    };
    let (workers, metrics) = (Arc::new(FakeWorkers::default()), Arc::new(Metrics::default()));
    let ended = controller::run(client, settings, workers, metrics, CancellationToken::new()).await.unwrap_err();
    assert_eq!(ended.task, "watch of pods");
    assert!(ended.to_string().contains("panicked: no pods today"), "{ended}");
}
