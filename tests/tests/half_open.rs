//! Machines that vanish without a word: packets are lost and nothing is reset. Where the system allows no network
//! namespaces, a proxy holds what is said instead.

use spotsweep_tests::{Cluster, Outcome, Trainer, outcome::json_lines, proxy::Weather, wait};

/// One trial that reports and checkpoints often, and is not done before its worker has vanished several times.
const SWEEP: &str = "
name: vanishing
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.03]}
train: {model: softmax, data: fashion-mnist, steps: 3000, seed: 3}
checkpoint: {every_steps: 20, keep_last: 2}
";

fn state(cluster: &Cluster) -> String {
    let workers = json_lines(&cluster.ask(&["workers", "--format", "json"]));
    workers.first().map(|row| row["state"].as_str().expect("a state").to_owned()).unwrap_or_default()
}

fn trial(cluster: &Cluster, sweep: &str) -> serde_json::Value {
    json_lines(&cluster.ask(&["results", sweep, "--format", "json"])).swap_remove(0)
}

/// Waits until the trial is further than it is.
fn goes_on(cluster: &Cluster, sweep: &str) {
    let before = trial(cluster, sweep)["steps"].as_u64();
    wait::until("a step is heard of", || (trial(cluster, sweep)["steps"].as_u64() > before).then_some(()));
}

#[test]
fn a_machine_that_vanishes_loses_its_lease_and_loses_nothing_else_once_it_is_back() {
    let expected = Outcome::undisturbed(SWEEP);
    let cluster = Cluster::start_apart(1, Trainer::Stub, &[("SPOTSWEEP_STUB_STEP_US", "10000")]);
    let sweep = cluster.submit(SWEEP);
    for weather in [Weather::HoldsUp, Weather::HoldsBoth] {
        goes_on(&cluster, &sweep);
        cluster.set_weather(0, weather);
        let began = std::time::Instant::now();
        wait::until("it is found out", || (trial(&cluster, &sweep)["state"] != "running").then_some(()));
        println!("{weather:?}: found out after {:?}, state {}", began.elapsed(), state(&cluster));
        cluster.set_weather(0, Weather::Clear);
        wait::until("it is back", || (state(&cluster) == "connected").then_some(()));
    }
    assert_eq!(Outcome::wait(&cluster, &sweep), expected, "{}", cluster.logs());
}
