//! Trials put aside until all are known: a table needs its columns before its first row, and only the last trial tells them.
//!
//! Owns which columns there are. In memory are their names alone; the trials wait in a file without a name.

use super::{failed, params};
use crate::error::{Code, Problem};
use prost::Message as _;
use serde_json::Value;
use spotsweep_proto::limits::{METRICS_PER_TRIAL, PARAMETERS_PER_SWEEP};
use spotsweep_wire::v1::Trial;
use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, BufWriter, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

/// Most metrics of all trials together that get columns.
const METRIC_COLUMNS: usize = 4 * METRICS_PER_TRIAL;

/// What a parameter is in every trial that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Integers of 64 bits.
    Int,
    /// Numbers, all of them exact as doubles.
    Float,
    /// True or false.
    Bool,
    /// Anything else, as text; lists as JSON.
    Text,
}

impl Kind {
    /// The kind of one value; of `null` every kind has room.
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(_) => Some(Self::Bool),
            Value::Number(number) if number.is_i64() => Some(Self::Int),
            Value::Number(number) if number.is_f64() => Some(Self::Float),
            Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => Some(Self::Text),
        }
    }
}

/// One parameter's column.
#[derive(Debug, Clone, PartialEq)]
struct Parameter {
    name: String,
    kind: Option<Kind>,
    /// Whether an integer was seen that no double holds.
    large: bool,
}

impl Parameter {
    fn take(&mut self, value: &Value) {
        const EXACT: u64 = 1 << 53;
        let Some(new) = Kind::of(value) else { return };
        self.large |= value.as_i64().is_some_and(|int| int.unsigned_abs() > EXACT);
        self.kind = Some(match (self.kind, new) {
            (None, kind) => kind,
            (Some(old), new) if old == new => old,
            (Some(Kind::Int | Kind::Float), Kind::Int | Kind::Float) => Kind::Float,
            (Some(_), _) => Kind::Text,
        });
    }

    fn settled(&self) -> Kind {
        match self.kind {
            Some(Kind::Float) if self.large => Kind::Text,
            Some(kind) => kind,
            None => Kind::Text,
        }
    }
}

/// The columns of all trials together, each in the place where it first came.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Columns {
    /// Parameters with what they are.
    pub(crate) params: Vec<(String, Kind)>,
    /// Metrics.
    pub(crate) metrics: Vec<String>,
}

/// Trials on their way into the file.
pub(crate) struct Spool {
    file: BufWriter<File>,
    folder: PathBuf,
    params: Vec<Parameter>,
    metrics: Vec<String>,
    places: HashMap<String, usize>,
}

impl Spool {
    /// An empty one on the file system of `folder`.
    ///
    /// # Errors
    /// If no file can be made there.
    pub(crate) fn new(folder: &Path) -> Result<Self, Problem> {
        let file = tempfile::tempfile_in(folder).map_err(|error| failed("write in", folder, &error))?;
        Ok(Self {
            file: BufWriter::new(file),
            folder: folder.to_owned(),
            params: Vec::new(),
            metrics: Vec::new(),
            places: HashMap::new(),
        })
    }

    /// Puts one aside.
    ///
    /// # Errors
    /// If the disk is full, or there are more columns than a table may have.
    pub(crate) fn push(&mut self, trial: &Trial) -> Result<(), Problem> {
        for (place, (name, value)) in params(trial).into_iter().enumerate() {
            // Trials of one sweep mostly have the same parameters in the same places.
            let known = match self.params.get(place) {
                Some(here) if here.name == name => Some(place),
                _ => self.params.iter().position(|known| known.name == name),
            };
            let known = known.unwrap_or_else(|| {
                self.params.push(Parameter { name, kind: None, large: false });
                self.params.len() - 1
            });
            self.params[known].take(&value);
        }
        for metric in &trial.metrics {
            if !self.places.contains_key(&metric.name) {
                self.places.insert(metric.name.clone(), self.metrics.len());
                self.metrics.push(metric.name.clone());
            }
        }
        if self.metrics.len() > METRIC_COLUMNS || self.params.len() > PARAMETERS_PER_SWEEP {
            let message = format!("the trials have more than {METRIC_COLUMNS} different metrics");
            return Err(
                Problem::new(Code::TooLarge, message).hint("export with --as json, which has no columns")
            );
        }
        let bytes = trial.encode_to_vec();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        let written = self.file.write_all(&length).and_then(|()| self.file.write_all(&bytes));
        written.map_err(|error| failed("write in", &self.folder, &error))
    }

    /// All are in: the columns, and the trials once more.
    ///
    /// # Errors
    /// If the disk is full.
    pub(crate) fn finish(self) -> Result<(Columns, Spooled), Problem> {
        let folder = self.folder;
        let wrong = |error: std::io::Error| failed("write in", &folder, &error);
        let mut file = self.file.into_inner().map_err(|error| wrong(error.into_error()))?;
        file.rewind().map_err(wrong)?;
        let params = self.params.iter().map(|param| (param.name.clone(), param.settled())).collect();
        Ok((Columns { params, metrics: self.metrics }, Spooled { file: BufReader::new(file), folder }))
    }
}

/// The trials on their way out, in the order in which they came.
pub(crate) struct Spooled {
    file: BufReader<File>,
    folder: PathBuf,
}

impl Spooled {
    /// The next one.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn next(&mut self) -> Result<Option<Trial>, Problem> {
        let wrong = |error: std::io::Error| failed("read in", &self.folder, &error);
        let mut length = [0; 4];
        match self.file.read_exact(&mut length) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(wrong)?,
        }
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        self.file.read_exact(&mut bytes).map_err(wrong)?;
        Trial::decode(bytes.as_slice()).map(Some).map_err(|error| wrong(std::io::Error::other(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_wire::v1::Metric;

    fn trial(params: &Value, metrics: &[&str]) -> Trial {
        let metrics =
            metrics.iter().map(|name| Metric { name: (*name).to_owned(), value: f64::NAN }).collect();
        Trial { params_json: params.to_string(), metrics, ..Trial::default() }
    }

    #[test]
    fn a_column_is_as_narrow_as_all_its_values_allow() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(folder.path()).unwrap();
        let trials = [
            trial(
                &serde_json::json!({"a": 1, "b": 1, "c": true, "d": "x", "e": null, "f": 1.5, "g": [1]}),
                &["x"],
            ),
            trial(
                &serde_json::json!({"b": 0.5, "a": 2, "c": 1, "h": 1, "f": 9_007_199_254_740_993i64}),
                &["y", "x"],
            ),
        ];
        for one in &trials {
            spool.push(one).unwrap();
        }
        let (columns, mut spooled) = spool.finish().unwrap();
        let kinds: Vec<(&str, Kind)> =
            columns.params.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
        let expected = [
            ("a", Kind::Int),
            ("b", Kind::Float),
            ("c", Kind::Text),
            ("d", Kind::Text),
            ("e", Kind::Text),
            ("f", Kind::Text),
            ("g", Kind::Text),
            ("h", Kind::Int),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(columns.metrics, ["x", "y"]);
        for one in &trials {
            assert_eq!(spooled.next().unwrap().unwrap().params_json, one.params_json);
        }
        assert!(spooled.next().unwrap().is_none());
    }
}
