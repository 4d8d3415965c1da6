//! Rules of told catalogues: what is believed, and what a description means.

use super::*;
use crate::{
    catalogue::resolve,
    datasets::DataSets,
    spec::{Own, SweepSpec, parse_with},
    train::ModelConfig,
};
use proptest::prelude::*;
use serde_json::json;

fn spiral() -> serde_json::Value {
    json!({
        "models": [{
            "name": "spiral_mlp",
            "about": "dense layers for points in the plane",
            "parameters": [
                {"name": "width", "about": "neurons", "type": "integer", "min": 1, "max": 512, "default": 32},
                {"name": "scale", "type": "number", "min": 0.1, "max": 10, "default": 1},
                {"name": "skip", "type": "boolean", "default": false},
                {"name": "gate", "type": "choice", "choices": ["sine", "relu"], "default": "sine"},
                {"name": "hidden", "type": "integers", "max_len": 3, "max": 64, "default": [8]},
            ],
        }],
        "data": [{"name": "spirals", "shape": [1, 1, 2], "classes": 3, "train_samples": 300, "test_samples": 60}],
    })
}

fn read(json: &serde_json::Value) -> Result<OwnCatalogue, OwnError> {
    OwnCatalogue::read(json.to_string().as_bytes())
}

fn sweep(text: &str) -> Result<SweepSpec, String> {
    let told = read(&spiral()).unwrap();
    parse_with(text.as_bytes(), "a.yaml", &DataSets::stored(), Own::Told(&told))
        .map_err(|error| error.to_string())
}

#[test]
fn a_catalogue_is_read_back_as_it_was_told() {
    let catalogue = read(&spiral()).unwrap();
    assert_eq!(OwnCatalogue::read(&catalogue.to_json()).unwrap(), catalogue);
    assert!(OwnCatalogue::default().to_json().is_empty());
}

#[test]
fn a_sentence_may_be_mended_and_anything_else_is_another_meaning() {
    let told = read(&spiral()).unwrap();
    let changed = |pointer: &str, value: serde_json::Value| {
        let mut json = spiral();
        *json.pointer_mut(pointer).unwrap() = value;
        read(&json).unwrap().items() == told.items()
    };
    assert!(changed("/models/0/about", json!("another sentence")));
    assert!(changed("/models/0/parameters/0/about", json!("width of each layer")));
    assert!(!changed("/models/0/parameters/0/default", json!(33)));
    assert!(!changed("/models/0/parameters/0/max", json!(513)));
    assert!(!changed("/models/0/name", json!("spiral_net")));
    assert!(!changed("/data/0/test_samples", json!(61)));
}

#[test]
fn a_catalogue_that_is_hostile_or_takes_the_place_of_ours_is_refused_in_words() {
    let long = "x".repeat(ABOUT_BYTES + 1);
    let model = |name: String| json!({"name": name});
    let parameter = |with: serde_json::Value| {
        let mut json = json!({"name": "width", "type": "integer", "min": 1, "max": 9, "default": 5});
        json.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        json!({"models": [{"name": "m", "parameters": [json]}]})
    };
    let data = |with: serde_json::Value| {
        let mut json = spiral()["data"][0].clone();
        json.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        json!({"data": [json]})
    };
    for (json, words) in [
        (
            json!({"models": [model("mlp".into())]}),
            "the model mlp would take the place of one that Spotsweep has",
        ),
        (json!({"models": [model("own".into())]}), "the model own would take the place"),
        (json!({"models": [model("a".into()), model("a".into())]}), "two models called a"),
        (json!({"models": [model("a\u{1b}[31m".into())]}), "is not one of these"),
        (json!({"models": [model(String::new())]}), "must not be empty"),
        (json!({"models": [model("net.pt".into())]}), "'.' is not one of these"),
        (json!({"models": (0..33).map(|n| model(format!("m{n}"))).collect::<Vec<_>>()}), "at most 32 models"),
        (json!({"models": [{"name": "m", "about": long}]}), "has 257 bytes; at most 256"),
        (json!({"models": [{"name": "m", "about": "a\nb"}]}), "the control character '\\n'"),
        (parameter(json!({"name": "learning_rate"})), "learning_rate would take the place"),
        (parameter(json!({"name": "a.b"})), "has no '.'"),
        (parameter(json!({"name": "name"})), "is not `name`"),
        (parameter(json!({"min": 10})), "there is no integer in [10, 9]"),
        (parameter(json!({"default": 10})), "width is an integer in [1, 9], not 10"),
        (parameter(json!({"type": "fly"})), "unknown variant `fly`"),
        (parameter(json!({"type": "choice", "choices": []})), "nothing to choose from"),
        (
            parameter(json!({"type": "choice", "choices": ["a", "a"], "default": "a"})),
            "two choices of width of m called a",
        ),
        (parameter(json!({"type": "choice", "choices": ["a\u{7}"], "default": "a"})), "is not one of these"),
        (
            parameter(json!({"type": "integers", "max_len": 65, "max": 9, "default": []})),
            "at most 64 integers",
        ),
        (data(json!({"name": "mnist"})), "the data set mnist would take the place"),
        (data(json!({"name": "none"})), "would take the place"),
        (data(json!({"name": "a@b"})), "has no '@'"),
        (data(json!({"classes": 0})), "all above 0"),
        (data(json!({"shape": [65536, 65536, 1]})), "below 2^32"),
        (json!([1]), "cannot be read"),
        (json!({"models": [{"name": "m", "parameters": [{}]}]}), "cannot be read"),
    ] {
        let error = read(&json).unwrap_err().to_string();
        assert!(error.contains(words), "{error} does not say {words}");
        assert!(!error.chars().any(|c| c.is_control()), "{error:?}");
    }
    let huge = vec![b' '; CATALOGUE_BYTES + 1];
    assert_eq!(OwnCatalogue::read(&huge), Err(OwnError::TooLarge { bytes: CATALOGUE_BYTES + 1 }));
}

