//! The test programs of the workspace, as Cargo builds them.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context, bail};
use penstock_tools as tools;
use serde_json::Value;

/// Packages whose tests need the real cluster lie here.
const CLUSTER: &str = "e2e";

pub(super) struct Program {
    /// The package's folder and the target: `cache-worker tests/fleet`.
    pub(super) name: String,
    command: Command,
}

/// Builds all of them, with the programs that they start.
pub(super) fn build() -> anyhow::Result<Vec<Program>> {
    eprintln!("==> build all tests (about 10 minutes on 2 cores the first time)");
    let mut cargo = tools::cargo()?;
    cargo.args(["test", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"]);
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start Cargo")?;
    let lines = BufReader::new(child.stdout.take().context("standard output is piped")?).lines();
    let programs =
        lines.map_while(Result::ok).filter_map(|line| Program::of(&serde_json::from_str(&line).ok()?)).collect();
    let status = child.wait()?;
    if !status.success() {
        bail!("the tests do not build ({status})");
    }
    Ok(programs)
}

impl Program {
    /// From one of Cargo's messages, if it is of a test program.
    fn of(message: &Value) -> Option<Self> {
        let is_test = message.pointer("/profile/test")?.as_bool()?;
        let executable = message.get("executable")?.as_str().filter(|_| is_test)?;
        let folder = PathBuf::from(message.get("manifest_path")?.as_str()?).parent()?.to_owned();
        let target = |field: &str| message.pointer(&format!("/target/{field}"));
        let (kind, name) = (target("kind")?.get(0)?.as_str()?, target("name")?.as_str()?);
        let package = folder.strip_prefix(tools::workspace_root()).unwrap_or(&folder).display();
        let name = match kind {
            "test" => format!("{package} tests/{name}"),
            "lib" => package.to_string(),
            _ => format!("{package} {name}"),
        };
        let mut command = Command::new(executable);
        // As Cargo does it.
        command.current_dir(&folder).env("CARGO_MANIFEST_DIR", &folder);
        Some(Self { name, command })
    }

    pub(super) fn doc_tests() -> anyhow::Result<Self> {
        let mut command = tools::cargo()?;
        command.args(["test", "--workspace", "--doc", "--no-fail-fast"]);
        Ok(Self { name: "examples in documentation".into(), command })
    }

    pub(super) fn is_of_the_cluster(&self) -> bool {
        self.name.split_whitespace().next() == Some(CLUSTER)
    }

    pub(super) fn is_integration(&self) -> bool {
        self.name.contains(" tests/")
    }

    /// Runs to the end, showing what it prints; `told` gets each line of standard output.
    pub(super) fn run(mut self, filters: &[String], mut told: impl FnMut(&str)) -> anyhow::Result<ExitStatus> {
        let mut child = self.command.args(filters).stdout(Stdio::piped()).spawn()?;
        let mut printed = BufReader::new(child.stdout.take().context("standard output is piped")?);
        let mut line = Vec::new();
        while printed.read_until(b'\n', &mut line)? > 0 {
            std::io::stdout().write_all(&line)?;
            told(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
        Ok(child.wait()?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(kind: &str, name: &str, test: bool) -> Value {
        let manifest = tools::workspace_root().join("e2e/Cargo.toml");
        json!({
            "reason": "compiler-artifact",
            "manifest_path": manifest,
            "target": {"kind": [kind], "name": name},
            "profile": {"test": test},
            "executable": "/target/debug/deps/x",
        })
    }

    #[test]
    fn test_programs_are_named_by_folder_and_target() {
        let name = |kind, name| Program::of(&message(kind, name, true)).unwrap().name;
        assert_eq!(name("test", "cluster"), "e2e tests/cluster");
        assert_eq!(name("lib", "penstock_e2e"), "e2e");
        assert!(Program::of(&message("bin", "x", false)).is_none());
        assert!(Program::of(&json!({"reason": "build-finished"})).is_none());
    }

    #[test]
    fn every_line_is_told_and_a_failure_is_a_status() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two; exit 3", "sh"]).current_dir("/");
        let mut lines = Vec::new();
        let status = Program { name: "x".into(), command }.run(&[], |line| lines.push(line.to_owned())).unwrap();
        assert_eq!((status.code(), lines), (Some(3), vec!["one".to_owned(), "two".to_owned()]));
    }
}
