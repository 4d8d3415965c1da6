//! What a folder promises: every commit that was appended, a damaged end cut and said, a damaged middle refused.

use super::*;
use proptest::prelude::*;
use rusqlite::Connection;
use spotsweep_engine::{
    Action, Config, Engine, RequestId, SweepId, TrialRef,
    action::TrialState,
    import::{ImportHead, ImportPart, ImportStep, ImportToken, ImportedPoint, ImportedTrial},
};
use spotsweep_proto::{
    digest::Digest,
    ids::{DeviceName, Epoch, MetricName, SweepName, WorkerName},
    spec,
};
use std::path::Path;
use tempfile::TempDir;

/// A folder with a journal at work, and the engine that a restart must give after each commit.
struct Folder {
    dir: TempDir,
    lock: FolderLock,
    journal: Option<Box<SqliteJournal>>,
    engine: Engine,
    seq: u64,
    /// The state after commit n, at n.
    states: Vec<Vec<u8>>,
}

impl Folder {
    fn new() -> Self {
        Self::with(&StoreOptions::default())
    }

    fn with(options: &StoreOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(dir.path()).unwrap();
        let opened = open(dir.path(), &lock, options, Config::default()).unwrap();
        assert!(opened.report.fresh);
        let states = vec![opened.engine.snapshot()];
        Self { dir, lock, journal: Some(Box::new(opened.journal)), engine: opened.engine, seq: 0, states }
    }

    /// A commit of one submission, padded to be about `bytes` long, with its history.
    fn commit(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.commit_event(submission(self.seq + 1, bytes))
    }

    fn commit_event(&mut self, event: Event) -> Result<(), StoreError> {
        let seq = self.seq + 1;
        let at = Time(seq * 1_000_000);
        let (mut payload, mut actions) = (Vec::new(), Vec::new());
        encode_event(at, &event, &mut payload);
        let journal = self.journal.as_mut().unwrap();
        journal.append(&Commit { seq, at, events: 1, payload })?;
        self.engine.step(at, event, &mut actions);
        let records = actions.into_iter().filter_map(|action| match action {
            Action::Record(record) | Action::Archive(record) => Some(record),
            _ => None,
        });
        let history = CommitHistory { seq, records: Arc::new(records.collect()) };
        journal.stage_history(&history).unwrap();
        self.seq = seq;
        self.states.push(self.engine.snapshot());
        Ok(())
    }

    /// What a machine that stops now leaves on its disk.
    fn left_behind(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        copy
    }

    /// Closes the journal in order; the database then has no log beside it.
    fn close(mut self) -> (TempDir, Vec<Vec<u8>>) {
        self.journal.take().unwrap().close().unwrap();
        drop(self.lock);
        (self.dir, self.states)
    }
}

fn submission(number: u64, bytes: usize) -> Event {
    let source = format!(
        "name: s{number}\ndescription: {}\nmethod: random\nrun_cap: 3\nparameters: {{seed: {{min: 0, max: 9}}}}\n\
         train: {{model: noop, steps: 1}}\n",
        "x".repeat(bytes)
    );
    let spec = spec::parse(source.as_bytes(), "sweep.yaml").unwrap_or_else(|wrong| panic!("{wrong}"));
    Event::Submit { request: RequestId(number), token: u128::from(number), spec: Box::new(spec) }
}

fn reopen(dir: &Path) -> Result<Opened, StoreError> {
    let lock = FolderLock::take(dir)?;
    open(dir, &lock, &StoreOptions::default(), Config::default())
}

/// Changes the database as a broken disk or a careless person would.
fn damage(dir: &Path, sql: &str) {
    Connection::open(dir.join(DATABASE_FILE)).unwrap().execute_batch(sql).unwrap();
}

fn refused(dir: &Path) -> StoreError {
    reopen(dir).err().expect("it is refused")
}

