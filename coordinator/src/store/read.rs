//! Reading the history. Rows are checked as they are read: damage is said, never shown as a result.

use super::{StoreError, chain, history::StoredPoint, schema};
use rusqlite::{Connection, Row};
use spotsweep_engine::{
    SweepId, Time, TrialRef,
    action::{AttemptEnd, Record},
};
use spotsweep_proto::{
    digest::Digest,
    ids::{DeviceName, Epoch, MetricName, WorkerName},
    metric::Metrics,
};
use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Points that are looked through, from the last on, for the newest value of each metric of a trial without a result. Points
/// and not rows, so that it does not matter in how many reports they came.
const NEWEST_POINTS: usize = 512;

/// The final row of a trial that finished.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultRow {
    /// Finished steps.
    pub steps: u64,
    /// Final metrics.
    pub metrics: Metrics,
    /// Of the final weights.
    pub weights_digest: Option<Digest>,
    /// Where it finished.
    pub device: DeviceName,
    /// Seconds of training, all attempts together.
    pub seconds: f64,
}

/// Reported metrics at a step.
#[derive(Debug, Clone, PartialEq)]
pub struct PointRow {
    /// Finished steps.
    pub step: u64,
    /// Passes over the data.
    pub data_epoch: f64,
    /// When it arrived.
    pub at: Time,
    /// The metrics.
    pub metrics: Metrics,
}

/// An attempt: its beginning, where it began, and its end, where it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRow {
    /// Its lease.
    pub epoch: Epoch,
    /// Which, from 1; where; on what; steps finished before; when.
    pub started: Option<(u32, WorkerName, DeviceName, u64, Time)>,
    /// How; last step known; when.
    pub ended: Option<(AttemptEnd, u64, Time)>,
}

/// The history of one folder, to be read from any thread.
pub struct History {
    sources: Vec<Source>,
}

impl History {
    /// Reads the database at `path`, beside its writer.
    #[must_use]
    pub fn of_file(path: &Path) -> Self {
        Self { sources: vec![Source::new(Place::File(path.to_owned(), Mutex::default()))] }
    }

    /// Reads the database at `path`, and what `overlay` holds on top of it.
    pub(super) fn with_overlay(path: &Path, overlay: Connection) -> Self {
        let mut history = Self::of_file(path);
        history.sources.push(Source::new(Place::Memory(Mutex::new(overlay))));
        history
    }

