//! Promise 2 for trials that several workers train together: the number of workers and what happens to them change
//! nothing. With the toy trainer; `ladder_gang.rs` does it with libtorch.

use nix::sys::signal::Signal;
use spotsweep_tests::{Cluster, Outcome, Trainer, chaos::Storm, outcome::json_lines, wait};
use std::time::Duration;

/// Short, so that a stopped rank is soon left behind.
const TIMEOUT: (&str, &str) = ("SPOTSWEEP_GANG_TIMEOUT_S", "2");

fn sweep(min: u32, max: u32, steps: u32) -> String {
    format!(
        "
name: gang
method: grid
metric: {{name: val_loss, goal: minimize}}
parameters:
  learning_rate: {{values: [0.03]}}
train: {{model: softmax, data: fashion-mnist, steps: {steps}, seed: 3, shards: 8}}
resources: {{workers: {{min: {min}, max: {max}}}}}
checkpoint: {{every_steps: 20, keep_last: 2}}
retry: {{max_failures: 1000, backoff_s: 0.05}}
"
    )
}

/// What a gang of one makes of it.
fn alone(steps: u32) -> Outcome {
    Outcome::undisturbed(&sweep(1, 1, steps))
}

fn explained(cluster: &Cluster) -> String {
    cluster.ask(&["explain", "gang/0"])
}

fn attempts(cluster: &Cluster) -> u64 {
    let rows = json_lines(&cluster.ask(&["results", "gang", "--format", "json"]));
    rows[0]["attempts"].as_u64().expect("a number")
}

/// Waits until exactly these train it, in whatever order.
fn trains_on(cluster: &Cluster, wanted: &[&str]) {
    wait::until(&format!("it trains on {wanted:?}"), || {
        let text = explained(cluster);
        let (_, names) = text.split_once("trains on ")?;
        let (names, _) = names.split_once(" (make-up")?;
        let mut names: Vec<&str> = names.split(", ").collect();
        names.sort_unstable();
        (names == wanted).then_some(())
    });
}

#[test]
fn a_trial_trained_by_several_workers_ends_as_by_one() {
    let expected = alone(300);
    for workers in [2, 3] {
        let cluster = Cluster::start(workers, Trainer::Stub, &[TIMEOUT]);
        let count = u32::try_from(workers).expect("few");
        let name = cluster.submit(&sweep(count, count, 300));
        assert_eq!(Outcome::wait(&cluster, &name), expected, "{workers} workers\n{}", cluster.logs());
        assert_eq!(attempts(&cluster), 1);
    }
}

#[test]
fn ranks_that_die_stall_leave_and_come_change_nothing_and_begin_no_attempt() {
    // Far longer than what is done to it takes.
    let steps = 12_000;
    let expected = alone(steps);
    let slow = ("SPOTSWEEP_STUB_STEP_US", "3000");
    let notice = tempfile::tempdir().expect("a folder");
    let file = notice.path().join("leave");
    let mut cluster = Cluster::start(2, Trainer::Stub, &[TIMEOUT, slow]);
    let name = cluster.submit(&sweep(1, 3, steps));
    trains_on(&cluster, &["agent-0", "agent-1"]);
    // One comes.
    let third = cluster.add_agent(&["--notice-file", file.to_str().expect("UTF-8")], &[]);
    trains_on(&cluster, &["agent-0", "agent-1", "agent-2"]);
    // The first rank dies.
    cluster.kill_agent(0);
    trains_on(&cluster, &["agent-1", "agent-2"]);
    // One stalls, is left behind, and comes back as another.
    assert!(cluster.signal_trainer(1, Signal::SIGSTOP));
    trains_on(&cluster, &["agent-2"]);
    assert!(cluster.signal_trainer(1, Signal::SIGCONT));
    trains_on(&cluster, &["agent-1", "agent-2"]);
    // One is warned and leaves.
    std::fs::write(&file, "").expect("the folder is writable");
    trains_on(&cluster, &["agent-1"]);
    assert!(cluster.agent_ended(third).success(), "{}", cluster.agent_log(third));
    assert_eq!(Outcome::wait(&cluster, &name), expected, "{}", cluster.logs());
    assert_eq!(attempts(&cluster), 1, "it went on from memory all the while: {}", explained(&cluster));
}

#[test]
fn a_gang_survives_its_coordinator() {
    let expected = alone(3000);
    let mut cluster = Cluster::start(2, Trainer::Stub, &[TIMEOUT, ("SPOTSWEEP_STUB_STEP_US", "2000")]);
    let name = cluster.submit(&sweep(2, 2, 3000));
    trains_on(&cluster, &["agent-0", "agent-1"]);
    cluster.kill_coordinator();
    cluster.start_coordinator();
    assert_eq!(Outcome::wait(&cluster, &name), expected, "{}", cluster.logs());
}

#[test]
fn a_gang_under_kills_stops_and_partitions_of_everything_ends_with_the_same_bits_and_curves() {
    let sweep = sweep(1, 3, 2000);
    let expected = alone(2000);
    for seed in [1, 2] {
        let environment = [TIMEOUT, ("SPOTSWEEP_STUB_STEP_US", "3000")];
        let mut cluster = Cluster::start_apart(3, Trainer::Stub, &environment);
        let storm = Storm { seed, duration: Duration::from_secs(20), every_ms: 200..900, least: (10, 4) };
        let (damage, sweeps) = storm.rage(&mut cluster, &sweep);
        for name in &sweeps {
            let outcome = Outcome::wait(&cluster, name);
            assert_eq!(outcome, expected, "seed {seed}, {name}, {damage:?}\n{}", cluster.logs());
        }
    }
}
