//! The cluster's network: one bridge in a namespace of its own, a link from it to each node and one to the host.
//!
//! All addresses are in 198.18.0.0/15 (RFC 2544, for benchmarks): host 198.18.0.1, node N 198.18.N.1 with pods in
//! 198.18.N.128/25, services in 198.19.0.0/17. Nodes answer ARP for their pods, so nobody needs further routes. The bridge is
//! not in the host's namespace because a firewall there (Docker's, for one) could drop what it forwards.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, bail};
use penstock_testkit::tools;

/// Prefix of every name that appears on the host.
const PREFIX: &str = "pns";
const HOST_LINK: &str = "pns-host";
const BRIDGE: &str = "pns-bridge";
pub(super) const SERVICES: &str = "198.19.0.0/17";
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub(super) const API_PORT: u16 = 6443;

/// Address of node `number` (from 1).
pub(super) fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, number, 1)
}

/// The node's pods.
pub(super) fn pod_range(node: Ipv4Addr) -> String {
    let [a, b, number, _] = node.octets();
    format!("{a}.{b}.{number}.128/25")
}

pub(super) fn namespace(node: &str) -> String {
    format!("{PREFIX}-{node}")
}

/// The bridge and the host's link to it.
pub(super) fn create() -> Result<()> {
    let taken = tools::output(Command::new(program()?).args(["-4", "-o", "addr", "show", "to", "198.18.0.0/15"]))?;
    if !taken.trim().is_empty() {
        bail!("this machine already uses an address in 198.18.0.0/15, which the cluster needs: {}", taken.trim());
    }
    ip(&format!("netns add {BRIDGE}"))?;
    ip(&format!("-n {BRIDGE} link add br0 type bridge forward_delay 0"))?;
    ip(&format!("-n {BRIDGE} link set br0 up"))?;
    ip(&format!("link add {HOST_LINK} type veth peer name host netns {BRIDGE}"))?;
    ip(&format!("-n {BRIDGE} link set host master br0 up"))?;
    ip(&format!("addr add {HOST}/15 dev {HOST_LINK}"))?;
    ip(&format!("link set {HOST_LINK} up"))
}

/// A node's namespace and its link to the bridge; the bridge's end has the node's name.
pub(super) fn create_node(node: &str, address: Ipv4Addr) -> Result<()> {
    let namespace = namespace(node);
    ip(&format!("netns add {namespace}"))?;
    ip(&format!("-n {BRIDGE} link add {node} type veth peer name eth0 netns {namespace}"))?;
    ip(&format!("-n {BRIDGE} link set {node} master br0 up"))?;
    ip(&format!("-n {namespace} link set lo up"))?;
    ip(&format!("-n {namespace} addr add {address}/15 dev eth0"))?;
    ip(&format!("-n {namespace} link set eth0 up"))?;
    ip(&format!("-n {namespace} route add default via {HOST}"))
}

/// Lets the host reach services through a node.
pub(super) fn route_services(node: Ipv4Addr) -> Result<()> {
    ip(&format!("route replace {SERVICES} via {node} dev {HOST_LINK}"))
}

/// Limits a node's link to `mbit` Mbit/s in both directions, or frees it.
pub(super) fn shape(node: &str, mbit: Option<u32>) -> Result<()> {
    for (namespace, link) in [(namespace(node), "eth0"), (BRIDGE.to_owned(), node)] {
        match mbit {
            // A bucket of 10 ms (at least 64 KiB) holds what the timer's granularity needs.
            Some(mbit) => {
                let burst = (u64::from(mbit) * 1250).max(65536);
                let queue = format!("tbf rate {mbit}mbit burst {burst} latency 50ms");
                tc(&namespace, &format!("qdisc replace dev {link} root {queue}"))?;
            }
            // There is nothing to delete on a link that was never shaped.
            None => drop(tc(&namespace, &format!("qdisc del dev {link} root"))),
        }
    }
    Ok(())
}

/// Removes all that [`create`] and [`create_node`] made; what is not there is no error.
pub(super) fn remove() -> Result<()> {
    let listed = tools::output(Command::new(program()?).args(["netns", "list"]))?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| name.starts_with("pns-")) {
        ip(&format!("netns del {name}"))?;
    }
    // Deleting one end deletes the pair, but only once the namespace is really gone: do not wait for it.
    if std::path::Path::new("/sys/class/net").join(HOST_LINK).exists() {
        let _ = ip(&format!("link del {HOST_LINK}"));
    }
    Ok(())
}

fn ip(line: &str) -> Result<()> {
    tools::run(Command::new(program()?).args(line.split(' ')))
}

fn tc(namespace: &str, line: &str) -> Result<()> {
    tools::run(Command::new(tools::debian("tc", "iproute2")?).args(["-n", namespace]).args(line.split(' ')))
}

fn program() -> Result<std::path::PathBuf> {
    tools::debian("ip", "iproute2").context("the cluster needs iproute2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_the_upper_half_of_their_nodes_addresses() {
        assert_eq!(pod_range(node_address(3)), "198.18.3.128/25");
    }
}