    /// Final rows of the trials in `range` that have one, by ascending number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn results(&self, sweep: SweepId, range: Range<u32>) -> Result<Vec<(u32, ResultRow)>, StoreError> {
        let sql =
            "SELECT number, body FROM results WHERE sweep = ? AND number >= ? AND number < ? ORDER BY number";
        let mut found = Vec::new();
        for source in &self.sources {
            source.read(sql, (sweep.0, range.start, range.end), |_, row| {
                let number: u32 = row.get(0)?;
                let body = body(row, 1, &[u64::from(sweep.0), u64::from(number)])?;
                let Record::Result { steps, metrics, weights_digest, device, seconds, .. } = decode(&body)?
                else {
                    return Err(damaged());
                };
                found.push((number, ResultRow { steps, metrics, weights_digest, device, seconds }));
                Ok(Go::On)
            })?;
        }
        found.sort_by_key(|(number, _)| *number);
        Ok(found)
    }

    /// Points of a trial from `first_step` on, in order of steps: at least `wanted` if there are as many, and some
    /// more where a row holds more. Fewer means that there are no more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn points(
        &self,
        trial: TrialRef,
        first_step: u64,
        wanted: usize,
    ) -> Result<Vec<PointRow>, StoreError> {
        // The row before may hold points from `first_step` on.
        let sql = "SELECT step, body FROM points WHERE sweep = ?1 AND number = ?2 AND step >= coalesce(
            (SELECT max(step) FROM points WHERE sweep = ?1 AND number = ?2 AND step <= ?3), 0)
            ORDER BY step LIMIT ?4";
        let mut found: Vec<PointRow> = Vec::new();
        for source in &self.sources {
            let limit = wanted.saturating_sub(found.len()) + 1;
            source.read(sql, (trial.sweep.0, trial.number, first_step, limit), |names, row| {
                let points = stored_points(trial, row)?;
                for point in points.into_iter().filter(|point| point.step >= first_step) {
                    found.push(names.point(point)?);
                }
                Ok(if found.len() < wanted { Go::On } else { Go::Enough })
            })?;
        }
        Ok(found)
    }

    /// The newest value of each metric of a trial, and the last step.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn newest_metrics(&self, trial: TrialRef) -> Result<Metrics, StoreError> {
        let sql = "SELECT step, body FROM points WHERE sweep = ? AND number = ? ORDER BY step DESC LIMIT ?";
        let mut newest: Metrics = Vec::new();
        let mut left = NEWEST_POINTS;
        for source in self.sources.iter().rev() {
            source.read(sql, (trial.sweep.0, trial.number, left), |names, row| {
                for point in stored_points(trial, row)?.into_iter().rev().take(left) {
                    left -= 1;
                    for (name, value) in names.point(point)?.metrics {
                        if newest.iter().all(|(known, _)| *known != name) {
                            newest.push((name, value));
                        }
                    }
                }
                Ok(if left > 0 { Go::On } else { Go::Enough })
            })?;
        }
        newest.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(newest)
    }

    /// Attempts of a trial, by ascending epoch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn attempts(&self, trial: TrialRef) -> Result<Vec<AttemptRow>, StoreError> {
        let range = trial.number..trial.number.saturating_add(1);
        Ok(self.attempts_of(trial.sweep, range)?.into_iter().map(|(_, attempt)| attempt).collect())
    }

    /// Attempts of the trials in `range`, by ascending number and epoch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn attempts_of(
        &self,
        sweep: SweepId,
        range: Range<u32>,
    ) -> Result<Vec<(u32, AttemptRow)>, StoreError> {
        let sql = "SELECT number, epoch, ended, body FROM attempts
            WHERE sweep = ? AND number >= ? AND number < ? ORDER BY number, epoch, ended";
        let mut found: Vec<(u32, AttemptRow)> = Vec::new();
        for source in &self.sources {
            source.read(sql, (sweep.0, range.start, range.end), |_, row| {
                let (number, epoch, ended): (u32, u64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let key = [u64::from(sweep.0), u64::from(number), epoch, ended];
                let record = decode(&body(row, 3, &key)?)?;
                let epoch = Epoch(epoch);
                // Rows of one attempt follow each other, except where the overlay holds its end.
                let key = (number, epoch);
                let slot = match found.last() {
                    Some((number, last)) if (*number, last.epoch) == key => Some(found.len() - 1),
                    Some((number, last)) if (*number, last.epoch) < key => None,
                    Some(_) | None => {
                        found.iter().position(|(number, attempt)| (*number, attempt.epoch) == key)
                    }
                };
                let slot = slot.unwrap_or_else(|| {
                    found.push((number, AttemptRow { epoch, started: None, ended: None }));
                    found.len() - 1
                });
                let attempt = &mut found[slot].1;
                match record {
                    Record::AttemptStarted { attempt: nth, worker, device, step, at, .. } => {
                        attempt.started = Some((nth, worker, device, step, at));
                    }
                    Record::AttemptEnded { end, step, at, .. } => attempt.ended = Some((end, step, at)),
                    Record::Sweep { .. }
                    | Record::Point { .. }
                    | Record::Trial { .. }
                    | Record::SweepState { .. }
                    | Record::Trials { .. }
                    | Record::Discarded { .. }
                    | Record::Result { .. } => return Err(damaged()),
                }
                Ok(Go::On)
            })?;
        }
        found.sort_by_key(|(number, attempt)| (*number, attempt.epoch));
        Ok(found)
    }

    /// One metric of a trial by step, at most the first `most` points.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn curve(
        &self,
        trial: TrialRef,
        metric: &MetricName,
        most: usize,
    ) -> Result<Vec<(u64, f64)>, StoreError> {
        let sql = "SELECT step, body FROM points WHERE sweep = ? AND number = ? ORDER BY step LIMIT ?";
        let mut found = Vec::new();
        for source in &self.sources {
            // The name of an id never changes, so that names are compared once an id, not once a point.
            let mut wanted: Option<u32> = None;
            source.read(sql, (trial.sweep.0, trial.number, most), |names, row| {
                for point in stored_points(trial, row)? {
                    for (id, value) in point.metrics {
                        if wanted.is_none() && names.get(id)? == *metric {
                            wanted = Some(id);
                        }
                        if wanted == Some(id) && found.len() < most {
                            found.push((point.step, value));
                        }
                    }
                }
                Ok(if found.len() < most { Go::On } else { Go::Enough })
            })?;
        }
        Ok(found)
    }
}

