use std::process::Stdio;

use anyhow::bail;
use penstock_tools as tools;

use crate::{
    build::Program,
    run::{cargo, command, step},
};

/// The Kubernetes version that the chart is rendered for.
const KUBE_VERSION: &str = "1.34.4";

/// Runs all checks; one that fails does not keep the others from running.
pub(crate) fn run() -> anyhow::Result<()> {
    let checks: [fn() -> anyhow::Result<()>; 5] = [format, lints, generated, chart, licences];
    let failed: Vec<String> =
        checks.iter().filter_map(|check| check().err()).map(|error| format!("{error:#}")).collect();
    if !failed.is_empty() {
        bail!("{} of {} checks failed:\n  {}", failed.len(), checks.len(), failed.join("\n  "));
    }
    Ok(())
}

fn format() -> anyhow::Result<()> {
    cargo("format", &["fmt", "--all", "--check"])
}

fn lints() -> anyhow::Result<()> {
    let lints = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    cargo("lints (about 6 minutes on 2 cores the first time)", &lints)
}

fn generated() -> anyhow::Result<()> {
    Program::CRDS.run(&["--check".into()])
}

fn chart() -> anyhow::Result<()> {
    let helm = tools::helm()?;
    let helm = helm.to_string_lossy();
    step("chart: lint", command(&helm).args(["lint", "--strict", "--quiet", "charts/penstock"]))?;
    let render = ["template", "penstock", "charts/penstock", "--kube-version", KUBE_VERSION];
    step("chart: render", command(&helm).args(render).stdout(Stdio::null()))
}

/// cargo-deny builds for minutes, so it runs where it is installed; its advisories need a network that CI may lack.
fn licences() -> anyhow::Result<()> {
    if tools::cargo()?.args(["deny", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
        return cargo("bans, licences, sources", &["deny", "check", "bans", "licenses", "sources"]);
    }
    eprintln!("==> bans, licences, sources: skipped, cargo-deny is not installed (cargo install cargo-deny)");
    Ok(())
}
