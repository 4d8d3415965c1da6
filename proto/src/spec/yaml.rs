//! From the text of a sweep file to a tree with places. Knows YAML, and nothing of sweeps.
//!
//! A sweep file is one document of mappings, sequences and scalars. Whatever makes a YAML file mean more than
//! it shows (anchors, aliases, merge keys, tags, further documents) is refused, and so is whatever could make a
//! small file large in memory. Plain scalars follow the core schema of YAML 1.2.2, chapter 10.3.

use super::diagnostic::{Report, Span};
use crate::{limits::SWEEP_FILE_DEPTH, value::ParamValue};
use saphyr_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;

/// Most nodes (scalars, sequences and mappings) of a sweep file: twice the values that one parameter may list.
const NODES: usize = 200_000;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Scalar(ParamValue),
    /// A number that is none of ours: NaN, infinite, or an integer beyond 64 bits; with the reason.
    Unusable(&'static str),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

impl Value {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Scalar(ParamValue::Null) => "null",
            Self::Scalar(ParamValue::Bool(_)) => "a truth value",
            Self::Scalar(ParamValue::Int(_)) => "an integer",
            Self::Scalar(ParamValue::Float(_)) => "a number",
            Self::Scalar(ParamValue::Text(_)) => "text",
            Self::Unusable(_) => "a number out of range",
            Self::Scalar(ParamValue::List(_)) | Self::Sequence(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }
}

/// A sequence or mapping that is still open.
enum Open {
    Sequence(Span, Vec<Node>),
    Mapping { span: Span, entries: Vec<Entry>, seen: HashMap<String, Span>, key: Option<Key> },
}

/// A key whose value is still to come.
struct Key {
    text: String,
    span: Span,
    /// Whether it stood in the mapping before; its value is then left out.
    again: bool,
}

/// Reads the one document of `text`. `None` if it cannot be read as a whole; the report says why.
pub(super) fn read(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let mut root: Option<Node> = None;
    let mut nodes = 0;
    loop {
        let (event, span) = match parser.next_event()? {
            Ok((event, span)) => (event, line_span(span)),
            Err(error) => {
                let mark = error.marker();
                let span = Span { line: mark.line(), column: mark.col(), width: 1 };
                report.push(
                    Some(span),
                    format!("this is no YAML: {}", error.info()),
                    syntax_hint(text, span).map(str::to_owned),
                );
                return None;
            }
        };
        nodes += 1;
        if nodes > NODES {
            report.error(span, format!("a sweep file has at most {NODES} values"));
            return None;
        }
        if !plain_event(&event, span, report) {
            return None;
        }
        let node = match event {
            Event::Nothing | Event::StreamStart | Event::DocumentEnd => continue,
            Event::DocumentStart(_) if root.is_some() => {
                report.error_hint(
                    span,
                    "a second document begins here",
                    "a sweep file holds one document; remove the ---",
                );
                return None;
            }
            Event::DocumentStart(_) => continue,
            Event::StreamEnd => return root,
            // Refused by `plain_event`.
            Event::Alias(_) => return None,
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() >= SWEEP_FILE_DEPTH {
                    report.error(
                        span,
                        format!("a sweep file is nested at most {SWEEP_FILE_DEPTH} levels deep"),
                    );
                    return None;
                }
                if let Some(Open::Mapping { key: None, .. }) = open.last() {
                    report.error(span, "a key is text, not a list or mapping");
                    return None;
                }
                open.push(match event {
                    Event::SequenceStart(..) => Open::Sequence(span, Vec::new()),
                    _ => Open::Mapping { span, entries: Vec::new(), seen: HashMap::new(), key: None },
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop()? {
                Open::Sequence(span, items) => Node { span, value: Value::Sequence(items) },
                Open::Mapping { span, entries, .. } => Node { span, value: Value::Mapping(entries) },
            },
            Event::Scalar(text, style, ..) => {
                if let Some(Open::Mapping { key: key @ None, seen, .. }) = open.last_mut() {
                    *key = Some(take_key(seen, &text, span, report));
                    continue;
                }
                let value = if style == ScalarStyle::Plain {
                    resolve(&text)
                } else {
                    Value::Scalar(ParamValue::Text(text.into_owned()))
                };
                Node { span, value }
            }
        };
        match open.last_mut() {
            None => root = Some(node),
            Some(Open::Sequence(_, items)) => items.push(node),
            Some(Open::Mapping { entries, key, .. }) => {
                let Key { text, span, again } = key.take()?;
                if !again {
                    entries.push(Entry { key: text, key_span: span, node });
                }
            }
        }
    }
}

fn take_key(seen: &mut HashMap<String, Span>, text: &str, span: Span, report: &mut Report<'_>) -> Key {
    let first = seen.get(text).copied();
    if text == "<<" {
        report.error_hint(span, "merge keys (<<) are not supported", "write the keys out");
    } else if let Some(first) = first {
        report.error_hint(
            span,
            format!("the key {} stands here a second time", text.chars().take(60).collect::<String>()),
            format!("it stands first on line {}; keep one of the two", first.line),
        );
    } else {
        seen.insert(text.to_owned(), span);
    }
    Key { text: text.to_owned(), span, again: text == "<<" || first.is_some() }
}

/// Whether the event carries nothing that hides what the file means.
fn plain_event(event: &Event<'_>, span: Span, report: &mut Report<'_>) -> bool {
    let (anchor, tag) = match event {
        Event::Alias(_) => {
            report.error_hint(span, "aliases (*name) are not supported", "write the value out");
            return false;
        }
        Event::Scalar(_, _, anchor, tag)
        | Event::SequenceStart(anchor, tag)
        | Event::MappingStart(anchor, tag) => (*anchor, tag),
        Event::Nothing
        | Event::StreamStart
        | Event::StreamEnd
        | Event::DocumentStart(_)
        | Event::DocumentEnd
        | Event::SequenceEnd
        | Event::MappingEnd => return true,
    };
    if anchor > 0 {
        report.error_hint(
            span,
            "anchors (&name) are not supported",
            "write the value out where it is needed",
        );
        return false;
    }
    if let Some(tag) = tag {
        report.error_hint(
            span,
            format!("tags ({tag}) are not supported"),
            "put text in quotes; numbers need no tag",
        );
        return false;
    }
    true
}

/// The first line of a span. An end on a later line would underline what is not meant.
fn line_span(span: saphyr_parser::Span) -> Span {
    let (start, end) = (span.start, span.end);
    let width =
        if end.line() == start.line() { end.col().saturating_sub(start.col()) } else { usize::MAX / 4 };
    Span { line: start.line(), column: start.col(), width: width.max(1) }
}

/// The most common reasons why a file is no YAML.
fn syntax_hint(text: &str, span: Span) -> Option<&'static str> {
    let lines = || text.lines().take(span.line);
    let line = lines().last().unwrap_or_default();
    if line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t') {
        return Some("indent with spaces, not with tabs");
    }
    if line.matches('"').count() % 2 == 1 || line.matches('\'').count() % 2 == 1 {
        return Some("a quote that is opened here is not closed");
    }
    let code = |line: &'_ str| line.split(" #").next().unwrap_or_default().to_owned();
    let count = |brackets: [char; 2]| lines().map(|line| code(line).matches(brackets).count()).sum::<usize>();
    if count(['{', '[']) > count(['}', ']']) {
        return Some("a bracket that is opened here or above is not closed");
    }
    // `key:value` is one word in YAML.
    let glued = |line: &str| {
        let key = line
            .trim_start()
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .next()
            .unwrap_or_default();
        let rest = line.trim_start().get(key.len()..).unwrap_or_default();
        !key.is_empty() && rest.starts_with(':') && rest.chars().nth(1).is_some_and(|c| !c.is_whitespace())
    };
    if lines().any(glued) {
        return Some("a colon needs a space behind it: `key: value`");
    }
    Some("keys of one mapping stand in one column, and values that hold `: ` or ` #` in quotes")
}

/// A plain scalar by the core schema.
fn resolve(text: &str) -> Value {
    let scalar = match text {
        "" | "~" | "null" | "Null" | "NULL" => ParamValue::Null,
        "true" | "True" | "TRUE" => ParamValue::Bool(true),
        "false" | "False" | "FALSE" => ParamValue::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Unusable("NaN is no value; numbers are finite"),
        _ => return number(text),
    };
    Value::Scalar(scalar)
}

fn number(text: &str) -> Value {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Value::Unusable("an infinity is no value; numbers are finite");
    }
    let radix = |digits: &str, radix| match i64::from_str_radix(digits, radix) {
        Ok(i) => Value::Scalar(ParamValue::Int(i)),
        Err(_) => Value::Unusable("integers have at most 64 bits"),
    };
    let all = |digits: &str, ok: fn(char) -> bool| !digits.is_empty() && digits.chars().all(ok);
    if let Some(digits) = text.strip_prefix("0x").filter(|d| all(d, |c| c.is_ascii_hexdigit())) {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o").filter(|d| all(d, |c| matches!(c, '0'..='7'))) {
        return radix(digits, 8);
    }
    if all(unsigned, |c| c.is_ascii_digit()) {
        return radix(text, 10);
    }
    // Rust also reads `inf`, `nan` and `infinity`, which the core schema takes for text.
    let numeric = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.contains(|c: char| c.is_ascii_digit())
        && unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    match text.parse::<f64>() {
        Ok(x) if numeric && x.is_finite() => Value::Scalar(ParamValue::Float(x)),
        Ok(_) if numeric => Value::Unusable("the number is too large; numbers are finite"),
        Ok(_) | Err(_) => Value::Scalar(ParamValue::Text(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        let int = |i| ParamValue::Int(i);
        let text = |t: &str| ParamValue::Text(t.to_owned());
        for (source, expected) in [
            ("~", ParamValue::Null),
            ("True", ParamValue::Bool(true)),
            ("yes", text("yes")),
            ("12", int(12)),
            ("-0", int(0)),
            ("+3", int(3)),
            ("007", int(7)),
            ("0x1F", int(31)),
            ("0o17", int(15)),
            ("1e-3", ParamValue::Float(0.001)),
            (".5", ParamValue::Float(0.5)),
            ("1.", ParamValue::Float(1.0)),
            ("1_000", text("1_000")),
            ("nan", text("nan")),
            ("inf", text("inf")),
            ("e5", text("e5")),
            (".", text(".")),
            ("1-2", text("1-2")),
        ] {
            match resolve(source) {
                Value::Scalar(value) => assert_eq!(value, expected, "{source}"),
                other => panic!("{source}: {other:?}"),
            }
        }
        for source in [".nan", "-.inf", "1e999", "9223372036854775808", "0xFFFFFFFFFFFFFFFFFF"] {
            assert!(matches!(resolve(source), Value::Unusable(_)), "{source}");
        }
    }
}
