//! Trainers that crash, hang, spew or talk nonsense: each ends in a clear state, its neighbours unharmed.

use nix::sys::signal::Signal;
use serde_json::Value;
use spotsweep_tests::{Cluster, Outcome, Trainer, outcome::json_lines, wait};
use std::sync::OnceLock;

/// More trials than any test has faults.
const SWEEP: &str = "
name: faults
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1]}
train: {model: softmax, data: fashion-mnist, steps: 60, seed: 3}
checkpoint: {every_steps: 20, keep_last: 1}
retry: {max_failures: 2, backoff_s: 0.05}
";

fn row(rows: &[Value], number: u64) -> &Value {
    rows.iter().find(|row| row["number"] == number).expect("a row for every trial")
}

/// What the sweep ends with where nothing goes wrong.
fn calm() -> &'static Outcome {
    static CALM: OnceLock<Outcome> = OnceLock::new();
    CALM.get_or_init(|| Outcome::undisturbed(SWEEP))
}

/// Runs the sweep with `faults`, a trial each from 1 on, all at step 37: each fails twice, says why in the words given,
/// and harms no other.
fn every_fault_is_a_clear_state(faults: &[(&str, &[&str])]) {
    let expected = calm();
    let orders: Vec<_> =
        (1..).zip(faults).map(|(number, (fault, _))| format!("{number}:{fault}@37")).collect();
    let orders = orders.join(",");
    let environment = [("SPOTSWEEP_STUB_FAULT", orders.as_str()), ("SPOTSWEEP_TRAINER_TIMEOUT_S", "2")];
    let cluster = Cluster::start(2, Trainer::Stub, &environment);
    let sweep = cluster.submit(SWEEP);
    let outcome = Outcome::wait(&cluster, &sweep);
    let rows = json_lines(&cluster.ask(&["results", &sweep, "--format", "json"]));
    assert_eq!(rows.len(), expected.trials.len(), "exactly N trials");
    for number in [0].into_iter().chain(faults.len() + 1..rows.len()) {
        assert_eq!(outcome.trials[number], expected.trials[number], "a neighbour is unharmed");
    }
    for (number, (fault, words)) in (1..).zip(faults) {
        let row = row(&rows, number);
        // Another attempt at what diverged would end the same way, so that none is made.
        let (state, attempts) = if *fault == "diverge" { ("diverged", 1) } else { ("failed", 2) };
        assert_eq!((&row["state"], &row["attempts"]), (&state.into(), &attempts.into()), "{fault}: {row}");
        let curve = &outcome.trials[number as usize].curve;
        assert_eq!(curve, &expected.trials[number as usize].curve[..3], "{fault}: what it had said is kept");
        let text = cluster.ask(&["explain", &format!("{sweep}/{number}")]).to_lowercase();
        for word in *words {
            assert!(text.contains(word), "{fault}: {word:?} is in:\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{fault}: no escape sequence comes through");
    }
}

#[test]
fn a_trainer_that_dies_hangs_or_fails_is_a_clear_state_and_harms_no_other_trial() {
    every_fault_is_a_clear_state(&[
        ("crash", &["status 3", "last words"]),
        ("abort", &["signal 6"]),
        ("hang", &["hung", "for 2 s"]),
        ("diverge", &["nan"]),
        ("oom", &["memory"]),
        ("leave", &["exited with status 0"]),
        ("exit", &["exited with status 1"]),
        ("kill", &["signal 9"]),
    ]);
}

#[test]
fn a_trainer_that_breaks_the_line_protocol_is_a_clear_state_and_harms_no_other_trial() {
    every_fault_is_a_clear_state(&[
        ("garbage", &["epoch 1: loss=0.3"]),
        ("spew", &["1048576"]),
        ("cut-line", &["exited with status 0"]),
        ("no-utf8", &["no message"]),
        ("wrong-types", &["no message", "invalid type: string", "report"]),
        ("noise", &["hung", "for 2 s"]),
    ]);
}

#[test]
fn a_trainer_whose_tale_makes_no_sense_is_a_clear_state_and_harms_no_other_trial() {
    every_fault_is_a_clear_state(&[
        ("start-again", &["started a second time"]),
        ("step-back", &["report of step 1, where 31"]),
        ("other-epoch", &["under epoch"]),
        ("other-folder", &["outside its folder", "/etc/passwd"]),
    ]);
}

#[test]
fn a_trainer_that_chatters_on_stderr_is_not_held_up_by_it() {
    let expected = calm();
    let cluster = Cluster::start(2, Trainer::Stub, &[("SPOTSWEEP_STUB_FAULT", "1:chatter@37,5:chatter@2")]);
    let sweep = cluster.submit(SWEEP);
    assert_eq!(&Outcome::wait(&cluster, &sweep), expected);
}

#[test]
fn a_checkpoint_that_is_written_beside_training_may_be_told_of_behind_later_reports() {
    // Between two reports, so that the next one overtakes it.
    let sweep_file = SWEEP.replace("every_steps: 20", "every_steps: 13");
    let outcome = |environment: &[(&str, &str)]| {
        let cluster = Cluster::start(2, Trainer::Stub, environment);
        let sweep = cluster.submit(&sweep_file);
        let outcome = Outcome::wait(&cluster, &sweep);
        let rows = json_lines(&cluster.ask(&["results", &sweep, "--format", "json"]));
        assert!(rows.iter().all(|row| row["attempts"] == 1), "{rows:?}");
        outcome
    };
    assert_eq!(outcome(&[("SPOTSWEEP_STUB_LATE", "1")]), outcome(&[]));
}

#[test]
fn a_trainer_that_the_system_tells_to_go_is_interrupted_and_not_failed() {
    let expected = calm();
    let cluster = Cluster::start(1, Trainer::Stub, &[("SPOTSWEEP_STUB_STEP_US", "4000")]);
    let sweep = cluster.submit(SWEEP);
    let points = |number: u32| cluster.ask(&["metrics", &format!("{sweep}/{number}"), "--format", "json"]);
    wait::until("a trial reports", || (!points(0).is_empty()).then_some(()));
    assert!(cluster.signal_trainer(0, Signal::SIGTERM));
    assert_eq!(&Outcome::wait(&cluster, &sweep), expected);
    let rows = json_lines(&cluster.ask(&["results", &sweep, "--format", "json"]));
    let attempts: u64 = rows.iter().map(|row| row["attempts"].as_u64().unwrap()).sum();
    assert_eq!(attempts, 11, "one was tried again");
    assert!(rows.iter().all(|row| row["failures"] == 0), "{rows:?}");
}