fn damaged() -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(0, "body".to_owned(), rusqlite::types::Type::Blob)
}

fn body(row: &Row<'_>, column: usize, key: &[u64]) -> rusqlite::Result<Vec<u8>> {
    let sealed = row.get_ref(column)?.as_blob()?;
    chain::unseal(key, sealed).map(<[u8]>::to_vec).ok_or_else(damaged)
}

fn decode(body: &[u8]) -> rusqlite::Result<Record> {
    postcard::from_bytes(body).map_err(|_| damaged())
}

fn stored_points(trial: TrialRef, row: &Row<'_>) -> rusqlite::Result<Vec<StoredPoint>> {
    let step: u64 = row.get(0)?;
    let body = body(row, 1, &[u64::from(trial.sweep.0), u64::from(trial.number), step])?;
    postcard::from_bytes(&body).map_err(|_| damaged())
}

/// Whether more rows are wanted.
enum Go {
    On,
    Enough,
}

/// One database.
struct Source {
    place: Place,
    names: Mutex<HashMap<u32, MetricName>>,
}

enum Place {
    /// A file, and idle connections to it: each reader takes one, or opens another.
    File(PathBuf, Mutex<Vec<Connection>>),
    /// In memory; readers take turns.
    Memory(Mutex<Connection>),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave a list of connections or a cache of names half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source {
    fn new(place: Place) -> Self {
        Self { place, names: Mutex::default() }
    }

    fn read<P: rusqlite::Params>(
        &self,
        sql: &str,
        parameters: P,
        each: impl FnMut(&Names<'_>, &Row<'_>) -> rusqlite::Result<Go>,
    ) -> Result<(), StoreError> {
        match &self.place {
            Place::Memory(db) => self.read_from(&locked(db), sql, parameters, each),
            Place::File(path, idle) => {
                // A statement of its own: the list must not stay locked while its connection is at work.
                let taken = locked(idle).pop();
                let db = match taken {
                    Some(db) => db,
                    None => schema::open_reader(path)?,
                };
                let outcome = self.read_from(&db, sql, parameters, each);
                locked(idle).push(db);
                outcome
            }
        }
    }

    fn read_from<P: rusqlite::Params>(
        &self,
        db: &Connection,
        sql: &str,
        parameters: P,
        mut each: impl FnMut(&Names<'_>, &Row<'_>) -> rusqlite::Result<Go>,
    ) -> Result<(), StoreError> {
        let names = Names { db, known: &self.names };
        let run = || -> rusqlite::Result<()> {
            let mut statement = db.prepare_cached(sql)?;
            let mut rows = statement.query(parameters)?;
            while let Some(row) = rows.next()? {
                match each(&names, row)? {
                    Go::On => {}
                    Go::Enough => break,
                }
            }
            Ok(())
        };
        run().map_err(|source| match (source, &self.place) {
            (rusqlite::Error::InvalidColumnType(..), Place::File(path, _)) => StoreError::Damaged {
                path: path.clone(),
                place: "a row of the history".to_owned(),
                what: "its checksum does not agree with its content".to_owned(),
            },
            (source, _) => StoreError::Sqlite { what: "cannot read the history", source },
        })
    }
}

/// Names of metrics by id.
struct Names<'a> {
    db: &'a Connection,
    known: &'a Mutex<HashMap<u32, MetricName>>,
}

impl Names<'_> {
    fn get(&self, id: u32) -> rusqlite::Result<MetricName> {
        if let Some(name) = locked(self.known).get(&id) {
            return Ok(name.clone());
        }
        let text: String = self
            .db
            .prepare_cached("SELECT name FROM metric WHERE id = ?")?
            .query_row([id], |row| row.get(0))?;
        let name = MetricName::new(&text).map_err(|_| damaged())?;
        locked(self.known).insert(id, name.clone());
        Ok(name)
    }

    fn point(&self, point: StoredPoint) -> rusqlite::Result<PointRow> {
        let StoredPoint { step, data_epoch, at, metrics } = point;
        let metrics = metrics
            .into_iter()
            .map(|(id, value)| Ok((self.get(id)?, value)))
            .collect::<rusqlite::Result<_>>()?;
        Ok(PointRow { step, data_epoch, at, metrics })
    }
}
