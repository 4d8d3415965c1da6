//! The keys of a sweep whose trials run a program of the user's own: from `program` and `command`, as in the sweep files of
//! Weights & Biases, and from the keys of ours beside them, to a [`ProgramSection`]. With a program nothing is checked
//! against the catalogue: what parameters mean is the program's affair.

use super::{
    SweepSpec, Workers,
    diagnostic::{Report, Span},
    parameters::ParameterPlace,
    section::{Section, quoted},
    sections::size_of,
    yaml::{self, Entry, Node, Value},
};
use crate::{
    ids::MetricName,
    limits::SWEEP_FILE_BYTES,
    metric::Objective,
    program::{
        COMMAND_PART_BYTES, COMMAND_PARTS, Compat, DEFAULT_COMMAND, GRACE_S, MetricsFrom, OUTPUT_BYTES,
        ProgramLimits, ProgramSection, check_part, compile_pattern, is_of_ranks,
    },
    value::ParamValue,
};
use std::collections::{BTreeMap, BTreeSet};

/// The keys at the top that make a sweep one of programs.
pub(super) const MAKING: [&str; 2] = ["program", "command"];
/// The keys at the top that only such a sweep has.
pub(super) const BESIDE: [&str; 5] = ["code", "metrics", "compat", "env", "limits"];
/// Where Weights & Biases files a sweep: read over, so that files written for it run as they are.
pub(super) const READ_OVER: [&str; 2] = ["project", "entity"];

/// Longest path that a sweep file names, in bytes.
const PATH_BYTES: usize = 1024;
/// Longest regular expression, in bytes.
const PATTERN_BYTES: usize = 4096;
/// Most environment variables.
const VARIABLES: usize = 256;
/// Least output that is kept, in bytes: enough to see why a program ended.
const LEAST_OUTPUT_BYTES: u64 = 4096;
/// A year, and an hour.
const LONGEST_S: f64 = 31_536_000.0;
const LONGEST_GRACE_S: f64 = 3600.0;

/// The folder that a sweep file wants to travel with it, relative to the file, found without checking the file. `None` for
/// a file that names none or cannot be read.
#[must_use]
pub fn code_asked_for(source: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(source).ok().filter(|_| source.len() <= SWEEP_FILE_BYTES)?;
    let mut silent = Report::new("");
    let root = yaml::read(text.strip_prefix('\u{feff}').unwrap_or(text), &mut silent)?;
    let top = Section::of(&root, "", "", &mut silent)?;
    code(&top, &mut silent).map(str::to_owned)
}

/// Reads the program of a sweep that has one.
pub(super) fn read(
    top: &Section<'_>,
    groups: BTreeSet<String>,
    objective: Option<&Objective>,
    report: &mut Report<'_>,
) -> Option<ProgramSection> {
    if MAKING.iter().all(|key| top.get(key).is_none()) {
        for entry in BESIDE.iter().filter_map(|key| top.get(key)) {
            report.error_hint(
                entry.key_span,
                format!("{} belongs to a sweep with a program of your own, and none is named", entry.key),
                "add `program: train.py`, or remove it",
            );
        }
        return None;
    }
    let program = top.get("program").and_then(|_| path("program", top, report)).map(str::to_owned);
    code(top, report);
    Some(ProgramSection {
        command: command(top, program.is_some() || top.get("program").is_some(), report),
        program,
        groups,
        code: None,
        metrics: metrics(top, objective, report),
        compat: compat(top, report),
        environment: environment(top, report),
        limits: limits(top, report),
    })
}

