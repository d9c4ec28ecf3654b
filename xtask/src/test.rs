use clap::Args;
use penstock_testkit::tools;

use crate::run::{cargo, step};

#[derive(Args)]
pub(crate) struct Options {
    /// Leave out the tests on the real cluster.
    #[arg(long)]
    no_e2e: bool,
}

#[derive(Args)]
pub(crate) struct E2eOptions {
    /// Only tests whose name contains this.
    filter: Option<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    eprintln!("==> tools");
    install_tools()?;
    build()?;
    if options.no_e2e {
        return cargo("tests", &["test", "--workspace", "--exclude", "penstock-e2e"]);
    }
    cargo("tests", &["test", "--workspace", "--no-fail-fast"])
}

pub(crate) fn e2e(options: &E2eOptions) -> anyhow::Result<()> {
    build()?;
    // One cluster serves all of them, one after the other.
    let mut tests = tools::cargo()?;
    tests.args([
        "test",
        "--workspace",
        "--test",
        "cluster",
        "--test",
        "penstock",
        "--",
        "--test-threads=1",
        "--nocapture",
    ]);
    step("tests on the real cluster", tests.args(&options.filter))
}

/// Tests start Penstock's programs as their users do. Always of the whole workspace: with fewer packages, or without
/// tests, dependencies have other features and are built once more.
fn build() -> anyhow::Result<()> {
    cargo("build", &["test", "--workspace", "--no-run"])
}

/// All at once and first, so that no test waits for a build, and what is missing is said before the long part.
fn install_tools() -> anyhow::Result<()> {
    tools::kube(tools::KubePart::ApiServer)?;
    for install in [tools::helm, tools::csi_sanity, tools::weed, tools::etcd, tools::containerd, tools::busybox] {
        install()?;
    }
    tools::cni_plugins()?;
    Ok(())
}
