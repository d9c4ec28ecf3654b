//! The command lines of a control plane, as pure functions of its settings.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{ControlPlaneOptions, User, kubeconfig};
use crate::process::Spawn;

/// Everything that the command lines need.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) folder: PathBuf,
    pub(super) kubeconfig: PathBuf,
    pub(super) admin: User,
    pub(super) service_account_key: PathBuf,
    address: IpAddr,
    port: u16,
    etcd_client: u16,
    etcd_peer: u16,
    service_range: String,
    service_accounts: bool,
    detached: bool,
}

impl Settings {
    /// `free` are three free ports: etcd's two and the API server's unless the options name one.
    pub(super) fn new(options: &ControlPlaneOptions, folder: PathBuf, free: [u16; 3]) -> Self {
        let [etcd_client, etcd_peer, api] = free;
        Self {
            kubeconfig: folder.join("kubeconfig"),
            admin: User::new("admin", &["system:masters"]),
            service_account_key: folder.join("service-account.key"),
            address: options.address,
            port: if options.port == 0 { api } else { options.port },
            etcd_client,
            etcd_peer,
            service_range: options.service_range.clone(),
            service_accounts: options.controller_manager,
            detached: options.detached,
            folder,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.port)
    }

    /// Written by the API server at its first start: its certificate followed by the authority's.
    pub(super) fn ca_file(&self) -> PathBuf {
        self.folder.join("certs/apiserver.crt")
    }

    pub(super) fn admin_kubeconfig(&self) -> String {
        kubeconfig(&self.url(), &self.ca_file(), &self.admin)
    }

    pub(super) fn spawn(&self, name: &str, program: PathBuf) -> Spawn {
        Spawn::new(program, self.folder.join("logs").join(format!("{name}.log"))).detached(self.detached)
    }
}

pub(super) fn etcd(settings: &Settings) -> Vec<String> {
    let client = format!("http://127.0.0.1:{}", settings.etcd_client);
    let peer = format!("http://127.0.0.1:{}", settings.etcd_peer);
    vec![
        flag("data-dir", settings.folder.join("etcd").display()),
        "--unsafe-no-fsync".into(),
        flag("listen-client-urls", &client),
        flag("advertise-client-urls", &client),
        flag("listen-peer-urls", &peer),
        flag("initial-advertise-peer-urls", &peer),
        flag("initial-cluster", format!("default={peer}")),
        "--log-level=warn".into(),
    ]
}

pub(super) fn api_server(settings: &Settings) -> Vec<String> {
    let key = settings.service_account_key.display();
    let mut args = vec![
        flag("etcd-servers", format!("http://127.0.0.1:{}", settings.etcd_client)),
        flag("cert-dir", settings.folder.join("certs").display()),
        flag("bind-address", settings.address),
        flag("advertise-address", settings.address),
        flag("secure-port", settings.port),
        flag("service-cluster-ip-range", &settings.service_range),
        flag("token-auth-file", settings.folder.join("users.csv").display()),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        flag("service-account-key-file", &key),
        flag("service-account-signing-key-file", &key),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        "--kubelet-preferred-address-types=InternalIP".into(),
        // Namespaces and services must not wait for a rate limit that protects bigger machines.
        "--max-requests-inflight=2000".into(),
        "--max-mutating-requests-inflight=1000".into(),
    ];
    if settings.address.is_loopback() {
        // An Endpoints object must not name a loopback address.
        args.push("--endpoint-reconciler-type=none".into());
    }
    if !settings.service_accounts {
        args.push("--disable-admission-plugins=ServiceAccount".into());
    }
    args
}

pub(super) fn controller_manager(settings: &Settings) -> Vec<String> {
    vec![
        flag("kubeconfig", settings.kubeconfig.display()),
        flag("root-ca-file", settings.ca_file().display()),
        flag("service-account-private-key-file", settings.service_account_key.display()),
        flag("service-cluster-ip-range", &settings.service_range),
        flag("flex-volume-plugin-dir", settings.folder.join("flexvolume").display()),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
        "--kube-api-qps=500".into(),
        "--kube-api-burst=1000".into(),
    ]
}

pub(super) fn scheduler(settings: &Settings) -> Vec<String> {
    vec![
        flag("kubeconfig", settings.kubeconfig.display()),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
        "--kube-api-qps=500".into(),
        "--kube-api-burst=1000".into(),
    ]
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}
