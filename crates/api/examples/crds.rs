//! The CRDs as YAML: `crds/` for people, `charts/penstock/templates/crds/` for Helm. `cargo xtask crds` writes them; with
//! `--check` this only says whether they are up to date.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};

/// Follows the name of a CRD in the chart.
const METADATA: &str = r#"  labels: {{- include "penstock.labels" . | nindent 4 }}
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}"#;

fn wanted() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let (plain, chart) = (root.join("crds"), root.join("charts/penstock/templates/crds"));
    let mut files = Vec::new();
    for (name, text) in penstock_api::crd_yaml() {
        let template = template(&text).with_context(|| format!("making a template of {name}"))?;
        files.push((chart.join(&name), template));
        files.push((plain.join(&name), text));
    }
    Ok(files)
}

/// A CRD that Helm installs, upgrades and keeps as the values say.
fn template(crd: &str) -> anyhow::Result<String> {
    if crd.contains("{{") {
        bail!("a text in it has {{{{, which Helm would take for its own");
    }
    let (head, spec) = crd.split_once("\nspec:\n").context("it has no spec")?;
    Ok(format!("{{{{- if .Values.crds.enabled }}}}\n{head}\n{METADATA}\nspec:\n{spec}{{{{- end }}}}\n"))
}

fn write() -> anyhow::Result<()> {
    for (path, text) in wanted()? {
        fs::create_dir_all(path.parent().expect("a file in a folder"))?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn check() -> anyhow::Result<()> {
    for (path, text) in wanted()? {
        if fs::read_to_string(&path).unwrap_or_default() != text {
            bail!("{} is not what crates/api generates: run `cargo xtask crds`", path.display());
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let result = if std::env::args().any(|argument| argument == "--check") { check() } else { write() };
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_copies_are_what_the_types_give() {
        check().unwrap();
    }

    #[test]
    fn what_helm_would_take_for_its_own_is_refused() {
        let crd = "metadata:\n  name: a\nspec:\n  description: 'write {{ x }}'\n";
        assert!(template(crd).unwrap_err().to_string().contains("Helm"));
        assert!(template("metadata:\n  name: a\n").is_err());
    }
}
