//! How soon a gang goes on without a worker that is killed or stalls: real agents, real trainers, a real coordinator.

use crate::{
    Scale,
    figures::{Figures, Target},
    recovery::{median, worst},
};
use nix::sys::signal::Signal;
use spotsweep_tests::{Cluster, Trainer, binaries, outcome::json_lines, wait};
use std::time::{Duration, Instant};

/// Disasters of each kind.
const DISASTERS: u32 = 20;
/// Workers of the gang.
const WORKERS: usize = 3;
/// A rank that says nothing for so long is left behind.
const TIMEOUT_S: u64 = 2;

/// One trial that goes on for ever.
const ENDLESS: &str = "
name: endless
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {value: 0.001}
  batch_size: {value: 64}
  hidden: {value: [256]}
  report_every_steps: {value: 5}
train: {model: mlp, data: synthetic, steps: 100000000, seed: 3, shards: 4}
resources: {device: cpu, workers: {min: 1, max: 3}}
checkpoint: {every_s: 600}
retry: {max_failures: 1000, backoff_s: 0.05}
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disaster {
    Kill,
    Stop,
}

/// From a disaster of one of three workers to the next step of the others.
pub(crate) fn recovery(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    let program = binaries::libtorch_trainer();
    if !program.exists() {
        return Ok(());
    }
    let timeout = TIMEOUT_S.to_string();
    let mut cluster =
        Cluster::start(WORKERS, Trainer::Program(program), &[("SPOTSWEEP_GANG_TIMEOUT_S", timeout.as_str())]);
    cluster.submit(ENDLESS);
    let mut killed = Vec::new();
    let mut stalled = Vec::new();
    for turn in 0..scale.of(DISASTERS) as usize {
        killed.push(strike(&mut cluster, turn % WORKERS, Disaster::Kill)?);
        stalled.push(
            strike(&mut cluster, (turn + 1) % WORKERS, Disaster::Stop)?
                .saturating_sub(Duration::from_secs(TIMEOUT_S)),
        );
    }
    for (what, mut waits) in [
        ("kill -9 of a worker of a gang to the others' next step", killed),
        ("a worker of a gang stops: the others' next step, behind the timeout", stalled),
    ] {
        waits.sort_unstable();
        figures.add(format!("{what}, median"), median(&waits), "s", Some(Target::AtMost(1.0)));
        figures.add(format!("{what}, worst"), worst(&waits), "s", None);
    }
    Ok(())
}

/// Strikes a worker of a whole gang; gives the time to the next step of the others.
fn strike(cluster: &mut Cluster, victim: usize, disaster: Disaster) -> anyhow::Result<Duration> {
    wait::until("all workers train together", || {
        let text = cluster.ask(&["explain", "endless/0"]);
        let (_, names) = text.split_once("trains on ")?;
        (names.split(" (make-up").next()?.split(", ").count() == WORKERS).then_some(())
    });
    let witness = (victim + 1) % WORKERS;
    let before = formed(cluster, witness).len();
    let struck = Instant::now();
    match disaster {
        Disaster::Kill => cluster.kill_agent(victim),
        Disaster::Stop => {
            cluster.signal_trainer(victim, Signal::SIGSTOP);
        }
    }
    let step = wait::until("the gang is formed again", || formed(cluster, witness).get(before).copied());
    wait::until("a step is done", || (steps(cluster) > step).then_some(()));
    let elapsed = struck.elapsed();
    match disaster {
        Disaster::Kill => cluster.start_agent(victim),
        Disaster::Stop => {
            cluster.signal_trainer(victim, Signal::SIGCONT);
        }
    }
    Ok(elapsed)
}

/// Steps at which an agent's rank formed a gang.
fn formed(cluster: &Cluster, agent: usize) -> Vec<u64> {
    let log = cluster.agent_log(agent);
    let news = log.lines().filter(|line| line.contains("news of the gang") && !line.contains("broken="));
    news.filter_map(|line| line.split_whitespace().find_map(|word| word.strip_prefix("step=")?.parse().ok()))
        .collect()
}

fn steps(cluster: &Cluster) -> u64 {
    let rows = json_lines(&cluster.ask(&["results", "endless", "--format", "json"]));
    rows.first().and_then(|row| row["steps"].as_u64()).unwrap_or(0)
}
