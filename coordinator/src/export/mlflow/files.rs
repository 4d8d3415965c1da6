//! A folder that MLflow reads as its file store (`mlflow.store.tracking.file_store`): `EXPERIMENT/meta.yaml`, and for each run
//! `meta.yaml`, `params/NAME`, `tags/NAME` and `metrics/NAME` with lines `MILLISECONDS VALUE STEP`.
//!
//! Ids follow from the sweep, so that the same sweep exported twice has the same.

use super::{Logged, Status, finals, identity, logged, parameters, tags};
use crate::{
    error::Problem,
    export::{Export, Subject, failed, not_finite},
};
use serde_json::json;
use spotsweep_wire::v1::{Point, Trial};
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

/// Bytes of a run's metrics that wait in memory: each metric is a file, and few files may be open at once.
const WAITING_BYTES: usize = 1 << 20;
/// Digits of an experiment's id, as MLflow makes them.
const EXPERIMENT_DIGITS: u64 = 1_000_000_000_000_000_000;

/// An export to a folder of MLflow on its way.
pub(crate) struct Files {
    subject: Subject,
    /// Where it is written.
    folder: PathBuf,
    /// Where it will lie.
    place: PathBuf,
    experiment: String,
    current: Option<Run>,
}

struct Run {
    id: String,
    folder: PathBuf,
    trial: Trial,
    waiting: BTreeMap<String, Vec<u8>>,
    bytes: usize,
    first_us: Option<u64>,
    last_us: u64,
}

impl Files {
    /// Begins in an empty `folder` that will lie at `place`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn begin(folder: &Path, place: &Path, subject: &Subject) -> Result<Self, Problem> {
        let hash = blake3::hash(format!("{}:{}", subject.sweep.sweep, identity(subject, 0)).as_bytes());
        let bytes = hash.as_bytes();
        let number = u64::from_le_bytes([
            bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
        ]);
        let experiment = format!("{:018}", number % EXPERIMENT_DIGITS);
        let own = folder.join(&experiment);
        make(&own)?;
        make(&folder.join(".trash"))?;
        let begun_ms = subject.sweep.submitted_at_us / 1000;
        let meta = json!({
            "artifact_location": uri(&place.join(&experiment)),
            "creation_time": begun_ms,
            "experiment_id": experiment,
            "last_update_time": subject.sweep.ended_at_us.map_or(begun_ms, |at_us| at_us / 1000),
            "lifecycle_stage": "active",
            "name": subject.sweep.sweep,
        });
        yaml(&own.join("meta.yaml"), &meta)?;
        let tags = own.join("tags");
        make(&tags)?;
        write(&tags.join("spotsweep.spec_digest"), &subject.sweep.spec_digest)?;
        write(&tags.join("spotsweep.objective"), &subject.sweep.objective)?;
        write(&tags.join("spotsweep.goal"), &subject.sweep.goal)?;
        if !subject.sweep.description.is_empty() {
            write(
                &tags.join("mlflow.note.content"),
                &super::cut(&subject.sweep.description, super::TAG_CHARS),
            )?;
        }
        let (subject, folder, place) = (subject.clone(), folder.to_owned(), place.to_owned());
        Ok(Self { subject, folder, place, experiment, current: None })
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(mut run) = self.current.take() else { return Ok(()) };
        let last: Vec<Logged> = finals(&run.trial, run.last_us).collect();
        last.iter().try_for_each(|one| run.log(one))?;
        run.flush()?;
        let begun_us = run.first_us.unwrap_or(self.subject.sweep.submitted_at_us);
        let status = Status::of(&run.trial);
        let meta = json!({
            "artifact_uri": uri(&self.place.join(&self.experiment).join(&run.id).join("artifacts")),
            "end_time": status.has_ended().then_some(run.last_us / 1000),
            "entry_point_name": "",
            "experiment_id": self.experiment,
            "lifecycle_stage": "active",
            "run_id": run.id,
            "run_name": run.trial.trial,
            "run_uuid": run.id,
            "source_name": "",
            // LOCAL of MLflow's SourceType.
            "source_type": 4,
            "source_version": "",
            "start_time": begun_us / 1000,
            "status": status.number(),
            "tags": [],
            "user_id": "spotsweep",
        });
        yaml(&run.folder.join("meta.yaml"), &meta)
    }
}

