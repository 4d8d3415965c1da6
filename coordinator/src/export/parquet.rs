//! Parquet: `trials.parquet` and `points.parquet`, the tables of [`super::csv`] with typed columns.
//!
//! Integers, doubles, truth values and texts keep their type; times are `TIMESTAMP(MICROS, UTC)`; what a trial does not have
//! is null, and NaN is NaN. Rows leave memory in groups of at most [`ROWS`] rows and [`CELLS`] cells.

use super::{
    Export, failed, params,
    spool::{Kind, Spool},
};
use crate::error::{Code, Problem};
use parquet::{
    basic::{Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel},
    column::writer::ColumnWriter,
    data_type::ByteArray,
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::types::{ColumnPath, Type},
};
use serde_json::Value;
use spotsweep_wire::v1::{Point, Trial};
use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Most rows of a group.
const ROWS: usize = 1 << 18;
/// Most cells of a group of wide rows.
const CELLS: usize = 1 << 20;

/// A Parquet export on its way.
pub(crate) struct Parquet {
    folder: PathBuf,
    spool: Option<Spool>,
    points: Table,
    number: i64,
    /// Names of metrics, each once in memory.
    names: HashMap<String, ByteArray>,
}

impl Parquet {
    /// Begins in an empty `folder`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn begin(folder: &Path) -> Result<Self, Problem> {
        let columns = vec![
            Column::required("trial", Cells::Int(Vec::new())),
            Column::required("step", Cells::Int(Vec::new())),
            Column::required("epoch", Cells::Float(Vec::new())),
            Column { time: true, ..Column::required("at", Cells::Int(Vec::new())) },
            Column { repeats: true, ..Column::required("metric", Cells::Text(Vec::new())) },
            Column::required("value", Cells::Float(Vec::new())),
        ];
        let points = Table::begin(folder.join("points.parquet"), columns)?;
        let spool = Some(Spool::new(folder)?);
        Ok(Self { folder: folder.to_owned(), spool, points, number: 0, names: HashMap::new() })
    }

    fn name(&mut self, metric: &str) -> ByteArray {
        if let Some(known) = self.names.get(metric) {
            return known.clone();
        }
        // Cleared rather than grown: a name costs nothing to make again.
        if self.names.len() >= spotsweep_proto::limits::METRICS_PER_TRIAL {
            self.names.clear();
        }
        let name = ByteArray::from(metric.as_bytes().to_vec());
        self.names.insert(metric.to_owned(), name.clone());
        name
    }
}

impl Export for Parquet {
    async fn trial(&mut self, trial: &Trial) -> Result<(), Problem> {
        self.number = trial.number.into();
        self.spool.as_mut().map_or(Ok(()), |spool| spool.push(trial))
    }

