//! Tables: a row a sample, one column of labels, all others numbers. Plain or gzipped.
//!
//! Rows are parsed once, into a temporary file of floats, so that a table of any size takes little memory and can be
//! stored in another order.

use super::{
    Part, SetError, Source, SourceOptions,
    flat::{Flat, spool, spooled},
    reshaped, sample_bytes, sample_count,
};
use csv::{ReaderBuilder, StringRecord};
use flate2::read::MultiGzDecoder;
use spotsweep_proto::{
    catalogue::nearest,
    datasets::manifest::{CLASSES, ElementType},
};
use std::{
    cell::Cell,
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Write as _},
    path::Path,
    rc::Rc,
};

/// Longest row, in bytes: a quote that is never closed must not make one row of the whole file.
const ROW_BYTES: u64 = 64 << 20;
/// Names that the column of labels mostly has.
const LABEL_COLUMNS: [&str; 5] = ["label", "class", "target", "y", "species"];

/// Hands out no more than [`ROW_BYTES`] until told that a row has ended.
struct RowGuard<R> {
    inner: R,
    since_row: Rc<Cell<u64>>,
}

impl<R: Read> Read for RowGuard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let given = self.since_row.get();
        if given > ROW_BYTES {
            return Err(io::Error::other(format!(
                "a row is longer than {ROW_BYTES} bytes: is a quote not closed?"
            )));
        }
        let count = self.inner.read(buffer)?;
        self.since_row.set(given + count as u64);
        Ok(count)
    }
}

/// A parsed table; labels are numbers of `texts`.
struct Table {
    columns: u64,
    labels: Vec<u32>,
    texts: Vec<String>,
    file: File,
    label: usize,
    header: bool,
}

/// Opens a table, and the one to test on.
pub(super) fn open(path: &Path, options: &SourceOptions) -> Result<Source, SetError> {
    let train = parse(path, options.label_column.as_deref())?;
    let classes = match &options.classes {
        Some(classes) => classes.clone(),
        None => sorted(train.texts.clone()),
    };
    let shape = reshaped(path, options, train.columns)?;
    let bytes = sample_bytes(path, shape, ElementType::F32)?;
    let (columns, label, header) = (train.columns, train.label, train.header);
    let test = match &options.test {
        Some(test) => {
            let table = parse(test, options.label_column.as_deref())?;
            if (table.columns, table.label) != (columns, label) {
                let problem =
                    format!("has {} columns of numbers, and {} has {columns}", table.columns, path.display());
                return Err(SetError::source(test, problem, "both tables need the same columns"));
            }
            Some(part(test, table, &classes, bytes)?)
        }
        None => None,
    };
    let names = if header { "the first row is taken as names" } else { "no row is taken as names" };
    let notes = vec![format!("column {label} holds the labels; {names}")];
    let train = part(path, train, &classes, bytes)?;
    Ok(Source { shape, elements: ElementType::F32, classes, train, test, notes })
}

/// By value where all are whole numbers, else by their bytes.
fn sorted(mut texts: Vec<String>) -> Vec<String> {
    let numbers: Option<Vec<i64>> = texts.iter().map(|text| text.parse().ok()).collect();
    match numbers {
        Some(_) => texts.sort_by_key(|text| text.parse::<i64>().unwrap_or_default()),
        None => texts.sort(),
    }
    texts
}

fn part(path: &Path, table: Table, classes: &[String], bytes: usize) -> Result<Part, SetError> {
    let places: HashMap<&str, u16> =
        classes.iter().zip(0u16..).map(|(class, place)| (class.as_str(), place)).collect();
    let mut by_text = Vec::with_capacity(table.texts.len());
    for text in &table.texts {
        let place = places.get(text.as_str()).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            SetError::source(
                path,
                format!("has the label {shown:?}, which is no class"),
                "name all classes with --classes",
            )
        })?;
        by_text.push(*place);
    }
    let labels = table.labels.iter().map(|&text| by_text[text as usize]).collect();
    Ok(Part { images: Box::new(Flat::new(table.file, path, 0, bytes)), labels, path: path.to_owned() })
}

