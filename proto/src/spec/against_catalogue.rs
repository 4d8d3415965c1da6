//! Checks a sweep against the catalogue: that every parameter means something to a model of the sweep, that
//! every value has its type and range, and that the trials make sense as a whole.
//!
//! Bounded: values one by one, then the first [`TRIALS`] trials. A trial beyond them that contradicts itself
//! fails with the same message when it starts.

use super::{
    Method, SweepSpec, added,
    diagnostic::{Report, Span},
    draw,
    own::{self, Own},
    row::{Draws, Row},
    sections::Places,
    space::{Domain, Parameter, Quantum},
};
use crate::{
    catalogue::{
        self, CatalogueError, Hyperparameter, ModelKind, canonical,
        hyperparameters::{OPTIMIZERS, SCHEDULES},
        listed,
    },
    datasets::DataSets,
    limits::TRIALS_PER_SWEEP,
    metric::KNOWN_METRICS,
    value::ParamValue,
};
use std::collections::HashMap;

/// Trials whose recipe is made on reading.
const TRIALS: u32 = 1000;
/// Draws of unbounded distributions that are checked on reading.
const DRAWS: u32 = 20_000;
/// Trials that may be reported for contradicting themselves, and wrong values of one parameter.
const FAULTS: usize = 3;

pub(super) fn check(
    spec: &SweepSpec,
    places: &Places,
    sets: &DataSets,
    own: Own<'_>,
    report: &mut Report<'_>,
) {
    if places.method_known {
        size(spec, places, report);
    }
    if spec.program.is_some() {
        return;
    }
    if !own::check(spec, places, own, sets, report) {
        return;
    }
    let models = models_of(spec);
    let mut rows: HashMap<&str, &Parameter> = HashMap::new();
    for (parameter, place) in spec.space.0.iter().zip(&places.parameters) {
        let key = canonical(&parameter.name);
        let meant = rows_for(spec, parameter, &models, place.name, report);
        if meant.is_empty() {
            continue;
        }
        if let Some(first) = rows.insert(key, parameter) {
            report.error_hint(
                place.name,
                format!("{} and {} both stand for {key}", first.name, parameter.name),
                "a nested parameter stands for its last part",
            );
        }
        for row in meant {
            if let Row::Known(row) = row {
                only_with(row, spec, place.name, report);
            }
            values(row, parameter, &place.items, place.name, report);
            unbounded_draws(spec, row, parameter, place.name, report);
        }
    }
    added::check(spec, places, sets, report);
    objective(spec, &models, places, report);
    if report.is_clean() {
        recipes(spec, places, sets, report);
    }
}

/// How many trials there are, and whether that is said.
fn size(spec: &SweepSpec, places: &Places, report: &mut Report<'_>) {
    match spec.method {
        Method::Grid => {
            for (parameter, place) in spec.space.0.iter().zip(&places.parameters) {
                let (name, distribution) = (&parameter.name, parameter.domain.distribution());
                if let Domain::Categorical { probabilities: Some(_), .. } = parameter.domain {
                    report.error_hint(
                        place.name,
                        format!("a grid takes every value of {name} once, so probabilities have no meaning"),
                        "remove probabilities, or use `method: random`",
                    );
                } else if parameter.domain.grid_size().is_none() {
                    report.error_hint(
                        place.name,
                        format!("a grid cannot take every value of {name}, which is {distribution}"),
                        "list `values`, use int_uniform or q_uniform, or use `method: random`",
                    );
                }
            }
            let (all, cap) = (spec.space.grid_trials(), spec.run_cap.map_or(u64::MAX, u64::from));
            if all.min(cap) > TRIALS_PER_SWEEP {
                let shown = if all == u64::MAX { "more than 10^19".to_owned() } else { all.to_string() };
                report.error_hint(
                    places.parameters_section.or(places.method),
                    format!("this grid has {shown} trials; a sweep has at most {TRIALS_PER_SWEEP}"),
                    "list fewer values, set run_cap, or use `method: random` with run_cap",
                );
            }
        }
        Method::Random { .. } => {
            if spec.run_cap.is_none() && places.run_cap.is_none() {
                report.error_hint(
                    places.method,
                    "a random search has no end of its own",
                    "add `run_cap: 100` for 100 trials",
                );
            }
            if spec.space.0.is_empty() && places.parameters_section.is_none() {
                report.error_hint(
                    places.method,
                    "a random search needs parameters",
                    "add `parameters:`, or use `method: grid`",
                );
            }
        }
    }
}

/// The models that trials of the sweep may have; all, if the sweep does not say anything valid.
fn models_of(spec: &SweepSpec) -> Vec<ModelKind> {
    let words = words(spec, "model").unwrap_or_else(|| spec.train.model.iter().map(String::as_str).collect());
    let own = |name: &str| spec.train.own.model(name).map(|_| ModelKind::Own);
    let kind = |name| ModelKind::meant_by(name).or_else(|| own(name));
    let mut models: Vec<ModelKind> = words.into_iter().filter_map(kind).collect();
    // Several modules are one kind of model.
    models.dedup();
    models
}