    async fn points(&mut self, points: &[Point]) -> Result<(), Problem> {
        for point in points {
            for metric in &point.metrics {
                let name = self.name(&metric.name);
                let columns = &mut self.points.columns;
                columns[0].int(self.number);
                columns[1].int(signed(point.step));
                columns[2].float(point.data_epoch);
                columns[3].int(signed(point.at_us));
                columns[4].text(name);
                columns[5].float(metric.value);
                self.points.row()?;
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Problem> {
        self.points.end()?;
        let Some(spool) = self.spool.take() else { return Ok(()) };
        let (known, mut trials) = spool.finish()?;
        let mut columns = vec![
            Column::required("number", Cells::Int(Vec::new())),
            Column { repeats: true, ..Column::required("state", Cells::Text(Vec::new())) },
        ];
        columns.extend(known.params.iter().map(|(name, kind)| {
            let cells = match kind {
                Kind::Int => Cells::Int(Vec::new()),
                Kind::Float => Cells::Float(Vec::new()),
                Kind::Bool => Cells::Bool(Vec::new()),
                Kind::Text => Cells::Text(Vec::new()),
            };
            Column { repeats: true, ..Column::optional(&format!("params.{name}"), cells) }
        }));
        columns.extend(
            known
                .metrics
                .iter()
                .map(|name| Column::optional(&format!("metrics.{name}"), Cells::Float(Vec::new()))),
        );
        columns.extend([
            Column::required("steps", Cells::Int(Vec::new())),
            Column::required("attempts", Cells::Int(Vec::new())),
            Column::required("failures", Cells::Int(Vec::new())),
            Column::required("seconds", Cells::Float(Vec::new())),
            Column { repeats: true, ..Column::optional("device", Cells::Text(Vec::new())) },
            Column { repeats: true, ..Column::optional("worker", Cells::Text(Vec::new())) },
            Column::optional("weights_digest", Cells::Text(Vec::new())),
            Column::optional("failure", Cells::Text(Vec::new())),
        ]);
        let mut table = Table::begin(self.folder.join("trials.parquet"), columns)?;
        while let Some(trial) = trials.next()? {
            let params = params(&trial);
            let mut cells = table.columns.iter_mut();
            let mut next =
                || cells.next().ok_or_else(|| Problem::new(Code::Internal, "a row wider than its table"));
            next()?.int(trial.number.into());
            next()?.text(trial.state.as_str().into());
            for (name, _) in &known.params {
                next()?.value(params.get(name));
            }
            for name in &known.metrics {
                let found = trial.metrics.iter().find(|metric| metric.name == *name);
                let column = next()?;
                match found {
                    Some(metric) => column.float(metric.value),
                    None => column.null(),
                }
            }
            next()?.int(signed(trial.steps));
            next()?.int(trial.attempts.into());
            next()?.int(trial.failures.into());
            next()?.float(trial.seconds);
            for text in [&trial.device, &trial.worker, &trial.weights_digest, &trial.failure] {
                let column = next()?;
                if text.is_empty() { column.null() } else { column.text(text.as_str().into()) }
            }
            table.row()?;
        }
        table.end()
    }
}

/// Counts and times fit; a number that does not stands for what is too large to be true.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The cells of a column that are in memory.
#[derive(Debug)]
enum Cells {
    Int(Vec<i64>),
    Float(Vec<f64>),
    Bool(Vec<bool>),
    Text(Vec<ByteArray>),
}

#[derive(Debug)]
struct Column {
    name: String,
    cells: Cells,
    /// For optional columns, one entry a row: 1 where there is a cell.
    present: Option<Vec<i16>>,
    /// Microseconds since the Unix epoch.
    time: bool,
    /// Whether few values are expected, so that a dictionary is worth building.
    repeats: bool,
}

impl Column {
    fn required(name: &str, cells: Cells) -> Self {
        Self { name: name.to_owned(), cells, present: None, time: false, repeats: false }
    }

    fn optional(name: &str, cells: Cells) -> Self {
        Self { present: Some(Vec::new()), ..Self::required(name, cells) }
    }

    fn schema(&self) -> Result<Type, ParquetError> {
        let (physical, logical) = match &self.cells {
            Cells::Int(_) if self.time => {
                (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS)))
            }
            Cells::Int(_) => (Physical::INT64, None),
            Cells::Float(_) => (Physical::DOUBLE, None),
            Cells::Bool(_) => (Physical::BOOLEAN, None),
            Cells::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let repetition = if self.present.is_some() { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        let builder = Type::primitive_type_builder(&self.name, physical);
        builder.with_logical_type(logical).with_repetition(repetition).build()
    }

    fn here(&mut self) {
        if let Some(present) = &mut self.present {
            present.push(1);
        }
    }

    fn null(&mut self) {
        if let Some(present) = &mut self.present {
            present.push(0);
        }
    }

    fn int(&mut self, int: i64) {
        if let Cells::Int(ints) = &mut self.cells {
            ints.push(int);
            self.here();
        }
    }

    fn float(&mut self, float: f64) {
        if let Cells::Float(floats) = &mut self.cells {
            floats.push(float);
            self.here();
        }
    }

    fn text(&mut self, text: ByteArray) {
        if let Cells::Text(texts) = &mut self.cells {
            texts.push(text);
            self.here();
        }
    }

    /// A parameter, which is of the column's kind or null.
    fn value(&mut self, value: Option<&Value>) {
        let Some(value) = value.filter(|value| !value.is_null()) else { return self.null() };
        match (&mut self.cells, value) {
            (Cells::Text(texts), Value::String(text)) => texts.push(text.as_str().into()),
            (Cells::Text(texts), other) => texts.push(other.to_string().as_str().into()),
            (Cells::Int(ints), value) => match value.as_i64() {
                Some(int) => ints.push(int),
                None => return self.null(),
            },
            (Cells::Float(floats), value) => match value.as_f64() {
                Some(float) => floats.push(float),
                None => return self.null(),
            },
            (Cells::Bool(bools), value) => match value.as_bool() {
                Some(bool) => bools.push(bool),
                None => return self.null(),
            },
        }
        self.here();
    }

    fn write(&mut self, writer: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        let present = self.present.as_deref();
        match (&mut self.cells, writer) {
            (Cells::Int(ints), ColumnWriter::Int64ColumnWriter(writer)) => {
                writer.write_batch(ints, present, None)?;
                ints.clear();
            }
            (Cells::Float(floats), ColumnWriter::DoubleColumnWriter(writer)) => {
                writer.write_batch(floats, present, None)?;
                floats.clear();
            }
            (Cells::Bool(bools), ColumnWriter::BoolColumnWriter(writer)) => {
                writer.write_batch(bools, present, None)?;
                bools.clear();
            }
            (Cells::Text(texts), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                writer.write_batch(texts, present, None)?;
                texts.clear();
            }
            _ => return Err(ParquetError::General(format!("column {} is of another type", self.name))),
        }
        if let Some(present) = &mut self.present {
            present.clear();
        }
        Ok(())
    }
}

/// A file of rows.
struct Table {
    path: PathBuf,
    writer: SerializedFileWriter<File>,
    columns: Vec<Column>,
    rows: usize,
    rows_per_group: usize,
}

impl Table {
    fn begin(path: PathBuf, columns: Vec<Column>) -> Result<Self, Problem> {
        let wrong = |error: ParquetError| wrong(&path, error);
        let fields = columns.iter().map(|column| column.schema().map(Arc::new));
        let fields = fields.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let schema = Type::group_type_builder(&name).with_fields(fields).build().map_err(wrong)?;
        // Level 1 is as good as 3 on such tables, and faster.
        let level = ZstdLevel::try_new(1).map_err(wrong)?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by(format!("spotsweep {}", env!("CARGO_PKG_VERSION")));
        for column in &columns {
            let path = ColumnPath::new(vec![column.name.clone()]);
            properties = properties.set_column_dictionary_enabled(path.clone(), column.repeats);
            if matches!(column.cells, Cells::Int(_)) && !column.repeats {
                // Counts and times grow by little from row to row.
                properties = properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
        }
        let file = File::create(&path).map_err(|error| failed("write", &path, &error))?;
        let writer =
            SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties.build())).map_err(wrong)?;
        let rows_per_group = ROWS.min(CELLS / columns.len().max(1)).max(1);
        Ok(Self { path, writer, columns, rows: 0, rows_per_group })
    }

    /// A row is complete.
    fn row(&mut self) -> Result<(), Problem> {
        self.rows += 1;
        if self.rows >= self.rows_per_group { self.group() } else { Ok(()) }
    }

    /// Writes what is in memory.
    fn group(&mut self) -> Result<(), Problem> {
        if self.rows == 0 {
            return Ok(());
        }
        self.rows = 0;
        let mut write = || {
            let mut group = self.writer.next_row_group()?;
            for column in &mut self.columns {
                let Some(mut writer) = group.next_column()? else { break };
                column.write(writer.untyped())?;
                writer.close()?;
            }
            group.close().map(drop)
        };
        write().map_err(|error| wrong(&self.path, error))
    }

    fn end(&mut self) -> Result<(), Problem> {
        self.group()?;
        self.writer.finish().map(drop).map_err(|error| wrong(&self.path, error))
    }
}

fn wrong(path: &Path, error: ParquetError) -> Problem {
    match error {
        ParquetError::External(error) => match error.downcast::<std::io::Error>() {
            Ok(error) => failed("write", path, &error),
            Err(other) => Problem::new(Code::Internal, format!("cannot write {}: {other}", path.display())),
        },
        other => Problem::new(Code::Internal, format!("cannot write {}: {other}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing;
    use parquet::{
        file::reader::{FileReader as _, SerializedFileReader},
        record::Field,
    };

    #[tokio::test]
    async fn every_value_comes_back_with_its_type() {
        let folder = tempfile::tempdir().unwrap();
        testing::pour(&mut Parquet::begin(folder.path()).unwrap()).await;
        let rows = |name: &str| -> Vec<Vec<(String, Field)>> {
            let reader = SerializedFileReader::new(File::open(folder.path().join(name)).unwrap()).unwrap();
            let rows = reader.get_row_iter(None).unwrap();
            rows.map(|row| row.unwrap().into_columns()).collect()
        };
        let points: Vec<(i64, i64, u64)> = rows("points.parquet")
            .iter()
            .map(|row| match (&row[0].1, &row[1].1, &row[5].1) {
                (Field::Long(trial), Field::Long(step), Field::Double(value)) => {
                    (*trial, *step, value.to_bits())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let mut expected = Vec::new();
        for number in [0, 3] {
            for point in testing::points(number) {
                for metric in point.metrics {
                    expected.push((i64::from(number), signed(point.step), metric.value.to_bits()));
                }
            }
        }
        assert_eq!(points, expected);
        let trials = rows("trials.parquet");
        let cell =
            |row: usize, name: &str| trials[row].iter().find(|(column, _)| column == name).unwrap().1.clone();
        assert_eq!(trials.len(), 5);
        assert_eq!(cell(0, "params.widths"), Field::Str("[1,2]".to_owned()));
        assert_eq!(cell(0, "params.a/../../b"), Field::Bool(true));
        assert_eq!(cell(1, "params.a/../../b"), Field::Null);
        assert_eq!(cell(1, "params.batch_size"), Field::Long(128));
        assert_eq!(cell(3, "metrics.val_accuracy"), Field::Double(0.9123));
        assert_eq!(cell(4, "metrics.val_accuracy"), Field::Null);
    }
}
