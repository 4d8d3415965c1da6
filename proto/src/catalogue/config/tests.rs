//! Rules of the way from parameters to a recipe.

use super::*;
use crate::{catalogue::OwnCatalogue, ids::ParameterName};

fn train(model: Option<&str>) -> TrainSection {
    TrainSection {
        model: model.map(str::to_owned),
        data: Some(DataName::new("fashion-mnist").unwrap()),
        length: None,
        seed: 1,
        threads: 1,
        shards: 1,
        exact: true,
        own: OwnCatalogue::default(),
    }
}

fn params(pairs: &[(&str, ParamValue)]) -> Assignment {
    Assignment(pairs.iter().map(|(name, value)| (ParameterName::new(name).unwrap(), value.clone())).collect())
}

fn text(text: &str) -> ParamValue {
    ParamValue::Text(text.to_owned())
}

#[test]
fn every_model_optimizer_and_schedule_has_valid_defaults() {
    for model in ModelKind::names().map(|name| if name == "torchscript" { "net.pt" } else { name }) {
        for optimizer in super::super::hyperparameters::OPTIMIZERS {
            for schedule in super::super::hyperparameters::SCHEDULES {
                let assignment = params(&[
                    ("model", text(model)),
                    ("optimizer", text(optimizer)),
                    ("schedule", text(schedule)),
                ]);
                let config = resolve(&train(None), &assignment).unwrap();
                let json = serde_json::to_string(&config).unwrap();
                assert_eq!(serde_json::from_str::<TrainConfig>(&json).unwrap(), config);
            }
        }
    }
}

#[test]
fn a_parameter_overrides_the_same_key_of_train() {
    let mut section = train(Some("mlp"));
    section.length = Some(Length::Epochs(3));
    let assignment = params(&[
        ("model", text("cnn")),
        ("data", text("mnist")),
        ("steps", ParamValue::Int(7)),
        ("seed", ParamValue::Int(9)),
        ("threads", ParamValue::Int(2)),
    ]);
    let config = resolve(&section, &assignment).unwrap();
    assert!(matches!(config.model, ModelConfig::Cnn { channels: [32, 64], .. }));
    assert_eq!((config.data.as_str(), config.length), ("mnist", Length::Steps(7)));
    assert_eq!((config.seed, config.threads), (9, 2));
}

#[test]
fn a_key_of_another_model_is_refused_when_the_model_is_fixed_and_ignored_when_it_is_searched() {
    let channels = ("channels", ParamValue::List(vec![ParamValue::Int(8), ParamValue::Int(8)]));
    let error = resolve(&train(Some("mlp")), &params(std::slice::from_ref(&channels))).unwrap_err();
    assert_eq!(error.message, "mlp has no parameter channels; cnn has");
    resolve(&train(None), &params(&[("model", text("mlp")), channels])).unwrap();
}

#[test]
fn a_module_is_named_by_its_file_and_has_no_architecture_to_choose() {
    let config = resolve(&train(Some("nets/net.pt")), &params(&[("optimizer", text("adam"))])).unwrap();
    assert!(matches!(&config.model, ModelConfig::TorchScript { module } if module.file() == "nets/net.pt"));
    assert_eq!(config.model.kind().name(), "torchscript");
    let refused = |model: &str, name: &str, value: ParamValue| {
        let error = resolve(&train(Some(model)), &params(&[(name, value)])).unwrap_err();
        assert!(error.hint.is_some(), "{error}");
        error.message
    };
    let hidden = refused("net.pt", "hidden", ParamValue::Int(8));
    assert_eq!(
        hidden,
        "a TorchScript module has no parameter hidden: its architecture was fixed when it was exported"
    );
    assert!(refused("net.pt", "init", text("he")).ends_with("its initial weights are those in the file"));
    let precision = refused("net.pt", "precision", text("bf16"));
    assert!(precision.ends_with("it computes in the types in which it was exported"), "{precision}");
    // Where the model is searched, others of the sweep may have it.
    resolve(&train(None), &params(&[("model", text("net.pt")), ("hidden", ParamValue::Int(8))])).unwrap();

    for (model, words) in [
        ("torchscript", "named by its file"),
        ("net.pth", "there is no model"),
        ("net.pt@blake3:12", "64 hex digits"),
    ] {
        let error = resolve(&train(Some(model)), &Assignment::default()).unwrap_err();
        assert!(error.key == "model" && error.message.contains(words), "{model}: {error}");
    }
}