/// The words that the sweep gives for `key`, if it is a parameter.
pub(super) fn words<'a>(spec: &'a SweepSpec, key: &str) -> Option<Vec<&'a str>> {
    fn word(value: &ParamValue) -> Option<&str> {
        match value {
            ParamValue::Text(text) => Some(text),
            ParamValue::Null
            | ParamValue::Bool(_)
            | ParamValue::Int(_)
            | ParamValue::Float(_)
            | ParamValue::List(_) => None,
        }
    }
    let parameter = spec.space.0.iter().find(|p| canonical(&p.name) == key)?;
    Some(match &parameter.domain {
        Domain::Constant(value) => word(value).into_iter().collect(),
        Domain::Categorical { values, .. } => values.iter().filter_map(word).collect(),
        _ => Vec::new(),
    })
}

/// What a parameter means: a row of the catalogue, and hyperparameters of models of one's own. At least one model of the sweep
/// must have it.
fn rows_for<'a>(
    spec: &'a SweepSpec,
    parameter: &'a Parameter,
    models: &[ModelKind],
    span: Span,
    report: &mut Report<'_>,
) -> Vec<Row<'a>> {
    let key = canonical(&parameter.name);
    let row = Hyperparameter::named(key);
    let known = row.filter(|row| models.is_empty() || models.iter().any(|model| row.models.contains(model)));
    let own = spec.train.own.parameters(key).map(Row::Own);
    let rows: Vec<Row<'a>> = known.map(Row::Known).into_iter().chain(own).collect();
    // Whether a model that nobody knows has it, nobody can say; that it is not known is told already.
    let is_unknown = models.is_empty() && (spec.train.model.is_some() || words(spec, "model").is_some());
    if rows.is_empty() && !is_unknown {
        let mut error = match (models, &spec.train.own.models[..]) {
            ([ModelKind::Own], [own]) => catalogue::unknown_own_key(parameter.name.as_str(), own),
            ([model], _) => catalogue::unknown_key(parameter.name.as_str(), Some(*model)),
            _ => catalogue::unknown_key(parameter.name.as_str(), None),
        };
        if let (Some(row), false) = (row, models.len() == 1) {
            error.message = format!(
                "no model of this sweep has {}; {} has",
                row.name,
                listed(row.models.iter().filter(|model| **model != ModelKind::Own).map(|m| m.name()))
            );
        }
        report.push(Some(span), error.message, error.hint);
    }
    rows
}

/// A knob of an optimizer or schedule that no trial of the sweep has.
fn only_with(row: &Hyperparameter, spec: &SweepSpec, span: Span, report: &mut Report<'_>) {
    let Some(with) = row.only_with else { return };
    let default = if with.key == "optimizer" { OPTIMIZERS.first() } else { SCHEDULES.first() };
    let chosen = words(spec, with.key).unwrap_or_else(|| default.into_iter().copied().collect());
    if !chosen.is_empty() && !with.choices.iter().any(|choice| chosen.contains(choice)) {
        report.error_hint(
            span,
            format!(
                "{} means something only with {}: {}; this sweep has {}",
                row.name,
                with.key,
                with.choices.join(" or "),
                listed(chosen)
            ),
            format!(
                "add `{}: {{value: {}}}`, or remove {}",
                with.key,
                with.choices.first().unwrap_or(&""),
                row.name
            ),
        );
    }
}

/// Every value, or what is known of the values of a distribution.
fn values(row: Row<'_>, parameter: &Parameter, items: &[Span], name: Span, report: &mut Report<'_>) {
    let mut one = |value: &ParamValue, span: Option<&Span>| {
        if let Err(CatalogueError { message, hint, .. }) = row.check(value) {
            report.push(Some(span.copied().unwrap_or(name)), message, hint);
        }
    };
    let ends = match &parameter.domain {
        Domain::Constant(value) => return one(value, items.first()),
        Domain::Categorical { values, .. } => return listed_values(row, values, items, name, report),
        Domain::IntUniform { min, max } => Some((ParamValue::Int(*min), ParamValue::Int(*max))),
        Domain::Uniform { min, max }
        | Domain::LogUniformValues { min, max }
        | Domain::InvLogUniformValues { min, max } => {
            Some((ParamValue::Float(*min), ParamValue::Float(*max)))
        }
        Domain::QUniform { min, max, q } | Domain::QLogUniformValues { min, max, q } => {
            q.multiples(*min, *max).map(|(low, high)| (q.times(low), q.times(high)))
        }
        Domain::Normal { .. }
        | Domain::QNormal { .. }
        | Domain::LogNormal { .. }
        | Domain::QLogNormal { .. } => None,
    };
    let distribution = parameter.domain.distribution();
    match row.draws() {
        Draws::Integers => {
            if !integral(&parameter.domain) {
                return report.error_hint(
                    name,
                    format!("{} is {}, and {distribution} draws other numbers too", row.name(), row.takes()),
                    "use int_uniform, or a q_ distribution with an integer q",
                );
            }
        }
        Draws::Numbers => {}
        Draws::Nothing => {
            return report.error_hint(
                name,
                format!("{} is {}, not a number from {distribution}", row.name(), row.takes()),
                "list its values: `values: [...]`",
            );
        }
    }
    if let Some((min, max)) = ends {
        one(&min, items.first());
        one(&max, items.get(1));
    }
}

