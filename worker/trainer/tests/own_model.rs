//! A model and a data set of one's own keep the promises of the built-in ones: an interrupted trial ends with the same bits,
//! and what cannot be kept is refused in words.

#![allow(clippy::unwrap_used, reason = "a test: what is not there is a failure")]

mod common;

use common::{checkpoints, curve, failure, finish, job, run_with};
use serde_json::{Value, json};
use spotsweep_proto::{
    ids::Epoch,
    line::{FailureKind, FromTrainer, Job},
};
use spotsweep_trainer::{
    DataDescription, Hyperparameters, MadeData, MadeSamples, Model, ModelDescription, Params, Pass, Registry,
    Shape, TrainError,
    job::Command,
    tch::{Kind, Tensor},
};
use std::path::Path;

const STEPS: u64 = 17;

/// One layer, with all that a resume could lose: a weight that it draws itself, dropout, a running mean; and, if told to, draws
/// while it is evaluated.
struct Layer {
    weight: Tensor,
    mean: Tensor,
    drop: f64,
    noisy: bool,
}

impl Model for Layer {
    fn scores(&self, inputs: &Tensor, pass: Pass) -> Tensor {
        if pass.is_train() {
            let seen = inputs.mean_dim(0_i64, false, Kind::Float);
            let _ = spotsweep_trainer::tch::no_grad(|| self.mean.shallow_clone().lerp_(&seen, 0.25));
        }
        let x = (inputs - &self.mean).dropout(self.drop, pass.is_train() || self.noisy);
        x.linear(&self.weight, None::<&Tensor>)
    }
}

fn layer(
    knobs: &Hyperparameters<'_>,
    shape: Shape,
    params: &mut Params,
) -> Result<Box<dyn Model>, TrainError> {
    let drawn =
        Tensor::randn([shape.classes, shape.pixels()], (Kind::Float, spotsweep_trainer::tch::Device::Cpu));
    let weight = params.tensor("weight", &(drawn * 0.1), true);
    let mean = params.buffer("mean", shape.pixels(), 0.0);
    Ok(Box::new(Layer { weight, mean, drop: knobs.number("drop")?, noisy: knobs.boolean("noisy")? }))
}

