//! Modules that TorchScript has exported: they train like the built-in models, with the same promises, and what is no such
//! module is told in its own words. The files lie in `modules`, beside the script that has made them.

#![allow(clippy::unwrap_used, reason = "a test: what is not there is a failure")]

mod common;

use common::{checkpoints, curve, failure, finish, interrupted, last, run};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use spotsweep_proto::{
    digest::Digest,
    ids::DeviceName,
    line::{FailureKind, Job},
    module::ModuleRef,
    spec::Every,
    train::Init,
};
use spotsweep_trainer::{
    device,
    error::TrainError,
    models::{Model, Pass, Shape, torchscript::TorchScript},
    params::Params,
};
use spotsweep_trainer_shim::make_repeatable;
use std::{
    env, fs,
    path::{Path, PathBuf},
};
use tch::{Device, Kind, Reduction, Tensor};

/// Steps of a trial.
const STEPS: u64 = 13;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/modules").join(name)
}

fn pinned(path: &Path) -> ModuleRef {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.parse::<ModuleRef>().unwrap().pinned(Digest::of(&fs::read(path).unwrap()))
}

/// A job whose model is the module at `path`.
fn job_at(path: &Path, params: &Value, steps: u64, scratch: &Path) -> Job {
    let mut job = common::job(params, steps, scratch);
    job.train["model"] = json!(pinned(path));
    job.module = Some(path.to_owned());
    job
}

fn job(module: &str, params: &Value, steps: u64, scratch: &Path) -> Job {
    job_at(&fixture(module), params, steps, scratch)
}

/// Trains modules on `device` with and without a stop at every step.
fn interrupted_equals_uninterrupted_on(device: &str) {
    let adamw = json!({"optimizer": "adamw", "schedule": "cosine", "warmup_steps": 4, "clip_norm": 0.5,
                       "batch_size": 128, "validation_fraction": 0.5});
    for (module, recipe) in [
        ("mlp.pt", adamw),
        ("mlp.pt", json!({"optimizer": "sgd", "momentum": 0.9, "threads": 2})),
        ("cnn.pt", json!({"optimizer": "sgd", "momentum": 0.9, "nesterov": true, "batch_size": 90})),
        ("cnn.pt", json!({"optimizer": "adam", "validation_fraction": 0.0})),
        ("noisy.pt", json!({"optimizer": "adam"})),
    ] {
        let job = |scratch: &Path| {
            let device = DeviceName::new(device).unwrap();
            Job { device, ..job(module, &recipe, STEPS, scratch) }
        };
        let (alone, moved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let whole = run(&job(alone.path()), []);
        let parts = interrupted(&job(moved.path()), 1..STEPS);
        assert_eq!(curve(&whole), curve(&parts), "{module} {recipe}");
        assert_eq!(finish(&whole), finish(&parts), "{module} {recipe}");
        assert!(last(&whole, STEPS) == last(&parts, STEPS), "{module} {recipe}: checkpoint files differ");
    }
}

#[test]
fn interrupted_at_every_step_equals_uninterrupted_in_parameters_buffers_moments_and_curves() {
    interrupted_equals_uninterrupted_on("cpu");
}

#[test]
#[ignore = "names its device: python3 deploy/libtorch/gpu.py"]
fn interrupted_at_every_step_equals_uninterrupted_on_the_device() {
    let device =
        env::var("SPOTSWEEP_TEST_DEVICE").unwrap_or_else(|_| panic!("SPOTSWEEP_TEST_DEVICE names no device"));
    // As a trainer does before its first job.
    assert!(device::find().iter().any(|found| found.name.as_str() == device), "there is no {device}");
    make_repeatable().unwrap();
    interrupted_equals_uninterrupted_on(&device);
}

#[test]
fn the_moment_of_a_checkpoint_never_changes_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = |every: u64| {
        let scratch = folder.path().join(every.to_string());
        fs::create_dir(&scratch).unwrap();
        let mut job = job("cnn.pt", &json!({"optimizer": "adam"}), STEPS, &scratch);
        job.checkpoint.every = Every::Steps(every);
        let lines = run(&job, []);
        (curve(&lines), finish(&lines))
    };
    assert_eq!(outcome(1), outcome(1000));
}