/// The steps of an import of one trial with so many points.
fn import(points: u64) -> Vec<ImportStep> {
    let Event::Submit { spec, .. } = submission(1, 1) else { panic!() };
    let head = ImportHead {
        name: SweepName::new("imported").unwrap(),
        renamed: false,
        spec,
        submitted_at: Time(1),
        ended_at: Time(2),
        cancelled: false,
        target_reached: false,
        stale_reports: 0,
        best_trial: None,
        attempts: 0,
        points,
        program: String::new(),
        format: 2,
        digest: Digest::of(b"x"),
    };
    let trial = |attempts: u32| ImportedTrial {
        state: TrialState::Failed,
        epoch: Epoch(u64::from(attempts)),
        attempts,
        failures: 0,
        interruptions: 0,
        place: Some((WorkerName::new("w").unwrap(), DeviceName::new("cpu").unwrap())),
        step: points,
        total_steps: None,
        seconds: 0.0,
        objective: None,
        best: None,
        failure: None,
        result: None,
    };
    #[expect(clippy::cast_precision_loss, reason = "a test")]
    let point = |step: u64| ImportedPoint {
        number: 0,
        step,
        data_epoch: 0.0,
        at: Time(1),
        metrics: vec![(0, step as f64)],
    };
    let metric_names = vec![MetricName::new("loss").unwrap()];
    let points = (0..points).map(point).collect();
    vec![
        ImportStep::Begin(Box::new(head)),
        ImportStep::Part(ImportPart::Trials(vec![trial(1), trial(0), trial(0)])),
        ImportStep::Part(ImportPart::Points { metric_names, points }),
        ImportStep::End,
    ]
}

fn step(token: u128, step: ImportStep) -> Event {
    Event::Import { request: RequestId(1), token: ImportToken(token), step }
}