#[test]
fn an_unknown_key_names_the_nearest_valid_one() {
    let error =
        resolve(&train(Some("mlp")), &params(&[("learnin_rate", ParamValue::Float(0.1))])).unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean learning_rate?"));
}

#[test]
fn a_nested_name_stands_for_its_last_part() {
    let assignment =
        params(&[("optimizer.name", text("adam")), ("optimizer.learning_rate", ParamValue::Float(0.002))]);
    let config = resolve(&train(Some("mlp")), &assignment).unwrap();
    assert!(matches!(config.optimizer, OptimizerConfig::Adam { .. }));
    assert_eq!(config.learning_rate.to_bits(), 0.002_f64.to_bits());
    let twice = params(&[("a.seed", ParamValue::Int(1)), ("b.seed", ParamValue::Int(2))]);
    assert!(resolve(&train(Some("mlp")), &twice).is_err());
}

#[test]
fn an_integral_float_is_an_integer_and_one_width_is_a_list_of_one() {
    let assignment = params(&[("batch_size", ParamValue::Float(128.0)), ("hidden", ParamValue::Int(64))]);
    let config = resolve(&train(Some("mlp")), &assignment).unwrap();
    assert_eq!(config.batch_size, 128);
    assert!(matches!(config.model, ModelConfig::Mlp { hidden, .. } if hidden == [64]));
}

#[test]
fn values_out_of_range_or_of_the_wrong_type_are_refused() {
    for (model, key, value) in [
        ("mlp", "batch_size", ParamValue::Int(0)),
        ("mlp", "batch_size", ParamValue::Float(1.5)),
        ("mlp", "batch_size", ParamValue::Int(60_000)),
        ("mlp", "learning_rate", ParamValue::Float(0.0)),
        ("mlp", "learning_rate", text("0.1")),
        ("mlp", "momentum", ParamValue::Float(1.0)),
        ("mlp", "dropout", ParamValue::Int(1)),
        ("mlp", "hidden", ParamValue::List(vec![ParamValue::Int(8), ParamValue::Int(0)])),
        ("mlp", "hidden", ParamValue::List(vec![ParamValue::Int(8); 17])),
        ("cnn", "channels", ParamValue::Int(8)),
        ("cnn", "batch_norm", ParamValue::Int(1)),
        ("mlp", "optimizer", text("sdg")),
        ("logistic", "positive_class", ParamValue::Int(10)),
        ("mlp", "seed", ParamValue::Int(-1)),
        ("mlp", "clip_norm", ParamValue::Int(0)),
        ("mlp", "data", text("none")),
    ] {
        let outcome = resolve(&train(Some(model)), &params(&[(key, value.clone())]));
        assert_eq!(outcome.map_err(|error| error.key), Err(key.to_owned()), "{key}: {value}");
    }
}

#[test]
fn noop_needs_no_data_and_counts_a_step_an_epoch() {
    let section = TrainSection { data: None, length: Some(Length::Epochs(4)), ..train(Some("noop")) };
    let config = resolve(&section, &Assignment::default()).unwrap();
    assert_eq!((config.data.as_str(), config.length), (NO_DATA, Length::Steps(4)));
}

#[test]
fn a_recipe_without_model_or_data_is_refused_with_a_hint() {
    let error = resolve(&train(None), &Assignment::default()).unwrap_err();
    assert_eq!(error.key, "model");
    let error =
        resolve(&TrainSection { data: None, ..train(Some("mlp")) }, &Assignment::default()).unwrap_err();
    assert!(error.key == "data" && error.hint.is_some());
}