#[test]
fn equal_recipes_give_equal_bits_and_dropout_follows_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    // One pass over all data: the seed is left with nothing but order and dropout.
    let job = job("mlp.pt", &json!({}), 5, folder.path());
    let mut other = job.clone();
    other.train["seed"] = json!(12);
    let digest = |job: &Job| finish(&run(job, [])).weights_digest;
    assert_eq!(digest(&job), digest(&job));
    assert_ne!(digest(&job), digest(&other));
}

#[test]
fn weights_are_kept_under_the_modules_own_names_with_buffers_frozen_and_repeated_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = |module: &str, steps: u64| {
        let scratch = folder.path().join(format!("{module}-{steps}"));
        fs::create_dir(&scratch).unwrap();
        let lines = run(&job(module, &json!({}), steps, &scratch), []);
        fs::read(checkpoints(&lines).pop().unwrap().0.weights).unwrap()
    };
    let (before, after) = (tensors("mlp.pt", 1), tensors("mlp.pt", 5));
    let (before, after) =
        (SafeTensors::deserialize(&before).unwrap(), SafeTensors::deserialize(&after).unwrap());
    let mut names = after.names();
    names.sort_unstable();
    let all = ["again.b", "fc.a_b", "fc_a.b", "fixed.bias", "fixed.weight", "out.bias", "out.weight"];
    assert_eq!(names, all);
    let data = |of: &SafeTensors<'_>, name: &str| of.tensor(name).unwrap().data().to_vec();
    for name in ["fc.a_b", "fc_a.b", "out.bias", "out.weight"] {
        assert_ne!(data(&before, name), data(&after, name), "{name} is trained");
    }
    for name in ["fixed.weight", "fixed.bias"] {
        assert_eq!(data(&before, name), data(&after, name), "{name} is frozen");
    }
    assert_eq!(data(&after, "again.b"), data(&after, "fc_a.b"), "one parameter under two names");

    let weights = tensors("cnn.pt", 5);
    let weights = SafeTensors::deserialize(&weights).unwrap();
    let counted = weights.tensor("conv.1.num_batches_tracked").unwrap();
    assert_eq!(
        (counted.dtype(), counted.data()),
        (Dtype::I64, &5_i64.to_le_bytes()[..]),
        "trying it left no trace"
    );
    let mean = weights.tensor("conv.1.running_mean").unwrap();
    assert!(mean.data().iter().any(|byte| *byte != 0));
}

#[test]
fn a_module_learns() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = json!({"optimizer": "adam", "learning_rate": 0.01, "report_every_steps": 0});
    let lines = run(&job("cnn.pt", &recipe, 150, folder.path()), []);
    let accuracy = finish(&lines).metrics["test_accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.8, "{accuracy}");
}

#[test]
fn the_modules_of_the_example_train() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["small.pt", "wide.pt"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/own-module").join(name);
        let scratch = folder.path().join(name);
        fs::create_dir(&scratch).unwrap();
        let recipe = json!({"optimizer": "adam", "learning_rate": 0.01});
        assert_eq!(finish(&run(&job_at(&path, &recipe, 3, &scratch), [])).step, 3);
    }
}

#[test]
fn a_module_without_buffers_is_trained_in_shards_and_one_with_buffers_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sharded = |module: &str, name: &str| {
        let scratch = folder.path().join(name);
        fs::create_dir(&scratch).unwrap();
        let mut job = job(module, &json!({"optimizer": "adam"}), STEPS, &scratch);
        job.train["shards"] = json!(2);
        job
    };
    let whole = run(&sharded("noisy.pt", "whole"), []);
    let parts = interrupted(&sharded("noisy.pt", "parts"), [2, 7]);
    assert_eq!(curve(&whole), curve(&parts));
    assert_eq!(finish(&whole), finish(&parts));
    let (_, kind, message) = failure(&run(&sharded("cnn.pt", "refused"), []));
    assert_eq!(kind, FailureKind::Config);
    assert!(message.contains("cnn.pt: conv.1.num_batches_tracked is a buffer"), "{message}");
}

