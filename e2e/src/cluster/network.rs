//! The cluster's network: one bridge in a namespace of its own, a link from it to each node and one to the host.
//!
//! All addresses are in 198.18.0.0/15 (RFC 2544, for benchmarks): host 198.18.0.1, node N 198.18.N.1 with pods in
//! 198.18.N.128/25, services in 198.19.0.0/17. Nodes answer ARP for their pods, so nobody needs further routes. The bridge is
//! not in the host's namespace because a firewall there (Docker's, for one) could drop what it forwards.

use std::net::Ipv4Addr;

use anyhow::Result;
use penstock_testkit::net::{self, ip};

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
    net::ensure_unused()?;
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
    net::shape(Some(&namespace(node)), "eth0", mbit)?;
    net::shape(Some(BRIDGE), node, mbit)
}

/// Removes all that [`create`] and [`create_node`] made; what is not there is no error.
pub(super) fn remove() -> Result<()> {
    net::remove_namespaces(&format!("{PREFIX}-"))?;
    net::remove_link(HOST_LINK);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_the_upper_half_of_their_nodes_addresses() {
        assert_eq!(pod_range(node_address(3)), "198.18.3.128/25");
    }
}
