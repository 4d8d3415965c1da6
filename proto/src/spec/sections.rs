//! The sections of a sweep file besides `parameters`: from keys to the fields of a [`SweepSpec`].

mod resilience;

use super::{
    CheckpointPolicy, DeviceRequest, Every, Method, Resources, RetryPolicy, SweepSpec, TrainSection, Workers,
    diagnostic::{Report, Span},
    parameters::{self, ParameterPlace},
    program,
    section::{Section, quoted},
    sinks,
    space::Space,
    yaml::{Node, Value},
};
use crate::{
    catalogue::{Hyperparameter, OwnCatalogue, hyperparameters::Kind, listed, nearest},
    gang::SHARDS_PER_TRIAL,
    ids::{DataName, MetricName, SweepName},
    limits::TRIALS_PER_SWEEP,
    metric::{Goal, Objective},
    train::Length,
    value::ParamValue,
};
use resilience::{checkpoint, retry};
use std::collections::BTreeSet;

/// Where things stand in the file, for checks that need the whole sweep.
pub(super) struct Places {
    pub(super) method: Option<Span>,
    /// Whether the method is valid, so that it makes sense to count trials.
    pub(super) method_known: bool,
    pub(super) metric: Option<Span>,
    pub(super) train: Option<Span>,
    pub(super) train_keys: Vec<(String, Span)>,
    pub(super) run_cap: Option<Span>,
    pub(super) parameters: Vec<ParameterPlace>,
    pub(super) parameters_section: Option<Span>,
}

const KEYS: &[&str] = &[
    "name",
    "description",
    "method",
    "metric",
    "parameters",
    "run_cap",
    "seed",
    "train",
    "resources",
    "checkpoint",
    "retry",
    "priority",
    "program",
    "command",
    "code",
    "metrics",
    "compat",
    "env",
    "limits",
    "sinks",
];
const TRAIN_KEYS: &[&str] = &["model", "data", "epochs", "steps", "seed", "threads", "shards", "exact"];

/// Defaults of the sections that may be left out.
pub(super) const CHECKPOINT: CheckpointPolicy =
    CheckpointPolicy { every: Every::Auto { min_s: AUTO_S.0, max_s: AUTO_S.1 }, keep_last: 1 };
pub(super) const RETRY: RetryPolicy = RetryPolicy { max_failures: 3, backoff_s: 1.0 };
/// Bounds of `every: auto`, in seconds, where the file gives none.
const AUTO_S: (f64, f64) = (5.0, 600.0);
const RESOURCES: Resources =
    Resources { device: DeviceRequest::Any, memory_bytes: None, workers: Workers { min: 1, max: 1 } };

