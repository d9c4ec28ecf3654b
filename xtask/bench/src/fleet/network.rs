//! A simulated network: nodes are network namespaces, each with a link of its own to a switch. Takes root.
//!
//! The switch is a bridge in a namespace too, so nothing of this is seen in the host's: neither addresses nor links.

use std::{fs::File, net::Ipv4Addr, os::fd::AsFd, path::PathBuf, process::Command, thread};

use anyhow::{Context, anyhow};
use penstock_testkit::{
    net::{self, ip},
    process::Spawn,
    tools,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PREFIX: &str = "pnb-";
const SWITCH: &str = "pnb-switch";
/// The network's first address, and the length of its prefix.
const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 240, 0), 24);

/// A node of a network, or this machine as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    simulated: bool,
}

impl Place {
    /// This machine, by its loopback address.
    pub(crate) fn here() -> Self {
        Self { name: "here".into(), address: Ipv4Addr::LOCALHOST, simulated: false }
    }

    /// Starts a program there.
    pub(crate) fn spawn(&self, program: &std::path::Path, log: PathBuf) -> Spawn {
        if !self.simulated {
            return Spawn::new(program, log);
        }
        Spawn::new("nsenter", log).arg(format!("--net=/run/netns/{}", self.namespace())).arg(program)
    }

    /// Runs `work`, and what it starts, there. Blocks until it is done.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        if !self.simulated {
            return work();
        }
        let path = format!("/run/netns/{}", self.namespace());
        let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
        let there = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        thread::scope(|scope| scope.spawn(there).join()).map_err(|_| anyhow!("the thread at {} panicked", self.name))?
    }

    /// Runs a command there to its end and returns what it prints. Blocks.
    pub(crate) fn output(&self, command: &mut Command) -> anyhow::Result<String> {
        self.run(|| tools::output(command))
    }

    /// Limits both directions of the node's link to `mbit` Mbit/s, or frees them.
    pub(crate) fn shape(&self, mbit: Option<u32>) -> anyhow::Result<()> {
        net::shape(Some(&self.namespace()), "eth0", mbit)?;
        net::shape(Some(SWITCH), &self.name, mbit)
    }

    fn namespace(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }
}

/// One node for the store, and nodes for workers and clients. All gone, with what runs there, when dropped.
pub(crate) struct Network {
    pub(crate) store: Place,
    pub(crate) workers: Vec<Place>,
    pub(crate) clients: Vec<Place>,
}

impl Network {
    /// Also removes what an earlier run left. Blocks.
    pub(crate) fn create(workers: usize, clients: usize) -> anyhow::Result<Self> {
        remove()?;
        let mut hosts = 1..;
        let mut place = |name: String| {
            let address = Ipv4Addr::from_bits(NETWORK.0.to_bits() + hosts.next().unwrap_or_default());
            Place { name, address, simulated: true }
        };
        let network = Self {
            store: place("store".into()),
            workers: (0..workers).map(|n| place(format!("worker-{n}"))).collect(),
            clients: (0..clients).map(|n| place(format!("client-{n}"))).collect(),
        };
        for line in [
            format!("netns add {SWITCH}"),
            format!("-n {SWITCH} link add br0 type bridge forward_delay 0"),
            format!("-n {SWITCH} link set br0 up"),
        ] {
            ip(&line)?;
        }
        network.places().try_for_each(connect)?;
        Ok(network)
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        [&self.store].into_iter().chain(&self.workers).chain(&self.clients)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = remove() {
            eprintln!("removing the network of the benchmark: {error:#}");
        }
    }
}

/// Makes the node's namespace and its link to the switch, where the link has the node's name.
fn connect(place: &Place) -> anyhow::Result<()> {
    let (name, namespace, prefix) = (&place.name, place.namespace(), NETWORK.1);
    for line in [
        format!("netns add {namespace}"),
        format!("-n {SWITCH} link add {name} type veth peer name eth0 netns {namespace}"),
        format!("-n {SWITCH} link set {name} master br0 up"),
        format!("-n {namespace} addr add {}/{prefix} dev eth0", place.address),
        format!("-n {namespace} link set eth0 up"),
        format!("-n {namespace} link set lo up"),
    ] {
        ip(&line)?;
    }
    Ok(())
}

fn remove() -> anyhow::Result<()> {
    net::kill_processes(PREFIX)?;
    net::remove_namespaces(PREFIX)
}
