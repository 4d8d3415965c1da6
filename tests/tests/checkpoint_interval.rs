//! `checkpoint: {every: auto}` with real processes: the agent asks for checkpoints, and they serve a resume.

use spotsweep_tests::{Cluster, Outcome, Trainer, outcome::json_lines, wait};

const SWEEP: &str = "
name: auto
method: grid
metric: {name: val_loss, goal: minimize}
parameters:
  learning_rate: {values: [0.03]}
train: {model: softmax, data: fashion-mnist, steps: 2000, seed: 3}
checkpoint: {every: auto, min_s: 0.2, max_s: 3600}
";

/// A step of the toy trainer takes this long, so that it is killed at work.
const STEP: (&str, &str) = ("SPOTSWEEP_STUB_STEP_US", "4000");

#[test]
fn a_trial_that_leaves_the_interval_open_is_saved_long_before_the_longest_and_ends_with_the_same_bits() {
    let expected = Outcome::undisturbed(SWEEP);
    let mut cluster = Cluster::start(0, Trainer::Stub, &[]);
    let sweep = cluster.submit(SWEEP);
    let doomed = cluster.add_agent(&[], &[STEP]);
    wait::until("a checkpoint is kept", || {
        let kept = json_lines(&cluster.ask(&["checkpoint", "ls", "auto/0", "--format", "json"]));
        kept.first().map(|row| assert_eq!(row["final"], false, "before the end"))
    });
    cluster.kill_agent(doomed);
    cluster.start_agent(doomed);
    assert_eq!(Outcome::wait(&cluster, &sweep), expected, "{}", cluster.logs());
    let log = cluster.agent_log(doomed);
    assert!(log.lines().any(|line| line.contains("a job begins") && !line.contains("step=0")), "{log}");
}
