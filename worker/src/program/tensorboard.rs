//! Scalars from the event files of TensorBoard, read as they grow.
//!
//! An event file is a row of records ([`spotsweep_proto::event_file`]). A scalar is a `simple_value`, as PyTorch writes it, or a tensor of one number, as TensorFlow 2 does
//! (`event.proto`, `summary.proto`, `tensor.proto`). The folder of a file below the named one goes before the tag, so that
//! `train/` and `validation/` of Keras stay apart.

use prost::Message;
use serde_json::{Map, Value};
use spotsweep_proto::event_file::{self, FRAME_BYTES, HEAD_BYTES, data_bytes};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

/// Event files that are read.
const FILES: usize = 64;
/// Folders below the named one.
const DEPTH: usize = 4;
/// Largest record. Longer ones hold pictures and the like; the file is not read beyond one.
const RECORD_BYTES: usize = 16 << 20;
/// Bytes that are read of one file at a time: a record at least.
const READ_BYTES: usize = RECORD_BYTES + FRAME_BYTES;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "8")]
    tensor: Option<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(bytes = "vec", tag = "4")]
    content: Vec<u8>,
    #[prost(float, repeated, tag = "5")]
    floats: Vec<f32>,
    #[prost(double, repeated, tag = "6")]
    doubles: Vec<f64>,
}

impl Scalar {
    /// Its number, if it is one.
    fn value(&self) -> Option<f64> {
        if let Some(value) = self.simple_value {
            return Some(widened(value));
        }
        let tensor = self.tensor.as_ref()?;
        // DT_FLOAT and DT_DOUBLE.
        match (tensor.dtype, &tensor.content[..], &tensor.floats[..], &tensor.doubles[..]) {
            (1, [], [value], _) => Some(widened(*value)),
            (2, [], _, [value]) => Some(*value),
            (1, content, ..) => Some(widened(f32::from_le_bytes(content.try_into().ok()?))),
            (2, content, ..) => Some(f64::from_le_bytes(content.try_into().ok()?)),
            _ => None,
        }
    }
}

/// The shortest decimal of a float, so that 0.1 stays 0.1.
fn widened(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// Metrics by step.
pub(crate) type ByStep = BTreeMap<u64, Map<String, Value>>;

/// The event files below a folder.
#[derive(Debug)]
pub(crate) struct EventFiles {
    folder: PathBuf,
    /// Bytes that are read; `None` where a file cannot be read on.
    read: BTreeMap<PathBuf, Option<u64>>,
}

impl EventFiles {
    pub(crate) fn below(folder: PathBuf) -> Self {
        Self { folder, read: BTreeMap::new() }
    }

    /// What is new in them, and what is wrong with them; and whether there is more at once.
    pub(crate) fn look(&mut self) -> (ByStep, Vec<String>, bool) {
        let (mut found, mut warnings, mut more) = (ByStep::new(), Vec::new(), false);
        let mut files = Vec::new();
        list(&self.folder, 0, &mut files);
        files.sort();
        for file in files {
            if self.read.len() >= FILES && !self.read.contains_key(&file) {
                warnings.push(format!("there are more than {FILES} event files; others are not read"));
                break;
            }
            let Some(from) = *self.read.entry(file.clone()).or_insert(Some(0)) else { continue };
            let prefix = file.parent().and_then(|parent| parent.strip_prefix(&self.folder).ok());
            let prefix = prefix.filter(|prefix| !prefix.as_os_str().is_empty());
            let prefix = prefix.map_or_else(String::new, |prefix| format!("{}/", prefix.display()));
            let Ok(bytes) = tail(&file, from) else { continue };
            let (used, fault) = records(&bytes, |record| add(record, &prefix, &mut found));
            more |= used > 0 && bytes.len() >= READ_BYTES;
            let next = match fault {
                Some(fault) => {
                    let name = file.file_name().unwrap_or_default().display().to_string();
                    warnings.push(format!("the event file {name:?} is not read on: {fault}"));
                    None
                }
                None => Some(from + used as u64),
            };
            self.read.insert(file, next);
        }
        (found, warnings, more)
    }
}

fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < DEPTH {
            list(&entry.path(), depth + 1, files);
        } else if kind.is_file()
            && entry.file_name().to_string_lossy().contains("tfevents")
            && files.len() < 4 * FILES
        {
            files.push(entry.path());
        }
    }
}

