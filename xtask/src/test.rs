//! All tests: every test program runs, whatever became of those before it, and the closing lines name what failed.

mod programs;
mod tally;

use std::time::Instant;

use anyhow::bail;
use clap::Args;
use penstock_tools as tools;

use programs::Program;
use tally::Tally;

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
    install_tools()?;
    let mut programs = programs::build()?;
    programs.retain(|program| !(options.no_e2e && program.is_of_the_cluster()));
    // The longest come last, so that the rest is known soon.
    programs.sort_by_key(Program::is_of_the_cluster);
    programs.push(Program::doc_tests()?);
    run_all(programs, &[])
}

pub(crate) fn e2e(options: &E2eOptions) -> anyhow::Result<()> {
    let mut programs = programs::build()?;
    programs.retain(|program| program.is_of_the_cluster() && program.is_integration());
    run_all(programs, options.filter.as_slice())
}

fn run_all(programs: Vec<Program>, filters: &[String]) -> anyhow::Result<()> {
    let (begun, count) = (Instant::now(), programs.len());
    let mut tally = Tally::default();
    for (at, program) in programs.into_iter().enumerate() {
        eprintln!("==> [{}/{count}] {}, {} s so far", at + 1, program.name, begun.elapsed().as_secs());
        tally.begin(&program.name);
        let end = program.run(filters, |line| tally.line(line));
        tally.end(end);
    }
    println!("\n==> {count} test programs in {} s: {tally}", begun.elapsed().as_secs());
    if tally.is_failed() {
        bail!("tests failed");
    }
    Ok(())
}

/// All at once and first, so that no test waits for a build, and what is missing is said before the long part.
fn install_tools() -> anyhow::Result<()> {
    eprintln!("==> tools that the tests run (about 10 minutes on 2 cores, once)");
    tools::kube(tools::KubePart::ApiServer)?;
    for install in [tools::helm, tools::csi_sanity, tools::weed, tools::etcd, tools::containerd, tools::busybox] {
        install()?;
    }
    tools::cni_plugins()?;
    Ok(())
}
