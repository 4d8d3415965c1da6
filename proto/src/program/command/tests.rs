use super::*;
use crate::{
    ids::ParameterName,
    program::{MetricsFrom, ProgramLimits},
    value::ParamValue,
};
use proptest::prelude::*;

fn section(program: Option<&str>, command: &[&str], groups: &[&str]) -> ProgramSection {
    ProgramSection {
        program: program.map(str::to_owned),
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        code: None,
        metrics: MetricsFrom::Reports,
        compat: None,
        environment: Default::default(),
        limits: ProgramLimits::default(),
    }
}

fn params(of: &[(&str, ParamValue)]) -> Assignment {
    Assignment(of.iter().map(|(name, value)| (ParameterName::new(name).unwrap(), value.clone())).collect())
}

fn some() -> Assignment {
    params(&[
        ("lr", ParamValue::Float(1e-5)),
        ("epochs", ParamValue::Int(3)),
        ("nesterov", ParamValue::Bool(true)),
        ("amp", ParamValue::Bool(false)),
        ("optimizer", ParamValue::Text("adam w".to_owned())),
        ("warmup", ParamValue::Null),
        ("layers", ParamValue::List(vec![ParamValue::Int(64), ParamValue::Int(32)])),
    ])
}

fn expand(section: &ProgramSection, params: &Assignment) -> Result<Vec<String>, CommandError> {
    let variable = |name: &str| (name == "DATA").then(|| "/data".to_owned());
    let surroundings =
        Surroundings { interpreter: INTERPRETER, variable: &variable, args_json_file: "/attempt/args.json" };
    command(section, params, &surroundings)
}

#[test]
fn the_default_command_is_the_one_of_weights_and_biases() {
    let argv = expand(&section(Some("train.py"), &DEFAULT_COMMAND, &[]), &some()).unwrap();
    assert_eq!(
        argv,
        [
            "/usr/bin/env",
            "python3",
            "train.py",
            "--lr=1e-05",
            "--epochs=3",
            "--nesterov=True",
            "--amp=False",
            "--optimizer=adam w",
            "--warmup=None",
            "--layers=[64, 32]"
        ]
    );
}

#[test]
fn every_macro_expands_as_documented() {
    let of = |part: &str| expand(&section(Some("t.py"), &["x", part], &[]), &some()).unwrap()[1..].to_vec();
    assert_eq!(of("${env}"), ["/usr/bin/env"]);
    assert_eq!(of("${interpreter}"), ["python3"]);
    assert_eq!(of("${program}"), ["t.py"]);
    assert_eq!(of("${args_no_hyphens}")[..3], ["lr=1e-05", "epochs=3", "nesterov=True"]);
    assert_eq!(of("${args_no_equals}")[..4], ["--lr", "1e-05", "--epochs", "3"]);
    let flags = of("${args_no_boolean_flags}");
    assert_eq!(flags[..3], ["--lr=1e-05", "--epochs=3", "--nesterov"]);
    assert!(!flags.iter().any(|flag| flag.contains("amp")));
    assert_eq!(
        of("${args_json}"),
        [
            r#"{"lr": 1e-05, "epochs": 3, "nesterov": true, "amp": false, "optimizer": "adam w", "warmup": null, "layers": [64, 32]}"#
        ]
    );
    assert_eq!(of("${args_json_file}"), ["/attempt/args.json"]);
    assert_eq!(of("${envvar:DATA}"), ["/data"]);
    assert_eq!(of("--data=${envvar:DATA}/mnist:${envvar:DATA}"), ["--data=/data/mnist:/data"]);
}

#[test]
fn nested_parameters_are_one_flag_and_dots_in_names_stay() {
    let params = params(&[
        ("optimizer.name", ParamValue::Text("sgd".to_owned())),
        ("optimizer.schedule.gamma", ParamValue::Float(0.5)),
        ("model.init_args.width", ParamValue::Int(8)),
    ]);
    let argv =
        expand(&section(None, &["run", "${args}"], &["optimizer", "optimizer.schedule"]), &params).unwrap();
    assert_eq!(
        argv[1..],
        ["--optimizer={'name': 'sgd', 'schedule': {'gamma': 0.5}}", "--model.init_args.width=8"]
    );
}

