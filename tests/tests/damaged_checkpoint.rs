//! A checkpoint that is damaged in the object store is never resumed from: the one before is.

use spotsweep_proto::{checkpoint::object_path, digest::Digest};
use spotsweep_tests::{Cluster, Outcome, Trainer, outcome::json_lines, wait};

const SWEEP: &str = "
name: damaged
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.03]}
train: {model: softmax, data: fashion-mnist, steps: 400, seed: 3}
checkpoint: {every_steps: 20, keep_last: 3}
retry: {max_failures: 1, backoff_s: 300}
";

/// A step of the toy trainer takes this long, so that it is killed at work.
const STEP: (&str, &str) = ("SPOTSWEEP_STUB_STEP_US", "4000");

/// Steps of the checkpoints that are kept, ascending, and their manifests.
fn kept(cluster: &Cluster) -> Vec<(u64, Digest)> {
    let rows = json_lines(&cluster.ask(&["checkpoint", "ls", "damaged/0", "--format", "json"]));
    let mut kept: Vec<_> = rows
        .iter()
        .map(|row| {
            let manifest = row["manifest"].as_str().expect("manifest").parse().expect("a digest");
            (row["step"].as_u64().expect("step"), manifest)
        })
        .collect();
    kept.sort_by_key(|(step, _)| *step);
    kept
}

#[test]
fn a_damaged_checkpoint_is_passed_over_said_and_neither_a_failure_nor_waited_for() {
    let expected = Outcome::undisturbed(SWEEP);

    let mut cluster = Cluster::start(0, Trainer::Stub, &[]);
    let sweep = cluster.submit(SWEEP);
    let doomed = cluster.add_agent(&[], &[STEP]);
    wait::until("two checkpoints are kept", || (kept(&cluster).len() >= 2).then_some(()));
    cluster.kill_agent(doomed);
    wait::until("all that it reported is applied", || {
        cluster.ask(&["explain", "damaged/0"]).contains("connection broke").then_some(())
    });
    let kept = kept(&cluster);
    let &[.., (before, _), (newest, manifest)] = kept.as_slice() else { panic!("{kept:?}") };
    let object = cluster.dir().join("objects").join(object_path(&manifest));
    let mut content = std::fs::read(&object).expect("the manifest is stored");
    content[0] ^= 1;
    std::fs::write(&object, content).expect("the store is writable");

    cluster.start_agent(doomed);
    let outcome = Outcome::wait(&cluster, &sweep);
    assert_eq!(outcome, expected, "{}", cluster.logs());
    let explained = cluster.ask(&["explain", "damaged/0"]);
    let words = format!("the checkpoint of step {newest} cannot be read: going on from step {before}");
    assert!(explained.contains(&words), "{explained}\n{}", cluster.logs());
    assert!(explained.contains("is damaged"), "why it cannot be read: {explained}");
}
