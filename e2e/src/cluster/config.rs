//! Configuration files of a node, as text.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::json;

use super::{cgroup, network};

pub(super) const PAUSE_IMAGE: &str = "penstock.test/pause:1";
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// First steps of a node in its new namespaces; `$1` the node's folder, `$2` its name, `$3` the program that stays.
///
/// `/var/lib` becomes the node's own and is shared, so that mounts made in pods with Bidirectional propagation appear in others.
/// `/var/log` is its own because a kubelet removes the logs there of all pods that are not its own.
/// `/sys` stays the host's: a new sysfs would hide the cgroups under it.
pub(super) const SETUP: &str = r#"set -eu
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount --bind "$1/lib" /var/lib
mount --make-shared /var/lib
mount --bind "$1/log" /var/log
hostname "$2"
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv4/conf/eth0/proxy_arp
touch "$1/ready"
exec "$3"
"#;

/// containerd's configuration, version 2 of its format (containerd 1.4 and later, converted by 2.x).
pub(super) fn containerd(cni_plugins: &Path, etc: &Path) -> String {
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot give a pod a score below containerd's own.
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{}"
  conf_dir = "{}"
"#,
        cni_plugins.display(),
        etc.join("cni").display(),
    )
}

/// The pod network: a routed link per pod. (A bridge would let pods of one node answer each other past the service rules.)
pub(super) fn cni(node: Ipv4Addr) -> String {
    let ranges = json!([[{"subnet": network::pod_range(node)}]]);
    let ipam = json!({"type": "host-local", "ranges": ranges, "dataDir": "/run/cni", "routes": [{"dst": "0.0.0.0/0"}]});
    let pods = json!({"type": "ptp", "ipMasq": false, "ipam": ipam});
    let ports = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [pods, ports]}).to_string()
}

pub(super) fn kubelet(node: &str, etc: &Path) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "cgroupDriver": "cgroupfs",
        // Tests kill a container again and again: the usual wait before its restart grows to five minutes.
        "featureGates": {"KubeletCrashLoopBackOffMax": true},
        "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
        "cgroupRoot": format!("/{}", cgroup::name(node)),
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "resolvConf": etc.join("resolv.conf"),
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": false,
        "maxPods": 100,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
    })
    .to_string()
}

pub(super) fn proxy(node: &str, kubeconfig: &Path) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": node,
        "clientConnection": {"kubeconfig": kubeconfig},
        "detectLocalMode": "InterfaceNamePrefix",
        "detectLocal": {"interfaceNamePrefix": "veth"},
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms"},
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_keeps_its_pods_in_the_nodes_own_cgroup() {
        let config: serde_json::Value = serde_json::from_str(&kubelet("node2", Path::new("/etc/x"))).unwrap();
        assert_eq!(config["cgroupRoot"], "/pns-node2");
        assert_eq!(config["resolvConf"], "/etc/x/resolv.conf");
    }

    #[test]
    fn the_pod_network_hands_out_the_nodes_own_addresses() {
        let config: serde_json::Value = serde_json::from_str(&cni(Ipv4Addr::new(198, 18, 2, 1))).unwrap();
        assert_eq!(config["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "198.18.2.128/25");
    }
}
