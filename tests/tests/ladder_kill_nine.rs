//! Promises 1 and 2 with real training: every model of the ladder on Fashion-MNIST, killed and killed again.

use spotsweep_tests::{Cluster, Outcome, Trainer, binaries, chaos};

const SWEEP: &str = "
name: ladder
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  model: {values: [logistic, softmax, mlp, fixed_cnn, cnn]}
  optimizer: {value: adam}
  learning_rate: {value: 0.001}
  batch_size: {value: 32}
  report_every_steps: {value: 20}
  validation_fraction: {value: 0.02}
train: {data: fashion-mnist, steps: 240, seed: 3}
checkpoint: {every_steps: 20, keep_last: 2}
retry: {max_failures: 1000, backoff_s: 0.05}
";

#[test]
fn the_ladder_under_kill_nine_of_everything_ends_with_the_same_bits_and_curves() {
    let trainer = Trainer::Program(binaries::libtorch_trainer());
    let calm = Cluster::start(3, trainer.clone(), &[]);
    let sweep = calm.submit(SWEEP);
    let expected = Outcome::wait(&calm, &sweep);
    assert_eq!(expected.trials.len(), 5);
    for trial in &expected.trials {
        assert_eq!((trial.state.as_str(), trial.steps), ("completed", 240), "{}", trial.trial);
        assert!(trial.weights_digest.is_string() && !trial.curve.is_empty(), "{trial:?}");
    }
    drop(calm);

    let mut storm = Cluster::start(3, trainer, &[]);
    let sweep = storm.submit(SWEEP);
    // A trainer needs a second to load libtorch and the data: oftener, and nothing would ever be done.
    let damage = chaos::kill_at_random(&mut storm, &sweep, 1, 15, 700..2000);
    let outcome = Outcome::wait(&storm, &sweep);
    assert!(damage.kills() >= 4, "a real storm: {damage:?}");
    assert_eq!(outcome, expected, "{damage:?}\n{}", storm.logs());
}
