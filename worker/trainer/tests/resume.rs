//! Promise 2, for one trainer: a trial that was interrupted ends with the same bits as one that was not.

#![allow(clippy::unwrap_used, reason = "a test: what is not there is a failure")]

mod common;

use common::{checkpoints, curve, failure, finish, interrupted, job, last, run};
use serde_json::{Value, json};
use spotsweep_proto::{
    line::{FailureKind, Job},
    spec::Every,
};
use spotsweep_trainer::job::Command;
use std::fs;

/// Steps of a trial: more than one pass over the data would take too long, so passes are made short by a large
/// validation part and a batch size that does not divide the rest.
const STEPS: u64 = 17;

/// Every model, and among them every optimizer, schedule, dropout, batch norm, clipping, precision.
fn recipes() -> Vec<Value> {
    let cnn = |more: Value| {
        let mut base =
            json!({"model": "cnn", "channels": [4, 6], "dense": 16, "batch_size": 90, "dropout": 0.3});
        base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        base
    };
    vec![
        json!({"model": "logistic", "optimizer": "sgd", "momentum": 0.0, "positive_class": 3,
               "validation_fraction": 0.0}),
        json!({"model": "softmax", "optimizer": "adam", "batch_size": 128, "validation_fraction": 0.5}),
        json!({"model": "softmax", "optimizer": "sgd", "momentum": 0.9, "nesterov": true, "weight_decay": 0.01}),
        json!({"model": "mlp", "hidden": [32, 16], "dropout": 0.5, "optimizer": "adamw", "schedule": "cosine",
               "warmup_steps": 5, "clip_norm": 0.5, "batch_size": 128, "validation_fraction": 0.5}),
        json!({"model": "mlp", "hidden": [24], "dropout": 0.2, "optimizer": "sgd", "precision": "bf16",
               "init": "xavier", "activation": "tanh"}),
        json!({"model": "fixed_cnn", "hidden": [16], "dropout": 0.1, "optimizer": "adam"}),
        json!({"model": "fixed_cnn", "hidden": [], "optimizer": "sgd", "precision": "bf16"}),
        cnn(json!({"optimizer": "sgd", "momentum": 0.9, "schedule": "step", "step_every_epochs": 1})),
        cnn(json!({"optimizer": "adam", "batch_norm": true, "activation": "gelu"})),
        cnn(json!({"optimizer": "adamw", "batch_norm": true, "precision": "bf16", "clip_norm": 1.0})),
        cnn(json!({"optimizer": "adam", "precision": "bf16", "report_every_steps": 0})),
        cnn(json!({"optimizer": "adam", "threads": 2})),
    ]
}