/// The values of a list, of which a few wrong ones stand for all.
fn listed_values(row: Row<'_>, values: &[ParamValue], items: &[Span], name: Span, report: &mut Report<'_>) {
    let mut wrong =
        values.iter().enumerate().filter_map(|(index, value)| Some((index, row.check(value).err()?)));
    for (index, error) in wrong.by_ref().take(FAULTS) {
        report.push(Some(items.get(index).copied().unwrap_or(name)), error.message, error.hint);
    }
    if let Some((index, _)) = wrong.next() {
        let rest = 1 + wrong.count();
        report.error(
            items.get(index).copied().unwrap_or(name),
            format!("{rest} more values of {} are wrong", row.name()),
        );
    }
}

/// Whether a distribution draws integers only.
fn integral(domain: &Domain) -> bool {
    match domain {
        Domain::IntUniform { .. } => true,
        Domain::QUniform { q, .. }
        | Domain::QLogUniformValues { q, .. }
        | Domain::QNormal { q, .. }
        | Domain::QLogNormal { q, .. } => matches!(q, Quantum::Int(_)),
        Domain::Constant(_)
        | Domain::Categorical { .. }
        | Domain::Uniform { .. }
        | Domain::LogUniformValues { .. }
        | Domain::InvLogUniformValues { .. }
        | Domain::Normal { .. }
        | Domain::LogNormal { .. } => false,
    }
}

/// A normal distribution has no ends to check, but the trials that will be are known.
fn unbounded_draws(
    spec: &SweepSpec,
    row: Row<'_>,
    parameter: &Parameter,
    name: Span,
    report: &mut Report<'_>,
) {
    let unbounded = matches!(
        parameter.domain,
        Domain::Normal { .. } | Domain::QNormal { .. } | Domain::LogNormal { .. } | Domain::QLogNormal { .. }
    );
    let (true, Method::Random { seed }) = (unbounded, spec.method) else { return };
    for number in 0..spec.trials().min(DRAWS) {
        let value = draw::value(&parameter.domain, draw::word(seed, &parameter.name, number));
        if let Err(error) = row.check(&value) {
            return report.error_hint(
                name,
                format!("trial {number} of this search: {}", error.message),
                "narrow the distribution, or use one that has ends",
            );
        }
    }
}

/// Whether trials will report the metric.
fn objective(spec: &SweepSpec, models: &[ModelKind], places: &Places, report: &mut Report<'_>) {
    let Some(objective) = &spec.objective else { return };
    let name = objective.name.as_str();
    if !KNOWN_METRICS.contains(&name) {
        let hint = match catalogue::nearest(name, KNOWN_METRICS.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("one of {}", listed(KNOWN_METRICS.iter().copied())),
        };
        report.push(places.metric, format!("no trial reports a metric {name}"), Some(hint));
    }
    let zero = spec.space.0.iter().any(|p| {
        canonical(&p.name) == "validation_fraction"
            && matches!(&p.domain, Domain::Constant(value) if value.as_f64() == Some(0.0))
    });
    if name.starts_with("val_") && zero && models.iter().any(|model| model.needs_data()) {
        report.error_hint(
            places.metric,
            format!("{name} is measured on a validation split, and validation_fraction is 0"),
            "set validation_fraction above 0",
        );
    }
}

/// Makes the first recipes, to find what only shows in combination.
fn recipes(spec: &SweepSpec, places: &Places, sets: &DataSets, report: &mut Report<'_>) {
    let mut faults: Vec<CatalogueError> = Vec::new();
    for number in 0..spec.trials().min(TRIALS) {
        let assignment = spec.space.assignment(spec.method, number);
        let Err(error) = catalogue::resolve_with(&spec.train, &assignment, sets) else { continue };
        if faults.contains(&error) {
            continue;
        }
        report.push(place_of(&error.key, spec, places), error.message.clone(), error.hint.clone());
        faults.push(error);
        if faults.len() >= FAULTS {
            return;
        }
    }
}

/// The parameter or the key of `train` that is meant by `key`.
fn place_of(key: &str, spec: &SweepSpec, places: &Places) -> Option<Span> {
    let parameter = spec.space.0.iter().position(|p| p.name.as_str() == key || canonical(&p.name) == key);
    let parameter = parameter.and_then(|index| places.parameters.get(index)).map(|place| place.name);
    let train = places.train_keys.iter().find(|(name, _)| name == key).map(|(_, span)| *span);
    parameter.or(train).or(places.train)
}
