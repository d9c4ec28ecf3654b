//! `penstock load` as a user types it, on a real API server; this test stands in for the operator.

#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Output, Stdio},
};

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use penstock_api::DataLoad;
use penstock_testkit::control_plane::ControlPlane;
use serde_json::json;
use tokio::process::Command;

async fn with_crds() -> ControlPlane {
    let plane = ControlPlane::start().await.unwrap();
    plane.install_crds(Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds")).await.unwrap();
    plane
}

fn penstock(plane: &ControlPlane, file: &Path, watch: bool) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    command.env("KUBECONFIG", plane.kubeconfig()).arg("load").arg("--file").arg(file);
    command.args(watch.then_some("--watch")).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
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
    let (ok, out, _) = said(&penstock(&plane, &file, false).output().await.unwrap());
    assert!(ok && out.contains("DataLoad default/warm of Dataset prices is with the cluster"), "{out}");

    let watching = penstock(&plane, &file, true).spawn().unwrap();
    tell(&plane, "Running", "half of it").await;
    tell(&plane, "Complete", "100 % of it").await;
    let (ok, out, err) = said(&watching.wait_with_output().await.unwrap());
    assert!(ok && out.contains("DataLoad warm: 100 % of it"), "{out}{err}");

    // What was said of the load before it was changed does not count.
    write(", minCachedPercent: 90");
    let watching = penstock(&plane, &file, true).spawn().unwrap();
    let api = Api::<DataLoad>::namespaced(plane.client(), "default");
    while api.get("warm").await.unwrap().spec.min_cached_percent != 90 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    tell(&plane, "Failed", "too little room").await;
    let (ok, _, err) = said(&watching.wait_with_output().await.unwrap());
    assert!(!ok && err.contains("DataLoad 'warm' has failed: too little room"), "{err}");

    write(", policy: Sometimes");
    let (ok, _, err) = said(&penstock(&plane, &file, false).output().await.unwrap());
    assert!(!ok && err.contains("Sometimes"), "{err}");
    std::fs::write(&file, "kind: Pod\n").unwrap();
    let (ok, _, err) = said(&penstock(&plane, &file, false).output().await.unwrap());
    assert!(!ok && err.contains("there is no DataLoad in it"), "{err}");
}