/// Reads the whole tree. Where something is wrong the report says so, and a default stands in.
pub(super) fn read(
    root: &Node,
    default_name: SweepName,
    report: &mut Report<'_>,
) -> Option<(SweepSpec, Places)> {
    let top = Section::of(
        root,
        "a sweep file",
        "name: ..., method: grid, parameters: {...}, train: {...}",
        report,
    )?;
    let has_program = program::MAKING.iter().any(|key| top.get(key).is_some());
    let read_over = if has_program { program::READ_OVER.as_slice() } else { &[] };
    let meant = top.only(&[KEYS, read_over].concat(), report, top_advice);
    let method_span = top.get("method").map(|entry| entry.node.span);
    let (space, parameter_places, groups) = match top.get("parameters") {
        Some(entry) => parameters::read(&entry.node, report),
        None => (Space::default(), Vec::new(), BTreeSet::new()),
    };
    let method = method(&top, meant.contains(&"method"), report);
    let section = |key: &str| top.get(key).map(|entry| &entry.node);
    let train_node = section("train");
    let mut spec = SweepSpec {
        name: top
            .text("name", report)
            .and_then(|(text, span)| named(SweepName::new(text), span, report))
            .unwrap_or(default_name),
        description: top.text("description", report).map(|(text, _)| text.to_owned()).unwrap_or_default(),
        method: method.unwrap_or(Method::Grid),
        objective: section("metric").and_then(|node| metric(node, report)),
        space,
        run_cap: top
            .integer("run_cap", 1..=i64::try_from(TRIALS_PER_SWEEP).unwrap_or(i64::MAX), report)
            .and_then(|cap| u32::try_from(cap).ok()),
        train: train(train_node, report),
        resources: section("resources").map_or(RESOURCES, |node| resources(node, report)),
        checkpoint: section("checkpoint").map_or(CHECKPOINT, |node| checkpoint(node, report)),
        retry: section("retry").map_or(RETRY, |node| retry(node, report)),
        priority: top
            .integer("priority", -1000..=1000, report)
            .and_then(|p| i32::try_from(p).ok())
            .unwrap_or(0),
        program: None,
        sinks: section("sinks").map_or_else(Vec::new, |node| sinks::read(node, report)),
    };
    spec.program = program::read(&top, groups, spec.objective.as_ref(), report);
    program::contradictions(&spec, train_node, section("resources"), &parameter_places, report);
    let workers = spec.resources.workers;
    if !has_program
        && workers.max > spec.train.shards
        && let Some(node) = section("resources")
    {
        let (max, shards) = (workers.max, spec.train.shards);
        let message = format!(
            "{max} workers cannot share a trial of {shards} shard{}",
            if shards == 1 { "" } else { "s" }
        );
        report.error_hint(
            node.span,
            message,
            format!("every worker carries a shard: write `shards: {max}` or more in `train`"),
        );
    }
    let train_keys = match train_node.map(|node| &node.value) {
        Some(Value::Mapping(entries)) => entries.iter().map(|e| (e.key.clone(), e.node.span)).collect(),
        _ => Vec::new(),
    };
    let places = Places {
        method: method_span,
        method_known: method.is_some(),
        metric: section("metric").map(|node| match &node.value {
            Value::Mapping(entries) => {
                entries.iter().find(|e| e.key == "name").map_or(node.span, |e| e.node.span)
            }
            _ => node.span,
        }),
        train: top.get("train").map(|entry| entry.key_span),
        train_keys,
        run_cap: section("run_cap").map(|node| node.span),
        parameters: parameter_places,
        parameters_section: top.get("parameters").map(|entry| entry.key_span),
    };
    Some((spec, places))
}

/// What people write at the top that belongs elsewhere, or nowhere.
fn top_advice(key: &str) -> Option<(String, String)> {
    let message = |text: &str| Some((format!("{key} {text}"), "remove it".to_owned()));
    match key {
        "early_terminate" => message("(hyperband) is not supported yet: every trial trains to its end"),
        "entity" | "project" | "controller" | "imports" | "job" | "scheduler" | "settings" | "version" => {
            message("belongs to Weights & Biases' own server and has no meaning here")
        }
        "goal" | "target" => Some((
            format!("{key} does not stand at the top"),
            format!("write `metric: {{name: ..., {key}: ...}}`"),
        )),
        "device" | "memory" => {
            Some((format!("{key} does not stand at the top"), format!("write `resources: {{{key}: ...}}`")))
        }
        "every_steps" | "every_s" | "keep_last" => {
            Some((format!("{key} does not stand at the top"), format!("write `checkpoint: {{{key}: ...}}`")))
        }
        "max_failures" | "backoff_s" => {
            Some((format!("{key} does not stand at the top"), format!("write `retry: {{{key}: ...}}`")))
        }
        _ if TRAIN_KEYS.contains(&key) => {
            Some((format!("{key} does not stand at the top"), format!("write `train: {{{key}: ...}}`")))
        }
        _ => hyperparameter_advice(key),
    }
}

/// A hyperparameter that stands outside `parameters`.
fn hyperparameter_advice(key: &str) -> Option<(String, String)> {
    Hyperparameter::named(key)?;
    Some((format!("{key} is a hyperparameter"), format!("write `parameters: {{{key}: {{value: ...}}}}`")))
}

fn named<T, E: std::fmt::Display>(name: Result<T, E>, span: Span, report: &mut Report<'_>) -> Option<T> {
    name.map_err(|error| report.error(span, error.to_string())).ok()
}

