use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use penstock_testkit::control_plane::ControlPlaneOptions;
use serde_json::json;

use super::*;
use crate::common::{wait_at_most, wait_for};

/// Lines of the operator's own count of errors.
fn errors(bench: &Bench) -> Vec<String> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &bench.metrics.registry()).unwrap();
    text.lines()
        .filter(|line| line.starts_with("penstock_operator_reconcile_errors_total"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_goes_with_datasets_workers_users_and_volumes() {
    let bench = Bench::start_with(ControlPlaneOptions { controller_manager: true, ..Default::default() }).await;
    bench.namespace("ns").await;
    bench.pair("ns", "a").await;
    bench.pair("ns", "b").await;
    bench.apply::<Dataset>("ns", common::dataset("alone")).await;
    bench.bound("ns", "a").await;
    bench.bound("ns", "b").await;
    let pods = bench.api::<Pod>("ns");
    wait_for("worker pods", || async { pods.get_opt("a-worker-1").await.unwrap() }).await;
    wait_for("the account of pods", || async {
        bench.api::<k8s_openapi::api::core::v1::ServiceAccount>("ns").get_opt("default").await.unwrap()
    })
    .await;
    let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": "a"}});
    let reader = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"},
        "spec": {"containers": [{"name": "c", "image": "x"}], "volumes": [claim]}
    });
    bench.apply::<Pod>("ns", reader).await;
    let volumes: Api<PersistentVolume> = Api::all(bench.client.clone());
    assert_eq!(volumes.list(&ListParams::default()).await.unwrap().items.len(), 2);

    let namespaces: Api<Namespace> = Api::all(bench.client.clone());
    namespaces.delete("ns", &DeleteParams::default()).await.unwrap();
    let limit = Duration::from_secs(90);
    wait_at_most(limit, "the namespace gone", || async {
        namespaces.get_opt("ns").await.unwrap().is_none().then_some(())
    })
    .await;
    wait_at_most(limit, "its volumes gone", || async {
        volumes.list(&ListParams::default()).await.unwrap().items.is_empty().then_some(())
    })
    .await;
    assert!(errors(&bench).is_empty(), "{:?}", errors(&bench));

    // The same names again are other Datasets.
    bench.namespace("ns").await;
    bench.pair("ns", "a").await;
    bench.bound("ns", "a").await;
}
