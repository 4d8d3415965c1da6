use super::*;
use crate::spec::{Summary, parse};

const PARAMETERS: &str = "method: grid\nparameters: {lr: {values: [0.1, 0.01]}}\n";

fn spec(rest: &str) -> SweepSpec {
    parse(format!("{PARAMETERS}{rest}").as_bytes(), "a.yaml").unwrap_or_else(|error| panic!("{error}"))
}

fn program(rest: &str) -> ProgramSection {
    spec(rest).program.unwrap()
}

fn refused(rest: &str) -> String {
    parse(format!("{PARAMETERS}{rest}").as_bytes(), "a.yaml").unwrap_err().to_string()
}

#[test]
fn a_program_alone_has_the_default_command_and_limits() {
    let section = program("program: train.py");
    assert_eq!(section.program.as_deref(), Some("train.py"));
    assert_eq!(section.command, DEFAULT_COMMAND);
    assert_eq!((section.code, section.compat, section.limits), (None, None, ProgramLimits::default()));
    assert_eq!(section.metrics, MetricsFrom::Reports);
}

#[test]
fn everything_that_a_program_may_have_is_read() {
    let section = program(
        "command: [./run, --n, 3, true, \"${args}\", '-d=${envvar:DATA}']
compat: wandb
code: {folder: src}
env: {OMP_NUM_THREADS: 1, NAME: x y}
metrics: {from: stdout, pattern: 'step (?P<step>\\d+) (?P<name>\\w+)=(?P<value>\\S+)'}
limits: {memory: 1GiB, disk: 2 GB, output: 1MiB, time_s: 60, grace_s: 5}",
    );
    assert_eq!(section.command, ["./run", "--n", "3", "true", "${args}", "-d=${envvar:DATA}"]);
    assert_eq!(section.environment["OMP_NUM_THREADS"], "1");
    assert_eq!(
        section.limits,
        ProgramLimits {
            memory_bytes: Some(1 << 30),
            disk_bytes: Some(2_000_000_000),
            output_bytes: 1 << 20,
            time_s: Some(60.0),
            grace_s: 5.0
        }
    );
    assert!(matches!(section.metrics, MetricsFrom::Stdout { .. }));
    assert_eq!(section.compat, Some(Compat::Wandb));
}

#[test]
fn any_name_and_any_metric_pass_and_no_data_set_is_looked_up() {
    let text = "method: grid\nprogram: t.py\nmetric: {name: val/anything}\nparameters: {data: {value: mnist9}, \
                model: {values: [resnet, vit]}, learning_rate: {value: -1}}\ntrain: {seed: 3}\n";
    let spec = parse(text.as_bytes(), "a.yaml").unwrap();
    assert_eq!((spec.train.seed, spec.data_names().len()), (3, 0));
    let Summary { models, first, repeated, .. } = spec.summary();
    assert!(models.is_empty() && repeated == 0 && first[1].recipe.is_none());
    assert_eq!(first[1].command[2..], ["t.py", "--data=mnist9", "--model=vit", "--learning_rate=-1"]);
}

#[test]
fn groups_are_told_from_dots_in_names() {
    let nested = "method: grid\nprogram: t.py\nparameters: {a: {parameters: {b: {value: 1}, c: {parameters: {d: {value: 2}}}}}, \
                  x.y: {value: 3}}\n";
    let section = parse(nested.as_bytes(), "a.yaml").unwrap().program.unwrap();
    assert_eq!(section.groups.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "a.c"]);
    let beside =
        "method: grid\nprogram: t.py\nparameters: {a.z: {value: 1}, a: {parameters: {b: {value: 1}}}}\n";
    let error = parse(beside.as_bytes(), "a.yaml").unwrap_err().to_string();
    assert!(error.contains("a.z stands beside the group a"), "{error}");
}

#[test]
fn the_folder_with_code_is_found_in_either_form() {
    let asked = |text: &str| code_asked_for(text.as_bytes());
    assert_eq!(asked("program: a\ncode: ./src").as_deref(), Some("./src"));
    assert_eq!(asked("program: a\ncode: {folder: .}").as_deref(), Some("."));
    assert!(asked("program: a").is_none() && asked("{{{").is_none() && asked("code: [a]").is_none());
}

#[test]
fn a_program_and_a_model_exclude_each_other() {
    let error = refused("program: t.py\ntrain: {model: mlp, data: mnist, epochs: 3}");
    for part in ["train.model and program both", "train.data has no meaning", "train.epochs has no meaning"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(refused("code: .\ntrain: {model: mlp}").contains("none is named"));
}