fn method(top: &Section<'_>, misspelled: bool, report: &mut Report<'_>) -> Option<Method> {
    let seed_entry = top.get("seed");
    let seed =
        top.integer("seed", 0..=i64::MAX, report).and_then(|seed| u64::try_from(seed).ok()).unwrap_or(0);
    if top.get("method").is_none() && !misspelled {
        report.error_hint(top.span, "the sweep has no method", "add `method: grid` or `method: random`");
    }
    match top.text("method", report)? {
        ("grid", _) => {
            if let Some(entry) = seed_entry {
                report.error_hint(
                    entry.key_span,
                    "a grid draws nothing, so seed has no meaning here",
                    "for the seed of training write `train: {seed: ...}`",
                );
            }
            Some(Method::Grid)
        }
        ("random", _) => Some(Method::Random { seed }),
        ("bayes", span) => {
            report.error_hint(span, "bayes is not supported yet", "use `method: random` with run_cap");
            None
        }
        (other, span) => {
            let near = nearest(other, ["grid", "random"]);
            let hint = near.map_or("one of grid, random".to_owned(), |near| format!("did you mean {near}?"));
            report.error_hint(span, format!("there is no method {}", quoted(other)), hint);
            None
        }
    }
}

fn metric(node: &Node, report: &mut Report<'_>) -> Option<Objective> {
    let section = Section::of(node, "metric", "metric: {name: val_accuracy, goal: maximize}", report)?;
    let meant = section.only(&["name", "goal", "target"], report, |_| None);
    let goal = match section.text("goal", report) {
        Some(("minimize", _)) => Some(Goal::Minimize),
        Some(("maximize", _)) => Some(Goal::Maximize),
        Some((other, span)) => {
            let near = if other.starts_with("max") { "maximize" } else { "minimize" };
            report.error_hint(
                span,
                format!("there is no goal {}", quoted(other)),
                format!("did you mean {near}?"),
            );
            None
        }
        None if section.get("goal").is_some() => None,
        // As in Weights & Biases.
        None => Some(Goal::Minimize),
    };
    let target = section.any_number("target", report).map(|(target, _)| target);
    if section.get("name").is_none() && !meant.contains(&"name") {
        report.error_hint(
            section.span,
            "metric has no name",
            "write `metric: {name: val_accuracy, goal: maximize}`",
        );
    }
    let (text, span) = section.text("name", report)?;
    let name = named(MetricName::new(text), span, report)?;
    if section.get("goal").is_none() && text.ends_with("accuracy") {
        report.error_hint(
            span,
            format!("without a goal {text} would be minimized"),
            format!("write `metric: {{name: {text}, goal: maximize}}`"),
        );
    }
    Some(Objective { name, goal: goal?, target })
}

fn train(node: Option<&Node>, report: &mut Report<'_>) -> TrainSection {
    let empty = TrainSection {
        model: None,
        data: None,
        length: None,
        seed: 0,
        threads: 1,
        shards: 1,
        exact: true,
        own: OwnCatalogue::default(),
    };
    let Some(section) = node
        .and_then(|node| Section::of(node, "train", "train: {model: mlp, data: mnist, epochs: 3}", report))
    else {
        return empty;
    };
    section.only(TRAIN_KEYS, report, hyperparameter_advice);
    for key in ["model", "data"] {
        if let (Some((text, span)), Some(row)) = (section.text(key, report), Hyperparameter::named(key))
            && let Err(error) = row.check(&ParamValue::Text(text.to_owned()))
        {
            report.push(Some(span), error.message, error.hint);
        }
    }
    let mut integer = |key: &str| section.integer(key, range_of(key), report);
    let (epochs, steps) = (integer("epochs"), integer("steps"));
    let (seed, threads) = (integer("seed"), integer("threads"));
    let shards = section.integer("shards", 1..=i64::from(SHARDS_PER_TRIAL), report);
    let exact = section.boolean("exact", report);
    if let (Some(_), Some(entry)) = (section.get("epochs"), section.get("steps")) {
        report.error_hint(entry.key_span, "train has both epochs and steps", "keep one of the two");
    }
    // Errors of these two are reported above.
    let mut silent = Report::new("");
    TrainSection {
        model: section.text("model", &mut silent).map(|(text, _)| text.to_owned()),
        data: section.text("data", &mut silent).and_then(|(text, _)| DataName::new(text).ok()),
        length: match (epochs, steps) {
            (Some(epochs), _) => u32::try_from(epochs).ok().map(Length::Epochs),
            (None, Some(steps)) => u64::try_from(steps).ok().map(Length::Steps),
            (None, None) => None,
        },
        seed: seed.and_then(|seed| u64::try_from(seed).ok()).unwrap_or(empty.seed),
        threads: threads.and_then(|threads| u16::try_from(threads).ok()).unwrap_or(empty.threads),
        shards: shards.and_then(|shards| u32::try_from(shards).ok()).unwrap_or(empty.shards),
        exact: exact.unwrap_or(empty.exact),
        own: empty.own,
    }
}

