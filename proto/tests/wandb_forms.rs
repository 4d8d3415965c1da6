//! The forms in which people write sweep files for Weights & Biases are read as they are, and become the same commands: one
//! snapshot for all of `tests/wandb/`. What is not supported is refused by name: see `tests/broken/program_*`.

use spotsweep_proto::{program, spec};
use std::{fmt::Write as _, fs, path::Path};

/// Trials of each that are shown.
const SHOWN: u32 = 2;

#[test]
fn sweep_files_for_weights_and_biases_become_the_same_commands() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wandb");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 8, "only {} files", names.len());
    let mut shown = String::new();
    for name in names {
        let source = fs::read(folder.join(&name)).unwrap();
        let spec = spec::parse(&source, &name).unwrap_or_else(|error| panic!("{error}"));
        let section = spec.program.as_ref().unwrap();
        writeln!(shown, "{name}: {} trials", spec.trials()).unwrap();
        for number in 0..spec.trials() {
            let params = spec.assignment(number);
            let argv = program::shown(section, &params);
            assert!(!argv.is_empty(), "{name}: trial {number} has no command");
            let flat = params.to_json().len();
            let nested = program::nested(&params, &section.groups);
            assert!(!nested.is_empty() && nested.len() <= flat, "{name}: {nested:?}");
            if number < SHOWN {
                writeln!(shown, "  {number}: {argv:?}").unwrap();
            }
        }
        // What stands in the journal is the same sweep.
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<spec::SweepSpec>(&text).unwrap(), spec, "{name}");
    }
    insta::assert_snapshot!(shown);
}
