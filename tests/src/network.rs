//! Hosts of their own on this machine: network namespaces joined by a bridge, whose links can be cut in either direction.
//!
//! What is cut off vanishes without a word, as between machines: nothing is refused and nothing is reset. Needs root, `ip`
//! and `tc` (Debian: iproute2) and `nsenter`. The namespaces have no names: they are gone with this process and with what
//! runs in them, however these end, and no other run sees them.

use crate::proxy::Weather;
use anyhow::Context as _;
use nix::sched::{CloneFlags, setns, unshare};
use std::{ffi::OsStr, fs::File, net::TcpListener, os::fd::AsRawFd as _, process::Command, thread};

/// Where all find the loopback of the host that lends it, on which alone a coordinator listens.
pub const LENT_LOOPBACK: &str = "127.0.77.1";

/// A queue that takes nothing: what is sent is dropped.
const DROP_ALL: [&str; 3] = ["pfifo", "limit", "0"];

/// The hosts, and the bridge in a namespace of its own.
#[derive(Debug)]
pub struct Network {
    hub: File,
    hosts: Vec<File>,
}

impl Network {
    /// So many hosts, all of which reach each other.
    ///
    /// # Errors
    /// The system does not allow it, or lacks a program for it.
    pub fn new(hosts: usize) -> anyhow::Result<Self> {
        let network =
            Self { hub: namespace()?, hosts: (0..hosts).map(|_| namespace()).collect::<Result<_, _>>()? };
        let hub = |words: &[&str]| run(&network.hub, words);
        hub(&["ip", "link", "add", "bridge", "type", "bridge"])?;
        hub(&["ip", "link", "set", "bridge", "up"])?;
        for host in 0..hosts {
            let (port, namespace) = (port(host), network.namespace(host));
            hub(&["ip", "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            hub(&["ip", "link", "set", &port, "master", "bridge", "up"])?;
            network.run(host, &["ip", "link", "set", "lo", "up"])?;
            let address = format!("{}/24", Self::address(host));
            network.run(host, &["ip", "addr", "add", &address, "dev", "eth0"])?;
            network.run(host, &["ip", "link", "set", "eth0", "up"])?;
        }
        Ok(network)
    }

    /// Lets all other hosts reach [`LENT_LOOPBACK`] of host `lender`: a coordinator listens on no other address than
    /// loopback, and here it is to be reached over the bridge.
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn lend_loopback(&self, lender: usize) -> anyhow::Result<()> {
        let gateway = Self::address(lender);
        for host in 0..self.hosts.len() {
            // Else the system takes packets of loopback addresses that come over a link for forged.
            let file = "/proc/sys/net/ipv4/conf/eth0/route_localnet";
            self.run(host, &["sh", "-c", &format!("echo 1 > {file}")])?;
            if host != lender {
                // Of its own loopback it keeps the one address that everybody uses.
                self.run(host, &["ip", "addr", "del", "127.0.0.1/8", "dev", "lo"])?;
                self.run(host, &["ip", "addr", "add", "127.0.0.1/32", "dev", "lo"])?;
                let route = ["via", &gateway, "dev", "eth0", "src", &Self::address(host)];
                self.run(host, &[&["ip", "route", "add", LENT_LOOPBACK], route.as_slice()].concat())?;
            }
        }
        Ok(())
    }

    /// A path of the host's namespace, for `nsenter --net`.
    #[must_use]
    pub fn namespace(&self, host: usize) -> String {
        path(&self.hosts[host])
    }

    /// The host's address on the bridge.
    #[must_use]
    pub fn address(host: usize) -> String {
        format!("10.77.0.{}", host + 1)
    }

    /// A program on a host. It has the process id of what is spawned.
    pub fn command(&self, host: usize, program: impl AsRef<OsStr>) -> Command {
        enter(&self.hosts[host], program)
    }

    /// Runs a program on a host to its end.
    ///
    /// # Errors
    /// It cannot be run, or fails.
    pub fn run(&self, host: usize, words: &[&str]) -> anyhow::Result<()> {
        run(&self.hosts[host], words)
    }

    /// This process listens on a free loopback port of a host.
    ///
    /// # Panics
    /// If the system does not allow it, as it did when the host was made.
    #[must_use]
    pub fn listen(&self, host: usize) -> TcpListener {
        let namespace = &self.hosts[host];
        // Only a thread that ends with it changes its namespace; a socket stays where it was made.
        let listen = || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("a namespace that this process made");
            TcpListener::bind("127.0.0.1:0").expect("a free port")
        };
        thread::scope(|scope| scope.spawn(listen).join().expect("no panic"))
    }

    /// Changes the weather on the way from a host (up) and to it (down). What is held up or down is dropped, and what
    /// refuses is a link that is down.
    ///
    /// # Panics
    /// If the system does not allow it.
    pub fn set(&self, host: usize, weather: Weather) {
        let (up, down, link) = match weather {
            Weather::Clear => (true, true, "up"),
            Weather::HoldsUp => (false, true, "up"),
            Weather::HoldsDown => (true, false, "up"),
            Weather::HoldsBoth => (false, false, "up"),
            Weather::Refuses => (true, true, "down"),
        };
        let port = port(host);
        for (namespace, device, passes) in [(&self.hosts[host], "eth0", up), (&self.hub, &port, down)] {
            let kind: &[&str] = if passes { &["noqueue"] } else { &DROP_ALL };
            let words = [&["tc", "qdisc", "replace", "dev", device, "root"], kind].concat();
            run(namespace, &words).expect("a link of this process's own");
        }
        run(&self.hub, &["ip", "link", "set", &port, link]).expect("a link of this process's own");
    }
}

fn port(host: usize) -> String {
    format!("port{host}")
}

fn namespace() -> anyhow::Result<File> {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::open("/proc/thread-self/ns/net")
    };
    thread::scope(|scope| scope.spawn(make).join().expect("no panic")).context("no new network namespace")
}