/// The range that the catalogue gives an integer key.
fn range_of(key: &str) -> std::ops::RangeInclusive<i64> {
    match Hyperparameter::named(key).map(|row| row.kind) {
        Some(Kind::Int { min, max }) => min..=max,
        _ => 0..=i64::MAX,
    }
}

fn resources(node: &Node, report: &mut Report<'_>) -> Resources {
    let Some(section) = Section::of(
        node,
        "resources",
        "resources: {device: cuda, memory: 2GiB, workers: {min: 1, max: 4}}",
        report,
    ) else {
        return RESOURCES;
    };
    section.only(&["device", "memory", "workers"], report, |key| match key {
        "gpu" | "gpus" | "cuda" => {
            Some((format!("resources has no key {key}"), "write `device: cuda`".to_owned()))
        }
        "cpu" | "cpus" => Some((
            format!("resources has no key {key}"),
            "write `device: cpu`; threads stand in `train`".to_owned(),
        )),
        _ => None,
    });
    let device = match section.text("device", report) {
        None | Some(("any", _)) => DeviceRequest::Any,
        Some(("cpu", _)) => DeviceRequest::Cpu,
        Some(("cuda", _)) => DeviceRequest::Cuda,
        Some((other, span)) => {
            let hint = match other {
                "gpu" => "did you mean cuda?",
                "auto" => "did you mean any?",
                _ if other.starts_with("cuda:") => "a sweep says cuda; which device it is, the worker says",
                _ => "one of any, cpu, cuda",
            };
            report.error_hint(span, format!("there is no device {}", quoted(other)), hint);
            DeviceRequest::Any
        }
    };
    Resources {
        device,
        memory_bytes: size_of("memory", &section, report),
        workers: workers(&section, report),
    }
}

/// `workers: 4`, or `workers: {min: 2, max: 8}`.
fn workers(section: &Section<'_>, report: &mut Report<'_>) -> Workers {
    let most = i64::from(SHARDS_PER_TRIAL);
    let Some(entry) = section.get("workers") else { return Workers::default() };
    if !matches!(entry.node.value, Value::Mapping(_)) {
        let both = section.integer("workers", 1..=most, report).and_then(|count| u32::try_from(count).ok());
        return both.map_or_else(Workers::default, |count| Workers { min: count, max: count });
    }
    let Some(bounds) = Section::of(&entry.node, "workers", "workers: {min: 1, max: 4}", report) else {
        return Workers::default();
    };
    bounds.only(&["min", "max"], report, |_| None);
    let mut bound =
        |key: &str| bounds.integer(key, 1..=most, report).and_then(|count| u32::try_from(count).ok());
    let (min, max) = (bound("min"), bound("max"));
    let min = min.unwrap_or(1);
    let max = max.unwrap_or(min);
    if min > max
        && let Some(entry) = bounds.get("min")
    {
        let message = format!("min of {min} workers is above max of {max}");
        report.error_hint(entry.node.span, message, "make min the smaller one");
        return Workers::default();
    }
    Workers { min, max }
}

/// `2GiB`, `512 MB` or a number of bytes.
pub(super) fn size_of(key: &str, section: &Section<'_>, report: &mut Report<'_>) -> Option<u64> {
    const UNITS: &[(&str, u64)] = &[
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    /// More than any device has: 1 PiB.
    const MOST: f64 = 1_125_899_906_842_624.0;
    let node = &section.get(key)?.node;
    let bytes = match &node.value {
        Value::Scalar(ParamValue::Int(bytes)) => ParamValue::Int(*bytes).as_f64(),
        Value::Scalar(ParamValue::Text(text)) => UNITS.iter().find_map(|(unit, factor)| {
            let number: f64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
            #[expect(clippy::cast_precision_loss, reason = "factors are small powers")]
            let factor = *factor as f64;
            Some(number * factor)
        }),
        _ => None,
    };
    match bytes.filter(|bytes| (1.0..=MOST).contains(bytes)) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within [1, 2^50]")]
        Some(bytes) => Some(bytes as u64),
        None => {
            report.error_hint(
                node.span,
                format!("{key} is a size above 0"),
                format!(
                    "write a number of bytes, or one with a unit: {}",
                    listed(UNITS.iter().map(|(unit, _)| *unit))
                ),
            );
            None
        }
    }
}
