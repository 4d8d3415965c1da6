//! Sweeps of modules that TorchScript has exported: the files travel with the sweep, train to the same bits whatever is killed,
//! and are never taken for what they are not.

use serde_json::Value;
use spotsweep_proto::{digest::Digest, program::Code};
use spotsweep_tests::{Cluster, Outcome, Trainer, binaries, outcome::json_lines, wait};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Steps of each trial: enough to be killed at work.
const STEPS: u64 = 400;

fn sweep(models: &str) -> String {
    format!(
        "
name: own
method: grid
metric: {{name: val_loss, goal: minimize}}
parameters:
  model: {{values: [{models}]}}
  learning_rate: {{values: [0.01, 0.03, 0.1]}}
  batch_size: {{value: 32}}
  report_every_steps: {{value: 20}}
train: {{data: synthetic, steps: {STEPS}, seed: 3}}
checkpoint: {{every_steps: 20, keep_last: 2}}
retry: {{max_failures: 1000, backoff_s: 0.05}}
"
    )
}

fn trainer() -> Trainer {
    Trainer::Program(binaries::libtorch_trainer())
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../worker/trainer/tests/modules").join(name)
}

/// A cluster with modules where sweep files are written.
fn cluster_with(agents: usize, modules: &[&str]) -> Cluster {
    let cluster = Cluster::start(agents, trainer(), &[]);
    fs::create_dir(cluster.path("nets")).expect("a temporary folder");
    for module in modules {
        let name = Path::new(module).file_name().expect("a file").to_str().expect("UTF-8");
        fs::copy(fixture(name), cluster.path(module)).expect("a temporary folder");
    }
    cluster
}

/// Where a module lies in the object store.
fn object_of(cluster: &Cluster, name: &str) -> PathBuf {
    let content = fs::read(fixture(name)).expect("a fixture");
    let code = Code { digest: Digest::of(&content), bytes: content.len() as u64 };
    cluster.dir().join("objects").join(code.path())
}

/// Waits until a trial is in the midst of its steps; false if the sweep ends before.
fn at_work(cluster: &Cluster, sweep: &str) -> bool {
    wait::until("a trial is at work", || {
        let rows = json_lines(&cluster.ask(&["results", sweep, "--format", "json"]));
        let is_at_work = |row: &Value| row["state"] == "running" && row["steps"].as_u64() > Some(0);
        if rows.iter().any(is_at_work) {
            return Some(true);
        }
        rows.iter().all(|row| row["state"] == "completed").then_some(false)
    })
}

#[test]
fn a_sweep_of_modules_ends_with_the_same_bits_and_curves_whatever_is_killed() {
    const MODULES: &[&str] = &["cnn.pt", "nets/mlp.pt"];
    let sweep = sweep("cnn.pt, nets/mlp.pt");
    let calm = cluster_with(2, MODULES);
    let expected = Outcome::wait(&calm, &calm.submit(&sweep));
    assert_eq!(expected.trials.len(), 6);
    for trial in &expected.trials {
        assert_eq!((trial.state.as_str(), trial.steps), ("completed", STEPS), "{trial:?}\n{}", calm.logs());
        assert!(trial.weights_digest.is_string() && !trial.curve.is_empty(), "{trial:?}");
    }
    // The weights are kept under the module's own names.
    let kept = calm.path("best.safetensors");
    calm.ask(&["checkpoint", "get", "own/0", "-o", kept.to_str().expect("UTF-8")]);
    let weights = fs::read(kept).expect("the weights");
    for name in ["conv.0.weight", "conv.1.running_mean", "conv.1.num_batches_tracked", "out.bias"] {
        assert!(weights.windows(name.len()).any(|window| window == name.as_bytes()), "{name}");
    }
    // What a person reads is called like the file.
    let shown = calm.ask(&["results", "own"]);
    assert!(shown.contains("nets/mlp.pt") && !shown.contains("blake3"), "{shown}");
    drop(calm);

    let mut cluster = cluster_with(2, MODULES);
    let sweep = cluster.submit(&sweep);
    for name in ["cnn.pt", "nets/mlp.pt"] {
        // The sweep has the modules that it was handed in with.
        fs::write(cluster.path(name), "another").expect("a temporary folder");
    }
    let mut strikes = 0;
    for round in 0..4 {
        if !at_work(&cluster, &sweep) {
            break;
        }
        strikes += 1;
        match round {
            0 => {
                cluster.kill_agent(0);
                cluster.start_agent(0);
            }
            1 => {
                cluster.kill_trainer(1);
            }
            2 => {
                cluster.kill_coordinator();
                cluster.start_coordinator();
            }
            _ => {
                cluster.kill_agent(1);
                cluster.start_agent(1);
            }
        }
    }
    assert!(strikes > 0, "an agent was killed at work");
    assert_eq!(Outcome::wait(&cluster, &sweep), expected, "{}", cluster.logs());
}

#[test]
fn a_module_that_is_altered_in_the_store_is_refused_in_words_and_trained_once_it_is_whole_again() {
    let mut cluster = cluster_with(0, &["mlp.pt"]);
    let sweep = cluster.submit(&sweep("mlp.pt"));
    let object = object_of(&cluster, "mlp.pt");
    let whole = fs::read(&object).expect("the module is stored");
    let mut altered = whole.clone();
    altered[100] ^= 1;
    fs::write(&object, altered).expect("the store is writable");
    cluster.add_agent(&[], &[]);
    let said = |words: &str| cluster.ask(&["explain", "own/0"]).contains(words).then_some(());
    wait::until("the attempt says why it failed", || said("the module mlp.pt cannot be fetched"));
    fs::remove_file(&object).expect("the store is writable");
    wait::until("the attempt says that it is gone", || said("not found"));
    fs::write(&object, whole).expect("the store is writable");
    let outcome = Outcome::wait(&cluster, &sweep);
    assert!(outcome.trials.iter().all(|trial| trial.state == "completed"), "{outcome:?}\n{}", cluster.logs());
}

#[test]
fn a_module_that_does_not_fit_fails_its_trials_alone_and_what_is_no_module_is_not_taken_in() {
    let cluster = cluster_with(1, &["mlp.pt", "seven_classes.pt", "weights.pt"]);
    let refused = |models: &str| {
        let path = cluster.path("refused.yaml");
        fs::write(&path, sweep(models)).expect("a temporary folder");
        let output =
            cluster.command(&["submit", path.to_str().expect("UTF-8")]).output().expect("spotsweep runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused("weights.pt").contains("and no TorchScript module"));
    assert!(refused("missing.pt").contains("missing.pt"));
    assert!(json_lines(&cluster.ask(&["ls", "--format", "json"])).is_empty());

    let checked = cluster.path("checked.yaml");
    fs::write(&checked, sweep("seven_classes.pt, mlp.pt")).expect("a temporary folder");
    let checked = cluster.ask(&["check", checked.to_str().expect("UTF-8")]);
    let digest = Digest::of(&fs::read(fixture("mlp.pt")).expect("a fixture"));
    assert!(checked.contains("modules") && checked.contains(&digest.short()), "{checked}");

    let sweep = cluster.submit(&sweep("seven_classes.pt, mlp.pt"));
    let outcome = Outcome::wait(&cluster, &sweep);
    let states: Vec<&str> = outcome.trials.iter().map(|trial| trial.state.as_str()).collect();
    assert_eq!(states, ["failed", "failed", "failed", "completed", "completed", "completed"]);
    let explained = cluster.ask(&["explain", "own/0"]);
    assert!(explained.contains("the data has 10 classes"), "{explained}");
}
