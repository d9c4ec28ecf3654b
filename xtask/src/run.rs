//! Running other programs.

use std::process::Command;

use anyhow::{Context, bail};
use penstock_tools as tools;

/// A command that starts in the workspace's root.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(tools::workspace_root());
    command
}

/// Runs to the end, showing what it prints; a failure names the step.
pub(crate) fn step(name: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("==> {name}");
    let status = command.status().with_context(|| format!("{name}: cannot start {command:?}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

pub(crate) fn cargo(name: &str, args: &[&str]) -> anyhow::Result<()> {
    step(name, tools::cargo()?.args(args))
}