/// A model that is described like [`layer`] and built by `build`.
fn registry_of(
    build: impl Fn(&Hyperparameters<'_>, Shape, &mut Params) -> Result<Box<dyn Model>, TrainError> + 'static,
    shift: f32,
) -> Registry {
    let model = ModelDescription::new("layer", "one layer")
        .number("drop", 0.0..=0.9, 0.3, "share dropped")
        .boolean("noisy", false, "draws in evaluation, too");
    let data = DataDescription::new("ramps", "rising and falling lines")
        .shape([1, 2, 4])
        .classes(2)
        .samples(400, 80);
    let ramps = move |samples: u32| {
        let (mut inputs, mut labels) = (Vec::new(), Vec::new());
        for sample in 0..samples {
            let slope = if sample % 2 == 0 { 1.0 } else { -1.0 };
            inputs.extend((0..8_u8).map(|x| slope * f32::from(x) + (sample % 7) as f32 + shift));
            labels.push((sample % 2) as u16);
        }
        MadeSamples { inputs, labels }
    };
    Registry::builtin()
        .model(model, build)
        .data_set(data, move || Ok(MadeData { train: ramps(400), test: ramps(80) }))
}

fn own_job(registry: &Registry, params: &Value, scratch: &Path) -> Job {
    let mut job = job(params, STEPS, scratch);
    job.train["model"] = json!("layer");
    job.train["data"] = json!("ramps");
    job.train["own"] = serde_json::to_value(registry.catalogue()).unwrap();
    job
}

#[test]
fn an_interrupted_trial_of_an_own_model_ends_with_the_same_bits() {
    let registry = registry_of(layer, 0.0);
    for (params, shards) in [
        (json!({"optimizer": "adam"}), 1),
        (json!({"drop": 0.5, "noisy": true, "momentum": 0.9}), 1),
        (json!({"noisy": true}), 4),
    ] {
        let (alone, moved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let with_shards = |mut job: Job| {
            job.train["shards"] = json!(shards);
            job
        };
        let whole = run_with(&registry, &with_shards(own_job(&registry, &params, alone.path())), []);
        let mut job = with_shards(own_job(&registry, &params, moved.path()));
        let mut parts = Vec::new();
        for (attempt, stop) in [2, 6, 7, 13].into_iter().enumerate() {
            job.scratch_dir = moved.path().join(attempt.to_string());
            std::fs::create_dir(&job.scratch_dir).unwrap();
            let lines = run_with(&registry, &job, [(stop, Command::Stop { checkpoint: true })]);
            assert_eq!(
                lines.last(),
                Some(&FromTrainer::Stopped { epoch: job.epoch, step: stop }),
                "{params}"
            );
            job.resume = Some(checkpoints(&lines).pop().unwrap().0);
            job.epoch = Epoch(job.epoch.0 + 1);
            parts.extend(lines);
        }
        job.scratch_dir = moved.path().join("last");
        std::fs::create_dir(&job.scratch_dir).unwrap();
        parts.extend(run_with(&registry, &job, []));
        assert_eq!(curve(&whole), curve(&parts), "{params}");
        assert_eq!(finish(&whole), finish(&parts), "{params}");
    }
}

#[test]
fn a_checkpoint_of_other_samples_is_not_gone_on_from() {
    let (registry, other) = (registry_of(layer, 0.0), registry_of(layer, 0.5));
    let scratch = tempfile::tempdir().unwrap();
    let mut job = own_job(&registry, &json!({}), scratch.path());
    let lines = run_with(&registry, &job, [(5, Command::Stop { checkpoint: true })]);
    job.resume = Some(checkpoints(&lines).pop().unwrap().0);
    let (_, kind, message) = failure(&run_with(&other, &job, []));
    assert_eq!(kind, FailureKind::Checkpoint, "{message}");
}

#[test]
fn what_a_model_must_not_do_fails_in_words_before_the_first_step() {
    type Build = fn(&Hyperparameters<'_>, Shape, &mut Params) -> Result<Box<dyn Model>, TrainError>;
    struct Scores(Vec<i64>, Tensor);
    impl Model for Scores {
        fn scores(&self, inputs: &Tensor, _: Pass) -> Tensor {
            let size: Vec<i64> = [&inputs.size()[..1], &self.0[..]].concat();
            Tensor::zeros(&size[..], (Kind::Float, inputs.device())) + &self.1
        }
    }
    let cases: [(Build, &str); 4] = [
        (
            |_, _, params| Ok(Box::new(Scores(vec![3], params.vector("x", 1, 0.0)))),
            "gives scores of shape [2, 3]",
        ),
        (
            |_, _, params| {
                let x = params.vector("x", 1, 0.0);
                let _twice = params.vector("x", 1, 0.0);
                Ok(Box::new(Scores(vec![2], x)))
            },
            "\"x\" of a parameter or buffer",
        ),
        (|_, _, params| Ok(Box::new(Scores(vec![2], params.buffer("x", 1, 0.0)))), "no parameter to train"),
        (
            |knobs, _, params| {
                let _missing = knobs.integer("depth")?;
                Ok(Box::new(Scores(vec![2], params.vector("x", 1, 0.0))))
            },
            "has no hyperparameter depth that is an integer",
        ),
    ];
    for (build, words) in cases {
        let registry = registry_of(build, 0.0);
        let scratch = tempfile::tempdir().unwrap();
        let lines = run_with(&registry, &own_job(&registry, &json!({}), scratch.path()), []);
        let (step, kind, message) = failure(&lines);
        assert_eq!((step, kind), (0, FailureKind::Config), "{message}");
        assert!(message.contains(words), "{message} does not say {words}");
    }
}

#[test]
fn a_sweep_that_was_checked_against_another_description_is_refused() {
    let registry = registry_of(layer, 0.0);
    let scratch = tempfile::tempdir().unwrap();
    let mut job = own_job(&registry, &json!({}), scratch.path());
    job.train["own"]["models"][0]["version"] = json!(2);
    let (_, kind, message) = failure(&run_with(&registry, &job, []));
    assert_eq!(kind, FailureKind::Config);
    assert!(message.contains("described otherwise than when the sweep was submitted"), "{message}");
    let (_, kind, message) = failure(&run_with(&Registry::builtin(), &job, []));
    assert_eq!(kind, FailureKind::Config);
    assert!(message.contains("this trainer has no model layer"), "{message}");
}