#[test]
fn text_of_a_shell_stays_as_it_is() {
    let shell = ["sh", "-c", "echo ${HOME} $1 $(date) {x}"];
    assert_eq!(expand(&section(None, &shell, &[]), &some()).unwrap(), shell);
}

#[test]
fn what_cannot_be_expanded_is_an_error_with_a_hint() {
    let of = |command: &[&str]| {
        let error = expand(&section(None, command, &[]), &some()).unwrap_err();
        format!("{error}\n{}", error.hint())
    };
    assert!(of(&["a", "${arg}"]).contains("did you mean ${args}?"));
    assert!(of(&["a", "${HOME}"]).contains("write ${envvar:HOME}"));
    assert!(of(&["a", "--config=${args_json_file}"]).contains("an item of the command by itself"));
    assert!(of(&["a", "${program}"]).contains("no program is named"));
    assert!(of(&["a", "${envvar:NOT_SET}"]).contains("not set on this worker"));
    assert!(of(&["a", "${envvar:A"]).contains("needs the name"));
    assert!(of(&["a", "${envvar:}"]).contains("needs the name"));
    assert!(of(&[""]).contains("expands to nothing"));
    assert!(of(&["a\0"]).contains("NUL"));
}

#[test]
fn a_command_stays_within_its_limits() {
    let long = "x".repeat(COMMAND_PART_BYTES + 1);
    let error = |command: &[&str]| expand(&section(None, command, &[]), &some()).unwrap_err();
    assert!(matches!(error(&["a", &long]), CommandError::PartTooLong { .. }));
    assert_eq!(error(&["a"; COMMAND_PARTS + 1]), CommandError::TooMany);
    assert_eq!(error(&[&long[1..]; 17]), CommandError::TooLong);
}

fn any_value() -> impl Strategy<Value = ParamValue> {
    let leaf = prop_oneof![
        Just(ParamValue::Null),
        any::<bool>().prop_map(ParamValue::Bool),
        any::<i64>().prop_map(ParamValue::Int),
        any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(ParamValue::Float),
        any::<String>().prop_map(ParamValue::Text),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(ParamValue::List))
}

proptest! {
    #[test]
    fn no_command_and_no_parameters_break_the_expansion(
        parts in prop::collection::vec(prop_oneof![
            any::<String>(),
            prop::sample::select(MACROS.to_vec()).prop_map(|name| format!("${{{name}}}")),
            "[${}a-zA-Z_:]{0,24}",
            "\\$\\{envvar:[A-Z]{0,3}\\}?",
        ], 0..8),
        values in prop::collection::btree_map("[a-z][a-z.]{0,5}", any_value(), 0..6),
        groups in prop::collection::btree_set("[a-z]{1,2}(\\.[a-z]{1,2})?", 0..4),
    ) {
        let mut section = section(Some("p"), &[], &[]);
        (section.command, section.groups) = (parts, groups);
        let params = Assignment(
            values.into_iter().filter_map(|(name, value)| Some((ParameterName::new(&name).ok()?, value))).collect(),
        );
        if let Ok(argv) = expand(&section, &params) {
            prop_assert!(argv.len() <= COMMAND_PARTS);
            prop_assert!(argv.iter().all(|part| part.len() <= COMMAND_PART_BYTES && !part.contains('\0')));
        }
    }

    #[test]
    fn json_of_the_parameters_reads_back_as_they_were(
        values in prop::collection::btree_map("[a-z]{1,5}", any_value(), 0..6),
    ) {
        let params = Assignment(
            values.into_iter().map(|(name, value)| (ParameterName::new(&name).unwrap(), value)).collect(),
        );
        let read: serde_json::Map<String, Value> =
            serde_json::from_str(&args_json(&params, &BTreeSet::new())).unwrap();
        prop_assert_eq!(Assignment::from_json(&read).unwrap(), params);
    }

    #[test]
    fn a_flag_of_a_number_reads_back_as_the_same_number(x in any::<f64>().prop_filter("finite", |x| x.is_finite())) {
        let argv = expand(&section(None, &["a", "${args}"], &[]), &params(&[("x", ParamValue::Float(x))])).unwrap();
        let shown = argv[1].strip_prefix("--x=").unwrap();
        prop_assert_eq!(shown.parse::<f64>().unwrap().to_bits(), x.to_bits());
        prop_assert!(shown.contains('.') || shown.contains('e'));
    }
}
