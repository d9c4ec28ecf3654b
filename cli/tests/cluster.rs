//! What `penstock` does with a cluster, as a user types it, on a real API server; this test stands in for the operator.

#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Output, Stdio},
};

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use penstock_api::{CacheRuntime, DataLoad};
use penstock_testkit::control_plane::ControlPlane;
use serde_json::json;
use tokio::process::Command;

async fn with_crds() -> ControlPlane {
    let plane = ControlPlane::start().await.unwrap();
    plane.install_crds(Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds")).await.unwrap();
    plane
}

fn penstock(plane: &ControlPlane) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    command.env("KUBECONFIG", plane.kubeconfig()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn load(plane: &ControlPlane, file: &Path, watch: bool) -> Command {
    let mut command = penstock(plane);
    command.arg("load").arg("--file").arg(file).args(watch.then_some("--watch"));
    command
}

/// What the operator would say of the load as it is now.
async fn tell(plane: &ControlPlane, phase: &str, message: &str) {
    let api = Api::<DataLoad>::namespaced(plane.client(), "default");
    let load = loop {
        match api.get_opt("warm").await.unwrap() {
            Some(load) => break load,
            None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    let condition = json!({
        "type": "Complete", "status": if phase == "Complete" { "True" } else { "False" }, "reason": "Told",
        "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let status = json!({
        "observedGeneration": load.metadata.generation, "phase": phase, "conditions": [condition],
        "bytes": 100, "doneBytes": 50,
    });
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status("warm", &PatchParams::default(), &patch).await.unwrap();
}

fn said(output: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_applied_and_watched_to_its_end() {
    let (plane, folder) = (with_crds().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("load.yaml");
    let write = |spec: &str| {
        let head = "apiVersion: penstock.dev/v1alpha1\nkind: DataLoad\nmetadata: {name: warm}";
        std::fs::write(&file, format!("{head}\nspec: {{dataset: prices{spec}}}\n")).unwrap();
    };
    write("");
    let (ok, out, _) = said(&load(&plane, &file, false).output().await.unwrap());
    assert!(ok && out.contains("DataLoad default/warm of Dataset prices is with the cluster"), "{out}");

    let watching = load(&plane, &file, true).spawn().unwrap();
    tell(&plane, "Running", "half of it").await;
    tell(&plane, "Complete", "100 % of it").await;
    let (ok, out, err) = said(&watching.wait_with_output().await.unwrap());
    assert!(ok && out.contains("DataLoad warm: 100 % of it"), "{out}{err}");

    // What was said of the load before it was changed does not count.
    write(", minCachedPercent: 90");
    let watching = load(&plane, &file, true).spawn().unwrap();
    let api = Api::<DataLoad>::namespaced(plane.client(), "default");
    while api.get("warm").await.unwrap().spec.min_cached_percent != 90 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    tell(&plane, "Failed", "too little room").await;
    let (ok, _, err) = said(&watching.wait_with_output().await.unwrap());
    assert!(!ok && err.contains("DataLoad 'warm' has failed: too little room"), "{err}");

    write(", policy: Sometimes");
    let (ok, _, err) = said(&load(&plane, &file, false).output().await.unwrap());
    assert!(!ok && err.contains("Sometimes"), "{err}");
    std::fs::write(&file, "kind: Pod\n").unwrap();
    let (ok, _, err) = said(&load(&plane, &file, false).output().await.unwrap());
    assert!(!ok && err.contains("there is no DataLoad in it"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_a_runtime_is_explained() {
    let plane = with_crds().await;
    let explain = async |name: &str| said(&penstock(&plane).args(["explain", "scaling", name]).output().await.unwrap());
    let (ok, _, err) = explain("bars").await;
    assert!(!ok && err.contains("no CacheRuntime 'bars' in namespace 'default'"), "{err}");
    let api = Api::<CacheRuntime>::namespaced(plane.client(), "default");
    let runtime = json!({
        "apiVersion": "penstock.dev/v1alpha1", "kind": "CacheRuntime", "metadata": {"name": "bars"},
        "spec": {"replicas": 3, "tieredStore": {"levels": [{"mediumType": "MEM", "quota": "1Gi"}]}}
    });
    api.patch("bars", &PatchParams::apply("test"), &Patch::Apply(&runtime)).await.unwrap();
    let status = Patch::Merge(json!({"status": {"desiredReplicas": 3, "readyReplicas": 2}}));
    api.patch_status("bars", &PatchParams::default(), &status).await.unwrap();
    let (ok, out, err) = explain("bars").await;
    assert!(ok && out.contains("3 wanted, 2 serve") && out.contains("spec.replicas is 3"), "{out}{err}");
}
