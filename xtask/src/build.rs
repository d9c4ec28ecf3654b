//! One set of builds for all commands.
//!
//! Cargo builds a dependency once more where another selection of packages gives it other features. So everything is built
//! with the whole workspace selected, and what is not released is an example of its package: like tests, examples bring the
//! features of dev-dependencies in. The demo, the tests and the cluster's commands share each crate.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use penstock_tools as tools;

use crate::run::{command, step};

/// A program behind a command, built together with those that it starts.
pub(crate) struct Program {
    /// What is built, for the heading.
    title: &'static str,
    /// Cargo's selection of targets.
    targets: &'static [&'static str],
    release: bool,
    /// Below the folder of Cargo's profile.
    path: &'static str,
}

impl Program {
    pub(crate) const DEMO: Self = Self {
        title: "build the worker, the mount, the command line and the demo (some minutes on 2 cores, once)",
        targets: &["--bin=penstock-worker", "--bin=penstock-mount", "--bin=penstock", "--example=demo"],
        release: false,
        path: "examples/demo",
    };
    pub(crate) const CLUSTER: Self = Self {
        title: "build what brings a cluster up (some minutes on 2 cores, once)",
        targets: &["--example=cluster"],
        release: false,
        path: "examples/cluster",
    };
    pub(crate) const CRDS: Self = Self {
        title: "build the CRD types (some minutes on 2 cores, once)",
        targets: &["--example=crds"],
        release: false,
        path: "examples/crds",
    };
    pub(crate) const BENCH: Self = Self {
        title: "build Penstock and the benchmarks for release (15 to 20 minutes on 2 cores, once)",
        targets: &["--bin=penstock-operator", "--bin=penstock-worker", "--bin=penstock-mount", "--bin=penstock-bench"],
        release: true,
        path: "penstock-bench",
    };

    pub(crate) fn run(&self, arguments: &[OsString]) -> anyhow::Result<()> {
        let mut cargo = tools::cargo()?;
        cargo.args(["build", "--workspace"]).args(self.targets);
        if self.release {
            cargo.arg("--release");
        }
        step(self.title, &mut cargo)?;
        let program = target()?.join(if self.release { "release" } else { "debug" }).join(self.path);
        let status = command(&program.to_string_lossy())
            .args(arguments)
            .status()
            .with_context(|| format!("cannot start {}", program.display()))?;
        if !status.success() {
            bail!("{} failed ({status})", self.path.trim_start_matches("examples/"));
        }
        Ok(())
    }
}

/// Cargo's folder of builds, which this program lies in.
fn target() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    program
        .ancestors()
        .nth(2)
        .map(Path::to_owned)
        .with_context(|| format!("{} lies in no target folder", program.display()))
}