fn tail(path: &Path, from: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(READ_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Gives each whole record; and how many bytes they are, and what is wrong behind them.
fn records(bytes: &[u8], mut each: impl FnMut(&[u8])) -> (usize, Option<String>) {
    let mut used = 0;
    loop {
        let rest = &bytes[used..];
        let Some(head) = rest.first_chunk::<HEAD_BYTES>() else { return (used, None) };
        let Some(length) = data_bytes(head) else {
            return (used, Some("a record's length is damaged".to_owned()));
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > RECORD_BYTES {
            return (used, Some(format!("a record is longer than {RECORD_BYTES} bytes")));
        }
        let behind = &rest[HEAD_BYTES..];
        let (Some(data), Some(told)) = (behind.get(..length), behind.get(length..length + 4)) else {
            return (used, None);
        };
        if event_file::sum(data) != told {
            return (used, Some("a record is damaged".to_owned()));
        }
        each(data);
        used += FRAME_BYTES + length;
    }
}

fn add(record: &[u8], prefix: &str, found: &mut ByStep) {
    let Ok(event) = Event::decode(record) else { return };
    let Ok(step) = u64::try_from(event.step) else { return };
    for scalar in event.summary.into_iter().flat_map(|summary| summary.values) {
        if let Some(value) = scalar.value() {
            let name = format!("{prefix}{}", scalar.tag).replace(' ', "_");
            let value = serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number);
            found.entry(step).or_default().insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use spotsweep_proto::event_file::framed;
    use std::io::Write as _;

    fn event(step: i64, values: Vec<Scalar>) -> Vec<u8> {
        framed(&Event { step, summary: Some(Summary { values }) }.encode_to_vec())
    }

    fn simple(tag: &str, value: f32) -> Scalar {
        Scalar { tag: tag.to_owned(), simple_value: Some(value), tensor: None }
    }

    #[test]
    fn scalars_of_both_forms_are_read_as_the_files_grow() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("validation")).unwrap();
        let (one, two) =
            (folder.path().join("events.out.tfevents.1"), folder.path().join("validation/x.tfevents.2"));
        let tensor = |dtype, content: &[u8]| Tensor {
            dtype,
            content: content.to_vec(),
            floats: vec![],
            doubles: vec![],
        };
        let double = Scalar {
            tag: "loss".into(),
            simple_value: None,
            tensor: Some(tensor(2, &0.25_f64.to_le_bytes())),
        };
        let picture = Scalar { tag: "picture".into(), simple_value: None, tensor: Some(tensor(7, b"x")) };
        fs::write(&two, event(1, vec![double, picture])).unwrap();
        let whole =
            [event(1, vec![simple("loss", 0.1)]), event(2, vec![simple("my loss", f32::NAN)])].concat();
        fs::write(&one, &whole[..whole.len() - 3]).unwrap();
        let mut files = EventFiles::below(folder.path().to_owned());
        let (found, warnings, more) = files.look();
        assert_eq!(found.len(), 1);
        assert_eq!(Value::Object(found[&1].clone()), json!({"loss": 0.1, "validation/loss": 0.25}));
        assert!(warnings.is_empty() && !more);
        let mut file = fs::OpenOptions::new().append(true).open(&one).unwrap();
        file.write_all(&whole[whole.len() - 3..]).unwrap();
        assert_eq!(Value::Object(files.look().0[&2].clone()), json!({"my_loss": null}));
        assert!(files.look().0.is_empty());
    }

    #[test]
    fn a_file_that_is_damaged_is_said_once_and_the_others_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut bad = event(1, vec![simple("loss", 0.5)]);
        bad.extend(framed(b"x"));
        bad.extend(vec![7; 64]);
        fs::write(folder.path().join("a.tfevents"), bad).unwrap();
        fs::write(folder.path().join("b.tfevents"), event(2, vec![simple("loss", 1.0)])).unwrap();
        let mut files = EventFiles::below(folder.path().to_owned());
        let (found, warnings, _) = files.look();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&1, &2]);
        assert_eq!(warnings, ["the event file \"a.tfevents\" is not read on: a record's length is damaged"]);
        assert!(files.look().1.is_empty());
    }
}
