//! Typed access to one mapping of a sweep file: known keys, types, ranges. It knows no key by name.

use super::{
    diagnostic::{Report, Span},
    yaml::{Entry, Node, Value},
};
use crate::{
    catalogue::{listed, nearest},
    value::ParamValue,
};
use std::ops::RangeInclusive;

/// Most unknown keys of one mapping that are looked into: more than are shown.
const UNKNOWN_KEYS: usize = 50;

/// One mapping, and what it is called in messages.
#[derive(Clone, Copy)]
pub(super) struct Section<'n> {
    pub(super) what: &'n str,
    pub(super) span: Span,
    entries: &'n [Entry],
}

impl<'n> Section<'n> {
    /// `node` as a mapping; otherwise an error that shows the form it has.
    pub(super) fn of(node: &'n Node, what: &'n str, form: &str, report: &mut Report<'_>) -> Option<Self> {
        match &node.value {
            Value::Mapping(entries) => Some(Self { what, span: node.span, entries }),
            Value::Scalar(_) | Value::Unusable(_) | Value::Sequence(_) => {
                report.error_hint(
                    node.span,
                    format!("{what} is a mapping, not {}", node.value.kind()),
                    format!("it has the form `{form}`"),
                );
                None
            }
        }
    }

    pub(super) fn entries(&self) -> &'n [Entry] {
        self.entries
    }

    pub(super) fn get(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Reports every key that is not among `valid`, and returns what was probably meant by them. `advice` may
    /// know better than the nearest valid key.
    pub(super) fn only<'v>(
        &self,
        valid: &[&'v str],
        report: &mut Report<'_>,
        advice: impl Fn(&str) -> Option<(String, String)>,
    ) -> Vec<&'v str> {
        let mut meant = Vec::new();
        for entry in
            self.entries.iter().filter(|entry| !valid.contains(&entry.key.as_str())).take(UNKNOWN_KEYS)
        {
            let near = nearest(&entry.key, valid.iter().copied());
            meant.extend(near);
            let message = || format!("{} has no key {}", self.what, quoted(&entry.key));
            let (message, hint) = match (advice(&entry.key), near) {
                (Some((message, hint)), _) => (message, hint),
                (None, Some(near)) => (message(), format!("did you mean {near}?")),
                (None, None) => (message(), format!("valid keys: {}", listed(valid.iter().copied()))),
            };
            report.error_hint(entry.key_span, message, hint);
        }
        meant
    }

    pub(super) fn text(&self, key: &str, report: &mut Report<'_>) -> Option<(&'n str, Span)> {
        let node = &self.get(key)?.node;
        match &node.value {
            Value::Scalar(ParamValue::Text(text)) => Some((text, node.span)),
            other => {
                let hint = match other {
                    Value::Scalar(ParamValue::Bool(_) | ParamValue::Int(_) | ParamValue::Float(_)) => {
                        Some("put it in quotes".to_owned())
                    }
                    _ => None,
                };
                report.push(Some(node.span), format!("{key} is text, not {}", other.kind()), hint);
                None
            }
        }
    }

    /// An integer in `range`.
    pub(super) fn integer(
        &self,
        key: &str,
        range: RangeInclusive<i64>,
        report: &mut Report<'_>,
    ) -> Option<i64> {
        let node = &self.get(key)?.node;
        let (min, max) = (*range.start(), *range.end());
        let message = if min == i64::MIN && max == i64::MAX {
            format!("{key} is an integer")
        } else if max == i64::MAX {
            format!("{key} is an integer of at least {min}")
        } else {
            format!("{key} is an integer in [{min}, {max}]")
        };
        match &node.value {
            Value::Scalar(ParamValue::Int(i)) if range.contains(i) => return Some(*i),
            Value::Scalar(ParamValue::Int(i)) => report.error(node.span, format!("{message}, not {i}")),
            Value::Unusable(why) => report.error_hint(node.span, message, *why),
            other => report.error(node.span, format!("{message}, not {}", other.kind())),
        }
        None
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &str, report: &mut Report<'_>) -> Option<bool> {
        let node = &self.get(key)?.node;
        match &node.value {
            Value::Scalar(ParamValue::Bool(yes)) => Some(*yes),
            other => {
                report.error(node.span, format!("{key} is true or false, not {}", other.kind()));
                None
            }
        }
    }

    /// A number in `range`; an integer is one too.
    pub(super) fn number(
        &self,
        key: &str,
        range: RangeInclusive<f64>,
        report: &mut Report<'_>,
    ) -> Option<f64> {
        let (x, span) = self.any_number(key, report)?;
        if range.contains(&x) {
            return Some(x);
        }
        report.error(span, format!("{key} is a number in [{}, {}], not {x}", range.start(), range.end()));
        None
    }

    /// A number, whatever its size.
    pub(super) fn any_number(&self, key: &str, report: &mut Report<'_>) -> Option<(f64, Span)> {
        let node = &self.get(key)?.node;
        match &node.value {
            Value::Scalar(value @ (ParamValue::Int(_) | ParamValue::Float(_))) => {
                value.as_f64().map(|x| (x, node.span))
            }
            Value::Scalar(ParamValue::Text(text)) => {
                report.push(Some(node.span), format!("{key} is a number, not text"), number_hint(text));
                None
            }
            Value::Unusable(why) => {
                report.error_hint(node.span, format!("{key} is a number"), *why);
                None
            }
            other => {
                report.error(node.span, format!("{key} is a number, not {}", other.kind()));
                None
            }
        }
    }
}

/// Why text may have been meant as a number.
fn number_hint(text: &str) -> Option<String> {
    let plain = text.trim().replace('_', "");
    if text.len() > 64 {
        None
    } else if plain.parse::<f64>().is_ok() {
        Some(format!("write the number without quotes and underscores: {plain}"))
    } else if plain.replace(',', ".").parse::<f64>().is_ok() {
        Some("write a decimal point, not a comma".to_owned())
    } else {
        None
    }
}

/// A key as it is shown in messages: short.
pub(super) fn quoted(key: &str) -> String {
    let short: String = key.chars().take(60).collect();
    if short.len() < key.len() {
        format!("{short}…")
    } else if short.is_empty() {
        "\"\"".to_owned()
    } else {
        short
    }
}
