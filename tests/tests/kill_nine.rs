//! Promises 1 and 2 with real processes: nothing lost, nothing doubled, interrupted equals uninterrupted.

use spotsweep_tests::{Cluster, Outcome, Trainer, chaos};

const SWEEP: &str = "
name: storm
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.01, 0.03, 0.1]}
  momentum: {values: [0.0, 0.9]}
train: {model: softmax, data: fashion-mnist, steps: 400, seed: 3}
checkpoint: {every_steps: 20, keep_last: 2}
retry: {max_failures: 1000, backoff_s: 0.05}
";

/// A step of the toy trainer takes this long, so that disasters find it at work.
const STEP: (&str, &str) = ("SPOTSWEEP_STUB_STEP_US", "3000");

#[test]
fn a_sweep_under_kill_nine_of_everything_ends_with_the_same_bits_and_curves() {
    let calm = Cluster::start(3, Trainer::Stub, &[]);
    let sweep = calm.submit(SWEEP);
    let expected = Outcome::wait(&calm, &sweep);
    assert_eq!(expected.trials.len(), 6);
    for trial in &expected.trials {
        assert_eq!((trial.state.as_str(), trial.steps), ("completed", 400), "{}", trial.trial);
        assert!(!trial.curve.is_empty(), "{} has a curve", trial.trial);
    }
    drop(calm);

    for seed in [1, 2] {
        let mut storm = Cluster::start(3, Trainer::Stub, &[STEP]);
        let sweep = storm.submit(SWEEP);
        let damage = chaos::kill_at_random(&mut storm, &sweep, seed, 25, 100..600);
        let outcome = Outcome::wait(&storm, &sweep);
        assert!(damage.kills() >= 5, "seed {seed}: a real storm: {damage:?}");
        assert_eq!(outcome, expected, "seed {seed}, {damage:?}\n{}", storm.logs());
    }
}
