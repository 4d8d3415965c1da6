//! Promises 1 and 2 with real processes: nothing lost, nothing doubled, interrupted equals uninterrupted, whatever is
//! killed, stopped and cut off.

use nix::sys::signal::Signal;
use spotsweep_tests::{Cluster, Outcome, Trainer, chaos::Storm, outcome::json_lines, wait};
use std::time::Duration;

const SWEEP: &str = "
name: storm
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.01, 0.03, 0.1]}
  momentum: {values: [0.0, 0.9]}
train: {model: softmax, data: fashion-mnist, steps: 3000, seed: 3}
checkpoint: {every_steps: 20, keep_last: 2}
retry: {max_failures: 1000, backoff_s: 0.05}
";

/// A step of the toy trainer takes this long, so that disasters find it at work.
const STEP: (&str, &str) = ("SPOTSWEEP_STUB_STEP_US", "3000");

#[test]
fn a_sweep_under_kills_stops_and_partitions_of_everything_ends_with_the_same_bits_and_curves() {
    let expected = Outcome::undisturbed(SWEEP);
    assert_eq!(expected.trials.len(), 6);
    for trial in &expected.trials {
        assert_eq!((trial.state.as_str(), trial.steps), ("completed", 3000), "{}", trial.trial);
        assert!(!trial.curve.is_empty(), "{} has a curve", trial.trial);
    }
    for seed in [1, 2] {
        let mut cluster = Cluster::start_behind_proxies(3, Trainer::Stub, &[STEP]);
        let sweep = cluster.submit(SWEEP);
        let storm = Storm { seed, duration: Duration::from_secs(20), every_ms: 100..600 };
        let damage = storm.rage(&mut cluster, &sweep);
        let outcome = Outcome::wait(&cluster, &sweep);
        assert!(damage.disasters() >= 15 && damage.kinds() >= 6, "seed {seed}: a real storm: {damage:?}");
        assert_eq!(outcome, expected, "seed {seed}, {damage:?}\n{}", cluster.logs());
    }
}

/// One trial that reports and checkpoints often, and is not done before its worker has slept.
const LONG: &str = "
name: long
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.03]}
train: {model: softmax, data: fashion-mnist, steps: 600, seed: 3}
checkpoint: {every_steps: 20, keep_last: 2}
";

fn trial(cluster: &Cluster, sweep: &str) -> serde_json::Value {
    json_lines(&cluster.ask(&["results", sweep, "--format", "json"])).swap_remove(0)
}

fn workers(cluster: &Cluster) -> Vec<serde_json::Value> {
    json_lines(&cluster.ask(&["workers", "--format", "json"]))
}

/// Waits until the trial trains on this worker.
fn trains_on(cluster: &Cluster, sweep: &str, worker: &str) {
    wait::until("the trial trains", || {
        let row = trial(cluster, sweep);
        (row["worker"] == worker && row["steps"].as_u64() > Some(0)).then_some(())
    });
}

#[test]
fn a_worker_that_slept_past_its_lease_finds_its_epoch_refused_drops_its_work_and_works_on() {
    let expected = Outcome::undisturbed(LONG);
    let mut cluster = Cluster::start(1, Trainer::Stub, &[("SPOTSWEEP_STUB_STEP_US", "10000")]);
    let sweep = cluster.submit(LONG);
    trains_on(&cluster, &sweep, "agent-0");
    // The heir waits for the trial.
    let heir = cluster.add_agent(&[], &[]);
    wait::until("the heir is there", || (workers(&cluster).len() == 2).then_some(()));
    // The agent first: it must not see its trainer fall silent.
    assert!(cluster.signal_agent(0, Signal::SIGSTOP));
    assert!(cluster.signal_trainer(0, Signal::SIGSTOP));
    // Its lease has expired; its connection has not.
    trains_on(&cluster, &sweep, "agent-1");
    // The trainer first: what it goes on to say is of an epoch that is over.
    assert!(cluster.signal_trainer(0, Signal::SIGCONT));
    assert!(cluster.signal_agent(0, Signal::SIGCONT));
    wait::until("it drops its work", || {
        let log = cluster.agent_log(0);
        (log.contains("a lease is revoked") && log.contains("Stale")).then_some(())
    });
    assert_eq!(Outcome::wait(&cluster, &sweep), expected, "finished elsewhere\n{}", cluster.logs());
    assert_eq!(trial(&cluster, &sweep)["worker"], format!("agent-{heir}"));
    let sweeps = json_lines(&cluster.ask(&["ls", "--format", "json"]));
    assert!(sweeps[0]["stale_reports"].as_u64() > Some(0), "what it said was dropped and counted: {sweeps:?}");

    // It lives, and it is the only one left to take the next trial.
    cluster.kill_agent(heir);
    let again = cluster.submit(&LONG.replace("name: long", "name: again"));
    assert_eq!(Outcome::wait(&cluster, &again).trials[0].state, "completed", "{}", cluster.logs());
    assert_eq!(trial(&cluster, &again)["worker"], "agent-0");
    let rows = workers(&cluster);
    let row = rows.iter().find(|row| row["worker"] == "agent-0").expect("it is listed");
    assert_eq!(row["state"], "connected", "{rows:?}");
}
