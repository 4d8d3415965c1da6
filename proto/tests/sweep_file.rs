//! Rules of sweep files that are right: what they mean, in which order, and that they survive the journal.

use proptest::prelude::*;
use spotsweep_proto::{
    spec::{self, Every, Method, SweepSpec, space::Domain},
    train::ModelConfig,
    value::ParamValue,
};
use std::{collections::HashSet, fs, path::Path};

fn read(text: &str) -> SweepSpec {
    spec::parse(text.as_bytes(), "test.yaml").unwrap_or_else(|errors| panic!("{errors}"))
}

/// A grid of noop trials over `parameters`, a YAML flow mapping without braces.
fn noop(parameters: &str) -> SweepSpec {
    read(&format!("method: grid\nparameters: {{{parameters}}}\ntrain: {{model: noop}}"))
}

fn random(parameters: &str) -> SweepSpec {
    read(&format!(
        "method: random\nseed: 3\nrun_cap: 50\nparameters: {{{parameters}}}\ntrain: {{model: mlp, data: mnist}}"
    ))
}

#[test]
fn every_example_is_right_and_its_trials_are_recipes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let spec =
                spec::parse(&fs::read(&path).unwrap(), &name).unwrap_or_else(|errors| panic!("{errors}"));
            let summary = spec.summary();
            assert_eq!(summary.models.values().sum::<u32>(), spec.trials(), "{name}");
            assert_eq!(spec.name.as_str(), name.trim_end_matches(".yaml"));
            names.push(name);
        }
    }
    assert!(names.len() >= 4, "{names:?}");
}

#[test]
fn the_example_of_a_program_runs_a_script_that_is_there_with_flags_that_it_has() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/own-program");
    let source = fs::read(folder.join("sweep.yaml")).unwrap();
    let spec = spec::parse(&source, "sweep.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    let code = folder.join(spec::code_asked_for(&source).unwrap());
    let script = fs::read_to_string(code.join(spec.program.unwrap().program.unwrap())).unwrap();
    for parameter in &spec.space.0 {
        assert!(script.contains(&format!("\"--{}\"", parameter.name)), "{}", parameter.name);
    }
}

