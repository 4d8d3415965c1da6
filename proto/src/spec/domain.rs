//! One parameter of a sweep file: from its keys to the domain of its values. It knows distributions, and no
//! hyperparameter by name.

use super::{
    diagnostic::{Report, Span},
    section::{Section, quoted},
    space::{Domain, Quantum},
    yaml::{Entry, Node, Value},
};
use crate::{
    catalogue::{listed, nearest},
    limits::VALUES_PER_PARAMETER,
    value::ParamValue,
};
use std::collections::HashSet;

/// All keys that a parameter may have, whatever its distribution.
const KEYS: &[&str] =
    &["value", "values", "probabilities", "distribution", "min", "max", "q", "mu", "sigma", "parameters"];

/// The distributions, the keys that each must have and those that it may have.
const DISTRIBUTIONS: &[(&str, &[&str], &[&str])] = &[
    ("constant", &["value"], &[]),
    ("categorical", &["values"], &["probabilities"]),
    ("categorical_w_probabilities", &["values", "probabilities"], &[]),
    ("int_uniform", &["min", "max"], &[]),
    ("uniform", &["min", "max"], &[]),
    ("log_uniform_values", &["min", "max"], &[]),
    ("inv_log_uniform_values", &["min", "max"], &[]),
    ("q_uniform", &["min", "max"], &["q"]),
    ("q_log_uniform_values", &["min", "max"], &["q"]),
    ("normal", &[], &["mu", "sigma"]),
    ("q_normal", &[], &["mu", "sigma", "q"]),
    ("log_normal", &[], &["mu", "sigma"]),
    ("q_log_normal", &[], &["mu", "sigma", "q"]),
];

/// Reads one parameter's domain, and where its values (or `min` and `max`) stand.
pub(super) fn domain(entry: &Entry, report: &mut Report<'_>) -> Option<(Domain, Vec<Span>)> {
    let name = quoted(&entry.key);
    if let Some((message, hint)) = no_mapping(&name, &entry.node.value) {
        let span = if entry.node.value.kind() == "null" { entry.key_span } else { entry.node.span };
        report.error_hint(span, message, hint);
        return None;
    }
    let section = Section::of(&entry.node, &name, "name: {values: [...]}", report)?;
    let before = report.len();
    let beta = section.get("distribution").is_some_and(
        |entry| matches!(&entry.node.value, Value::Scalar(ParamValue::Text(text)) if text.ends_with("beta")),
    );
    let meant = if beta { Vec::new() } else { section.only(KEYS, report, |_| None) };
    // With a misspelled key nothing is missing, or nothing can be said.
    if !meant.is_empty() && section.get("distribution").is_none() {
        return None;
    }
    let Distribution { name: distribution, span, by } = distribution(&section, report)?;
    let (required, optional) = keys_of(distribution)?;
    for entry in section.entries().iter().filter(|entry| KEYS.contains(&entry.key.as_str())) {
        let key = entry.key.as_str();
        if key != "distribution" && !required.contains(&key) && !optional.contains(&key) {
            let message = match by {
                Some(by) => format!("{key} does not go together with {by}"),
                None => format!("{distribution} has no {key}"),
            };
            let takes = listed(required.iter().chain(optional).copied());
            report.error_hint(entry.key_span, message, format!("{distribution} takes {takes}"));
        }
    }
    for key in required.iter().filter(|key| section.get(key).is_none()) {
        report.error(span, format!("{distribution} needs {key}"));
    }
    if report.len() > before {
        return None;
    }
    build(distribution, &section, report)
}

/// What is wrong with a parameter that is no mapping, and how it is written.
fn no_mapping(name: &str, value: &Value) -> Option<(String, String)> {
    let list = format!("write `{name}: {{values: [...]}}`");
    match value {
        Value::Mapping(keys) if keys.is_empty() => Some((format!("{name} has no values"), list)),
        Value::Mapping(_) => None,
        Value::Sequence(_) => Some((format!("{name} is a list, not a mapping"), list)),
        Value::Scalar(ParamValue::Null) => Some((format!("{name} has no values"), list)),
        Value::Scalar(scalar) => {
            let shown: String = scalar.to_string().chars().take(40).collect();
            let message = format!("{name} is {}, not a mapping", value.kind());
            Some((message, format!("write `{name}: {{value: {shown}}}`")))
        }
        Value::Unusable(why) => Some(((*why).to_owned(), list)),
    }
}

