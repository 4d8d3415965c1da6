//! The coordinator may come back at another address: agents that know it re-attach there, and nothing is repeated.

use spotsweep_tests::{Cluster, Outcome, Trainer, cluster::free_port, outcome::json_lines, wait};

const SWEEP: &str = "
name: moving
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.01, 0.03]}
train: {model: softmax, data: fashion-mnist, steps: 300, seed: 3}
checkpoint: {every_steps: 50}
";

#[test]
fn agents_reattach_to_a_coordinator_that_is_restarted_at_another_address() {
    let expected = Outcome::undisturbed(SWEEP);

    let mut cluster = Cluster::start(0, Trainer::Stub, &[("SPOTSWEEP_STUB_STEP_US", "4000")]);
    let elsewhere = free_port();
    let addresses = format!("{},http://127.0.0.1:{elsewhere}", cluster.url());
    for _ in 0..2 {
        // The last of an argument given twice counts.
        cluster.add_agent(&["--coordinator", &addresses], &[]);
    }
    let sweep = cluster.submit(SWEEP);
    wait::until("both trials are stored once", || {
        let stored =
            |trial| !json_lines(&cluster.ask(&["checkpoint", "ls", trial, "--format", "json"])).is_empty();
        (stored("moving/0") && stored("moving/1")).then_some(())
    });
    cluster.move_coordinator(elsewhere);

    let outcome = Outcome::wait(&cluster, &sweep);
    assert_eq!(outcome, expected, "{}", cluster.logs());
    let trials = json_lines(&cluster.ask(&["results", "moving", "--format", "json"]));
    for trial in &trials {
        assert_eq!(trial["attempts"], 1, "the attempt went on: {trial}\n{}", cluster.logs());
    }
}
