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
    let api = bench.api::<Dataset>(ns);
    wait_for("the finalizer of someone else alone", || async {
        (api.get("a").await.unwrap().finalizers() == ["example.org/backup"]).then_some(())
    })
    .await;
    bench.release_claim(ns, "a").await;
    bench.gone::<PersistentVolumeClaim>(ns, "a").await;
    bench.gone::<StatefulSet>(ns, "a-worker").await;
    // A change of the runtime is no reason to begin again.
    let mut runtime = common::runtime("a");
    runtime["spec"]["replicas"] = json!(1);
    bench.apply::<CacheRuntime>(ns, runtime).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
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
