//! The sections about what becomes of a trial that is lost or fails: `checkpoint` and `retry`.

use super::{AUTO_S, CHECKPOINT, RETRY};
use crate::{
    limits::STEPS_PER_TRIAL,
    spec::{
        CheckpointPolicy, Every, RetryPolicy,
        diagnostic::Report,
        section::Section,
        yaml::{Node, Value},
    },
    value::ParamValue,
};

pub(super) fn checkpoint(node: &Node, report: &mut Report<'_>) -> CheckpointPolicy {
    /// A week.
    const LONGEST_S: f64 = 604_800.0;
    let Some(section) = Section::of(node, "checkpoint", "checkpoint: {every_s: 60, keep_last: 2}", report)
    else {
        return CHECKPOINT;
    };
    section.only(&["every_steps", "every_s", "every", "min_s", "max_s", "keep_last"], report, |_| None);
    let steps = section.integer("every_steps", 1..=STEPS_PER_TRIAL as i64, report);
    let seconds = section.number("every_s", 0.1..=LONGEST_S, report);
    if let (Some(_), Some(entry)) = (section.get("every_steps"), section.get("every_s")) {
        report.error_hint(
            entry.key_span,
            "checkpoint has both every_steps and every_s",
            "keep one of the two",
        );
    }
    let auto = automatic(&section, LONGEST_S, report);
    CheckpointPolicy {
        every: match (steps.and_then(|steps| u64::try_from(steps).ok()), seconds) {
            (Some(steps), _) => Every::Steps(steps),
            (None, Some(seconds)) => Every::Seconds(seconds),
            (None, None) => auto.unwrap_or(CHECKPOINT.every),
        },
        keep_last: section
            .integer("keep_last", 1..=1000, report)
            .and_then(|keep| u32::try_from(keep).ok())
            .unwrap_or(CHECKPOINT.keep_last),
    }
}

/// `every: auto` with its bounds.
fn automatic(section: &Section<'_>, longest_s: f64, report: &mut Report<'_>) -> Option<Every> {
    let bounds = ["min_s", "max_s"].map(|key| section.number(key, 0.1..=longest_s, report));
    let Some(entry) = section.get("every") else {
        for key in ["min_s", "max_s"] {
            if let Some(entry) = section.get(key) {
                let hint = "add `every: auto`, or leave it out";
                report.error_hint(entry.key_span, format!("{key} is a bound of `every: auto`"), hint);
            }
        }
        return None;
    };
    if !matches!(&entry.node.value, Value::Scalar(ParamValue::Text(text)) if text == "auto") {
        let hint = "write `every_s:` or `every_steps:` for an interval of your own";
        report.error_hint(entry.node.span, "every is auto", hint);
        return None;
    }
    for key in ["every_s", "every_steps"] {
        if let Some(entry) = section.get(key) {
            let message = format!("checkpoint has both {key} and every: auto");
            report.error_hint(entry.key_span, message, "keep one of the two");
        }
    }
    let max_s = bounds[1].unwrap_or(AUTO_S.1.max(bounds[0].unwrap_or(0.0)));
    let min_s = bounds[0].unwrap_or(AUTO_S.0.min(max_s));
    if min_s > max_s
        && let Some(entry) = section.get("min_s")
    {
        let message = format!("min_s of {min_s} is above max_s of {max_s}");
        report.error_hint(entry.node.span, message, "make min_s the smaller one");
        return None;
    }
    Some(Every::Auto { min_s, max_s })
}

pub(super) fn retry(node: &Node, report: &mut Report<'_>) -> RetryPolicy {
    /// The engine's own limit of a wait.
    const LONGEST_S: f64 = 300.0;
    let Some(section) = Section::of(node, "retry", "retry: {max_failures: 3, backoff_s: 1}", report) else {
        return RETRY;
    };
    section.only(&["max_failures", "backoff_s"], report, |key| match key {
        "backoff" => Some(("retry has no key backoff".to_owned(), "did you mean backoff_s?".to_owned())),
        _ => None,
    });
    RetryPolicy {
        max_failures: section
            .integer("max_failures", 1..=1000, report)
            .and_then(|max| u32::try_from(max).ok())
            .unwrap_or(RETRY.max_failures),
        backoff_s: section.number("backoff_s", 0.0..=LONGEST_S, report).unwrap_or(RETRY.backoff_s),
    }
}
