//! How fast work goes on after a disaster: seconds that nobody trains, or that agents are alone.

use crate::{
    Scale,
    figures::{Figures, Target},
    service::{Agents, Service},
};
use anyhow::Context as _;
use spotsweep_tests::{Cluster, Trainer, outcome::json_lines, wait};
use spotsweep_worker::NoopTrainers;
use std::time::{Duration, Instant};

/// Disasters of each kind that strike a busy agent.
const DISASTERS: u32 = 20;

/// One trial that goes on for ever, and reports every 10 steps.
const ENDLESS: &str = "
name: endless
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.03]}
train: {model: softmax, data: fashion-mnist, steps: 100000000, seed: 3}
checkpoint: {every_steps: EVERY, keep_last: 2}
retry: {max_failures: 1000, backoff_s: 0.05}
";
/// A step of the toy trainer takes this long, in microseconds.
const STEP: (&str, &str) = ("SPOTSWEEP_STUB_STEP_US", "2000");

/// A busy agent is killed, warned; the coordinator is killed.
pub(crate) fn recovery(
    scale: Scale,
    runtime: &tokio::runtime::Runtime,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (mut waits, _) = disasters(scale.of(DISASTERS), Disaster::Kill)?;
    waits.sort_unstable();
    let what = |what: &str| format!("kill -9 of an agent to a step elsewhere, {what}");
    figures.add(what("median"), median(&waits), "s", Some(Target::AtMost(2.0)));
    figures.add(what("worst"), worst(&waits), "s", Some(Target::AtMost(5.0)));
    let (mut waits, lost) = disasters(scale.of(DISASTERS), Disaster::Notice)?;
    waits.sort_unstable();
    let what = |what: &str| format!("notice to a step elsewhere, {what}");
    figures.add(what("median"), median(&waits), "s", None);
    figures.add(what("worst"), worst(&waits), "s", None);
    figures.add(what("steps lost"), lost as f64, "", Some(Target::AtMost(0.0)));
    for agents in [200, 2000] {
        runtime.block_on(attached_again(scale.of(agents), figures))?;
    }
    Ok(())
}

pub(crate) fn median(sorted: &[Duration]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default().as_secs_f64()
}

pub(crate) fn worst(sorted: &[Duration]) -> f64 {
    sorted.last().copied().unwrap_or_default().as_secs_f64()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disaster {
    Kill,
    Notice,
}

/// Strikes the agent that trains, so many times; gives the time to the next step elsewhere of each, and all lost steps.
fn disasters(times: u32, disaster: Disaster) -> anyhow::Result<(Vec<Duration>, u64)> {
    let mut cluster = Cluster::start(0, Trainer::Stub, &[STEP]);
    // After a notice everything is kept by its own checkpoint, or lost.
    let every = if disaster == Disaster::Kill { "50" } else { "100000000" };
    let mut added = 0;
    add(&mut cluster, &mut added);
    cluster.submit(&ENDLESS.replace("EVERY", every));
    let (mut waits, mut lost) = (Vec::new(), 0);
    let mut busy = begun(&cluster, added, 0)?.0;
    // The spare comes after the busy one, so that each job begins on the newest agent.
    add(&mut cluster, &mut added);
    for _ in 0..times {
        // Both agents are warm, and the trial has gone a way since it last moved.
        connected(&cluster, 2)?;
        let before = steps(&cluster)?;
        wait::until("the trial goes on", || {
            steps(&cluster).ok().filter(|now| *now >= before + 200).map(|_| ())
        });
        let begins = count(&cluster, added);
        let struck = Instant::now();
        match disaster {
            Disaster::Kill => cluster.kill_agent(busy),
            Disaster::Notice => std::fs::write(cluster.path(&format!("leave-{busy}")), "")?,
        }
        let (heir, resumed) = begun(&cluster, added, begins)?;
        // The first step elsewhere: the next that is heard of is at most 10 steps behind it.
        wait::until("the trial goes on elsewhere", || {
            steps(&cluster).ok().filter(|now| *now > resumed).map(|_| ())
        });
        waits.push(struck.elapsed());
        if disaster == Disaster::Notice {
            cluster.agent_ended(busy);
            lost += cluster.ask(&["explain", "endless/0"]).lines().map(steps_lost).sum::<u64>();
        }
        busy = heir;
        add(&mut cluster, &mut added);
    }
    Ok((waits, lost))
}

fn add(cluster: &mut Cluster, added: &mut usize) {
    let notice = cluster.path(&format!("leave-{added}"));
    let notice = notice.display().to_string();
    cluster.add_agent(&["--notices", "off", "--notice-file", &notice], &[]);
    *added += 1;
}

/// What `explain` says was lost: "…; 10 steps lost".
fn steps_lost(line: &str) -> u64 {
    let lost = line.split_once(" steps lost").or_else(|| line.split_once(" step lost"));
    lost.and_then(|(text, _)| text.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Jobs that have begun on all agents.
fn count(cluster: &Cluster, agents: usize) -> usize {
    (0..agents).map(|index| begins(cluster, index).len()).sum()
}

/// Steps at which jobs began on an agent.
fn begins(cluster: &Cluster, index: usize) -> Vec<u64> {
    let log = cluster.agent_log(index);
    let lines = log.lines().filter(|line| line.contains("a job begins"));
    lines
        .filter_map(|line| line.split_whitespace().find_map(|word| word.strip_prefix("step=")?.parse().ok()))
        .collect()
}

/// Waits for one more job than `before`; gives the agent and the step from which it goes on.
fn begun(cluster: &Cluster, agents: usize, before: usize) -> anyhow::Result<(usize, u64)> {
    let known: usize =
        wait::until("a job begins", || Some(count(cluster, agents)).filter(|count| *count > before));
    anyhow::ensure!(known == before + 1, "one job begins, not {}", known - before);
    // An agent has one job in its life here: the last that began is on the newest agent that has begun any.
    let busy = (0..agents).rev().find_map(|index| Some((index, *begins(cluster, index).last()?)));
    busy.context("an agent that has begun")
}

fn steps(cluster: &Cluster) -> anyhow::Result<u64> {
    let rows = json_lines(&cluster.ask(&["results", "endless", "--format", "json"]));
    rows.first().and_then(|row| row["steps"].as_u64()).context("steps")
}

fn connected(cluster: &Cluster, count: usize) -> anyhow::Result<()> {
    wait::until("all agents are there", || {
        let rows = json_lines(&cluster.ask(&["workers", "--format", "json"]));
        (rows.iter().filter(|row| row["state"] == "connected").count() == count).then_some(())
    });
    Ok(())
}

/// The coordinator is killed and started again: until all agents are back, from when it answers.
async fn attached_again(agents: u32, figures: &mut Figures) -> anyhow::Result<()> {
    let mut service = Service::start().await?;
    let running = Agents::start(&service.url(), agents, &NoopTrainers::new())?;
    running.joined(&service).await?;
    service.kill()?;
    service.restart().await?;
    let answers = Instant::now();
    running.joined(&service).await?;
    let seconds = answers.elapsed().as_secs_f64();
    let target = (agents <= 200).then_some(Target::AtMost(3.0));
    figures.add(format!("coordinator answers again to {agents} agents attached"), seconds, "s", target);
    running.stop().await;
    Ok(())
}