/// A distribution, where it is named, and the key from which it was inferred if it is not.
struct Distribution {
    name: &'static str,
    span: Span,
    by: Option<&'static str>,
}

fn keys_of(distribution: &str) -> Option<(&'static [&'static str], &'static [&'static str])> {
    DISTRIBUTIONS
        .iter()
        .find(|(name, ..)| *name == distribution)
        .map(|(_, required, optional)| (*required, *optional))
}

/// The distribution as written, or as the other keys say.
fn distribution(section: &Section<'_>, report: &mut Report<'_>) -> Option<Distribution> {
    if section.get("distribution").is_some() {
        let (text, span) = section.text("distribution", report)?;
        if let Some((name, ..)) = DISTRIBUTIONS.iter().find(|(name, ..)| *name == text) {
            return Some(Distribution { name, span, by: None });
        }
        let (message, hint) = refused(text, section, report);
        report.push(Some(span), message, Some(hint));
        return None;
    }
    let has = |key| section.get(key).is_some();
    let integer = |key| {
        section.get(key).is_some_and(|entry| {
            matches!(entry.node.value, Value::Scalar(ParamValue::Int(_)) | Value::Unusable(_))
        })
    };
    let inferred = |name, by| Some(Distribution { name, span: section.span, by: Some(by) });
    let (message, hint) = if has("value") {
        return inferred("constant", "value");
    } else if has("values") {
        return inferred("categorical", "values");
    } else if has("q") && (has("min") || has("max")) {
        ("q needs a distribution".to_owned(), "add `distribution: q_uniform` or `q_log_uniform_values`")
    } else if has("min") && has("max") {
        return inferred(if integer("min") && integer("max") { "int_uniform" } else { "uniform" }, "min");
    } else if has("min") || has("max") {
        let missing = if has("min") { "max" } else { "min" };
        (format!("{} has no {missing}", section.what), "a range has `min:` and `max:`")
    } else if has("mu") || has("sigma") {
        ("mu and sigma need a distribution".to_owned(), "add `distribution: normal` or `log_normal`")
    } else {
        (format!("{} has no values", section.what), "write `values: [...]` or `min:` and `max:`")
    };
    report.error_hint(section.span, message, hint);
    None
}

/// Why a distribution's name is none of ours, and what to write instead.
fn refused(text: &str, section: &Section<'_>, report: &mut Report<'_>) -> (String, String) {
    match text {
        "log_uniform" | "q_log_uniform" | "inv_log_uniform" => {
            let mut ends = Vec::new();
            for key in ["min", "max"] {
                ends.extend(
                    section.any_number(key, report).map(|(x, _)| format!("{key}: {:.4e}", libm::exp(x))),
                );
            }
            let ends = if ends.is_empty() { String::new() } else { format!(" with {}", ends.join(" and ")) };
            (
                format!("{text} takes exponents of e, which are easily mistaken for values"),
                format!("write `distribution: {text}_values`{ends}"),
            )
        }
        "beta" | "q_beta" => (format!("{text} is not supported"), "use uniform or categorical".to_owned()),
        _ => {
            let names = DISTRIBUTIONS.iter().map(|(name, ..)| *name);
            let hint = match nearest(text, names.clone()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("one of {}", listed(names)),
            };
            (format!("there is no distribution {}", quoted(text)), hint)
        }
    }
}

