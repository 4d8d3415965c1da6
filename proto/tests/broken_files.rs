//! Every broken sweep file is refused in words: one snapshot a file of `tests/broken/`. Files that would be large
//! are made here. A new file there is a new test; `INSTA_UPDATE=always` writes its snapshot.

use spotsweep_proto::{limits, spec};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Longest time that refusing any file may take here, in an unoptimised build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn refusal(source: &[u8], name: &str) -> String {
    let start = Instant::now();
    let outcome = spec::parse(source, name);
    let took = start.elapsed();
    assert!(took < PATIENCE, "{name} took {took:?}");
    match outcome {
        Ok(spec) => panic!("{name} was taken for a sweep: {spec:?}"),
        Err(errors) => {
            let text = errors.to_string();
            assert!(text.len() < 20_000, "{name}: {} bytes of errors", text.len());
            assert!(
                !text.chars().any(|c| c.is_control() && c != '\n'),
                "{name}: control characters in {text:?}"
            );
            text
        }
    }
}

#[test]
fn every_broken_file_is_refused_in_words() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 60, "only {} files", names.len());
    for name in names {
        let source = fs::read(folder.join(&name)).unwrap();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("snapshots/broken");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name.trim_end_matches(".yaml"), refusal(&source, &name)));
    }
}

#[test]
fn a_file_of_10_mb_is_refused_by_its_size_alone() {
    let text = refusal("a: b\n".repeat(2_000_000).as_bytes(), "large.yaml");
    assert!(text.contains("at most 1048576 bytes, this one has 10000000"), "{text}");
}

#[test]
fn deep_nesting_is_refused_whatever_its_form() {
    let depth = limits::SWEEP_FILE_BYTES / 8;
    for (name, source) in [
        ("brackets", "[".repeat(depth)),
        ("braces", "{a: ".repeat(depth)),
        ("dashes", "- ".repeat(depth)),
        ("questions", "? ".repeat(depth)),
        ("closed", format!("method: {}{}", "[".repeat(100), "]".repeat(100))),
        ("indented", (0..500).map(|i| format!("{}k:\n", " ".repeat(i))).collect()),
    ] {
        let text = refusal(source.as_bytes(), name);
        let words = ["nested at most 32 levels", "no YAML", "a key is text"];
        assert!(words.iter().any(|w| text.contains(w)), "{name}: {text}");
    }
}

#[test]
fn a_megabyte_of_anything_is_refused_quickly() {
    let times = |text: &str| text.repeat(limits::SWEEP_FILE_BYTES / text.len());
    for (name, source) in [
        ("colons", times(":")),
        ("commas", format!("[{}", times(",").split_off(1))),
        ("list", format!("[{}", times("a,").split_off(2))),
        ("lines", times("a\n")),
        ("pairs", times("a: 1\n")),
        ("quotes", times("\"")),
        ("anchors", times("&a ")),
        ("aliases", times("*a ")),
        ("bangs", times("!")),
        ("bars", times("|\n")),
        ("spaces", format!("a: b{}c: d", times(" ").split_off(20))),
        ("tabs", times("\t")),
        ("one key", times("k")),
        ("percent", times("%TAG ! !\n")),
        ("dashes", times("---\n")),
        ("crlf", times("a: b\r\n")),
        ("unicode", times("é")),
        ("items", times("- a\n")),
    ] {
        refusal(source.as_bytes(), name);
    }
}

#[test]
fn too_many_parameters_or_values_are_refused() {
    let many: String = (0..300).map(|i| format!("  p{i}: {{value: 1}}\n")).collect();
    let text = refusal(format!("method: grid\nparameters:\n{many}").as_bytes(), "parameters.yaml");
    assert!(text.contains("at most 256 parameters") || text.contains("more"), "{text}");
    let values: Vec<String> = (0..=limits::VALUES_PER_PARAMETER).map(|i| i.to_string()).collect();
    let source = format!(
        "method: grid\nparameters: {{seed: {{values: [{}]}}}}\ntrain: {{model: noop}}",
        values.join(",")
    );
    let text = refusal(source.as_bytes(), "values.yaml");
    assert!(text.contains("at most 100000 values, this one has 100001"), "{text}");
}

proptest::proptest! {
    /// No bytes make the reader panic, hang, or print control characters.
    #[test]
    fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        if let Err(errors) = spec::parse(&bytes, "garbage.yaml") {
            let text = errors.to_string();
            proptest::prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
        }
    }

    /// The same, with text that is nearly a sweep file.
    #[test]
    fn a_damaged_file_is_refused_without_a_panic(
        cuts in proptest::collection::vec((0..2000_usize, proptest::sample::select(vec![
            "", "{", "}", "[", "]", ":", ": ", "- ", "? ", "\n", "\n  ", "\"", "'", "#", "&a ", "*a", "!!x ", "| ", "> ",
            "%", "---\n", "...", ",", "\t", "\r", "\u{85}", "\u{feff}", "1e999", ".nan", "~", "<<: ", "@", "`",
        ])), 1..6),
    ) {
        let mut text = include_str!("../../examples/random-search.yaml").to_owned();
        for (at, what) in cuts {
            let at = at % (text.len() + 1);
            if text.is_char_boundary(at) {
                let tail = text.split_off(at);
                text.push_str(what);
                text.push_str(tail.get(1..).unwrap_or(""));
            }
        }
        if let Err(errors) = spec::parse(text.as_bytes(), "damaged.yaml") {
            proptest::prop_assert!(!errors.list.is_empty());
        }
    }
}
