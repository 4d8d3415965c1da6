//! Promise 2 with real training: softmax, mlp with dropout and cnn with dropout and batch norm, each trained by 1, 2, 3, 4
//! and 8 workers, and by workers that die, stall, come and leave in mid-epoch, end with the same bits.

use spotsweep_tests::{Cluster, Outcome, Trainer, binaries, chaos::Storm};
use std::time::Duration;

/// A rank that stalls is left behind after this many seconds.
const TIMEOUT: (&str, &str) = ("SPOTSWEEP_GANG_TIMEOUT_S", "3");

fn sweep(min: u32, max: u32, epochs: u32) -> String {
    format!(
        "
name: gang
method: grid
metric: {{name: val_loss, goal: minimize}}
parameters:
  model: {{values: [softmax, mlp, cnn]}}
  optimizer: {{value: adam}}
  learning_rate: {{value: 0.001}}
  batch_size: {{value: 64}}
  hidden: {{value: [64]}}
  channels: {{value: [4, 8]}}
  dense: {{value: 32}}
  dropout: {{value: 0.2}}
  batch_norm: {{value: true}}
  report_every_steps: {{value: 10}}
train: {{data: synthetic, epochs: {epochs}, seed: 7, shards: 8}}
resources: {{device: cpu, workers: {{min: {min}, max: {max}}}}}
checkpoint: {{every_steps: 40, keep_last: 2}}
retry: {{max_failures: 1000, backoff_s: 0.05}}
"
    )
}

/// Storms, at most, until gangs were disturbed often enough.
const MOST_STORMS: u64 = 6;

/// Passes over the data while a storm blows.
const EPOCHS: u32 = 15;

fn trained_by(workers: usize, epochs: u32) -> Outcome {
    let count = u32::try_from(workers).expect("few");
    let cluster = Cluster::start(workers, Trainer::Program(binaries::libtorch_trainer()), &[]);
    let name = cluster.submit(&sweep(count, count, epochs));
    let outcome = Outcome::wait(&cluster, &name);
    for trial in &outcome.trials {
        assert_eq!(trial.state, "completed", "{workers} workers: {}", cluster.logs());
    }
    outcome
}

#[test]
fn every_number_of_workers_gives_the_same_bits_and_curves() {
    let expected = trained_by(1, 1);
    for workers in [2, 3, 4, 8] {
        assert_eq!(trained_by(workers, 1), expected, "{workers} workers");
    }
}

#[test]
fn workers_that_die_stall_and_come_back_in_mid_epoch_change_no_bit() {
    let expected = trained_by(1, EPOCHS);
    let mut logs = String::new();
    for seed in 1.. {
        let mut cluster =
            Cluster::start_behind_proxies(3, Trainer::Program(binaries::libtorch_trainer()), &[TIMEOUT]);
        let duration = Duration::from_secs(20);
        let storm = Storm { seed, duration, every_ms: 400..1500, least: (8, 4) };
        let (damage, sweeps) = storm.rage(&mut cluster, &sweep(1, 3, EPOCHS));
        for name in &sweeps {
            let outcome = Outcome::wait(&cluster, name);
            assert_eq!(outcome, expected, "seed {seed}, {name}, {damage:?}\n{}", cluster.logs());
        }
        (0..3).for_each(|agent| logs += &cluster.agent_log(agent));
        let says = |text: &str| logs.lines().filter(|line| line.contains(text)).count();
        // What a storm meets depends on the machine.
        if seed >= 2 && says("broken=") > 0 && says("the gang has a new make-up") > 12 {
            return;
        }
        assert!(seed < MOST_STORMS, "gangs are hardly disturbed: {logs}");
    }
}
