//! The journal in SQLite: group commits, and the history and snapshots that ride on them.

use super::{
    Commit, CommitHistory, Journal, StoreError, StoreOptions, chain,
    history::{self, MetricIds},
};
use rusqlite::Connection;
use spotsweep_engine::{Time, action::Record};
use spotsweep_proto::digest::Digest;

/// Old journal rows that one commit deletes at most: a compaction is spread over commits, so that none waits long.
const DELETE_ROWS: i64 = 32;
/// What a commit adds to the write-ahead log besides its payload, in bytes: a few pages of tables and frames.
const COMMIT_OVERHEAD_BYTES: u64 = 16 << 10;

/// The newest commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub(super) seq: u64,
    pub(super) at: Time,
    pub(super) checksum: Digest,
}

/// The one writer of a folder's database.
pub struct SqliteJournal {
    db: Connection,
    options: StoreOptions,
    ids: MetricIds,
    last: Last,
    /// The newest snapshot that is durable; rows up to it may go.
    snapshot_seq: u64,
    staged_snapshot: Option<u64>,
    /// Rows up to `snapshot_seq` may still be there.
    compacting: bool,
    /// Rows of discarded sweeps may still be there.
    discarding: bool,
    in_transaction: bool,
    /// Written to the log since its last checkpoint, in bytes, roughly.
    wal_bytes: u64,
}

impl SqliteJournal {
    pub(super) fn new(
        db: Connection,
        options: StoreOptions,
        last: Last,
        snapshot_seq: u64,
    ) -> Result<Self, StoreError> {
        let ids = MetricIds::load(&db).map_err(StoreError::sqlite("cannot read the metrics' names"))?;
        let discarding =
            history::has_discarded(&db).map_err(StoreError::sqlite("cannot read the history"))?;
        Ok(Self {
            db,
            options,
            ids,
            last,
            snapshot_seq,
            staged_snapshot: None,
            compacting: true,
            discarding,
            in_transaction: false,
            // Whatever the last process left in the log is checkpointed soon.
            wal_bytes: u64::MAX / 2,
        })
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        if !self.in_transaction {
            let begun = self.db.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
            begun.map_err(StoreError::sqlite("cannot begin a commit"))?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Runs `work` inside the open transaction; takes all of it back if that fails.
    fn staging<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let outcome = self.begin().and_then(|()| work(self));
        if outcome.is_err() {
            self.roll_back();
        }
        outcome
    }

    fn roll_back(&mut self) {
        // SQLite rolls back by itself after some errors; then there is nothing left to do here.
        if !self.db.is_autocommit() {
            let _gone = self.db.execute_batch("ROLLBACK");
        }
        self.in_transaction = false;
        self.staged_snapshot = None;
        self.ids.rolled_back();
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let done = self.db.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
        done.map_err(StoreError::sqlite("cannot write a commit to disk"))?;
        self.in_transaction = false;
        self.ids.committed();
        if let Some(seq) = self.staged_snapshot.take() {
            self.snapshot_seq = seq;
            self.compacting = true;
        }
        Ok(())
    }

    fn insert(&mut self, commit: &Commit) -> Result<Digest, StoreError> {
        debug_assert_eq!(commit.seq, self.last.seq + 1, "commits follow each other");
        let prev = self.last.checksum;
        let checksum = chain::of_commit(&prev, commit);
        let inserted = self
            .db
            .prepare_cached(
                "INSERT INTO journal (seq, at, events, prev, checksum, payload) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .and_then(|mut insert| {
                insert.execute((commit.seq, commit.at.0, commit.events, prev.0, checksum.0, &commit.payload))
            });
        inserted.map_err(StoreError::sqlite("cannot write a commit"))?;
        if self.compacting {
            let old = "DELETE FROM journal WHERE seq IN (SELECT seq FROM journal WHERE seq <= ? LIMIT ?)";
            let deleted = self
                .db
                .prepare_cached(old)
                .and_then(|mut delete| delete.execute((self.snapshot_seq, DELETE_ROWS)))
                .map_err(StoreError::sqlite("cannot delete old commits"))?;
            self.compacting = deleted > 0;
        }
        if self.discarding {
            self.discarding = history::delete_discarded(&self.db)
                .map_err(StoreError::sqlite("cannot delete what is left of an import"))?;
        }
        Ok(checksum)
    }
}

impl Journal for SqliteJournal {
    fn stage_history(&mut self, history: &CommitHistory) -> Result<(), StoreError> {
        self.wal_bytes += history.records.len() as u64 * 128;
        self.discarding |= history.records.iter().any(|record| matches!(record, Record::Discarded { .. }));
        self.staging(|this| history::write(&this.db, &mut this.ids, history))
    }

    fn stage_snapshot(&mut self, seq: u64, snapshot: &[u8]) -> Result<(), StoreError> {
        self.wal_bytes += snapshot.len() as u64;
        self.staging(|this| {
            debug_assert_eq!(seq, this.last.seq, "a snapshot is taken after the newest commit");
            let Last { at, checksum: chain, .. } = this.last;
            let checksum = chain::of_snapshot(seq, at, &chain, snapshot);
            let failed = StoreError::sqlite("cannot write a snapshot");
            let write = || -> rusqlite::Result<()> {
                this.db.execute("DELETE FROM snapshot", [])?;
                this.db.execute(
                    "INSERT INTO snapshot VALUES (?, ?, ?, ?, ?)",
                    (seq, at.0, chain.0, checksum.0, snapshot),
                )?;
                Ok(())
            };
            write().map_err(failed)?;
            this.staged_snapshot = Some(seq);
            Ok(())
        })
    }

    fn append(&mut self, commit: &Commit) -> Result<(), StoreError> {
        let checksum = self.staging(|this| {
            let checksum = this.insert(commit)?;
            this.commit()?;
            Ok(checksum)
        })?;
        self.last = Last { seq: commit.seq, at: commit.at, checksum };
        self.wal_bytes += commit.payload.len() as u64 + COMMIT_OVERHEAD_BYTES;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if self.in_transaction { self.staging(Self::commit) } else { Ok(()) }
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        if self.in_transaction || self.wal_bytes < self.options.checkpoint_every_bytes {
            return Ok(());
        }
        // Passive: never waits for readers; what they hold back is done next time.
        self.db
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .map_err(StoreError::sqlite("cannot check the journal's log in"))?;
        self.wal_bytes = 0;
        Ok(())
    }

    fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        self.flush()?;
        // The last connection checkpoints and removes the log as it closes.
        self.db.flush_prepared_statement_cache();
        self.db.close().map_err(|(_, source)| StoreError::Sqlite { what: "cannot close the journal", source })
    }
}