#[test]
fn a_sweep_of_an_own_model_is_checked_and_pins_what_it_means() {
    let spec = sweep(
        "parameters: {width: {values: [8, 16]}, scale: {min: 0.5, max: 2, distribution: q_uniform, q: 0.5}, learning_rate: {value: 0.1}}
train: {model: spiral_mlp, data: spirals, epochs: 2}
method: grid",
    )
    .unwrap();
    assert_eq!(spec.train.own, read(&spiral()).unwrap());
    let config = resolve(&spec.train, &spec.assignment(0)).unwrap();
    let ModelConfig::Own { name, knobs, .. } = &config.model else { panic!("{config:?}") };
    assert_eq!((name.as_str(), knobs.get("width")), ("spiral_mlp", Some(&ParamValue::Int(8))));
    // A number is a number, however it is written; defaults are filled in.
    assert_eq!(knobs.get("scale"), Some(&ParamValue::Float(0.5)));
    assert_eq!(knobs.get("hidden"), Some(&ParamValue::List(vec![ParamValue::Int(8)])));
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<crate::train::TrainConfig>(&json).unwrap(), config);
    // And the sweep is read back from the journal's form.
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<SweepSpec>(&json).unwrap(), spec);
}

#[test]
fn models_of_both_kinds_share_a_sweep_and_a_name_means_what_each_says() {
    let spec = sweep(
        "parameters: {model: {values: [mlp, spiral_mlp]}, hidden: {value: [16, 16]}, width: {value: 4}}
train: {data: spirals, epochs: 2}
method: grid",
    )
    .unwrap();
    let model = |number| resolve(&spec.train, &spec.assignment(number)).unwrap().model;
    assert!(matches!(model(0), ModelConfig::Mlp { hidden, .. } if hidden == [16, 16]));
    assert!(
        matches!(model(1), ModelConfig::Own { knobs, .. } if knobs.get("width") == Some(&ParamValue::Int(4)))
    );
    let summary = spec.summary();
    assert_eq!(summary.models.keys().collect::<Vec<_>>(), ["mlp", "spiral_mlp"]);
    assert_eq!(summary.parameters[2].models, ["spiral_mlp"]);
    // 100 is a width for one of the two.
    let wrong = sweep(
        "parameters: {model: {values: [mlp, spiral_mlp]}, hidden: {value: [100]}}\ntrain: {data: spirals}\nmethod: grid",
    );
    assert!(wrong.unwrap_err().contains("hidden is an integer in [1, 64] or a list of at most 3"));
}