fn parse(path: &Path, label_column: Option<&str>) -> Result<Table, SetError> {
    let file = File::open(path).map_err(SetError::io("read", path))?;
    let packed = path.as_os_str().as_encoded_bytes().ends_with(b".gz");
    let file = BufReader::with_capacity(1 << 20, file);
    let inner: Box<dyn Read> = if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let since_row = Rc::new(Cell::new(0));
    let guard = RowGuard { inner, since_row: Rc::clone(&since_row) };
    let mut reader = ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).from_reader(guard);
    let mut record = StringRecord::new();
    let failed = |error: &csv::Error| {
        let problem = match error.kind() {
            csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
                let line = pos.as_ref().map_or(0, csv::Position::line);
                format!("line {line} has {len} fields, and the lines before have {expected_len}")
            }
            csv::ErrorKind::Utf8 { pos, .. } => {
                format!("line {} is not UTF-8", pos.as_ref().map_or(0, csv::Position::line))
            }
            csv::ErrorKind::Io(error) => format!("cannot be read: {error}"),
            _ => error.to_string(),
        };
        SetError::source(path, problem, "each line needs the same number of fields; quotes must be closed")
    };
    if !reader.read_record(&mut record).map_err(|error| failed(&error))? {
        return Err(SetError::source(path, "is empty", "name a table with rows"));
    }
    let header = record.iter().all(|field| field.parse::<f64>().is_err());
    let label = find_label(path, &record, header, label_column)?;
    let fields = record.len();
    if fields < 2 {
        return Err(SetError::source(
            path,
            "has one column",
            "a table needs labels and at least one column of numbers",
        ));
    }
    let mut table = Table {
        columns: fields as u64 - 1,
        labels: Vec::new(),
        texts: Vec::new(),
        file: File::open(path).map_err(SetError::io("read", path))?,
        label,
        header,
    };
    sample_bytes(path, [1, 1, u32::try_from(table.columns).unwrap_or(u32::MAX)], ElementType::F32)?;
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut spool = spool()?;
    let mut there = !header || reader.read_record(&mut record).map_err(|error| failed(&error))?;
    while there {
        since_row.set(0);
        sample_count(path, table.labels.len() as u64 + 1)?;
        let line = record.position().map_or(0, csv::Position::line);
        for (column, field) in record.iter().enumerate() {
            if column == label {
                continue;
            }
            let number = field.parse::<f32>().ok().filter(|x| x.is_finite()).ok_or_else(|| {
                let shown: String = field.chars().take(40).collect();
                let problem = format!("line {line}, column {column}: {shown:?} is no finite number");
                SetError::source(
                    path,
                    problem,
                    "fill in what is missing, and turn words into numbers, beforehand",
                )
            })?;
            spool
                .write_all(&number.to_le_bytes())
                .map_err(SetError::io("write a temporary file in", std::env::temp_dir()))?;
        }
        let text = record.get(label).unwrap_or_default();
        let number = match numbers.get(text) {
            Some(number) => *number,
            None => {
                if text.is_empty() || numbers.len() == CLASSES {
                    let problem = if text.is_empty() {
                        format!("line {line} has no label")
                    } else {
                        format!("has more than {CLASSES} different labels")
                    };
                    let hint = "is it the right column? --label-column names another";
                    return Err(SetError::source(path, problem, hint));
                }
                let number = u32::try_from(table.texts.len()).unwrap_or(u32::MAX);
                table.texts.push(text.to_owned());
                numbers.insert(text.to_owned(), number);
                number
            }
        };
        table.labels.push(number);
        there = reader.read_record(&mut record).map_err(|error| failed(&error))?;
    }
    table.file = spooled(spool)?;
    Ok(table)
}

/// Which column holds the labels: as the user says, else by its name.
fn find_label(
    path: &Path,
    first: &StringRecord,
    header: bool,
    wanted: Option<&str>,
) -> Result<usize, SetError> {
    let names = || first.iter().filter(|_| header);
    if let Some(wanted) = wanted {
        if let Some(at) = names().position(|name| name == wanted) {
            return Ok(at);
        }
        return wanted.parse().ok().filter(|column| *column < first.len()).ok_or_else(|| {
            let hint = match nearest(wanted, names()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("it has {} columns, counted from 0", first.len()),
            };
            SetError::source(path, format!("has no column {wanted:?}"), hint)
        });
    }
    let found = names().position(|name| LABEL_COLUMNS.contains(&name.to_ascii_lowercase().as_str()));
    found.ok_or_else(|| {
        let problem = "does not say which column holds the labels";
        SetError::source(path, problem, "name it with --label-column: its name, or its number from 0")
    })
}