#[test]
fn what_an_import_that_broke_off_had_written_is_deleted_and_nothing_else() {
    let mut folder = Folder::new();
    let mut steps = import(100_000);
    steps.pop();
    for one in steps {
        folder.commit_event(step(1, one)).unwrap();
    }
    folder.commit_event(step(1, ImportStep::Abandon)).unwrap();
    for one in import(10_000) {
        folder.commit_event(step(2, one)).unwrap();
    }
    // The history of the last commit rides on the next; old rows go a few with each.
    for _ in 0..8 {
        folder.commit(10).unwrap();
    }
    let (dir, _) = folder.close();
    let db = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    let count = |sql: &str| -> u32 { db.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(count("SELECT count(*) FROM points WHERE sweep = 0"), 0);
    assert_eq!(count("SELECT count(*) FROM points WHERE sweep = 1"), 20, "rows of at most 512 points");
    assert_eq!(count("SELECT count(*) FROM discarded"), 0);
    let history = History::of_file(&dir.path().join(DATABASE_FILE));
    let trial = TrialRef { sweep: SweepId(1), number: 0 };
    let page = history.points(trial, 700, 1000).unwrap();
    assert_eq!((page[0].step, page.len()), (700, 2048 - 700), "no more rows are read than are needed");
    assert_eq!(history.points(trial, 9_999, 1000).unwrap().len(), 1);
    assert_eq!(history.newest_metrics(trial).unwrap()[0].1.to_bits(), 9_999_f64.to_bits());
}

#[test]
fn every_commit_is_there_after_a_clean_end_and_after_none() {
    let mut folder = Folder::new();
    for _ in 0..5 {
        folder.commit(10).unwrap();
    }
    let crashed = reopen(folder.left_behind().path()).unwrap();
    assert_eq!((crashed.last_seq, crashed.report.replayed_commits), (5, 5));
    assert_eq!(crashed.report.cut, []);
    let (dir, states) = folder.close();
    assert_eq!(crashed.engine.snapshot(), states[5]);
    let opened = reopen(dir.path()).unwrap();
    assert_eq!((opened.last_seq, opened.engine.snapshot()), (5, states[5].clone()));
}

#[test]
fn history_that_was_only_staged_is_given_again_after_a_crash() {
    let mut folder = Folder::new();
    for _ in 0..3 {
        folder.commit(10).unwrap();
    }
    // The history of commit 3 was staged, and rides on a commit that never came.
    let opened = reopen(folder.left_behind().path()).unwrap();
    let missing: Vec<u64> = opened.unwritten.iter().map(|history| history.seq).collect();
    assert_eq!(missing, [3]);
}

#[test]
fn a_torn_end_is_cut_at_the_last_whole_commit_and_said() {
    let mut folder = Folder::new();
    for _ in 0..4 {
        folder.commit(10).unwrap();
    }
    let copy = folder.left_behind();
    let log = copy.path().join(format!("{DATABASE_FILE}-wal"));
    let bytes = std::fs::metadata(&log).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(bytes - 100).unwrap();
    let opened = reopen(copy.path()).unwrap();
    assert_eq!(opened.last_seq, 3);
    assert_eq!(opened.engine.snapshot(), folder.states[3]);
    let said = opened.report.cut[0].to_string();
    assert!(said.contains("cut at the last whole commit") && said.contains("byte"), "{said}");
}

#[test]
fn a_damaged_last_commit_is_cut_with_its_history() {
    let mut folder = Folder::new();
    for _ in 0..4 {
        folder.commit(10).unwrap();
    }
    let (dir, states) = folder.close();
    damage(dir.path(), "UPDATE journal SET payload = x'00ff' WHERE seq = 4");
    let opened = reopen(dir.path()).unwrap();
    assert_eq!((opened.last_seq, opened.engine.snapshot()), (3, states[3].clone()));
    assert!(opened.report.cut[0].place.contains("commit 4"), "{}", opened.report.cut[0]);
    drop(opened);
    let db = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    let seq: u64 =
        db.query_row("SELECT value FROM meta WHERE key = 'history_seq'", [], |row| row.get(0)).unwrap();
    assert_eq!(seq, 3, "the history does not know more than the journal");
}

#[test]
fn a_damaged_middle_is_refused_with_its_place_and_nothing_is_changed() {
    for sql in [
        "UPDATE journal SET payload = x'00ff' WHERE seq = 2",
        "UPDATE journal SET at = at + 1 WHERE seq = 2",
        "UPDATE journal SET prev = checksum WHERE seq = 2",
        "DELETE FROM journal WHERE seq = 2",
    ] {
        let mut folder = Folder::new();
        for _ in 0..4 {
            folder.commit(10).unwrap();
        }
        let (dir, _) = folder.close();
        damage(dir.path(), sql);
        let before = std::fs::read(dir.path().join(DATABASE_FILE)).unwrap();
        let error = refused(dir.path());
        let StoreError::Damaged { place, what, .. } = &error else { panic!("{sql}: {error}") };
        assert!(place.contains("commit 2") && what.contains("behind it is whole"), "{sql}: {error}");
        assert_eq!(std::fs::read(dir.path().join(DATABASE_FILE)).unwrap(), before, "{sql}");
    }
}

#[test]
fn a_journal_that_lost_its_end_takes_its_history_back() {
    let mut folder = Folder::new();
    for _ in 0..4 {
        folder.commit(10).unwrap();
    }
    let (dir, states) = folder.close();
    damage(dir.path(), "DELETE FROM journal WHERE seq > 2");
    let opened = reopen(dir.path()).unwrap();
    assert_eq!((opened.last_seq, opened.engine.snapshot()), (2, states[2].clone()));
    assert!(opened.report.cut[0].what.contains("all up to 4 are missing"), "{}", opened.report.cut[0]);
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let (dir, _) = Folder::new().close();
    damage(dir.path(), "UPDATE snapshot SET payload = x'00'");
    let error = refused(dir.path());
    assert!(matches!(&error, StoreError::Damaged { place, .. } if place == "the snapshot"), "{error}");
}

#[test]
fn a_file_of_something_else_or_of_a_newer_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    damage(dir.path(), "CREATE TABLE theirs (x)");
    assert!(matches!(refused(dir.path()), StoreError::NotOurs { .. }));
    let text = tempfile::tempdir().unwrap();
    std::fs::write(
        text.path().join(DATABASE_FILE),
        "this is no database, whatever its name says".repeat(100),
    )
    .unwrap();
    let error: crate::error::Problem = refused(text.path()).into();
    assert_eq!(error.code, crate::error::Code::Damaged, "{error}");
    let (newer, _) = Folder::new().close();
    damage(newer.path(), "PRAGMA user_version = 9999");
    assert!(matches!(refused(newer.path()), StoreError::Newer { found: 9999, .. }));
}

