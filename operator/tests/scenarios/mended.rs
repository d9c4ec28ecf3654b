use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use super::*;
use crate::common::{wait_at_most, wait_for};

/// Deletes an object and waits for the one that comes in its place.
macro_rules! comes_back {
    ($bench:expr, $ns:expr, $kind:ty, $name:expr) => {{
        let api = $bench.api::<$kind>($ns);
        let before = $bench.there::<$kind>($ns, $name).await;
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

/// Waits until claim and volume `a` name each other, neither is the one of before, and the Dataset is told bound.
async fn bound_anew(bench: &Bench, ns: &str, claim: Option<String>, volume: Option<String>) -> PersistentVolume {
    let dataset = common::uid(&bench.api::<Dataset>(ns).get("a").await.unwrap());
    let volumes: Api<PersistentVolume> = Api::all(bench.client.clone());
    let found = wait_for(&format!("{ns}: bound anew"), || async {
        let now = bench.api::<PersistentVolumeClaim>(ns).get_opt("a").await.unwrap()?;
        let found = volumes.get_opt(&format!("penstock-{dataset}")).await.unwrap()?;
        let named = found.spec.as_ref()?.claim_ref.as_ref()?.uid.clone();
        let fresh = now.uid() != claim && found.uid() != volume && found.metadata.deletion_timestamp.is_none();
        (fresh && named == now.uid()).then_some(found)
    })
    .await;
    bench.bound(ns, "a").await;
    found
}

pub(crate) async fn claim_and_volume_that_were_deleted_are_made_anew_for_each_other(bench: &Bench) {
    let ns = "volume";
    serving(bench, ns).await;
    let volumes: Api<PersistentVolume> = Api::all(bench.client.clone());
    let before = bound_anew(bench, ns, None, None).await;
    let claim = bench.api::<PersistentVolumeClaim>(ns).get("a").await.unwrap();

    bench.delete::<PersistentVolumeClaim>(ns, "a").await;
    bench.dataset_says(ns, "a", "Bound", "False", "VolumePending").await;
    bench.release_claim(ns, "a").await;
    let after = bound_anew(bench, ns, claim.uid(), None).await;
    assert_eq!(after.uid(), before.uid());

    volumes.delete(&before.name_any(), &DeleteParams::default()).await.unwrap();
    bench.dataset_says(ns, "a", "Bound", "False", "VolumePending").await;
    // In the place of the controller manager.
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    volumes.patch(&before.name_any(), &PatchParams::default(), &patch).await.unwrap();
    let after = bound_anew(bench, ns, claim.uid(), before.uid()).await;
    assert_eq!(after.spec.unwrap().csi, before.spec.unwrap().csi);
}

pub(crate) async fn secrets_that_were_deleted_come_back_with_the_key_that_mounts_hold(bench: &Bench) {
    let ns = "keys";
    serving(bench, ns).await;
    let secrets = bench.api::<Secret>(ns);
    let key = secrets.get("a-client").await.unwrap().data.unwrap()["client.key"].clone();
    for name in ["a-client", "a-worker"] {
        bench.delete::<Secret>(ns, name).await;
        let back = || async { secrets.get_opt(name).await.unwrap() };
        let after = wait_at_most(PATIENCE, &format!("another Secret {name}"), back).await;
        assert_eq!(after.data.unwrap()["client.key"], key, "{name}");
    }
    // As one was that an earlier release made.
    let alone = serde_json::json!({"data": {"peer.pub": null}});
    let forced = kube::api::PatchParams::default();
    secrets.patch("a-client", &forced, &kube::api::Patch::Merge(alone)).await.unwrap();
    let whole = || async { secrets.get("a-client").await.unwrap().data.unwrap().get("peer.pub").cloned() };
    wait_at_most(PATIENCE, "the public key beside the client key", whole).await;
    bench.bound(ns, "a").await;
}
