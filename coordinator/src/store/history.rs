//! Writing the history: points, attempts and results, each row once, each with the commit that it comes from.
//!
//! States of trials and sweeps are not here: the engine has them. A row is never changed, so taking back a commit
//! is deleting its rows.

use super::{CommitHistory, StoreError, chain};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use spotsweep_engine::{Time, TrialRef, action::Record};
use spotsweep_proto::{ids::MetricName, metric::Metrics};
use std::collections::HashMap;

/// Most points of one row: a page of points is read without reading many more.
const ROW_POINTS: usize = 512;
/// Rows of discarded sweeps that one commit deletes at most, of each table.
const DISCARD_ROWS: u32 = 64;

/// A point as it is stored; points of one trial and commit share a row.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredPoint {
    pub(super) step: u64,
    pub(super) data_epoch: f64,
    pub(super) at: Time,
    /// By id in the table `metric`.
    pub(super) metrics: Vec<(u32, f64)>,
}

/// Ids of metrics' names: few, and the same in every row.
#[derive(Debug, Default)]
pub(super) struct MetricIds {
    ids: HashMap<MetricName, u32>,
    /// Those above are in a transaction that may yet be rolled back.
    durable: u32,
}

impl MetricIds {
    pub(super) fn load(db: &Connection) -> rusqlite::Result<Self> {
        let mut ids = HashMap::new();
        let mut statement = db.prepare("SELECT id, name FROM metric")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(1)?;
            if let Ok(name) = MetricName::new(&name) {
                ids.insert(name, row.get(0)?);
            }
        }
        let durable = ids.values().max().map_or(0, |id| id + 1);
        Ok(Self { ids, durable })
    }

    pub(super) fn committed(&mut self) {
        self.durable = self.next();
    }

    pub(super) fn rolled_back(&mut self) {
        let durable = self.durable;
        self.ids.retain(|_, id| *id < durable);
    }

    fn next(&self) -> u32 {
        u32::try_from(self.ids.len()).unwrap_or(u32::MAX).max(self.durable)
    }

    fn id(&mut self, db: &Connection, name: &MetricName) -> rusqlite::Result<u32> {
        if let Some(id) = self.ids.get(name) {
            return Ok(*id);
        }
        let id = self.next();
        db.execute("INSERT INTO metric VALUES (?, ?)", (id, name.as_str()))?;
        self.ids.insert(name.clone(), id);
        Ok(id)
    }
}

/// Writes the rows of one commit into the open transaction.
pub(super) fn write(db: &Connection, ids: &mut MetricIds, history: &CommitHistory) -> Result<(), StoreError> {
    let mut rows = Rows { db, seq: history.seq, body: Vec::new() };
    let mut points: HashMap<TrialRef, Vec<StoredPoint>> = HashMap::new();
    let mut run = || -> rusqlite::Result<()> {
        for record in history.records.iter() {
            match record {
                Record::Point { trial, step, data_epoch, metrics, at } => {
                    let metrics = stored_metrics(db, ids, metrics)?;
                    let point = StoredPoint { step: *step, data_epoch: *data_epoch, at: *at, metrics };
                    points.entry(*trial).or_default().push(point);
                }
                Record::AttemptStarted { trial, epoch, .. } => rows.attempt(*trial, epoch.0, 0, record)?,
                Record::AttemptEnded { trial, epoch, .. } => rows.attempt(*trial, epoch.0, 1, record)?,
                Record::Result { trial, .. } => rows.result(*trial, record)?,
                Record::Discarded { sweep } => {
                    db.prepare_cached("INSERT OR REPLACE INTO discarded VALUES (?, ?)")?
                        .execute((sweep.0, history.seq))?;
                }
                // The engine knows these.
                Record::Sweep { .. }
                | Record::SweepState { .. }
                | Record::Trial { .. }
                | Record::Trials { .. } => {}
            }
        }
        // In the order of the table, so that neighbours land on one page.
        let mut points: Vec<_> = points.drain().collect();
        points.sort_unstable_by_key(|(trial, _)| *trial);
        for (trial, points) in &points {
            for chunk in points.chunks(ROW_POINTS) {
                rows.points(*trial, chunk)?;
            }
        }
        db.prepare_cached("UPDATE meta SET value = ? WHERE key = 'history_seq'")?.execute([history.seq])?;
        Ok(())
    };
    run().map_err(StoreError::sqlite("cannot write the history"))
}

