//! The Helm chart as an administrator would install it.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::tools::{self, workspace_root};

/// The release's name, and the namespace that it is installed in.
pub const RELEASE: &str = "penstock";
pub const NAMESPACE: &str = "penstock-system";

/// The manifests that the chart makes with these values (`NAME=VALUE`, as `helm --set` takes them).
pub fn render(values: &[String]) -> Result<Vec<Value>> {
    let chart = workspace_root().join("charts/penstock");
    let mut helm = Command::new(tools::helm()?);
    helm.args(["template", RELEASE]).arg(chart).args(["--namespace", NAMESPACE, "--kube-version", "1.34.0"]);
    helm.args(values.iter().flat_map(|value| ["--set", value]));
    let manifests: Vec<Value> =
        serde_saphyr::from_multiple(&tools::output(&mut helm)?).context("manifests of the chart")?;
    Ok(manifests.into_iter().filter(|manifest| !manifest.is_null()).collect())
}

/// Those of them that give rights.
pub fn roles(values: &[String]) -> Result<Vec<Value>> {
    let mut manifests = render(values)?;
    manifests.retain(|manifest| manifest["apiVersion"] == "rbac.authorization.k8s.io/v1");
    Ok(manifests)
}