#[test]
fn compaction_deletes_only_what_a_durable_snapshot_covers() {
    let mut folder = Folder::new();
    for _ in 0..10 {
        folder.commit(10).unwrap();
    }
    let snapshot = folder.engine.snapshot();
    folder.journal.as_mut().unwrap().stage_snapshot(10, &snapshot).unwrap();
    // Staged is not durable: a machine that stops now comes back by the ten commits.
    assert_eq!(reopen(folder.left_behind().path()).unwrap().report.replayed_commits, 10);
    for _ in 0..4 {
        folder.commit(10).unwrap();
    }
    let (dir, states) = folder.close();
    let opened = reopen(dir.path()).unwrap();
    assert_eq!((opened.report.snapshot_seq, opened.report.replayed_commits), (10, 4));
    assert_eq!(opened.engine.snapshot(), states[14]);
    drop(opened);
    let db = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    let oldest: u64 = db.query_row("SELECT min(seq) FROM journal", [], |row| row.get(0)).unwrap();
    assert_eq!(oldest, 11);
}

#[test]
fn a_full_disk_is_temporary_and_loses_nothing_that_was_appended() {
    let options = StoreOptions { max_pages: Some(64), ..StoreOptions::default() };
    let mut folder = Folder::with(&options);
    let error = loop {
        if let Err(error) = folder.commit(4000) {
            break error;
        }
    };
    assert!(error.is_temporary(), "{error:?}");
    assert!(folder.seq > 3);
    let (dir, states) = folder.close();
    let opened = reopen(dir.path()).unwrap();
    assert_eq!(opened.engine.snapshot(), *states.last().unwrap());
}

#[test]
fn a_folder_at_rest_is_read_without_being_changed() {
    let mut folder = Folder::new();
    for _ in 0..3 {
        folder.commit(10).unwrap();
    }
    let live = open_read_only(folder.dir.path()).err().expect("a coordinator holds it");
    assert!(matches!(live, StoreError::InUse { .. }), "{live}");
    let (dir, states) = folder.close();
    let before = std::fs::read(dir.path().join(DATABASE_FILE)).unwrap();
    let (engine, _, report) = open_read_only(dir.path()).unwrap();
    assert_eq!((engine.snapshot(), report.replayed_commits), (states[3].clone(), 3));
    assert_eq!(std::fs::read(dir.path().join(DATABASE_FILE)).unwrap(), before);
    let nothing = tempfile::tempdir().unwrap();
    assert!(matches!(open_read_only(nothing.path()), Err(StoreError::NoFolder { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever one broken place of the log does, the state is that after some commit, or the folder is refused.
    #[test]
    fn a_broken_log_never_gives_a_state_that_never_was(place in 0.0_f64..1.0, flip in 1_u8.., cut: bool) {
        let mut folder = Folder::new();
        for bytes in [10, 5000, 10, 10] {
            folder.commit(bytes).unwrap();
        }
        let copy = folder.left_behind();
        let path = copy.path().join(format!("{DATABASE_FILE}-wal"));
        let mut log = std::fs::read(&path).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place")]
        let at = (place * log.len() as f64) as usize;
        if cut { log.truncate(at) } else { log[at] ^= flip }
        std::fs::write(&path, log).unwrap();
        match reopen(copy.path()) {
            Ok(opened) => {
                prop_assert_eq!(opened.engine.snapshot(), folder.states[usize::try_from(opened.last_seq).unwrap()].clone());
                prop_assert!(cut || opened.last_seq >= 3 || !opened.report.cut.is_empty(), "commit {}", opened.last_seq);
            }
            Err(StoreError::Damaged { .. }) => prop_assert!(!cut, "a torn end is cut, not refused"),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}
