//! CSV (RFC 4180): `trials.csv`, one row a trial, and `points.csv`, one row a value (tidy form).
//!
//! Spreadsheets run a cell that begins like a formula, and quotes do not hinder them. A text that begins with one of
//! `= + - @`, a tab, a carriage return or an apostrophe therefore gets an apostrophe in front (OWASP, "CSV Injection");
//! without it, the cell is the exact text. Numbers are written in the fewest digits that read back as the same double.

use super::{
    Export, failed, not_finite, params,
    spool::{Kind, Spool},
};
use crate::error::{Code, Problem};
use serde_json::Value;
use spotsweep_wire::v1::{Point, Trial};
use std::{
    borrow::Cow,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

/// Bytes of a file's buffer.
const BUFFER: usize = 1 << 18;

/// A CSV export on its way.
pub(crate) struct Csv {
    folder: PathBuf,
    spool: Option<Spool>,
    points: csv::Writer<BufWriter<File>>,
    number: String,
}

impl Csv {
    /// Begins in an empty `folder`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn begin(folder: &Path) -> Result<Self, Problem> {
        let mut points = file(folder, "points.csv")?;
        let header = ["trial", "step", "epoch", "at", "metric", "value"];
        points.write_record(header).map_err(|error| wrong(folder, error))?;
        let spool = Some(Spool::new(folder)?);
        Ok(Self { folder: folder.to_owned(), spool, points, number: String::new() })
    }
}

impl Export for Csv {
    async fn trial(&mut self, trial: &Trial) -> Result<(), Problem> {
        self.number = trial.number.to_string();
        self.spool.as_mut().map_or(Ok(()), |spool| spool.push(trial))
    }

    async fn points(&mut self, points: &[Point]) -> Result<(), Problem> {
        for point in points {
            let (step, epoch, at) = (point.step.to_string(), float(point.data_epoch), utc(point.at_us));
            for metric in &point.metrics {
                let (name, value) = (harmless(&metric.name), float(metric.value));
                let cells = [self.number.as_str(), &step, &epoch, &at, &name, &value];
                self.points.write_record(cells).map_err(|error| wrong(&self.folder, error))?;
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Problem> {
        self.points.flush().map_err(|error| failed("write in", &self.folder, &error))?;
        let Some(spool) = self.spool.take() else { return Ok(()) };
        let (columns, mut trials) = spool.finish()?;
        let mut out = file(&self.folder, "trials.csv")?;
        let mut header = vec!["number".to_owned(), "state".to_owned()];
        header.extend(columns.params.iter().map(|(name, _)| format!("params.{name}")));
        header.extend(columns.metrics.iter().map(|name| format!("metrics.{name}")));
        let rest =
            ["steps", "attempts", "failures", "seconds", "device", "worker", "weights_digest", "failure"];
        header.extend(rest.map(str::to_owned));
        out.write_record(&header).map_err(|error| wrong(&self.folder, error))?;
        while let Some(trial) = trials.next()? {
            let params = params(&trial);
            let mut cells: Vec<Cow<'_, str>> = vec![trial.number.to_string().into(), harmless(&trial.state)];
            cells.extend(columns.params.iter().map(|(name, kind)| cell(params.get(name), *kind)));
            cells.extend(columns.metrics.iter().map(|name| {
                let found = trial.metrics.iter().find(|metric| metric.name == *name);
                found.map(|metric| float(metric.value)).unwrap_or_default().into()
            }));
            cells.extend([
                Cow::from(trial.steps.to_string()),
                trial.attempts.to_string().into(),
                trial.failures.to_string().into(),
                float(trial.seconds).into(),
                harmless(&trial.device),
                harmless(&trial.worker),
                harmless(&trial.weights_digest),
                harmless(&trial.failure),
            ]);
            out.write_record(cells.iter().map(|cell| cell.as_bytes()))
                .map_err(|error| wrong(&self.folder, error))?;
        }
        out.flush().map_err(|error| failed("write in", &self.folder, &error))
    }
}

fn file(folder: &Path, name: &str) -> Result<csv::Writer<BufWriter<File>>, Problem> {
    let path = folder.join(name);
    let file = File::create(&path).map_err(|error| failed("write", &path, &error))?;
    Ok(csv::Writer::from_writer(BufWriter::with_capacity(BUFFER, file)))
}

fn wrong(folder: &Path, error: csv::Error) -> Problem {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => failed("write in", folder, &error),
        other => Problem::new(Code::Internal, format!("cannot write CSV: {other:?}")),
    }
}

/// A parameter as a cell: numbers and truth values bare, text harmless, lists as JSON.
fn cell(value: Option<&Value>, kind: Kind) -> Cow<'_, str> {
    match (value, kind) {
        (None | Some(Value::Null), _) => Cow::default(),
        (Some(Value::String(text)), _) => harmless(text),
        (Some(value), Kind::Int | Kind::Float | Kind::Bool) => value.to_string().into(),
        (Some(value @ (Value::Number(_) | Value::Bool(_))), Kind::Text) => value.to_string().into(),
        (Some(value), Kind::Text) => harmless(&value.to_string()).into_owned().into(),
    }
}

/// A text that no spreadsheet runs.
fn harmless(text: &str) -> Cow<'_, str> {
    match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\'') => format!("'{text}").into(),
        Some(_) | None => text.into(),
    }
}

fn float(x: f64) -> String {
    if !x.is_finite() {
        return not_finite(x).to_owned();
    }
    // As in every other list of this program, so that texts can be compared.
    serde_json::Number::from_f64(x).map(|number| number.to_string()).unwrap_or_default()
}

/// With all its microseconds: `2026-11-23T10:15:30.000001Z`.
fn utc(at_us: u64) -> String {
    let seconds = crate::cli::text::utc(at_us);
    format!("{}.{:06}Z", seconds.trim_end_matches('Z'), at_us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing;

    #[tokio::test]
    async fn the_tables_hold_every_trial_and_value() {
        let folder = tempfile::tempdir().unwrap();
        testing::pour(&mut Csv::begin(folder.path()).unwrap()).await;
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        insta::assert_snapshot!(read("trials.csv"));
        insta::assert_snapshot!(read("points.csv"));
    }

    #[test]
    fn no_spreadsheet_runs_a_cell() {
        for text in ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "'x"] {
            assert_eq!(harmless(text), format!("'{text}"));
        }
        for text in ["", "plain", "a=b", "漢"] {
            assert_eq!(harmless(text), text);
        }
        assert_eq!(float(-0.5), "-0.5", "a number is no text");
    }
}
