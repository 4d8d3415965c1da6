//! A trial's parameters as a program gets them: nested as in the sweep file, as JSON, and as Python writes them.
//!
//! People's scripts were written for Weights & Biases, whose agent is Python: `--flag=value` there is what `str()` makes of
//! the value, and `${args_json}` what `json.dumps` makes of all. Both are formed here to the letter, because scripts parse
//! them (Python language reference, "Literals"; PEP 3101; the shortest digits that read back as the same double).

use crate::value::Assignment;
use serde_json::{Map, Value};
use std::{collections::BTreeSet, fmt::Write};

/// The parameters as one JSON object, in the order of the sweep file. `groups` holds the full names of the parameters that
/// hold others (`optimizer`, `optimizer.schedule`): a dot elsewhere is part of a name.
#[must_use]
pub fn nested(params: &Assignment, groups: &BTreeSet<String>) -> Map<String, Value> {
    let mut root = Map::new();
    for (name, value) in &params.0 {
        insert(&mut root, name.as_str(), 0, value.to_json(), groups);
    }
    root
}

/// Puts `value` where the part of `name` from `begins` on leads to.
fn insert(into: &mut Map<String, Value>, name: &str, begins: usize, value: Value, groups: &BTreeSet<String>) {
    let rest = name.get(begins..).unwrap_or(name);
    let dots = rest.match_indices('.').map(|(dot, _)| begins + dot);
    let group = dots.into_iter().find(|dot| name.get(..*dot).is_some_and(|whole| groups.contains(whole)));
    let Some(dot) = group else {
        into.insert(rest.to_owned(), value);
        return;
    };
    let part = name.get(begins..dot).unwrap_or(rest);
    // A parameter of the same name as a group is refused on reading; here the group stands.
    let slot = into.entry(part).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    if let Value::Object(inner) = slot {
        insert(inner, name, dot + 1, value, groups);
    }
}

/// As Python's `str()` prints it: text bare, everything else as [`repr`].
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => {
            let mut out = String::new();
            repr(other, &mut out);
            out
        }
    }
}

/// As Python's `repr()` prints it.
fn repr(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => out.push_str(&digits(number)),
        Value::String(text) => quote(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                repr(item, out);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (index, (key, item)) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                quote(key, out);
                out.push_str(": ");
                repr(item, out);
            }
            out.push('}');
        }
    }
}

/// Text in quotes: single ones, unless that saves escapes.
fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == mark => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(mark);
}

/// As Python's `json.dumps` prints it: a blank behind commas and colons, ASCII only.
pub(super) fn json(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&digits(number)),
        Value::String(text) => json_text(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                json(item, out);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (index, (key, item)) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                json_text(key, out);
                out.push_str(": ");
                json(item, out);
            }
            out.push('}');
        }
    }
}

fn json_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// A number as Python prints it: the shortest digits that read back as the same, with an exponent below 1e-4 and from 1e16.
fn digits(number: &serde_json::Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(x) => float(x),
        None => number.to_string(),
    }
}

fn float(x: f64) -> String {
    if !x.is_finite() {
        // No parameter is: a sweep file has only finite numbers.
        return format!("{x}");
    }
    let scientific = format!("{x:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        // The debug form keeps the point of a whole number, but has an exponent of its own beyond these bounds.
        let plain = format!("{x}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as value;

    #[test]
    fn values_print_as_python_prints_them() {
        for (given, printed) in [
            (value!(null), "None"),
            (value!(true), "True"),
            (value!(false), "False"),
            (value!(3), "3"),
            (value!(-7), "-7"),
            (value!(1.0), "1.0"),
            (value!(0.1), "0.1"),
            (value!(-0.0), "-0.0"),
            (value!(0.0001), "0.0001"),
            (value!(0.00001), "1e-05"),
            (value!(1.5e-7), "1.5e-07"),
            (value!(1e15), "1000000000000000.0"),
            (value!(1e16), "1e+16"),
            (value!(1.7976931348623157e308), "1.7976931348623157e+308"),
            (value!(5e-324), "5e-324"),
            (value!("adam"), "adam"),
            (value!("it's"), "it's"),
            (value!([1, 2.0, "a"]), "[1, 2.0, 'a']"),
            (value!(["it's", "say \"hi\"", "'\"", "a\\b\n"]), r#"["it's", 'say "hi"', '\'"', 'a\\b\n']"#),
            (
                value!({"lr": 1e-5, "layers": [1, []], "on": true}),
                "{'lr': 1e-05, 'layers': [1, []], 'on': True}",
            ),
        ] {
            assert_eq!(text(&given), printed, "{given}");
        }
    }

    #[test]
    fn json_prints_as_python_prints_it() {
        let mut out = String::new();
        json(&value!({"a": 1, "b": [1e-5, true, null], "ü": "😀\u{7}\"/"}), &mut out);
        assert_eq!(out, r#"{"a": 1, "b": [1e-05, true, null], "\u00fc": "\ud83d\ude00\u0007\"/"}"#);
    }
}
