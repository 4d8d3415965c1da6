//! Promises 1 and 2 with real processes: nothing lost, nothing doubled, interrupted equals uninterrupted, whatever is
//! killed, stopped and cut off.

use nix::sys::signal::Signal;
use spotsweep_tests::{Cluster, Outcome, Trainer, chaos::Storm, outcome::json_lines, proxy::Weather, wait};
use std::time::Duration;

const SWEEP: &str = "
name: storm
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.01, 0.03, 0.1]}
  momentum: {values: [0.0, 0.9]}
train: {model: softmax, data: fashion-mnist, steps: 2000, seed: 3}
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
        assert_eq!((trial.state.as_str(), trial.steps), ("completed", 2000), "{}", trial.number);
        assert!(!trial.curve.is_empty(), "{} has a curve", trial.number);
    }
    for seed in [1, 2] {
        // Proxies are what is left where namespaces are not allowed.
        let start = if seed == 1 { Cluster::start_apart } else { Cluster::start_behind_proxies };
        let mut cluster = start(3, Trainer::Stub, &[STEP]);
        let storm = Storm { seed, duration: Duration::from_secs(20), every_ms: 100..600, least: (15, 6) };
        let (damage, sweeps) = storm.rage(&mut cluster, SWEEP);
        for sweep in &sweeps {
            let outcome = Outcome::wait(&cluster, sweep);
            assert_eq!(outcome, expected, "seed {seed}, {sweep}, {damage:?}\n{}", cluster.logs());
        }
    }
}

/// One trial that reports and checkpoints often, and is not done before its worker has slept.
const LONG: &str = "
name: long
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.03]}
train: {model: softmax, data: fashion-mnist, steps: 1400, seed: 3}
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

/// A worker of which nothing is heard for longer than its lease: `silence` begins that, `wake` ends it. Its trial is
/// finished elsewhere, it drops its work, and goes on to take other work. Gives how many of its reports were refused.
fn outlive_a_lease(silence: impl Fn(&Cluster), wake: impl Fn(&Cluster)) -> u64 {
    let expected = Outcome::undisturbed(LONG);
    let step = [("SPOTSWEEP_STUB_STEP_US", "10000")];
    let mut cluster = Cluster::start_behind_proxies(1, Trainer::Stub, &step);
    let sweep = cluster.submit(LONG);
    trains_on(&cluster, &sweep, "agent-0");
    let heir = cluster.add_agent(&[], &[("SPOTSWEEP_STUB_STEP_US", "2000")]);
    wait::until("the heir is there", || (workers(&cluster).len() == 2).then_some(()));
    silence(&cluster);
    // Its lease has expired; its connection has not.
    trains_on(&cluster, &sweep, "agent-1");
    wake(&cluster);
    wait::until("it drops its work", || {
        let log = cluster.agent_log(0);
        (log.contains("a lease is revoked") && log.contains("Stale")).then_some(())
    });
    assert_eq!(Outcome::wait(&cluster, &sweep), expected, "finished elsewhere\n{}", cluster.logs());
    assert_eq!(trial(&cluster, &sweep)["worker"], "agent-1");
    let sweeps = json_lines(&cluster.ask(&["ls", "--format", "json"]));

    // It lives, and it is the only one left to take the next trial.
    cluster.kill_agent(heir);
    let again =
        cluster.submit(&LONG.replace("name: long", "name: again").replace("steps: 1400", "steps: 50"));
    assert_eq!(Outcome::wait(&cluster, &again).trials[0].state, "completed", "{}", cluster.logs());
    assert_eq!(trial(&cluster, &again)["worker"], "agent-0");
    let rows = workers(&cluster);
    let row = rows.iter().find(|row| row["worker"] == "agent-0").expect("it is listed");
    assert_eq!(row["state"], "connected", "{rows:?}");
    sweeps[0]["stale_reports"].as_u64().expect("a count")
}

#[test]
fn a_worker_that_slept_past_its_lease_finds_its_epoch_refused_drops_its_work_and_works_on() {
    outlive_a_lease(
        |cluster| {
            // The agent first: it must not see its trainer fall silent.
            assert!(cluster.signal_agent(0, Signal::SIGSTOP));
            assert!(cluster.signal_trainer(0, Signal::SIGSTOP));
        },
        |cluster| {
            assert!(cluster.signal_trainer(0, Signal::SIGCONT));
            assert!(cluster.signal_agent(0, Signal::SIGCONT));
        },
    );
}

#[test]
fn what_a_worker_says_after_it_was_cut_off_past_its_lease_is_dropped_and_counted() {
    let refused = outlive_a_lease(
        // It trains on, and its reports wait on the way.
        |cluster| cluster.proxy(0).set(Weather::HoldsBoth),
        |cluster| cluster.proxy(0).set(Weather::Clear),
    );
    assert!(refused > 0);
}