#[test]
fn what_no_trainer_has_told_is_refused_with_what_may_be_meant() {
    for (text, words) in [
        ("train: {model: spiral_mpl, data: spirals}", "there is no model \"spiral_mpl\""),
        ("train: {model: spiral_mpl, data: spirals}", "did you mean spiral_mlp?"),
        ("train: {model: transformer, data: spirals}", "once a worker with its trainer is connected"),
        (
            "parameters: {model: {values: [spiral_mlp, unet]}}\ntrain: {data: spirals}",
            "there is no model \"unet\"",
        ),
        ("train: {model: spiral_mlp, data: spirls}", "there is no data set"),
        (
            "parameters: {width: {value: 0}}\ntrain: {model: spiral_mlp, data: spirals}",
            "width is an integer in [1, 512], not 0",
        ),
        (
            "parameters: {gate: {value: sin}}\ntrain: {model: spiral_mlp, data: spirals}",
            "gate is sine or relu, not \"sin\"",
        ),
        ("parameters: {widht: {value: 3}}\ntrain: {model: spiral_mlp, data: spirals}", "did you mean width?"),
        (
            "parameters: {gate: {min: 0.1, max: 0.2}}\nrun_cap: 3\nmethod: random\ntrain: {model: spiral_mlp, data: spirals}",
            "list its values",
        ),
        (
            "parameters: {precision: {value: bf16}}\ntrain: {model: spiral_mlp, data: spirals}",
            "spiral_mlp has no parameter precision",
        ),
        (
            "parameters: {batch_size: {value: 400}}\ntrain: {model: spiral_mlp, data: spirals}",
            "more than the 270 training samples",
        ),
        ("parameters: {width: {value: 3}}\ntrain: {model: mlp, data: spirals}", "mlp has no parameter width"),
    ] {
        let text = if text.contains("method") { text.to_owned() } else { format!("{text}\nmethod: grid") };
        let error = sweep(&text).unwrap_err();
        assert!(error.contains(words), "{text}\n{error}\ndoes not say {words}");
    }
}

#[test]
fn a_sweep_that_others_will_check_is_let_through_with_a_model_that_nobody_knows() {
    let text = b"train: {model: unet, data: spirals}\nparameters: {depth: {values: [1, 2]}}\nmethod: grid";
    let spec = parse_with(text, "a.yaml", &DataSets::any(), Own::Any).unwrap();
    assert!(spec.train.own.is_empty());
    // What can be wrong without it is told all the same.
    let text = b"train: {model: cnn, data: mnist}\nparameters: {depth: {values: [1, 2]}}\nmethod: grid";
    assert!(parse_with(text, "a.yaml", &DataSets::any(), Own::Any).is_err());
}

#[test]
fn a_data_set_that_is_stored_and_a_trainers_own_is_ambiguous() {
    let (told, asked) = (read(&spiral()).unwrap(), "spirals".parse().unwrap());
    let mut sets = DataSets::stored();
    sets.add(&asked, Digest::of(b"manifest"), told.data[0].facts());
    let text = b"train: {model: spiral_mlp, data: spirals}\nmethod: grid";
    let error = parse_with(text, "a.yaml", &sets, Own::Told(&told)).unwrap_err().to_string();
    assert!(error.contains("one of that name is stored as well"), "{error}");
}

proptest! {
    /// Whatever bytes come, reading ends in a catalogue within all limits, or in words without control characters.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Err(error) = OwnCatalogue::read(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_value_in_any_place_is_read_or_refused(place in 0_usize..40, value in any_json()) {
        let mut json = spiral();
        let mut places = Vec::new();
        pointers(&json, String::new(), &mut places);
        let pointer = places[place % places.len()].clone();
        *json.pointer_mut(&pointer).unwrap() = value;
        if let Ok(catalogue) = read(&json) {
            prop_assert_eq!(OwnCatalogue::read(&catalogue.to_json()).unwrap(), catalogue.clone());
            for model in &catalogue.models {
                // What was believed has defaults that make a recipe.
                prop_assert!(model.knobs(|_| None).is_ok());
                prop_assert!(!crate::catalogue::ModelKind::is_taken(model.name.as_str()));
            }
        }
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|i| json!(i)),
        any::<f64>().prop_map(|x| json!(x)),
        "[a-z_.\u{1b}-]{0,8}".prop_map(|text| json!(text)),
        Just(json!([])),
        Just(json!({})),
        Just(json!(["mlp", "mlp"])),
    ]
}

fn pointers(json: &serde_json::Value, at: String, places: &mut Vec<String>) {
    match json {
        serde_json::Value::Object(map) => {
            map.iter().for_each(|(key, value)| pointers(value, format!("{at}/{key}"), places));
        }
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(key, value)| pointers(value, format!("{at}/{key}"), places));
        }
        _ => {}
    }
    if !at.is_empty() {
        places.push(at);
    }
}