#[test]
fn each_broken_file_ends_in_its_own_words_and_is_final() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(fixture("mlp.pt")).unwrap();
    let made = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    for (path, words) in [
        (made("cut.pt", &whole[..whole.len() / 2]), "is no TorchScript module"),
        (made("text.pt", b"a model"), "is no TorchScript module"),
        (made("nothing.pt", b""), "is no TorchScript module"),
        (fixture("weights.pt"), "is no TorchScript module"),
        (fixture("traced.pt"), "is fixed in evaluation mode, as torch.jit.trace leaves it"),
        (fixture("traced_in_training.pt"), "in evaluation mode, as torch.jit.trace"),
        (fixture("forking.pt"), "forward starts work on threads of its own"),
        (fixture("frozen.pt"), "no parameter that requires a gradient"),
        (fixture("nothing_to_train.pt"), "no parameter that requires a gradient"),
        (fixture("seven_classes.pt"), "it makes Float [2, 7]; the data has 10 classes"),
        (fixture("integers.pt"), "it makes Int64 [2]"),
        (fixture("pair.pt"), "forward gives Tuple[Tensor, Tensor] and not one tensor"),
        (fixture("unfit.pt"), "mat1 and mat2 shapes cannot be multiplied (2x49 and 100x10)"),
        (fixture("double.pt"), "those that are trained must be float32"),
        (fixture("idle.pt"), "the parameter spare.bias has no part"),
        (fixture("counting.pt"), "forward assigns to calls"),
        (fixture("remembering.pt"), "forward changes seen"),
    ] {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (step, kind, message) = failure(&run(&job_at(&path, &json!({}), 5, folder.path()), []));
        assert_eq!((step, kind), (0, FailureKind::Config), "{name}: {message}");
        assert!(message.contains(words) && message.contains(&name), "{name}: {message}");
        assert!(message.len() < 400 && !message.contains("frame #"), "{name}: {message}");
    }
    let good = finish(&run(&job("mlp.pt", &json!({}), 5, folder.path()), []));
    assert_eq!(good.step, 5, "the trainer is well");
}

#[test]
fn a_file_that_is_missing_or_altered_on_this_machine_is_a_fault_of_data_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.pt");
    fs::copy(fixture("mlp.pt"), &path).unwrap();
    let job = job_at(&path, &json!({}), 5, folder.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (_, kind, message) = failure(&run(&job, []));
    assert!(message.contains("this is not the module net.pt that the sweep was handed in with"), "{message}");
    assert_eq!(kind, FailureKind::Data);
    fs::remove_file(&path).unwrap();
    let (_, kind, message) = failure(&run(&job, []));
    assert!(message.contains("net.pt cannot be read"), "{message}");
    assert_eq!(kind, FailureKind::Data);
    let (_, kind, message) = failure(&run(&Job { module: None, ..job }, []));
    assert!(kind == FailureKind::Config && message.contains("where net.pt lies"), "{message}");
}

#[test]
fn what_a_module_throws_in_a_step_is_told_in_its_last_line() {
    let folder = tempfile::tempdir().unwrap();
    let (_, kind, message) = failure(&run(&job("picky.pt", &json!({}), 5, folder.path()), []));
    assert_eq!(kind, FailureKind::Internal);
    assert!(message.contains("picky.pt: ") && message.contains("no batch of 32, please"), "{message}");
}

#[test]
fn one_logit_for_two_classes_is_a_binary_classifier() {
    let path = fixture("binary.pt");
    let load = |classes: i64| -> Result<TorchScript, TrainError> {
        let mut params = Params::new(Device::Cpu, Init::He, 1);
        let shape = Shape { channels: 1, height: 28, width: 28, classes };
        TorchScript::load(&pinned(&path), Some(&path), shape, &mut params)
    };
    let model = load(2).unwrap();
    let images = Tensor::ones([3, 784], (Kind::Float, Device::Cpu));
    let labels = Tensor::from_slice(&[0_i64, 1, 1]);
    let scores = model.scores(&images, Pass::Evaluate);
    assert_eq!(scores.size(), [3]);
    let score = scores.double_value(&[0]);
    let wanted = [-score, score, score].map(|x| (1.0 + (-x).exp()).ln()).iter().sum::<f64>();
    let loss = model.loss(&scores, &labels, Reduction::Sum).double_value(&[]);
    assert!((loss - wanted).abs() < 1e-5, "{loss} {wanted}");
    let correct = model.correct(&scores, &labels).int64_value(&[]);
    assert_eq!(correct, if score >= 0.0 { 2 } else { 1 });
    let refused = load(10).unwrap_err().to_string();
    assert!(refused.contains("Float [2, 1]"), "{refused}");
}
