//! JSON: `manifest.json` (what this is), `trials.jsonl` (one object a trial), `attempts.jsonl` (one object an attempt),
//! `points.jsonl` (one object a report).
//!
//! Nothing is lost but checkpoints: NaN and the infinities, which JSON has no numbers for, are the strings "NaN", "inf" and
//! "-inf", and times are microseconds since the Unix epoch. The manifest is written last and names how much there is.
//! `import` reads it back.

use super::{
    Export, Subject, failed,
    manifest::{FILES, FORMAT, FORMAT_VERSION, Files, Listed, MANIFEST, Manifest, Sweep},
    not_finite, params,
};
use crate::error::{Code, Problem};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap as _};
use serde_json::{Map, Value};
use spotsweep_wire::v1::{Attempt, Failure, Metric, Point, Trial};
use std::{
    fmt,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

/// Bytes of a file's buffer.
const BUFFER: usize = 1 << 18;

/// A JSON export on its way.
pub(crate) struct Json {
    folder: PathBuf,
    subject: Subject,
    trials: Lines,
    attempts: Lines,
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
            trials: Lines::begin(folder.join(FILES[0]))?,
            attempts: Lines::begin(folder.join(FILES[1]))?,
            points: Lines::begin(folder.join(FILES[2]))?,
            number: 0,
        })
    }

    /// The next attempts, in order of trial and epoch; independent of the trials and points.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn attempts(&mut self, attempts: &[Attempt]) -> Result<(), Problem> {
        attempts.iter().try_for_each(|attempt| {
            let end = attempt.end.as_ref();
            let how = end.map(|end| serde_json::from_str(&end.how_json)).transpose();
            self.attempts.add(&AttemptLine {
                trial: attempt.number,
                attempt: attempt.attempt,
                epoch: attempt.epoch,
                worker: &attempt.worker,
                device: &attempt.device,
                first_step: attempt.first_step,
                started_at_us: attempt.started_at_us,
                last_step: end.map(|end| end.last_step),
                ended_at_us: end.map(|end| end.at_us),
                end: how.map_err(|error| wrong(&error))?,
            })
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
            interruptions: trial.interruptions,
            epoch: trial.epoch,
            best: trial.best.map(|value| Best { value: Number(value), step: trial.best_step.unwrap_or(0) }),
            objective: trial.objective.map(Number),
            seconds: Number(trial.seconds),
            device: &trial.device,
            worker: &trial.worker,
            weights_digest: &trial.weights_digest,
            failure: &trial.failure,
            last_failure: trial.last_failure.as_ref().map(|Failure { kind, worker, at_us }| LastFailure {
                kind: kind.clone(),
                worker: worker.clone(),
                at_us: *at_us,
            }),
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
        let files =
            Files { trials: self.trials.end()?, attempts: self.attempts.end()?, points: self.points.end()? };
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            version: FORMAT_VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            sweep: Sweep::of(&self.subject.sweep),
            spec: serde_json::from_str(&self.subject.spec_json).unwrap_or_default(),
            files,
            blake3: String::new(),
        };
        let path = self.folder.join(MANIFEST);
        let text = manifest.sealed().map_err(|error| wrong(&error))?;
        std::fs::write(&path, text).map_err(|error| failed("write", &path, &error))
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
struct TrialLine<'a> {
    number: u32,
    state: &'a str,
    params: Map<String, Value>,
    metrics: Metrics<'a>,
    steps: u64,
    total_steps: Option<u64>,
    attempts: u32,
    failures: u32,
    interruptions: u32,
    epoch: u64,
    best: Option<Best>,
    objective: Option<Number>,
    seconds: Number,
    device: &'a str,
    worker: &'a str,
    weights_digest: &'a str,
    failure: &'a str,
    last_failure: Option<LastFailure>,
}

/// The best value of the objective that a trial reported.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Best {
    pub(crate) value: Number,
    pub(crate) step: u64,
}

/// The latest failure of a trial, whose message is its `failure`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LastFailure {
    pub(crate) kind: String,
    pub(crate) worker: String,
    pub(crate) at_us: u64,
}

#[derive(Serialize)]
struct AttemptLine<'a> {
    trial: u32,
    attempt: u32,
    epoch: u64,
    worker: &'a str,
    device: &'a str,
    first_step: u64,
    started_at_us: u64,
    last_step: Option<u64>,
    ended_at_us: Option<u64>,
    end: Option<Value>,
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
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number(pub(crate) f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl de::Visitor<'_> for Reads {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, \"NaN\", \"inf\" or \"-inf\"")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Number, E> {
                Ok(Number(value))
            }

            #[expect(
                clippy::cast_precision_loss,
                reason = "as JSON readers do; an export writes 1.0 for the float 1"
            )]
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }

            #[expect(clippy::cast_precision_loss, reason = "as above")]
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Number, E> {
                let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
                let found = values.into_iter().find(|value| not_finite(*value) == word);
                found.map(Number).ok_or_else(|| E::invalid_value(de::Unexpected::Str(word), &self))
            }
        }
        deserializer.deserialize_any(Reads)
    }
}

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
        let mut json = Json::begin(folder.path(), &testing::subject()).unwrap();
        json.attempts(&testing::attempts()).unwrap();
        testing::pour(&mut json).await;
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        insta::assert_snapshot!(read("trials.jsonl"));
        insta::assert_snapshot!(read("points.jsonl"));
        insta::assert_snapshot!(read("attempts.jsonl"));
        let manifest: Value = serde_json::from_str(&read("manifest.json")).unwrap();
        for name in FILES {
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