fn build(distribution: &str, section: &Section<'_>, report: &mut Report<'_>) -> Option<(Domain, Vec<Span>)> {
    let place = |key: &str| section.get(key).map(|entry| entry.node.span);
    let ends = || place("min").into_iter().chain(place("max")).collect::<Vec<_>>();
    let domain = match distribution {
        "constant" => {
            let node = &section.get("value")?.node;
            return Some((Domain::Constant(value(node, report)?), vec![node.span]));
        }
        "categorical" | "categorical_w_probabilities" => return categorical(section, report),
        "int_uniform" => {
            let (min, max) = (
                section.integer("min", i64::MIN..=i64::MAX, report),
                section.integer("max", i64::MIN..=i64::MAX, report),
            );
            let (min, max) = (min?, max?);
            if min >= max {
                return min_not_below_max(section, report);
            }
            Domain::IntUniform { min, max }
        }
        "uniform" | "q_uniform" => {
            let (min, max) = bounds(section, None, report)?;
            match distribution {
                "uniform" => Domain::Uniform { min, max },
                _ => Domain::QUniform { min, max, q: quantum(section, Some((min, max)), report)? },
            }
        }
        "log_uniform_values" | "inv_log_uniform_values" | "q_log_uniform_values" => {
            let (min, max) = bounds(section, Some(distribution), report)?;
            match distribution {
                "log_uniform_values" => Domain::LogUniformValues { min, max },
                "inv_log_uniform_values" => Domain::InvLogUniformValues { min, max },
                _ => Domain::QLogUniformValues { min, max, q: quantum(section, Some((min, max)), report)? },
            }
        }
        _ => {
            let mu = if section.get("mu").is_some() { section.any_number("mu", report)?.0 } else { 0.0 };
            let sigma = if section.get("sigma").is_some() {
                let (sigma, span) = section.any_number("sigma", report)?;
                if sigma <= 0.0 {
                    report.error(span, format!("sigma is above 0, not {sigma}"));
                    return None;
                }
                sigma
            } else {
                1.0
            };
            match distribution {
                "normal" => Domain::Normal { mu, sigma },
                "log_normal" => Domain::LogNormal { mu, sigma },
                "q_normal" => Domain::QNormal { mu, sigma, q: quantum(section, None, report)? },
                _ => Domain::QLogNormal { mu, sigma, q: quantum(section, None, report)? },
            }
        }
    };
    Some((domain, ends()))
}

/// `min` and `max` as numbers; both above 0 for the distribution named by `positive_for`.
fn bounds(section: &Section<'_>, positive_for: Option<&str>, report: &mut Report<'_>) -> Option<(f64, f64)> {
    let (min, max) = (section.any_number("min", report), section.any_number("max", report));
    let ((min, span), (max, _)) = (min?, max?);
    if min >= max {
        return min_not_below_max(section, report);
    }
    if let Some(distribution) = positive_for.filter(|_| min <= 0.0) {
        report.error(span, format!("{distribution} takes values above 0; min is {min}"));
        return None;
    }
    Some((min, max))
}

fn min_not_below_max<T>(section: &Section<'_>, report: &mut Report<'_>) -> Option<T> {
    let span = section.get("min").map_or(section.span, |entry| entry.node.span);
    report.error_hint(
        span,
        format!("min of {} is not below its max", section.what),
        "for one value write `value: ...`",
    );
    None
}

/// `q`, by default 1; with at least one multiple within `bounds`.
fn quantum(section: &Section<'_>, bounds: Option<(f64, f64)>, report: &mut Report<'_>) -> Option<Quantum> {
    let (quantum, span) = match section.get("q") {
        None => (Quantum::Int(1), section.span),
        Some(entry) => {
            let (size, span) = section.any_number("q", report)?;
            // 2^53, and the smallest step that 15 decimals can show.
            if !(1e-15..=9_007_199_254_740_992.0).contains(&size) {
                report.error(span, format!("q is a number of at least 1e-15, not {size}"));
                return None;
            }
            match &entry.node.value {
                Value::Scalar(ParamValue::Int(q)) => (Quantum::Int(*q), span),
                _ => (Quantum::Float(size), span),
            }
        }
    };
    if let Some((min, max)) = bounds
        && quantum.multiples(min, max).is_none()
    {
        report.error(span, format!("no multiple of q ({}) lies between min and max", quantum.size()));
        return None;
    }
    Some(quantum)
}