/// What a sweep cannot have beside a program.
pub(super) fn contradictions(
    spec: &SweepSpec,
    train: Option<&Node>,
    resources: Option<&Node>,
    places: &[ParameterPlace],
    report: &mut Report<'_>,
) {
    let Some(program) = &spec.program else { return };
    if let Some(Node { value: Value::Mapping(entries), .. }) = train {
        for entry in entries.iter().filter(|entry| entry.key != "seed") {
            let (message, hint) = match entry.key.as_str() {
                "model" => (
                    "train.model and program both say what is trained".to_owned(),
                    "keep one of the two: a program of your own, or a model of the catalogue",
                ),
                "data" => (
                    "a program reads its data itself, so train.data has no meaning".to_owned(),
                    "hand a path over as a parameter, or in `env`",
                ),
                key => (
                    format!("a program trains as it likes, so train.{} has no meaning", quoted(key)),
                    "make it a parameter; of `train` a program only gets seed",
                ),
            };
            report.error_hint(entry.key_span, message, hint);
        }
    }
    if let Some(node) = resources.filter(|_| spec.resources.workers.is_gang()) {
        let Workers { min, max } = spec.resources.workers;
        if min != max {
            let message = format!(
                "a program cannot change with how many others it trains, so {min} to {max} workers make no sense"
            );
            report.error_hint(node.span, message, format!("write `workers: {max}`"));
        }
        for name in program.environment.keys().filter(|name| is_of_ranks(name)) {
            let message = format!("{name} is set by the agent where several workers train one trial");
            report.error_hint(node.span, message, "remove it from env");
        }
    }
    for (parameter, place) in spec.space.0.iter().zip(places) {
        let name = parameter.name.as_str();
        // A dot in its own key, and not one between it and a group around it.
        let own = name.len().saturating_sub(place.key_bytes);
        let dots = name.match_indices('.').map(|(dot, _)| dot).filter(|dot| *dot >= own);
        let mut beside = dots.filter_map(|dot| name.get(..dot));
        if let Some(group) = beside.find(|group| program.groups.contains(*group)) {
            report.error_hint(
                place.name,
                format!("{name} stands beside the group {group}"),
                "move it into the group's `parameters`",
            );
        }
        if program.groups.contains(name) {
            report.error(place.name, format!("{name} is a parameter and a group at once"));
        }
    }
}

/// Text without control characters, of bounded length.
fn path<'n>(key: &str, section: &Section<'n>, report: &mut Report<'_>) -> Option<&'n str> {
    let (text, span) = section.text(key, report)?;
    if text.trim().is_empty() {
        report.error(span, format!("{key} is empty"));
    } else if text.len() > PATH_BYTES || text.contains(char::is_control) {
        let message = format!("{key} is a path of at most {PATH_BYTES} bytes without control characters");
        report.error(span, message);
    } else {
        return Some(text);
    }
    None
}

fn command(top: &Section<'_>, has_program: bool, report: &mut Report<'_>) -> Vec<String> {
    let standard = || DEFAULT_COMMAND.map(str::to_owned).to_vec();
    let Some(entry) = top.get("command") else { return standard() };
    let hint = "write a list: `command: [\"${env}\", \"${interpreter}\", \"${program}\", \"${args}\"]`";
    let Value::Sequence(items) = &entry.node.value else {
        report.error_hint(
            entry.node.span,
            format!("command is a list, not {}", entry.node.value.kind()),
            hint,
        );
        return standard();
    };
    if items.is_empty() {
        report.error_hint(entry.node.span, "command is empty", hint);
    }
    if items.len() > COMMAND_PARTS {
        let message = format!("a command has at most {COMMAND_PARTS} items, this one has {}", items.len());
        report.error(entry.node.span, message);
        return standard();
    }
    items.iter().filter_map(|item| part(item, has_program, report)).collect()
}

/// One item: text, or a number or truth value, which counts as what it looks like.
fn part(item: &Node, has_program: bool, report: &mut Report<'_>) -> Option<String> {
    let Some(text) = as_text(&item.value) else {
        report.error(item.span, format!("an item of a command is text, not {}", item.value.kind()));
        return None;
    };
    if text.len() > COMMAND_PART_BYTES || text.contains('\0') {
        let message =
            format!("an item of a command has at most {COMMAND_PART_BYTES} bytes, none of them NUL");
        report.error(item.span, message);
        return None;
    }
    match check_part(&text, has_program) {
        Ok(_) => Some(text),
        Err(error) => {
            report.error_hint(item.span, error.to_string(), error.hint());
            None
        }
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::Scalar(ParamValue::Text(text)) => Some(text.clone()),
        Value::Scalar(value @ (ParamValue::Bool(_) | ParamValue::Int(_) | ParamValue::Float(_))) => {
            Some(value.to_string())
        }
        Value::Scalar(ParamValue::Null | ParamValue::List(_))
        | Value::Unusable(_)
        | Value::Sequence(_)
        | Value::Mapping(_) => None,
    }
}