/// Whether rows of discarded sweeps may be there.
pub(super) fn has_discarded(db: &Connection) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT count(*) > 0 FROM discarded")?.query_row([], |row| row.get(0))
}

/// Deletes some rows of discarded sweeps inside the open transaction; false once there are none.
pub(super) fn delete_discarded(db: &Connection) -> rusqlite::Result<bool> {
    let next = "SELECT min(sweep) FROM discarded";
    let sweep: Option<u32> = db.prepare_cached(next)?.query_row([], |row| row.get(0))?;
    let Some(sweep) = sweep else { return Ok(false) };
    let mut deleted = 0;
    for sql in [
        "DELETE FROM points WHERE sweep = ?1 AND (number, step) IN
            (SELECT number, step FROM points WHERE sweep = ?1 LIMIT ?2)",
        "DELETE FROM attempts WHERE sweep = ?1 AND (number, epoch, ended) IN
            (SELECT number, epoch, ended FROM attempts WHERE sweep = ?1 LIMIT ?2)",
        "DELETE FROM results WHERE sweep = ?1 AND number IN
            (SELECT number FROM results WHERE sweep = ?1 LIMIT ?2)",
    ] {
        deleted += db.prepare_cached(sql)?.execute((sweep, DISCARD_ROWS))?;
    }
    if deleted == 0 {
        db.prepare_cached("DELETE FROM discarded WHERE sweep = ?")?.execute([sweep])?;
    }
    Ok(true)
}

fn stored_metrics(
    db: &Connection,
    ids: &mut MetricIds,
    metrics: &Metrics,
) -> rusqlite::Result<Vec<(u32, f64)>> {
    metrics.iter().map(|(name, value)| Ok((ids.id(db, name)?, *value))).collect()
}

struct Rows<'a> {
    db: &'a Connection,
    seq: u64,
    body: Vec<u8>,
}

impl Rows<'_> {
    #[expect(clippy::expect_used, reason = "writing to memory does not fail, and every record serialises")]
    fn seal(&mut self, key: &[u64], value: &impl Serialize) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        self.body = postcard::to_extend(value, body).expect("a record serialises");
        chain::seal(key, &mut self.body);
    }

    fn attempt(&mut self, trial: TrialRef, epoch: u64, ended: u64, record: &Record) -> rusqlite::Result<()> {
        let (sweep, number) = (trial.sweep.0, trial.number);
        self.seal(&[u64::from(sweep), u64::from(number), epoch, ended], record);
        self.db
            .prepare_cached("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?, ?, ?, ?)")?
            .execute((sweep, number, epoch, ended, self.seq, &self.body))?;
        Ok(())
    }

    fn result(&mut self, trial: TrialRef, record: &Record) -> rusqlite::Result<()> {
        let (sweep, number) = (trial.sweep.0, trial.number);
        self.seal(&[u64::from(sweep), u64::from(number)], record);
        self.db
            .prepare_cached("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)")?
            .execute((sweep, number, self.seq, &self.body))?;
        Ok(())
    }

    fn points(&mut self, trial: TrialRef, chunk: &[StoredPoint]) -> rusqlite::Result<()> {
        let Some(first) = chunk.first() else { return Ok(()) };
        let (sweep, number, step) = (trial.sweep.0, trial.number, first.step);
        self.seal(&[u64::from(sweep), u64::from(number), step], &chunk);
        self.db
            .prepare_cached("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?)")?
            .execute((sweep, number, step, self.seq, &self.body))?;
        Ok(())
    }
}
