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
    // The tests start Penstock's programs as their users do.
    cargo("build", &["build", "--workspace"])?;
    cargo("tests", &["test", "--workspace", "--exclude", "penstock-e2e"])?;
    if options.no_e2e { Ok(()) } else { e2e(&E2eOptions { filter: None }) }
}

pub(crate) fn e2e(options: &E2eOptions) -> anyhow::Result<()> {
    cargo("build", &["build", "--workspace"])?;
    // One cluster serves all of them, one after the other.
    let mut tests = tools::cargo();
    tests.args(["test", "--package", "penstock-e2e", "--", "--test-threads=1", "--nocapture"]);
    step("tests on the real cluster", tests.args(&options.filter))
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