#[test]
fn the_ladder_is_five_models_by_three_learning_rates_with_the_first_parameter_slowest() {
    let spec = read(include_str!("../../examples/fashion-ladder.yaml"));
    assert_eq!(spec.trials(), 15);
    let trial = |n| serde_json::to_string(&spec.assignment(n).to_json()).unwrap();
    assert_eq!(trial(0), r#"{"model":"logistic","learning_rate":0.01,"batch_size":128}"#);
    assert_eq!(trial(1), r#"{"model":"logistic","learning_rate":0.03,"batch_size":128}"#);
    assert_eq!(trial(3), r#"{"model":"softmax","learning_rate":0.01,"batch_size":128}"#);
    assert_eq!(trial(14), r#"{"model":"cnn","learning_rate":0.1,"batch_size":128}"#);
}

#[test]
fn a_grid_holds_every_combination_once() {
    let spec = noop(
        "seed: {min: 3, max: 7}, steps: {values: [1, 5, 2]}, \
         report_every_steps: {distribution: q_uniform, min: 0, max: 6, q: 2}, threads: {value: 1}",
    );
    assert_eq!(spec.trials(), 5 * 3 * 4);
    let all: HashSet<String> = (0..spec.trials()).map(|n| format!("{:?}", spec.assignment(n))).collect();
    assert_eq!(all.len(), 60);
}

#[test]
fn a_grid_of_a_quantised_parameter_takes_the_multiples_within_its_ends() {
    let spec = read(
        "method: grid\nparameters: {dropout: {distribution: q_uniform, min: 0.0, max: 0.3, q: 0.1}}\n\
         train: {model: mlp, data: mnist}",
    );
    let values: Vec<_> =
        (0..spec.trials()).map(|n| spec.assignment(n).get("dropout").unwrap().to_string()).collect();
    assert_eq!(values, ["0.0", "0.1", "0.2", "0.3"]);
}

#[test]
fn run_cap_takes_the_first_trials_of_a_grid() {
    let full = noop("seed: {min: 0, max: 9}, steps: {values: [1, 2]}");
    let capped = read(
        "method: grid\nrun_cap: 3\nparameters: {seed: {min: 0, max: 9}, steps: {values: [1, 2]}}\ntrain: {model: noop}",
    );
    assert_eq!((full.trials(), capped.trials()), (20, 3));
    assert!((0..3).all(|n| full.assignment(n) == capped.assignment(n)));
}

#[test]
fn a_huge_grid_with_a_cap_is_not_enumerated() {
    let spec = read(
        "method: grid\nrun_cap: 5\nparameters: {seed: {min: 0, max: 9000000000000000000}, steps: {min: 1, max: 1000000000}}\n\
         train: {model: noop}",
    );
    assert_eq!(spec.trials(), 5);
    assert_eq!(spec.summary().grid_trials, Some(u64::MAX));
}

#[test]
fn a_sweep_without_parameters_is_one_trial() {
    assert_eq!(read("method: grid\ntrain: {model: noop}").trials(), 1);
}

#[test]
fn all_forms_of_parameters_are_read() {
    let spec = random(
        "learning_rate: {distribution: log_uniform_values, min: 1e-4, max: 1e-1}, \
         batch_size: {distribution: q_log_uniform_values, min: 16, max: 256, q: 16}, \
         momentum: {min: 0.5, max: 0.9}, seed: {min: 1, max: 100}, \
         dropout: {distribution: uniform, min: 0, max: 0.5}, \
         weight_decay: {distribution: inv_log_uniform_values, min: 1e-6, max: 1e-2}, \
         validation_fraction: {distribution: q_uniform, min: 0.1, max: 0.3, q: 0.05}, \
         warmup_steps: {distribution: q_normal, mu: 500, sigma: 20, q: 10}, \
         clip_norm: {distribution: log_normal, mu: 0.5, sigma: 0.1}, \
         step_gamma: {distribution: normal, mu: 0.5, sigma: 0.01}, \
         step_every_epochs: {distribution: q_log_normal, mu: 2, sigma: 0.1, q: 1}, \
         schedule: {value: step}, activation: {distribution: categorical, values: [relu, tanh]}, \
         init: {values: [he, xavier], probabilities: [0.9, 0.1]}, \
         precision: {distribution: constant, value: f32}, hidden: {values: [64, [64, 32]]}",
    );
    let domains: Vec<_> = spec.space.0.iter().map(|p| p.domain.distribution()).collect();
    assert_eq!(
        domains,
        [
            "log_uniform_values",
            "q_log_uniform_values",
            "uniform",
            "int_uniform",
            "uniform",
            "inv_log_uniform_values",
            "q_uniform",
            "q_normal",
            "log_normal",
            "normal",
            "q_log_normal",
            "constant",
            "categorical",
            "categorical",
            "constant",
            "categorical"
        ]
    );
    assert_eq!(spec.summary().models.get("mlp"), Some(&50));
}

#[test]
fn integer_ends_make_an_int_uniform_and_any_other_a_uniform() {
    let domain = |text: &str| noop(text).space.0.remove(0).domain;
    assert_eq!(domain("seed: {min: 1, max: 5}"), Domain::IntUniform { min: 1, max: 5 });
    let spec = random("learning_rate: {min: 0.001, max: 1}");
    assert_eq!(spec.space.0[0].domain, Domain::Uniform { min: 0.001, max: 1.0 });
}

#[test]
fn nested_parameters_have_dotted_names_and_stand_for_their_last_part() {
    let spec = read(
        "method: grid\nparameters:\n  optimizer:\n    parameters:\n      name: {values: [sgd, adam]}\n      \
         learning_rate: {value: 0.01}\n  hidden: {value: 32}\ntrain: {model: mlp, data: mnist}",
    );
    let trial = spec.assignment(1);
    assert_eq!(trial.get("optimizer.name"), Some(&ParamValue::Text("adam".to_owned())));
    let summary = spec.summary();
    let recipe = summary.first[1].recipe.as_ref().unwrap();
    assert!(matches!(&recipe.model, ModelConfig::Mlp { hidden, .. } if hidden == &[32]));
}

#[test]
fn a_random_search_is_the_same_for_the_same_seed_and_grows_without_changing() {
    let search = |seed: u64, cap: u32| {
        read(&format!(
            "method: random\nseed: {seed}\nrun_cap: {cap}\nparameters: {{dropout: {{min: 0.0, max: 0.5}}, seed: {{min: 0, max: 1000000}}}}\n\
             train: {{model: mlp, data: mnist}}"
        ))
    };
    let (short, long, other) = (search(1, 10), search(1, 1000), search(2, 10));
    assert!((0..10).all(|n| short.assignment(n) == long.assignment(n)));
    assert!((0..10).all(|n| short.assignment(n) != other.assignment(n)));
}

#[test]
fn a_parameter_keeps_its_draws_when_others_come_and_go() {
    let (alone, beside) = (
        random("dropout: {min: 0.0, max: 0.5}"),
        random("seed: {min: 0, max: 9}, dropout: {min: 0.0, max: 0.5}"),
    );
    assert!((0..50).all(|n| alone.assignment(n).get("dropout") == beside.assignment(n).get("dropout")));
}

#[test]
fn a_sweep_that_says_little_has_the_documented_defaults() {
    let spec = read("method: grid\ntrain: {model: noop}");
    assert_eq!((spec.name.as_str(), spec.method, spec.priority), ("test", Method::Grid, 0));
    assert_eq!(
        (spec.checkpoint.every, spec.checkpoint.keep_last),
        (Every::Auto { min_s: 5.0, max_s: 600.0 }, 1)
    );
    assert_eq!((spec.retry.max_failures, spec.retry.backoff_s.to_bits()), (3, 1.0_f64.to_bits()));
    assert_eq!((spec.train.seed, spec.train.threads), (0, 1));
}

#[test]
fn the_digest_is_that_of_the_meaning_and_not_of_the_text() {
    let a = read("method: grid\nparameters: {seed: {min: 0, max: 9}}\ntrain: {model: noop}");
    let b = read(
        "# a comment\ntrain:\n  model: \"noop\"\nparameters:\n  seed:\n    max: 0x9\n    min: 0\nmethod: 'grid'\n",
    );
    let c = read("method: grid\nparameters: {seed: {min: 0, max: 8}}\ntrain: {model: noop}");
    assert_eq!(a.digest(), b.digest());
    assert_ne!(a.digest(), c.digest());
}

#[test]
fn memory_is_read_with_its_unit() {
    for (text, bytes) in
        [("2GiB", 2 << 30), ("1.5 GB", 1_500_000_000), ("4096", 4096), ("512 MiB", 512 << 20)]
    {
        let spec = read(&format!("method: grid\ntrain: {{model: noop}}\nresources: {{memory: {text}}}"));
        assert_eq!(spec.resources.memory_bytes, Some(bytes), "{text}");
    }
}

#[test]
fn the_summary_counts_trials_that_repeat_an_earlier_one() {
    let spec = read(
        "method: grid\nparameters: {model: {values: [softmax, mlp]}, dropout: {values: [0.1, 0.2, 0.3]}}\n\
         train: {data: mnist}",
    );
    let summary = spec.summary();
    assert_eq!((summary.trials, summary.repeated), (6, 2));
    let models: Vec<_> = summary.models.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(models, [("mlp", 3), ("softmax", 3)]);
}

#[test]
fn every_sweep_in_the_documentation_is_right() {
    let text = include_str!("../../docs/sweep-file.md");
    let blocks: Vec<_> =
        text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        read(block);
    }
    for metric in spotsweep_proto::metric::KNOWN_METRICS {
        assert!(text.contains(&format!("`{metric}`")), "{metric} is not documented");
    }
}

#[test]
fn every_sweep_of_a_model_of_ones_own_in_the_documentation_is_right() {
    let text = include_str!("../../docs/own-models.md");
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    // Others show a part of a sweep, or none.
    let sweeps: Vec<SweepSpec> = blocks.filter(|block| block.contains("method:")).map(read).collect();
    assert!(sweeps.len() >= 2);
    assert!(sweeps.iter().all(|spec| spec.program.is_some() || !spec.modules().is_empty()));
    for name in spotsweep_proto::program::MACROS {
        assert!(text.contains(&format!("`${{{name}}}`")), "{name} is not documented");
    }
}

proptest! {
    #[test]
    fn a_specification_survives_the_journal(
        seed in 0..i64::MAX,
        cap in 1_u32..1000,
        low in 1e-6..1e-3_f64,
        widths in prop::collection::vec(1..1000_i64, 1..5),
        priority in -1000..1000_i32,
        target in prop::option::of(-1e3..1e3_f64),
        every in 1..100_000_u64,
    ) {
        let target = target.map(|t| format!(", target: {t:?}")).unwrap_or_default();
        let spec = read(&format!(
            "name: round-trip\ndescription: \"a: b\"\nmethod: random\nseed: {seed}\nrun_cap: {cap}\npriority: {priority}\n\
             metric: {{name: val_loss{target}}}\n\
             parameters:\n  learning_rate: {{distribution: log_uniform_values, min: {low:?}, max: 0.1}}\n  \
             hidden: {{values: [{widths:?}, []]}}\n  clip_norm: {{values: [null, 1.5]}}\n  \
             dropout: {{distribution: q_uniform, min: 0.0, max: 0.5, q: 0.05}}\n\
             train: {{model: mlp, data: mnist, steps: {every}}}\ncheckpoint: {{every_steps: {every}}}\n\
             resources: {{device: cuda, memory: 1GiB}}"
        ));
        let json = serde_json::to_string(&spec).unwrap();
        let back: SweepSpec = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&back, &spec);
        prop_assert_eq!(back.digest(), spec.digest());
        for n in 0..spec.trials().min(20) {
            let trial = spec.assignment(n);
            let bytes = postcard::to_stdvec(&trial).unwrap();
            prop_assert_eq!(&postcard::from_bytes::<spotsweep_proto::value::Assignment>(&bytes).unwrap(), &trial);
            prop_assert_eq!(&spotsweep_proto::value::Assignment::from_json(&trial.to_json()).unwrap(), &trial);
        }
    }
}
