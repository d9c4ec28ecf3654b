use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::*;
use crate::common::wait_for;

/// Deletes an object and waits for the one that comes in its place.
macro_rules! comes_back {
    ($bench:expr, $ns:expr, $kind:ty, $name:expr) => {{
        let api = $bench.api::<$kind>($ns);
        let before = api.get($name).await.unwrap();
        $bench.delete::<$kind>($ns, $name).await;
        let what = format!("another {} {}", stringify!($kind), $name);
        let other = || async { api.get_opt($name).await.unwrap().filter(|after| after.uid() != before.uid()) };
        (before.clone(), wait_for(&what, other).await)
    }};
}

pub(crate) async fn what_someone_deletes_or_changes_is_as_it_was(bench: &Bench) {
    let ns = "mended";
    serving(bench, ns).await;
    let client = bench.api::<Secret>(ns).get("a-client").await.unwrap();

    let (before, after) = comes_back!(bench, ns, StatefulSet, "a-worker");
    assert_eq!(after.spec, before.spec);
    let (before, after) = comes_back!(bench, ns, Service, "a-cache");
    let address = |service: Service| service.spec.unwrap().cluster_ip.unwrap();
    assert_eq!(address(after), address(before), "the volume names it, and volumes cannot change");
    comes_back!(bench, ns, Service, "a-worker");
    comes_back!(bench, ns, ServiceAccount, "a-worker");
    comes_back!(bench, ns, PodDisruptionBudget, "a-worker");
    let (before, after) = comes_back!(bench, ns, ConfigMap, "a-members");
    let ids = |map: &ConfigMap| {
        let text = &map.data.as_ref().unwrap()["members.json"];
        let list: penstock_placement::MemberList = serde_json::from_str(text).unwrap();
        list.members.into_iter().map(|m| m.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&after), ids(&before));

    let patch = Patch::Merge(json!({"spec": {"selector": {"penstock.dev/dataset": "another"}}}));
    bench.api::<Service>(ns).patch("a-cache", &PatchParams::default(), &patch).await.unwrap();
    wait_for("the selector as it was", || async {
        let selector = bench.api::<Service>(ns).get("a-cache").await.unwrap().spec?.selector?;
        (selector["penstock.dev/dataset"] == "a").then_some(())
    })
    .await;
    assert_eq!(bench.api::<Secret>(ns).get("a-client").await.unwrap().data, client.data);
    dataset_is(bench, ns, "Ready", "True", "WorkersReady").await;
}
