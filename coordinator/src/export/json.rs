//! JSON: `manifest.json` (what this is), `trials.jsonl` (one object a trial), `points.jsonl` (one object a report).
//!
//! Nothing is lost: NaN and the infinities, which JSON has no numbers for, are the strings "NaN", "inf" and "-inf", and
//! times are microseconds since the Unix epoch. The manifest is written last and names how much there is.

use super::{Export, Subject, failed, not_finite, params};
use crate::error::{Code, Problem};
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Map, Value};
use spotsweep_wire::v1::{Metric, Point, SweepSummary, Trial};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

/// Raised when a field changes its meaning or goes.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// What the manifest calls the format.
pub(crate) const FORMAT: &str = "spotsweep-export";
/// Bytes of a file's buffer.
const BUFFER: usize = 1 << 18;

/// A JSON export on its way.
pub(crate) struct Json {
    folder: PathBuf,
    subject: Subject,
    trials: Lines,
    points: Lines,
    number: u32,
}

/// A file of objects, with what is needed to tell whether it is whole.
struct Lines {
    path: PathBuf,
    file: BufWriter<File>,
    hash: blake3::Hasher,
    line: Vec<u8>,
    count: u64,
    bytes: u64,
}

impl Json {
    /// Begins in an empty `folder`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn begin(folder: &Path, subject: &Subject) -> Result<Self, Problem> {
        Ok(Self {
            folder: folder.to_owned(),
            subject: subject.clone(),
            trials: Lines::begin(folder.join("trials.jsonl"))?,
            points: Lines::begin(folder.join("points.jsonl"))?,
            number: 0,
        })
    }
}

impl Export for Json {
    async fn trial(&mut self, trial: &Trial) -> Result<(), Problem> {
        self.number = trial.number;
        self.trials.add(&TrialLine {
            number: trial.number,
            state: &trial.state,
            params: params(trial),
            metrics: Metrics(&trial.metrics),
            steps: trial.steps,
            total_steps: trial.total_steps,
            attempts: trial.attempts,
            failures: trial.failures,
            seconds: trial.seconds,
            device: &trial.device,
            worker: &trial.worker,
            weights_digest: &trial.weights_digest,
            failure: &trial.failure,
        })
    }

    async fn points(&mut self, points: &[Point]) -> Result<(), Problem> {
        points.iter().try_for_each(|point| {
            self.points.add(&PointLine {
                trial: self.number,
                step: point.step,
                epoch: Number(point.data_epoch),
                at_us: point.at_us,
                metrics: Metrics(&point.metrics),
            })
        })
    }

    async fn end(&mut self) -> Result<(), Problem> {
        let (trials, points) = (self.trials.end()?, self.points.end()?);
        let manifest = Manifest {
            format: FORMAT,
            version: FORMAT_VERSION,
            program: env!("CARGO_PKG_VERSION"),
            sweep: Sweep::of(&self.subject.sweep),
            spec: serde_json::from_str(&self.subject.spec_json).unwrap_or_default(),
            files: BTreeMap::from([("trials.jsonl", trials), ("points.jsonl", points)]),
        };
        let path = self.folder.join("manifest.json");
        let text = serde_json::to_string_pretty(&manifest).map_err(|error| wrong(&error))?;
        std::fs::write(&path, text + "\n").map_err(|error| failed("write", &path, &error))
    }
}

fn wrong(error: &serde_json::Error) -> Problem {
    Problem::new(Code::Internal, format!("cannot write JSON: {error}"))
}

impl Lines {
    fn begin(path: PathBuf) -> Result<Self, Problem> {
        let file = File::create(&path).map_err(|error| failed("write", &path, &error))?;
        let (file, hash) = (BufWriter::with_capacity(BUFFER, file), blake3::Hasher::new());
        Ok(Self { path, file, hash, line: Vec::new(), count: 0, bytes: 0 })
    }