fn path(namespace: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

fn enter(namespace: &File, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", path(namespace))).arg("--").arg(program);
    command
}

fn run(namespace: &File, words: &[&str]) -> anyhow::Result<()> {
    let output = enter(namespace, words[0]).args(&words[1..]).output().context("there is no `nsenter`")?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{}: {}", words.join(" "), error.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use std::{
        io::ErrorKind,
        net::{SocketAddr, TcpStream},
        time::Duration,
    };

    /// Nobody listens there: whoever reaches it is refused at once. Silence, and what the system itself says of a link
    /// that is down, are no answer.
    fn reaches(network: &Network, from: usize) -> bool {
        let nobody: SocketAddr = format!("{LENT_LOOPBACK}:9").parse().expect("an address");
        let connect = || {
            setns(&network.hosts[from], CloneFlags::CLONE_NEWNET)
                .expect("a namespace that this process made");
            TcpStream::connect_timeout(&nobody, Duration::from_secs(1))
        };
        let answer = thread::scope(|scope| scope.spawn(connect).join().expect("no panic"));
        answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    /// A link that was down takes a moment to come up.
    fn until_it_reaches(network: &Network, from: usize) {
        wait::until("the other host is reached", || reaches(network, from).then_some(()));
    }

    #[test]
    fn what_is_cut_in_either_direction_vanishes_and_others_notice_nothing() {
        let network = match Network::new(3).and_then(|network| network.lend_loopback(0).map(|()| network)) {
            Ok(network) => network,
            Err(error) => return eprintln!("no network namespaces: {error:#}"),
        };
        until_it_reaches(&network, 1);
        until_it_reaches(&network, 2);
        for weather in [Weather::HoldsUp, Weather::HoldsDown, Weather::HoldsBoth, Weather::Refuses] {
            network.set(1, weather);
            assert!(!reaches(&network, 1), "{weather:?}");
            assert!(reaches(&network, 2), "{weather:?}");
            network.set(1, Weather::Clear);
            until_it_reaches(&network, 1);
        }
    }
}
