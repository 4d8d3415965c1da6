//! Lists for programs: JSON Lines and CSV. One row is one object; every list goes through here, so that all of them
//! keep one convention.
//!
//! Pure. NaN and infinities are `null` in JSON, which has no word for them, and `NaN`, `inf`, `-inf` in CSV.

use super::text::not_finite;
use crate::error::{Code, Problem};
use clap::ValueEnum;
use serde_json::{Map, Value};

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON object a line
    Json,
    /// Comma-separated, with a header line
    Csv,
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Field {
    /// There is none.
    Nothing,
    /// Text.
    Text(String),
    /// A count.
    Count(u64),
    /// A number.
    Float(f64),
    /// Anything that JSON knows.
    Json(Value),
    /// Fields of their own: an object in JSON, columns `name.field` in CSV.
    Group(Vec<(String, Field)>),
}

impl Field {
    /// Text, or nothing where it is empty.
    #[must_use]
    pub(crate) fn text(text: &str) -> Self {
        if text.is_empty() { Self::Nothing } else { Self::Text(text.to_owned()) }
    }

    /// A time in microseconds since the Unix epoch, as UTC text.
    #[must_use]
    pub(crate) fn time(at_us: Option<u64>) -> Self {
        at_us.map_or(Self::Nothing, |at_us| Self::Text(super::text::utc(at_us)))
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Nothing => Value::Null,
            Self::Text(text) => Value::from(text.as_str()),
            Self::Count(count) => Value::from(*count),
            Self::Float(x) => Value::from(*x),
            Self::Json(value) => value.clone(),
            Self::Group(fields) => Value::Object(object(fields)),
        }
    }

    fn to_csv(&self) -> String {
        match self {
            Self::Nothing | Self::Json(Value::Null) => String::new(),
            Self::Text(text) | Self::Json(Value::String(text)) => text.clone(),
            Self::Float(x) if !x.is_finite() => not_finite(*x).to_owned(),
            Self::Count(_) | Self::Float(_) | Self::Json(_) | Self::Group(_) => self.to_json().to_string(),
        }
    }
}

fn object(fields: &[(String, Field)]) -> Map<String, Value> {
    fields.iter().map(|(name, field)| (name.clone(), field.to_json())).collect()
}

/// One row: names and fields in the order in which they are printed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Row(pub Vec<(String, Field)>);

impl Row {
    /// An empty row.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The row with one field more.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, field: Field) -> Self {
        self.0.push((name.to_owned(), field));
        self
    }

    /// As one line of JSON, without its newline.
    #[must_use]
    pub(crate) fn to_json_line(&self) -> String {
        Value::Object(object(&self.0)).to_string()
    }

    /// Its fields as columns, groups opened.
    fn columns(&self) -> Vec<(String, &Field)> {
        let mut columns = Vec::with_capacity(self.0.len());
        let mut open: Vec<(String, &Field)> =
            self.0.iter().rev().map(|(name, field)| (name.clone(), field)).collect();
        while let Some((name, field)) = open.pop() {
            match field {
                Field::Group(fields) => {
                    open.extend(fields.iter().rev().map(|(part, field)| (format!("{name}.{part}"), field)));
                }
                Field::Nothing | Field::Text(_) | Field::Count(_) | Field::Float(_) | Field::Json(_) => {
                    columns.push((name, field))
                }
            }
        }
        columns
    }
}

/// All rows as CSV (RFC 4180). The columns are those of all rows together, each where a row first had it: behind
/// the column that it stood behind there.
///
/// # Errors
/// Never, as far as is known: the writer goes to memory.
pub(crate) fn csv(rows: &[Row]) -> Result<String, Problem> {
    let mut header: Vec<String> = Vec::new();
    for row in rows {
        let mut place = 0;
        for (name, _) in row.columns() {
            match header.iter().position(|known| *known == name) {
                Some(known) => place = known + 1,
                None => {
                    header.insert(place, name);
                    place += 1;
                }
            }
        }
    }
    let failed = |error: csv::Error| Problem::new(Code::Internal, format!("cannot write CSV: {error}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    if !header.is_empty() {
        writer.write_record(&header).map_err(failed)?;
    }
    for row in rows {
        let columns = row.columns();
        let cells = header.iter().map(|name| {
            columns
                .iter()
                .find(|(column, _)| column == name)
                .map(|(_, field)| field.to_csv())
                .unwrap_or_default()
        });
        writer.write_record(cells).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|error| failed(error.into_error().into()))?;
    String::from_utf8(bytes).map_err(|error| Problem::new(Code::Internal, error.to_string()))
}

/// All rows as JSON Lines.
#[must_use]
pub(crate) fn json_lines(rows: &[Row]) -> String {
    rows.iter().map(|row| row.to_json_line() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn group(fields: &[(&str, Field)]) -> Field {
        Field::Group(fields.iter().map(|(name, field)| ((*name).to_owned(), field.clone())).collect())
    }

    #[test]
    fn rows_of_different_metrics_share_one_header() {
        let rows = [
            Row::new()
                .with("trial", Field::text("a/0"))
                .with("metrics", group(&[]))
                .with(
                    "params",
                    group(&[("x", Field::Json(json!([1, 2]))), ("n", Field::Json(json!("a,\"b\"")))]),
                )
                .with("seconds", Field::Float(0.5)),
            Row::new()
                .with("trial", Field::text("a/1"))
                .with("metrics", group(&[("loss", Field::Float(f64::NAN)), ("acc", Field::Float(1.0))]))
                .with("params", group(&[("x", Field::Json(json!(null))), ("n", Field::Json(json!(3)))]))
                .with("seconds", Field::Nothing),
        ];
        insta::assert_snapshot!(csv(&rows).unwrap());
        insta::assert_snapshot!(json_lines(&rows));
    }

    #[test]
    fn no_rows_are_no_lines() {
        assert_eq!((csv(&[]).unwrap().as_str(), json_lines(&[]).as_str()), ("", ""));
    }
}
