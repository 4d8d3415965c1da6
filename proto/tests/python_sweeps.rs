//! The sweeps that people start their own Python programs from are right.

use spotsweep_proto::{program::Compat, spec};

#[test]
fn the_example_of_a_python_program_is_right() {
    let source = include_bytes!("../../examples/own-python/sweep.yaml");
    let spec = spec::parse(source, "sweep.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((spec.name.as_str(), spec.trials()), ("own-python", 6));
    assert_eq!(spec.program.unwrap().program.as_deref(), Some("train.py"));
}

#[test]
fn the_example_on_several_workers_is_right() {
    let source = include_bytes!("../../examples/own-ddp/sweep.yaml");
    let spec = spec::parse(source, "sweep.yaml").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((spec.resources.workers.min, spec.resources.workers.max), (2, 2));
    let script = include_str!("../../examples/own-ddp/src/train.py");
    for parameter in &spec.space.0 {
        assert!(script.contains(&format!("{}=", parameter.name)), "{}", parameter.name);
    }
}

#[test]
fn every_sweep_in_the_documentation_of_own_models_is_right() {
    let text = include_str!("../../docs/own-models.md");
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let specs: Vec<_> = blocks
        .map(|block| {
            spec::parse(block.as_bytes(), "own-models.md").unwrap_or_else(|errors| panic!("{errors}"))
        })
        .collect();
    assert!(
        specs
            .iter()
            .any(|spec| spec.program.as_ref().is_some_and(|program| program.compat == Some(Compat::Wandb)))
    );
}
