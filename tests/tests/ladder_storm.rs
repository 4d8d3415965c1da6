//! Promises 1 and 2 with real training: every model of the ladder on Fashion-MNIST, killed, stopped and cut off
//! for a minute, from five seeds.

use spotsweep_tests::{Cluster, Outcome, Trainer, binaries, chaos::Storm};
use std::time::Duration;

/// Steps of each trial: enough that a storm finds it at work to its end.
const STEPS: u64 = 480;
/// Storms that it must come through.
const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];
/// How long each blows.
const STORM: Duration = Duration::from_secs(60);

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
train: {data: fashion-mnist, steps: 480, seed: 3}
checkpoint: {every_steps: 20, keep_last: 2}
retry: {max_failures: 1000, backoff_s: 0.05}
";

#[test]
fn the_ladder_under_kills_stops_and_partitions_of_everything_ends_with_the_same_bits_and_curves() {
    let trainer = Trainer::Program(binaries::libtorch_trainer());
    let calm = Cluster::start(3, trainer.clone(), &[]);
    let sweep = calm.submit(SWEEP);
    let expected = Outcome::wait(&calm, &sweep);
    assert_eq!(expected.trials.len(), 5);
    for trial in &expected.trials {
        assert_eq!((trial.state.as_str(), trial.steps), ("completed", STEPS), "{}", trial.number);
        assert!(trial.weights_digest.is_string() && !trial.curve.is_empty(), "{trial:?}");
    }
    drop(calm);

    for seed in SEEDS {
        let mut cluster = Cluster::start_apart(3, trainer.clone(), &[]);
        // A trainer needs a second to load libtorch and the data: oftener, and nothing would ever be done.
        let storm = Storm { seed, duration: STORM, every_ms: 500..1500, least: (20, 7) };
        let (damage, sweeps) = storm.rage(&mut cluster, SWEEP);
        for sweep in &sweeps {
            let outcome = Outcome::wait(&cluster, sweep);
            assert_eq!(outcome, expected, "seed {seed}, {sweep}, {damage:?}\n{}", cluster.logs());
        }
    }
}
