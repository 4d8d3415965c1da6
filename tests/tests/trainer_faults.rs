//! Trainers that crash, hang, spew or talk nonsense: each ends in a clear state, its neighbours unharmed.

use serde_json::Value;
use spotsweep_tests::{Cluster, Outcome, Trainer, outcome::json_lines};

/// One trial for each fault, and two that nothing happens to.
const SWEEP: &str = "
name: faults
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09]}
train: {model: softmax, data: fashion-mnist, steps: 60, seed: 3}
checkpoint: {every_steps: 20, keep_last: 1}
retry: {max_failures: 2, backoff_s: 0.05}
";

const FAULTS: &str = "1:crash@37,2:abort@37,3:hang@37,4:garbage@37,5:spew@37,6:diverge@37,7:oom@37";

fn row(rows: &[Value], number: u64) -> &Value {
    rows.iter().find(|row| row["number"] == number).expect("a row for every trial")
}

#[test]
fn every_fault_of_a_trainer_is_a_clear_state_and_harms_no_other_trial() {
    let calm = Cluster::start(2, Trainer::Stub, &[]);
    let sweep = calm.submit(SWEEP);
    let expected = Outcome::wait(&calm, &sweep);
    drop(calm);

    let environment = [("SPOTSWEEP_STUB_FAULT", FAULTS), ("SPOTSWEEP_TRAINER_TIMEOUT_S", "1")];
    let cluster = Cluster::start(2, Trainer::Stub, &environment);
    let sweep = cluster.submit(SWEEP);
    let outcome = Outcome::wait(&cluster, &sweep);
    let rows = json_lines(&cluster.ask(&["results", &sweep, "--format", "json"]));
    assert_eq!(rows.len(), 9, "exactly N trials");

    for number in [0, 8] {
        assert_eq!(outcome.trials[number], expected.trials[number], "a neighbour is unharmed");
    }
    for number in [1, 2, 3, 4, 5, 7] {
        let row = row(&rows, number);
        assert_eq!((&row["state"], &row["attempts"]), (&"failed".into(), &2.into()), "{row}");
    }
    let diverged = row(&rows, 6);
    assert_eq!(
        (&diverged["state"], &diverged["attempts"]),
        (&"diverged".into(), &1.into()),
        "tried once: {diverged}"
    );

    let explained = |number: u64| cluster.ask(&["explain", &format!("{sweep}/{number}")]).to_lowercase();
    for (number, words) in [
        (1, &["status 3", "last words"][..]),
        (2, &["signal", "6"]),
        (3, &["1 s"]),
        (4, &["epoch 1: loss=0.3"]),
        (5, &["1048576"]),
        (6, &["nan"]),
        (7, &["memory"]),
    ] {
        let text = explained(number);
        for word in words {
            assert!(text.contains(word), "{number}: {word:?} is in:\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{number}: no escape sequence comes through");
    }
}
