//! TensorBoard: a folder a trial, with one event file.
//!
//! An event file is a row of records ([`spotsweep_proto::event_file`]). Scalars are tensors of the plugin `scalars` with DT_DOUBLE, so that they keep all their bits;
//! parameters are the session of the plugin `hparams`. The messages are those of TensorBoard's `event.proto`,
//! `summary.proto`, `tensor.proto` and `plugins/hparams/plugin_data.proto`, with the fields that are written here.

pub(crate) mod live;
mod messages;

use super::{EPOCH, Export, Subject, failed, final_name, params, point_name};
use crate::error::Problem;
use messages::{
    Event, HparamsData, PluginData, SessionEnd, SessionStart, Shape, Summary, SummaryMetadata, Tensor, Value,
    event::What, plain,
};
use prost::Message as _;
use spotsweep_proto::event_file::framed;
use spotsweep_wire::v1::{Point, Trial};
use std::{
    collections::HashSet,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

/// The tag under which the plugin `hparams` keeps how a run began.
const SESSION_START: &str = "_hparams_/session_start_info";
/// The tag under which it keeps how a run ended.
const SESSION_END: &str = "_hparams_/session_end_info";
/// Bytes of the buffer of the one file that is open.
const BUFFER: usize = 1 << 17;

/// A TensorBoard export on its way.
pub(crate) struct TensorBoard {
    folder: PathBuf,
    /// Digits of the largest number of a trial, so that folders sort as trials do.
    digits: usize,
    begun_us: u64,
    current: Option<Run>,
}

impl TensorBoard {
    /// Begins in an empty `folder`.
    #[must_use]
    pub(crate) fn begin(folder: &Path, subject: &Subject) -> Self {
        let digits = subject.sweep.trials.saturating_sub(1).to_string().len();
        Self { folder: folder.to_owned(), digits, begun_us: subject.sweep.submitted_at_us, current: None }
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(mut run) = self.current.take() else { return Ok(()) };
        run.finals()?;
        run.end()
    }
}

impl Export for TensorBoard {
    async fn trial(&mut self, trial: &Trial) -> Result<(), Problem> {
        self.close()?;
        let folder = self.folder.join(format!("{:0width$}", trial.number, width = self.digits));
        std::fs::create_dir(&folder).map_err(|error| failed("make", &folder, &error))?;
        let path = folder.join(format!("events.out.tfevents.{:010}.spotsweep", self.begun_us / 1_000_000));
        let file = File::create(&path).map_err(|error| failed("write", &path, &error))?;
        let mut run = Run::new(path, file, trial.clone(), self.begun_us);
        run.begin(self.begun_us)?;
        self.current = Some(run);
        Ok(())
    }

    async fn points(&mut self, points: &[Point]) -> Result<(), Problem> {
        let Some(run) = &mut self.current else { return Ok(()) };
        points.iter().try_for_each(|point| run.point(point))
    }

    async fn end(&mut self) -> Result<(), Problem> {
        self.close()
    }
}

/// One trial's event file.
struct Run {
    path: PathBuf,
    file: BufWriter<File>,
    trial: Trial,
    /// Tags that have told their plugin: only the first value of each needs to.
    told: HashSet<String>,
    last_us: u64,
}

impl Run {
    fn new(path: PathBuf, file: File, trial: Trial, begun_us: u64) -> Self {
        let file = BufWriter::with_capacity(BUFFER, file);
        Self { path, file, trial, told: HashSet::new(), last_us: begun_us }
    }

    /// What stands in front of the points.
    fn begin(&mut self, begun_us: u64) -> Result<(), Problem> {
        self.event(Event {
            wall_time: seconds(begun_us),
            step: 0,
            what: Some(What::FileVersion("brain.Event:2".to_owned())),
        })?;
        let hparams = params(&self.trial).iter().map(|(name, value)| (name.clone(), plain(value))).collect();
        let start = SessionStart {
            hparams,
            group_name: self.trial.trial.clone(),
            start_time_secs: seconds(begun_us),
        };
        let data = HparamsData { start: Some(start), ..HparamsData::default() };
        self.session(SESSION_START, &data)
    }

    fn point(&mut self, point: &Point) -> Result<(), Problem> {
        self.last_us = self.last_us.max(point.at_us);
        let mut values = vec![self.scalar(EPOCH, point.data_epoch)];
        for metric in &point.metrics {
            values.push(self.scalar(&point_name(&metric.name), metric.value));
        }
        self.summary(point.at_us, point.step, values)
    }

    /// The final metrics, where there are any.
    fn finals(&mut self) -> Result<(), Problem> {
        let metrics = std::mem::take(&mut self.trial.metrics);
        if metrics.is_empty() {
            return Ok(());
        }
        let finals =
            metrics.iter().map(|metric| self.scalar(&final_name(&metric.name), metric.value)).collect();
        self.summary(self.last_us, self.trial.steps, finals)
    }

    fn end(&mut self) -> Result<(), Problem> {
        let status = match self.trial.state.as_str() {
            "completed" => messages::SUCCESS,
            "failed" | "diverged" | "cancelled" => messages::FAILURE,
            "running" => messages::RUNNING,
            _ => messages::UNKNOWN,
        };
        let end = SessionEnd { status, end_time_secs: seconds(self.last_us) };
        let data = HparamsData { end: Some(end), ..HparamsData::default() };
        self.session(SESSION_END, &data)?;
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Problem> {
        self.file.flush().map_err(|error| failed("write", &self.path, &error))
    }

    /// A value of a scalar.
    fn scalar(&mut self, tag: &str, value: f64) -> Value {
        let metadata = (!self.told.contains(tag)).then(|| {
            self.told.insert(tag.to_owned());
            let plugin = PluginData { plugin_name: "scalars".to_owned(), content: Vec::new() };
            SummaryMetadata { plugin: Some(plugin), data_class: messages::DATA_CLASS_SCALAR }
        });
        let tensor = Tensor {
            dtype: messages::DT_DOUBLE,
            shape: Some(Shape::default()),
            content: value.to_le_bytes().to_vec(),
        };
        Value { tag: tag.to_owned(), tensor: Some(tensor), metadata }
    }

    /// A session of the plugin `hparams`: all of it is in the metadata.
    fn session(&mut self, tag: &str, data: &HparamsData) -> Result<(), Problem> {
        let plugin = PluginData { plugin_name: "hparams".to_owned(), content: data.encode_to_vec() };
        let metadata = SummaryMetadata { plugin: Some(plugin), data_class: messages::DATA_CLASS_UNKNOWN };
        let nothing = Shape { dims: vec![messages::Dim { size: 0 }] };
        let tensor = Tensor { dtype: messages::DT_FLOAT, shape: Some(nothing), content: Vec::new() };
        let value = Value { tag: tag.to_owned(), tensor: Some(tensor), metadata: Some(metadata) };
        self.summary(self.last_us, 0, vec![value])
    }

    fn summary(&mut self, at_us: u64, step: u64, values: Vec<Value>) -> Result<(), Problem> {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        self.event(Event { wall_time: seconds(at_us), step, what: Some(What::Summary(Summary { values })) })
    }

    fn event(&mut self, event: Event) -> Result<(), Problem> {
        let record = framed(&event.encode_to_vec());
        self.file.write_all(&record).map_err(|error| failed("write", &self.path, &error))
    }
}

#[expect(clippy::cast_precision_loss, reason = "to a microsecond until the year 2255")]
fn seconds(at_us: u64) -> f64 {
    at_us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing;

    /// The records of a file, with their sums checked.
    fn events(path: &Path) -> Vec<Event> {
        let bytes = std::fs::read(path).unwrap();
        let (mut rest, mut events) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
            let data = &rest[12..12 + length];
            assert_eq!(framed(data), rest[..16 + length]);
            events.push(Event::decode(data).unwrap());
            rest = &rest[16 + length..];
        }
        events
    }

    #[tokio::test]
    async fn every_value_is_a_double_at_its_step_and_time() {
        let folder = tempfile::tempdir().unwrap();
        testing::pour(&mut TensorBoard::begin(folder.path(), &testing::subject())).await;
        for number in 0..5u32 {
            let file = folder.path().join(format!("{number}/events.out.tfevents.1795500000.spotsweep"));
            let mut found = Vec::new();
            for event in events(&file) {
                if let Some(What::Summary(summary)) = event.what {
                    for value in summary.values {
                        let tensor = value.tensor.unwrap();
                        if tensor.dtype == messages::DT_DOUBLE
                            && value.tag != EPOCH
                            && !value.tag.starts_with("final:")
                        {
                            let bits = u64::from_le_bytes(tensor.content.try_into().unwrap());
                            found.push((event.wall_time.to_bits(), event.step, value.tag, bits));
                        }
                    }
                }
            }
            let mut expected = Vec::new();
            for point in testing::points(number) {
                for metric in &point.metrics {
                    let (tag, step) =
                        (point_name(&metric.name).into_owned(), i64::try_from(point.step).unwrap());
                    expected.push((seconds(point.at_us).to_bits(), step, tag, metric.value.to_bits()));
                }
            }
            assert_eq!(found, expected, "trial {number}");
        }
    }
}
