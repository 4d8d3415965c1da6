//! A trainer with a model and a data set of its own (`examples/custom-model`) keeps every promise: its sweeps are checked
//! against what it tells, trials that are killed or trained by several workers end with the same bits, and nobody else gets
//! them.

use spotsweep_tests::{Cluster, Outcome, Trainer, binaries, outcome::json_lines, wait};
use std::{fs, path::Path};

const MODEL: &str = "sine_net";

fn trainer() -> Trainer {
    Trainer::Program(binaries::custom_trainer())
}

fn sweep(workers: u32, epochs: u32) -> String {
    format!(
        "
name: spirals
method: grid
metric: {{name: val_accuracy, goal: maximize}}
parameters:
  frequency: {{values: [1, 3]}}
  widths: {{values: [[24, 24]]}}
  drop: {{value: 0.2}}
  optimizer: {{value: adam}}
  batch_size: {{value: 64}}
  report_every_steps: {{value: 7}}
train: {{model: {MODEL}, data: spirals, epochs: {epochs}, seed: 5, shards: 4}}
resources: {{device: cpu, workers: {{min: {workers}, max: {workers}}}}}
checkpoint: {{every_steps: 30, keep_last: 2}}
retry: {{max_failures: 1000, backoff_s: 0.05}}
"
    )
}

/// Waits until a worker has told what its trainer has.
fn is_known(cluster: &Cluster) {
    wait::until("a worker tells its models", || cluster.ask(&["models"]).contains(MODEL).then_some(()));
}

fn undisturbed(epochs: u32) -> Outcome {
    let cluster = Cluster::start(1, trainer(), &[]);
    is_known(&cluster);
    let name = cluster.submit(&sweep(1, epochs));
    let outcome = Outcome::wait(&cluster, &name);
    assert!(outcome.trials.iter().all(|trial| trial.state == "completed"), "{}", cluster.logs());
    outcome
}

#[test]
fn a_killed_agent_and_a_gang_of_two_end_with_the_bits_of_one_undisturbed_worker() {
    let epochs = 30;
    let expected = undisturbed(epochs);

    let mut cluster = Cluster::start(1, trainer(), &[]);
    is_known(&cluster);
    let name = cluster.submit(&sweep(1, epochs));
    wait::until("a trial has a checkpoint", || {
        (!cluster.ask(&["checkpoint", "ls", "spirals/0", "--format", "json"]).trim().is_empty()).then_some(())
    });
    cluster.kill_agent(0);
    cluster.start_agent(0);
    assert_eq!(Outcome::wait(&cluster, &name), expected, "killed once: {}", cluster.logs());

    let cluster = Cluster::start(2, trainer(), &[]);
    is_known(&cluster);
    let name = cluster.submit(&sweep(2, epochs));
    assert_eq!(Outcome::wait(&cluster, &name), expected, "a gang of two: {}", cluster.logs());
}

#[test]
fn a_sweep_of_a_model_that_no_worker_told_is_refused_and_one_that_was_taken_waits_for_such_a_worker() {
    let mut cluster = Cluster::start(1, Trainer::Stub, &[]);
    let file = cluster.path("spirals.yaml");
    fs::write(&file, sweep(1, 1)).expect("the folder is writable");
    let path = file.to_str().expect("UTF-8");
    let refused = cluster.command(&["submit", path]).output().expect("spotsweep runs");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{words}");
    assert!(words.contains("there is no model \"sine_net\""), "{words}");
    assert!(words.contains("once a worker with its trainer is connected"), "{words}");

    cluster.use_trainer(trainer());
    let able = cluster.add_agent(&[], &[]);
    is_known(&cluster);
    // Nothing takes it away but its own worker's end: then the worker that is left must not get its trials.
    cluster.kill_agent(able);
    let name = cluster.submit(&sweep(1, 1));
    wait::until("the trial's wait is explained", || {
        let text = cluster.ask(&["explain", &format!("{name}/0")]);
        text.contains("no connected worker's trainer knows the model sine_net").then_some(())
    });
    cluster.start_agent(able);
    let outcome = Outcome::wait(&cluster, &name);
    assert!(outcome.trials.iter().all(|trial| trial.state == "completed"), "{}", cluster.logs());
}

#[test]
fn the_example_is_checked_and_run_with_its_trainer_and_not_without() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/custom-model");
    let file = example.join("sweep.yaml");
    let file = file.to_str().expect("UTF-8");
    let trainer = binaries::custom_trainer();
    let trainer = trainer.to_str().expect("UTF-8");
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(binaries::spotsweep());
        command.args(arguments).current_dir(folder.path()).env("SPOTSWEEP_TRAINER", "");
        command.env_remove("SPOTSWEEP_COORDINATOR");
        let output = command.output().expect("spotsweep runs");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned(), words)
    };
    let (well, _, words) = run(&["check", file]);
    assert!(!well && words.contains("there is no model \"sine_net\""), "{words}");
    let (well, shown, words) = run(&["check", file, "--trainer", trainer]);
    assert!(well && shown.contains("6 trials"), "{shown}{words}");
    let (well, rows, words) = run(&["models", MODEL, "--trainer", trainer, "--format", "json"]);
    assert!(well, "{words}");
    let rows = json_lines(&rows);
    let frequency = rows.iter().find(|row| row["parameter"] == "frequency").expect("a row");
    assert_eq!(frequency["takes"], "a number in [0.1, 30]");
    let arguments = ["run", file, "--trainer", trainer, "--workers", "1", "--device", "cpu", "--http", "off"];
    let (well, table, words) = run(&arguments);
    assert!(well && table.contains("completed"), "{table}{words}");
}