/// `code: ./src`, or `code: {folder: ./src}`.
fn code<'n>(top: &Section<'n>, report: &mut Report<'_>) -> Option<&'n str> {
    let entry = top.get("code")?;
    if matches!(entry.node.value, Value::Scalar(ParamValue::Text(_))) {
        return path("code", top, report);
    }
    let section = Section::of(&entry.node, "code", "code: {folder: ./src}", report)?;
    section.only(&["folder"], report, |_| None);
    if section.get("folder").is_none() {
        report.error_hint(section.span, "code has no folder", "write `code: {folder: ./src}`");
    }
    path("folder", &section, report)
}

fn metrics(top: &Section<'_>, objective: Option<&Objective>, report: &mut Report<'_>) -> MetricsFrom {
    const FORM: &str = "metrics: {from: stdout, pattern: \"step (?P<step>\\\\d+) loss (?P<loss>\\\\S+)\"}";
    let Some(section) =
        top.get("metrics").and_then(|entry| Section::of(&entry.node, "metrics", FORM, report))
    else {
        return MetricsFrom::Reports;
    };
    let Some((from, span)) = section.text("from", report) else {
        if section.get("from").is_none() {
            report.error_hint(section.span, "metrics does not say from where", format!("write `{FORM}`"));
        }
        return MetricsFrom::Reports;
    };
    let key = match from {
        "reports" => None,
        "stdout" => Some("pattern"),
        "tensorboard" => Some("dir"),
        _ => {
            let hint = match crate::catalogue::nearest(from, ["reports", "stdout", "tensorboard"]) {
                Some(near) => format!("did you mean {near}?"),
                None => "one of reports, stdout, tensorboard".to_owned(),
            };
            report.error_hint(span, format!("metrics cannot come from {}", quoted(from)), hint);
            return MetricsFrom::Reports;
        }
    };
    let valid: Vec<&str> = std::iter::once("from").chain(key).collect();
    section.only(&valid, report, |other| {
        let (message, hint) = (format!("metrics from {from} have no {}", quoted(other)), "remove it");
        ["pattern", "dir"].contains(&other).then(|| (message, hint.to_owned()))
    });
    if let Some(key) = key.filter(|key| section.get(key).is_none()) {
        let hint = match key {
            "dir" => "write `metrics: {from: tensorboard, dir: runs}`".to_owned(),
            _ => format!("write `{FORM}`"),
        };
        report.error_hint(span, format!("metrics from {from} need a {key}"), hint);
        return MetricsFrom::Reports;
    }
    match key {
        Some("pattern") => pattern(&section, objective, report),
        Some("dir") => folder(&section, report),
        _ => None,
    }
    .unwrap_or(MetricsFrom::Reports)
}

fn pattern(
    section: &Section<'_>,
    objective: Option<&Objective>,
    report: &mut Report<'_>,
) -> Option<MetricsFrom> {
    let (pattern, span) = section.text("pattern", report)?;
    if pattern.len() > PATTERN_BYTES {
        report.error(span, format!("a pattern has at most {PATTERN_BYTES} bytes"));
        return None;
    }
    let compiled = match compile_pattern(pattern) {
        Ok(compiled) => compiled,
        Err(error) => {
            // The last line says what is wrong; those before draw the pattern, which the diagnostic shows anyway.
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            report.error_hint(
                span,
                format!("pattern is no regular expression: {why}"),
                "the syntax is that of the Rust crate regex: without look-around and back-references",
            );
            return None;
        }
    };
    let names: Vec<&str> = compiled.capture_names().flatten().collect();
    if !names.contains(&"step") {
        let hint = "write `(?P<step>\\d+)` where the step, or the epoch, is printed";
        report.error_hint(span, "pattern has no group named step", hint);
    }
    match (names.contains(&"name"), names.contains(&"value")) {
        (true, true) => {}
        (true, false) | (false, true) => {
            let hint =
                "with `(?P<name>...)` and `(?P<value>...)` any metric is found; else name a group for each";
            report.error_hint(span, "pattern has only one of the groups name and value", hint);
        }
        (false, false) => named_groups(&names, objective, span, report),
    }
    Some(MetricsFrom::Stdout { pattern: pattern.to_owned() })
}

