//! A link to another node: a network namespace with one end of a pair of interfaces.

use std::{fs::File, net::Ipv4Addr, os::fd::AsFd, thread};

use anyhow::{Context, anyhow};
use penstock_testkit::net;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const NAMESPACE: &str = "pnb-reader";
const HOST_LINK: &str = "pnb-host";
const READER_LINK: &str = "eth0";

/// Gone, with its namespace, when dropped.
pub(super) struct Link {
    namespace: &'static str,
}

impl Link {
    /// This end's address; that of the other end is the next.
    pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 250, 1);

    pub(super) fn create() -> anyhow::Result<Self> {
        remove()?;
        net::ensure_unused()?;
        let link = Self { namespace: NAMESPACE };
        let reader = Ipv4Addr::from_bits(Self::HOST.to_bits() + 1);
        for line in [
            format!("netns add {NAMESPACE}"),
            format!("link add {HOST_LINK} type veth peer name {READER_LINK} netns {NAMESPACE}"),
            format!("addr add {}/30 dev {HOST_LINK}", Self::HOST),
            format!("link set {HOST_LINK} up"),
            format!("-n {NAMESPACE} addr add {reader}/30 dev {READER_LINK}"),
            format!("-n {NAMESPACE} link set {READER_LINK} up"),
            format!("-n {NAMESPACE} link set lo up"),
        ] {
            net::ip(&line)?;
        }
        Ok(link)
    }

    /// Limits both directions to `mbit` Mbit/s, or frees them.
    pub(super) fn shape(&self, mbit: Option<u32>) -> anyhow::Result<()> {
        net::shape(None, HOST_LINK, mbit)?;
        net::shape(Some(self.namespace), READER_LINK, mbit)
    }

    /// Path of the other end's namespace.
    pub(super) fn namespace(&self) -> String {
        format!("/run/netns/{}", self.namespace)
    }

    /// Runs `work` on a thread of the other end. Blocks until it is done.
    pub(super) fn beyond<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let namespace = File::open(self.namespace()).context("opening the reader's network namespace")?;
        let there = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        thread::scope(|scope| scope.spawn(there).join()).map_err(|_| anyhow!("the thread beyond the link panicked"))?
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Err(error) = remove() {
            eprintln!("removing the link of the benchmark: {error:#}");
        }
    }
}

fn remove() -> anyhow::Result<()> {
    net::remove_namespaces(NAMESPACE)?;
    net::remove_link(HOST_LINK);
    Ok(())
}
