use std::process::Stdio;

use penstock_testkit::tools;

use crate::{
    crds,
    run::{cargo, command, step},
};

/// The Kubernetes version that the chart is rendered for.
const KUBE_VERSION: &str = "1.34.4";

pub(crate) fn run() -> anyhow::Result<()> {
    cargo("format", &["fmt", "--all", "--check"])?;
    cargo("lints", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"])?;
    eprintln!("==> generated files");
    crds::check()?;
    chart()?;
    licences()
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