/// Groups that stand each for a metric.
fn named_groups(names: &[&str], objective: Option<&Objective>, span: Span, report: &mut Report<'_>) {
    let metrics: Vec<&str> = names.iter().copied().filter(|name| *name != "step").collect();
    if metrics.is_empty() {
        let hint = "write for instance `loss (?P<loss>\\S+)`";
        report.error_hint(span, "pattern has no group for a metric", hint);
    }
    for name in &metrics {
        if let Err(error) = MetricName::new(name) {
            report.error(span, error.to_string());
        }
    }
    if let Some(objective) = objective
        && !metrics.is_empty()
        && !metrics.contains(&objective.name.as_str())
    {
        let name = &objective.name;
        report.error_hint(
            span,
            format!("pattern finds {}, but the sweep's metric is {name}", metrics.join(", ")),
            "name the group like the metric; for names with / use the groups name and value",
        );
    }
}

fn folder(section: &Section<'_>, report: &mut Report<'_>) -> Option<MetricsFrom> {
    let dir = path("dir", section, report)?;
    if dir.starts_with('/') || dir.split('/').any(|part| part == "..") {
        let span = section.get("dir").map_or(section.span, |entry| entry.node.span);
        report.error_hint(span, "dir leads out of the working folder", "write a relative path without ..");
        return None;
    }
    Some(MetricsFrom::Tensorboard { dir: dir.to_owned() })
}

fn compat(top: &Section<'_>, report: &mut Report<'_>) -> Option<Compat> {
    top.get("compat")?;
    match top.text("compat", report)? {
        ("wandb", _) => Some(Compat::Wandb),
        (other, span) => {
            let message = format!("there is no compat {}", quoted(other));
            report.error_hint(span, message, "the only one is wandb");
            None
        }
    }
}

fn environment(top: &Section<'_>, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let Some(section) =
        top.get("env").and_then(|entry| Section::of(&entry.node, "env", "env: {OMP_NUM_THREADS: 1}", report))
    else {
        return BTreeMap::new();
    };
    if section.entries().len() > VARIABLES {
        report.error(section.span, format!("env has at most {VARIABLES} variables"));
        return BTreeMap::new();
    }
    section.entries().iter().filter_map(|entry| variable(entry, report)).collect()
}

fn variable(entry: &Entry, report: &mut Report<'_>) -> Option<(String, String)> {
    let name = entry.key.as_str();
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if name.is_empty() || !letters || name.starts_with(|c: char| c.is_ascii_digit()) || name.len() > 128 {
        let message = format!("{} is no name of an environment variable", quoted(name));
        report.error_hint(entry.key_span, message, "letters, digits and _");
        return None;
    }
    if name.starts_with("SPOTSWEEP_") || name == "CUDA_VISIBLE_DEVICES" {
        let message = format!("{name} is set by the agent");
        report.error_hint(entry.key_span, message, "remove it; `resources.device` says where trials run");
        return None;
    }
    match as_text(&entry.node.value) {
        Some(text) if text.len() <= COMMAND_PART_BYTES && !text.contains('\0') => {
            Some((name.to_owned(), text))
        }
        Some(_) => {
            let message = format!("{name} has at most {COMMAND_PART_BYTES} bytes, none of them NUL");
            report.error(entry.node.span, message);
            None
        }
        None => {
            report.error(entry.node.span, format!("{name} is text, not {}", entry.node.value.kind()));
            None
        }
    }
}

fn limits(top: &Section<'_>, report: &mut Report<'_>) -> ProgramLimits {
    const FORM: &str = "limits: {memory: 8GiB, disk: 20GiB, output: 16MiB, time_s: 3600, grace_s: 30}";
    let Some(section) = top.get("limits").and_then(|entry| Section::of(&entry.node, "limits", FORM, report))
    else {
        return ProgramLimits::default();
    };
    section.only(&["memory", "disk", "output", "time_s", "grace_s"], report, |_| None);
    let output_bytes = size_of("output", &section, report).unwrap_or(OUTPUT_BYTES);
    if output_bytes < LEAST_OUTPUT_BYTES
        && let Some(entry) = section.get("output")
    {
        report.error(entry.node.span, format!("output is at least {LEAST_OUTPUT_BYTES} bytes"));
    }
    let mut seconds = |key: &str, least: f64, most: f64| section.number(key, least..=most, report);
    let (time_s, grace_s) =
        (seconds("time_s", 1.0, LONGEST_S), seconds("grace_s", 0.0, LONGEST_GRACE_S).unwrap_or(GRACE_S));
    ProgramLimits {
        memory_bytes: size_of("memory", &section, report),
        disk_bytes: size_of("disk", &section, report),
        output_bytes,
        time_s,
        grace_s,
    }
}

#[cfg(test)]
mod tests;
