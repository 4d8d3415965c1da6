//! A gang over a network: one, two and four hosts as network namespaces of this machine, joined by a bridge, each link with
//! the delay and the rate of a plain cloud network. Needs root and `ip` and `tc` (Debian: iproute2).
//!
//! The hosts share this machine's cores, so this shows what exchanges cost, and not how training scales.

use crate::{
    Scale,
    figures::Figures,
    gang::{hub, job, trainer},
};
use hub::Hub;
use serde_json::{Value, json};
use spotsweep_proto::line::FromTrainer;
use spotsweep_tests::{binaries, network::Network};
use std::time::Instant;

/// Hosts that there can be.
const HOSTS: usize = 4;
/// What a link does to what is sent over it.
const LINK: [&str; 4] = ["delay", "50us", "rate", "5gbit"];

/// Steps a second and the share of exchanges, by number of hosts.
pub(crate) fn scaling(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    let Some(program) = trainer() else { return Ok(()) };
    let network = match Network::new(HOSTS) {
        Ok(network) => network,
        Err(error) => {
            eprintln!("no network namespaces, so gangs over hosts are not measured: {error:#}");
            return Ok(());
        }
    };
    let shaped = [&["tc", "qdisc", "add", "dev", "eth0", "root", "netem"], LINK.as_slice()].concat();
    for host in 0..HOSTS {
        if let Err(error) = network.run(host, &shaped) {
            eprintln!("links have no delay and no limit: {error:#}");
        }
    }
    for (model, steps) in [("mlp", 1000), ("cnn", 60)] {
        for exact in [true, false] {
            for hosts in [1, 2, 4] {
                let (rate, share) = measure(&program, &network, model, scale.of(steps), hosts, exact)?;
                let how = if exact { "exact" } else { "fast" };
                let hosts = if hosts == 1 { "1 host".to_owned() } else { format!("{hosts} hosts") };
                figures.add(format!("{model}, {how}, {hosts}"), rate, "steps/s", None);
                figures.add(format!("{model}, {how}, {hosts}, communication"), share, "of the time", None);
            }
        }
    }
    Ok(())
}

fn measure(
    program: &std::path::Path,
    network: &Network,
    model: &str,
    steps: u32,
    hosts: usize,
    exact: bool,
) -> anyhow::Result<(f64, f64)> {
    let scratch = tempfile::tempdir_in(binaries::folder())?;
    let interval = (steps / 10).max(1);
    let mut job = job(model, interval * 12, interval, scratch.path())?;
    job.train["exact"] = Value::from(exact);
    job.train["shards"] = json!(HOSTS);
    let mut hub = Hub::new(program, job, hub::PATIENT_MS);
    let members: Vec<usize> =
        (0..hosts).map(|host| hub.start_in(&network.namespace(host), &Network::address(host))).collect();
    hub.gather(&members);
    let mut marks = Vec::new();
    let mut shares = Vec::new();
    while marks.len() < 11 {
        if let (0, FromTrainer::Report { step, metrics, .. }) = hub.next() {
            marks.push((step, Instant::now()));
            shares.push(metrics.get("communication_share").and_then(Value::as_f64).unwrap_or(0.0));
        }
    }
    let ((first, begun), (last, ended)) = (marks[0], marks[10]);
    #[expect(clippy::cast_precision_loss, reason = "few steps")]
    let rate = (last - first) as f64 / (ended - begun).as_secs_f64();
    Ok((rate, shares[1..].iter().sum::<f64>() / 10.0))
}