impl Export for Files {
    async fn trial(&mut self, trial: &Trial) -> Result<(), Problem> {
        self.close()?;
        let hash = blake3::hash(identity(&self.subject, trial.number).as_bytes()).to_hex();
        let id = hash.as_str()[..32].to_owned();
        let folder = self.folder.join(&self.experiment).join(&id);
        make(&folder)?;
        for part in ["artifacts", "metrics", "params", "tags"] {
            make(&folder.join(part))?;
        }
        for (name, value) in parameters(trial) {
            write(&folder.join("params").join(name), &value)?;
        }
        for (name, value) in tags(&self.subject, trial) {
            write(&folder.join("tags").join(name), &value)?;
        }
        self.current = Some(Run {
            id,
            folder,
            trial: trial.clone(),
            waiting: BTreeMap::new(),
            bytes: 0,
            first_us: None,
            last_us: self.subject.sweep.submitted_at_us,
        });
        Ok(())
    }

    async fn points(&mut self, points: &[Point]) -> Result<(), Problem> {
        let Some(run) = &mut self.current else { return Ok(()) };
        for point in points {
            run.first_us = run.first_us.or(Some(point.at_us));
            run.last_us = run.last_us.max(point.at_us);
            logged(point).try_for_each(|one| run.log(&one))?;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Problem> {
        self.close()
    }
}

impl Run {
    fn log(&mut self, one: &Logged) -> Result<(), Problem> {
        let value = match one.value {
            finite if finite.is_finite() => finite.to_string(),
            other => not_finite(other).to_owned(),
        };
        let line = format!("{} {value} {}\n", one.timestamp, one.step);
        self.bytes += line.len();
        match self.waiting.get_mut(&one.key) {
            Some(lines) => lines.extend(line.as_bytes()),
            None => {
                self.waiting.insert(one.key.clone(), line.into_bytes());
            }
        }
        if self.bytes >= WAITING_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Problem> {
        self.bytes = 0;
        for (name, lines) in std::mem::take(&mut self.waiting) {
            let path = self.folder.join("metrics").join(name);
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.and_then(|mut file| file.write_all(&lines))
                .map_err(|error| failed("write", &path, &error))?;
        }
        Ok(())
    }
}

fn make(folder: &Path) -> Result<(), Problem> {
    fs::create_dir(folder).map_err(|error| failed("make", folder, &error))
}

fn write(path: &Path, text: &str) -> Result<(), Problem> {
    fs::write(path, text).map_err(|error| failed("write", path, &error))
}

/// One key a line, its value as JSON, which YAML reads.
fn yaml(path: &Path, meta: &serde_json::Value) -> Result<(), Problem> {
    let lines = meta.as_object().into_iter().flatten().map(|(key, value)| format!("{key}: {value}\n"));
    write(path, &lines.collect::<String>())
}

/// A folder as a URI, with what is no plain character of a path percent-encoded (RFC 3986).
fn uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut uri = "file://".to_owned();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            uri += &format!("%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing;

    #[tokio::test]
    async fn a_run_is_a_folder_of_small_files() {
        let folder = tempfile::tempdir().unwrap();
        let subject = testing::subject();
        testing::pour(&mut Files::begin(folder.path(), Path::new("/data/my exports"), &subject).unwrap())
            .await;
        let mut files = Vec::new();
        let mut open = vec![folder.path().to_owned()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        let shown = files.iter().map(|path| {
            let name = path.strip_prefix(folder.path()).unwrap().display().to_string();
            format!("== {name}\n{}\n", fs::read_to_string(path).unwrap().trim_end())
        });
        let shown: String = shown.collect();
        insta::assert_snapshot!(shown.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }
}
