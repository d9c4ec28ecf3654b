use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service},
};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::*;
use crate::common::wait_for;

pub(crate) async fn a_finalizer_of_someone_else_is_kept_and_nothing_is_made_again_meanwhile(bench: &Bench) {
    let ns = "finalizer";
    bench.namespace(ns).await;
    let mut dataset = common::dataset("a");
    dataset["metadata"]["finalizers"] = json!(["example.org/backup"]);
    bench.apply::<Dataset>(ns, dataset).await;
    bench.apply::<CacheRuntime>(ns, common::runtime("a")).await;
    served(bench, ns).await;

    bench.delete::<Dataset>(ns, "a").await;
    bench.release_claim(ns, "a").await;
    let api = bench.api::<Dataset>(ns);
    wait_for("the finalizer of someone else alone", || async {
        (api.get("a").await.unwrap().finalizers() == ["example.org/backup"]).then_some(())
    })
    .await;
    bench.gone::<PersistentVolumeClaim>(ns, "a").await;
    bench.gone::<StatefulSet>(ns, "a-worker").await;
    // A change of the runtime is no reason to begin again.
    let mut runtime = common::runtime("a");
    runtime["spec"]["replicas"] = json!(1);
    bench.apply::<CacheRuntime>(ns, runtime).await;
    bench.look_again::<CacheRuntime>(ns, "a").await;
    assert!(bench.api::<StatefulSet>(ns).get_opt("a-worker").await.unwrap().is_none());
    assert!(bench.api::<Service>(ns).get_opt("a-cache").await.unwrap().is_none());
    assert!(bench.api::<ConfigMap>(ns).get_opt("a-members").await.unwrap().is_none());
    for secret in ["a-worker", "a-client"] {
        assert!(bench.api::<Secret>(ns).get_opt(secret).await.unwrap().is_none(), "{secret}");
    }
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    bench.gone::<Dataset>(ns, "a").await;
}

pub(crate) async fn a_dataset_under_deletion_is_served_while_its_claim_is_in_use_and_the_claim_goes_first(
    bench: &Bench,
) {
    let ns = "in-use";
    serving(bench, ns).await;
    let claims = bench.api::<PersistentVolumeClaim>(ns);
    let claim = claims.get("a").await.unwrap();
    bench.delete::<Dataset>(ns, "a").await;
    wait_for("the claim under deletion", || async { claims.get("a").await.unwrap().metadata.deletion_timestamp }).await;
    let message = bench.dataset_says(ns, "a", "Bound", "False", "InUse").await;
    assert!(message.contains("kubectl describe pvc a -n in-use"), "{message}");

    // What a pod needs that uses it is mended as before, and the claim is not made anew.
    bench.delete::<StatefulSet>(ns, "a-worker").await;
    bench.there::<StatefulSet>(ns, "a-worker").await;
    bench.delete::<Service>(ns, "a-cache").await;
    bench.there::<Service>(ns, "a-cache").await;
    dataset_is(bench, ns, "Deleting", "True", "WorkersReady").await;
    assert_eq!(claims.get("a").await.unwrap().uid(), claim.uid());

    bench.release_claim(ns, "a").await;
    bench.gone::<Dataset>(ns, "a").await;
    bench.gone::<StatefulSet>(ns, "a-worker").await;
    assert!(claims.get_opt("a").await.unwrap().is_none());
}

pub(crate) async fn a_secret_of_someone_else_under_the_workers_name_survives(bench: &Bench) {
    let ns = "stranger";
    serving(bench, ns).await;
    let theirs =
        || json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a-worker"}, "stringData": {"k": "v"}});
    bench.delete::<Secret>(ns, "a-worker").await;
    let theirs: Secret = bench.apply(ns, theirs()).await;
    bench.delete::<CacheRuntime>(ns, "a").await;
    bench.gone::<StatefulSet>(ns, "a-worker").await;
    bench.delete::<Dataset>(ns, "a").await;
    bench.release_claim(ns, "a").await;
    bench.gone::<Dataset>(ns, "a").await;
    let left = bench.api::<Secret>(ns).get("a-worker").await.unwrap();
    assert_eq!((left.uid(), left.data), (theirs.uid(), theirs.data));
    assert!(bench.api::<Secret>(ns).get_opt("a-client").await.unwrap().is_none());
}
