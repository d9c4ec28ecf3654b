//! The files of a control plane: users, keys, kubeconfigs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::args::Settings;
use crate::tools;

/// A user of the API server who shows a static token.
#[derive(Clone)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
    pub token: String,
}

impl User {
    /// The token is the name: these servers listen inside the machine and hold nothing.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let token = format!("token-of-{}", name.replace(':', "-"));
        Self { name: name.into(), groups: groups.iter().map(ToString::to_string).collect(), token }
    }

    /// The user that the Node authorizer knows as the kubelet of `node`.
    pub fn kubelet(node: &str) -> Self {
        Self::new(&format!("system:node:{node}"), &["system:nodes"])
    }

    /// A line of kube-apiserver's `--token-auth-file`.
    fn line(&self) -> String {
        format!("{},{},{},\"{}\"\n", self.token, self.name, self.name, self.groups.join(","))
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("groups", &self.groups).finish_non_exhaustive()
    }
}

pub(super) fn write(settings: &Settings, users: &[User]) -> Result<()> {
    let folder = &settings.folder;
    fs::create_dir_all(folder.join("logs"))?;
    fs::create_dir_all(folder.join("certs"))?;
    let lines: String = std::iter::once(&settings.admin).chain(users).map(User::line).collect();
    write_secret(&folder.join("users.csv"), &lines)?;
    write_secret(&settings.kubeconfig, &settings.admin_kubeconfig())?;
    let openssl = tools::debian("openssl", "openssl")?;
    tools::run(Command::new(openssl).args(["genrsa", "-out"]).arg(&settings.service_account_key).arg("2048"))
}

/// Writes a file that only its owner reads.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// A kubeconfig as text (JSON is YAML).
pub fn kubeconfig(url: &str, ca_file: &Path, user: &User) -> String {
    config(url, ca_file, user, &json!({"token": user.token}))
}

pub(super) fn kubeconfig_acting_as(url: &str, ca_file: &Path, user: &User, other: &str) -> String {
    config(url, ca_file, user, &json!({"token": user.token, "as": other}))
}

fn config(url: &str, ca_file: &Path, user: &User, credentials: &Value) -> String {
    let cluster = json!({"server": url, "certificate-authority": ca_file});
    let context = json!({"cluster": "penstock", "user": user.name, "namespace": "default"});
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "penstock",
        "clusters": [{"name": "penstock", "cluster": cluster}],
        "contexts": [{"name": "penstock", "context": context}],
        "users": [{"name": user.name, "user": credentials}],
    });
    format!("{config:#}\n")
}

/// The `*.yaml` files directly in a folder, by name.
pub(super) fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}