#[test]
fn interrupted_equals_uninterrupted_for_every_model_and_optimizer() {
    for (i, recipe) in recipes().iter().enumerate() {
        let (alone, moved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let whole = run(&job(recipe, STEPS, alone.path()), []);
        // Stops in the midst of a report's interval and at its end; others for every recipe.
        let stops = [1 + i as u64 % 3, 6, 7 + i as u64 % 4, 14];
        let parts = interrupted(&job(recipe, STEPS, moved.path()), stops);

        assert_eq!(curve(&whole), curve(&parts), "{recipe}");
        assert_eq!(finish(&whole), finish(&parts), "{recipe}");
        assert!(last(&whole, STEPS) == last(&parts, STEPS), "{recipe}: checkpoint files differ");
    }
}

#[test]
fn equal_recipes_give_equal_bits_and_other_seeds_others() {
    let recipe = json!({"model": "mlp", "hidden": [16], "dropout": 0.5});
    let folder = tempfile::tempdir().unwrap();
    let job = job(&recipe, 9, folder.path());
    let mut other = job.clone();
    other.train["seed"] = json!(12);
    let digest = |job: &Job| finish(&run(job, [])).weights_digest;
    assert_eq!(digest(&job), digest(&job));
    assert_ne!(digest(&job), digest(&other));
}

#[test]
fn the_moment_of_a_checkpoint_never_changes_the_result() {
    let recipe = json!({"model": "cnn", "channels": [4, 6], "dense": 16, "dropout": 0.3, "batch_norm": true});
    let folder = tempfile::tempdir().unwrap();
    let mut outcomes = Vec::new();
    for every in [Every::Steps(1), Every::Steps(5), Every::Seconds(0.0), Every::Seconds(1e9)] {
        let scratch = folder.path().join(format!("{every:?}"));
        fs::create_dir(&scratch).unwrap();
        let mut job = job(&recipe, 12, &scratch);
        job.checkpoint.every = every;
        let lines = run(&job, [(4, Command::Checkpoint), (5, Command::Checkpoint)]);
        let mut names: Vec<_> = checkpoints(&lines).into_iter().map(|(files, _)| files.state).collect();
        assert!(names.iter().all(|name| name.exists()));
        names.dedup();
        assert_eq!(names.len(), checkpoints(&lines).len(), "no file name comes twice");
        outcomes.push((curve(&lines), finish(&lines)));
    }
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn a_trial_killed_behind_its_last_checkpoint_finishes_at_once() {
    let recipe = json!({"model": "softmax"});
    let folder = tempfile::tempdir().unwrap();
    let mut job = job(&recipe, 6, folder.path());
    let whole = run(&job, []);
    job.resume = Some(checkpoints(&whole).pop().unwrap().0);
    let scratch = folder.path().join("again");
    fs::create_dir(&scratch).unwrap();
    job.scratch_dir = scratch;
    let again = run(&job, []);
    assert_eq!(curve(&again), []);
    assert_eq!(finish(&again), finish(&whole));
}

#[test]
fn a_checkpoint_of_another_trial_or_recipe_or_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(&json!({"model": "mlp", "hidden": [8]}), 9, folder.path());
    let stopped = run(&job, [(4, Command::Stop { checkpoint: true })]);
    let files = checkpoints(&stopped).pop().unwrap().0;
    let resumed = Job { resume: Some(files.clone()), ..job };

    let mut other_trial = resumed.clone();
    other_trial.trial = "test/8".parse().unwrap();
    let mut other_recipe = resumed.clone();
    other_recipe.params.insert("learning_rate".into(), json!(0.123));
    let mut other_shape = resumed.clone();
    other_shape.params.insert("hidden".into(), json!([9]));
    let mut other_step = resumed.clone();
    other_step.resume.as_mut().unwrap().step = 3;
    let mut missing = resumed.clone();
    missing.resume.as_mut().unwrap().state = folder.path().join("nothing");
    let mut swapped = resumed.clone();
    swapped.resume.as_mut().unwrap().state.clone_from(&files.weights);
    for (wrong, part) in [
        (other_trial, "belongs to test/7, not to test/8"),
        (other_recipe, "was trained by the recipe"),
        (other_shape, "was trained by the recipe"),
        (other_step, "is of step 4, not 3"),
        (missing, "No such file"),
        (swapped, "is no state file"),
    ] {
        let (_, reason, message) = failure(&run(&wrong, []));
        assert_eq!(reason, FailureKind::Checkpoint, "{message}");
        assert!(message.contains(part), "{message}");
    }

    for path in [&files.weights, &files.state] {
        let good = fs::read(path).unwrap();
        let header_cut = &good[..6];
        let data_cut = &good[..good.len() - 5];
        let mut huge_header = good.clone();
        huge_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        let longer = [good.clone(), vec![0; 4 << 20]].concat();
        for bad in [&[][..], header_cut, data_cut, &huge_header, &longer] {
            fs::write(path, bad).unwrap();
            let (_, reason, message) = failure(&run(&resumed, []));
            assert_eq!(reason, FailureKind::Checkpoint, "{message}");
        }
        fs::write(path, good).unwrap();
    }
    assert_eq!(finish(&run(&resumed, [])).step, 9);
}