    fn add(&mut self, object: &impl Serialize) -> Result<(), Problem> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, object).map_err(|error| wrong(&error))?;
        self.line.push(b'\n');
        self.hash.update(&self.line);
        self.count += 1;
        self.bytes += self.line.len() as u64;
        self.file.write_all(&self.line).map_err(|error| failed("write", &self.path, &error))
    }

    fn end(&mut self) -> Result<Listed, Problem> {
        self.file.flush().map_err(|error| failed("write", &self.path, &error))?;
        let blake3 = self.hash.finalize().to_hex().to_string();
        Ok(Listed { lines: self.count, bytes: self.bytes, blake3 })
    }
}

#[derive(Serialize)]
struct Manifest {
    format: &'static str,
    version: u32,
    program: &'static str,
    sweep: Sweep,
    spec: Value,
    files: BTreeMap<&'static str, Listed>,
}

#[derive(Serialize)]
struct Listed {
    lines: u64,
    bytes: u64,
    blake3: String,
}

#[derive(Serialize)]
struct Sweep {
    sweep: String,
    state: String,
    description: String,
    trials: u64,
    counts: BTreeMap<String, u64>,
    best_trial: Option<String>,
    best_value: Option<Number>,
    objective: String,
    goal: String,
    priority: i32,
    submitted_at_us: u64,
    ended_at_us: Option<u64>,
    stale_reports: u64,
    spec_digest: String,
}

impl Sweep {
    fn of(summary: &SweepSummary) -> Self {
        let summary = summary.clone();
        Self {
            sweep: summary.sweep,
            state: summary.state,
            description: summary.description,
            trials: summary.trials,
            counts: summary.counts.into_iter().collect(),
            best_trial: summary.best_trial,
            best_value: summary.best_value.map(Number),
            objective: summary.objective,
            goal: summary.goal,
            priority: summary.priority,
            submitted_at_us: summary.submitted_at_us,
            ended_at_us: summary.ended_at_us,
            stale_reports: summary.stale_reports,
            spec_digest: summary.spec_digest,
        }
    }
}

#[derive(Serialize)]
struct TrialLine<'a> {
    number: u32,
    state: &'a str,
    params: Map<String, Value>,
    metrics: Metrics<'a>,
    steps: u64,
    total_steps: Option<u64>,
    attempts: u32,
    failures: u32,
    seconds: f64,
    device: &'a str,
    worker: &'a str,
    weights_digest: &'a str,
    failure: &'a str,
}

#[derive(Serialize)]
struct PointLine<'a> {
    trial: u32,
    step: u64,
    epoch: Number,
    at_us: u64,
    metrics: Metrics<'a>,
}

/// A number, or the word for what is none in JSON.
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() {
            serializer.serialize_f64(self.0)
        } else {
            serializer.serialize_str(not_finite(self.0))
        }
    }
}

/// Metrics as an object, in their order.
struct Metrics<'a>(&'a [Metric]);

impl Serialize for Metrics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for metric in self.0 {
            map.serialize_entry(&metric.name, &Number(metric.value))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing;

    #[tokio::test]
    async fn nothing_is_lost_and_the_manifest_says_how_much_there_is() {
        let folder = tempfile::tempdir().unwrap();
        testing::pour(&mut Json::begin(folder.path(), &testing::subject()).unwrap()).await;
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        insta::assert_snapshot!(read("trials.jsonl"));
        insta::assert_snapshot!(read("points.jsonl"));
        let manifest: Value = serde_json::from_str(&read("manifest.json")).unwrap();
        for name in ["trials.jsonl", "points.jsonl"] {
            let text = read(name);
            let listed = &manifest["files"][name];
            assert_eq!(listed["lines"], text.lines().count());
            assert_eq!(listed["bytes"], text.len());
            assert_eq!(listed["blake3"], blake3::hash(text.as_bytes()).to_hex().as_str());
        }
        assert_eq!((&manifest["format"], &manifest["version"]), (&FORMAT.into(), &FORMAT_VERSION.into()));
        assert_eq!(manifest["sweep"]["spec_digest"], testing::subject().sweep.spec_digest);
    }
}
