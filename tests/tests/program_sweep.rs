//! Sweeps of programs through a real coordinator: each trial once, with the same results whatever is killed.

use spotsweep_tests::{Cluster, Outcome, Trainer, outcome::json_lines, wait};

/// Twelve trials of a script that counts in steps, saves each, and goes on from where it was.
const SWEEP: &str = r#"
name: counted
method: grid
metric: {name: loss, goal: minimize}
command:
  - sh
  - -c
  - |
    say() { echo "$1" > "$SPOTSWEEP_TO_AGENT"; }
    step=$(cat "$SPOTSWEEP_RESUME/step" 2>/dev/null || echo 0)
    while [ $step -lt 20 ] && [ ! -e "$SPOTSWEEP_STOP" ]; do
      step=$((step + 1)); sleep 0.01
      say '{"type":"report","step":'$step',"metrics":{"loss":0.'$step'}}'
      mkdir "$SPOTSWEEP_CHECKPOINTS/$step" && echo $step > "$SPOTSWEEP_CHECKPOINTS/$step/step"
      say '{"type":"checkpoint","step":'$step',"dir":"'$SPOTSWEEP_CHECKPOINTS/$step'"}'
    done
    [ $step -lt 20 ] || say '{"type":"done","step":20}'
parameters:
  x: {values: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}
checkpoint: {every_steps: 1, keep_last: 2}
"#;

fn none() -> Trainer {
    Trainer::Program("none".into())
}

#[test]
fn a_grid_of_programs_ends_the_same_whatever_is_killed() {
    let calm = Cluster::start(2, none(), &[]);
    let sweep = calm.submit(SWEEP);
    let expected = Outcome::wait(&calm, &sweep);
    assert_eq!(expected.trials.len(), 12);
    for trial in &expected.trials {
        assert_eq!((&*trial.state, trial.steps, trial.curve.len()), ("completed", 20, 20), "{trial:?}");
        assert!(trial.weights_digest.is_string(), "{trial:?}");
    }
    let mut cluster = Cluster::start(2, none(), &[]);
    let sweep = cluster.submit(SWEEP);
    let done = |cluster: &Cluster, sweep: &str| {
        Outcome::of(cluster, sweep).trials.iter().filter(|trial| trial.state == "completed").count()
    };
    for round in 1..=3 {
        wait::until("some are done", || (done(&cluster, &sweep) >= round * 2).then_some(()));
        if round == 2 {
            cluster.kill_coordinator();
            cluster.start_coordinator();
        } else {
            cluster.kill_agent(round % 2);
            cluster.start_agent(round % 2);
        }
    }
    assert_eq!(Outcome::wait(&cluster, &sweep), expected, "{}", cluster.logs());
}

/// Two trials of a script that reports one metric early and another at its last step, saves there, and is done; in one of
/// them it crashes before it can say so, and what goes on has nothing left to do.
const LATE: &str = r#"
name: late
method: grid
metric: {name: loss, goal: minimize}
command:
  - sh
  - -c
  - |
    say() { echo "$1" > "$SPOTSWEEP_TO_AGENT"; }
    [ -z "$SPOTSWEEP_RESUME" ] || exit 0
    say '{"type":"report","step":1,"metrics":{"early":0.1}}'
    say '{"type":"report","step":2,"metrics":{"loss":0.3}}'
    mkdir "$SPOTSWEEP_CHECKPOINTS/2" && echo 2 > "$SPOTSWEEP_CHECKPOINTS/2/step"
    say '{"type":"checkpoint","step":2,"dir":"'$SPOTSWEEP_CHECKPOINTS/2'"}'
    ! grep -q '"crash": *1' "$SPOTSWEEP_PARAMS"
parameters:
  crash: {values: [0, 1]}
checkpoint: {every_steps: 1, keep_last: 2}
"#;

#[test]
fn a_trial_that_is_lost_behind_its_last_step_has_the_result_that_it_would_have_had() {
    let cluster = Cluster::start(1, none(), &[]);
    let sweep = cluster.submit(LATE);
    let outcome = Outcome::wait(&cluster, &sweep);
    let [calm, lost] = &outcome.trials[..] else { panic!("{outcome:?}") };
    let rows = json_lines(&cluster.ask(&["results", &sweep, "--format", "json"]));
    let attempts = |number: u64| {
        rows.iter().find(|row| row["trial"] == format!("{sweep}/{number}")).map(|row| row["attempts"].clone())
    };
    assert_eq!((attempts(0), attempts(1)), (Some(1.into()), Some(2.into())), "{}", cluster.logs());
    for trial in [calm, lost] {
        assert_eq!((&*trial.state, trial.steps), ("completed", 2), "{trial:?}");
        assert_eq!(trial.metrics, serde_json::json!({"early": 0.1, "loss": 0.3}));
        assert!(trial.weights_digest.is_string());
    }
    assert_eq!((&calm.weights_digest, &calm.curve), (&lost.weights_digest, &lost.curve));
}