fn categorical(section: &Section<'_>, report: &mut Report<'_>) -> Option<(Domain, Vec<Span>)> {
    let node = &section.get("values")?.node;
    let Value::Sequence(items) = &node.value else {
        report.error_hint(
            node.span,
            format!("values is a list, not {}", node.value.kind()),
            "write `values: [a, b]`, or `value:` for one",
        );
        return None;
    };
    if items.is_empty() {
        report.error(node.span, format!("{} has no values", section.what));
        return None;
    }
    if items.len() > VALUES_PER_PARAMETER {
        report.error(
            node.span,
            format!("a parameter has at most {VALUES_PER_PARAMETER} values, this one has {}", items.len()),
        );
        return None;
    }
    let mut seen = HashSet::with_capacity(items.len());
    let (mut values, mut places) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    for item in items {
        let Some(value) = value(item, report) else { continue };
        if !seen.insert(sameness(&value)) {
            report.error_hint(
                item.span,
                format!("{value} stands twice among the values of {}", section.what),
                "list each value once; `probabilities` make one more likely",
            );
        }
        values.push(value);
        places.push(item.span);
    }
    let probabilities = match section.get("probabilities") {
        None => None,
        Some(entry) => Some(probabilities(&entry.node, items.len(), report)?),
    };
    (values.len() == items.len()).then_some((Domain::Categorical { values, probabilities }, places))
}

fn probabilities(node: &Node, values: usize, report: &mut Report<'_>) -> Option<Vec<f64>> {
    /// Rounding that people do by hand: three times 0.333 is meant to be 1.
    const ROUNDING: f64 = 0.005;
    let Value::Sequence(items) = &node.value else {
        report.error(node.span, format!("probabilities is a list, not {}", node.value.kind()));
        return None;
    };
    if items.len() != values {
        report.error(node.span, format!("there are {} probabilities for {values} values", items.len()));
        return None;
    }
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        let p = match &item.value {
            Value::Scalar(value) => value.as_f64(),
            Value::Unusable(_) | Value::Sequence(_) | Value::Mapping(_) => None,
        };
        match p.filter(|p| (0.0..=1.0).contains(p)) {
            Some(p) => all.push(p),
            None => {
                report.error(item.span, "a probability is a number in [0, 1]");
                return None;
            }
        }
    }
    let sum: f64 = all.iter().sum();
    if (sum - 1.0).abs() > ROUNDING {
        report.error(node.span, format!("the probabilities add up to {sum}, not to 1"));
        return None;
    }
    Some(all.into_iter().map(|p| p / sum).collect())
}

/// A value: a scalar, or a list of values.
fn value(node: &Node, report: &mut Report<'_>) -> Option<ParamValue> {
    match &node.value {
        Value::Scalar(value) => Some(value.clone()),
        Value::Sequence(items) => {
            let mut list = Vec::with_capacity(items.len());
            for item in items {
                list.push(value(item, report)?);
            }
            Some(ParamValue::List(list))
        }
        Value::Unusable(why) => {
            report.error(node.span, *why);
            None
        }
        Value::Mapping(_) => {
            report.error_hint(
                node.span,
                "a mapping is no value",
                "nested parameters stand under `parameters:`",
            );
            None
        }
    }
}

/// Equal for values that mean the same: 1 and 1.0 do.
fn sameness(value: &ParamValue) -> String {
    match value {
        ParamValue::Int(i) => format!("n{i}"),
        ParamValue::Float(x) => format!("n{x}"),
        ParamValue::List(items) => format!("[{}]", items.iter().map(sameness).collect::<Vec<_>>().join(",")),
        ParamValue::Null | ParamValue::Bool(_) => format!("b{value}"),
        ParamValue::Text(text) => format!("t{text:?}"),
    }
}
