//! The order of things: nothing leaves before what caused it is durable, and a journal that cannot be written for a
//! while loses nothing.

use super::*;
use crate::{
    error::Code,
    store::{Commit, CommitHistory, Journal, StoreError},
};
use spotsweep_engine::{
    Config, Time,
    event::{Device, DeviceKind, Machine},
};
use spotsweep_proto::{
    ids::{DeviceName, Incarnation, WorkerName},
    spec,
};
use std::sync::{Arc, Condvar, Mutex};
use tokio::{sync::mpsc, task::JoinHandle};

/// What the test decides about the disk, and what it finds on it.
#[derive(Default)]
struct Disk {
    state: Mutex<DiskState>,
    changed: Condvar,
}

#[derive(Default)]
struct DiskState {
    /// Commits that may still be written; the next one waits.
    allowed: u64,
    full: bool,
    waiting: bool,
    commits: Vec<Commit>,
    history: Vec<u64>,
    snapshots: Vec<u64>,
    closed: bool,
}

impl Disk {
    fn change(&self, change: impl FnOnce(&mut DiskState)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn look<T>(&self, look: impl FnOnce(&DiskState) -> T) -> T {
        look(&self.state.lock().unwrap())
    }

    /// Blocks until `condition` holds.
    fn wait(&self, condition: impl Fn(&DiskState) -> bool) {
        let state = self.state.lock().unwrap();
        let (_state, timeout) = self
            .changed
            .wait_timeout_while(state, std::time::Duration::from_secs(60), |state| !condition(state))
            .unwrap();
        assert!(!timeout.timed_out(), "the disk never came to what was waited for");
    }

    async fn until(self: &Arc<Self>, condition: impl Fn(&DiskState) -> bool + Send + 'static) {
        let disk = self.clone();
        tokio::task::spawn_blocking(move || disk.wait(condition)).await.unwrap();
    }
}

struct FakeJournal {
    disk: Arc<Disk>,
    staged: Vec<u64>,
    snapshot: Option<u64>,
}

fn full() -> StoreError {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    StoreError::Sqlite { what: "cannot write", source: rusqlite::Error::SqliteFailure(code, None) }
}

impl FakeJournal {
    fn keep_staged(&mut self) {
        let (staged, snapshot) = (std::mem::take(&mut self.staged), self.snapshot.take());
        self.disk.change(|state| {
            state.history.extend(staged);
            state.snapshots.extend(snapshot);
        });
    }
}

impl Journal for FakeJournal {
    fn stage_history(&mut self, history: &CommitHistory) -> Result<(), StoreError> {
        self.staged.push(history.seq);
        Ok(())
    }

    fn stage_snapshot(&mut self, seq: u64, _: &[u8]) -> Result<(), StoreError> {
        self.snapshot = Some(seq);
        Ok(())
    }

    fn append(&mut self, commit: &Commit) -> Result<(), StoreError> {
        self.disk.change(|state| state.waiting = true);
        self.disk.wait(|state| state.allowed > 0 || state.full);
        self.disk.change(|state| state.waiting = false);
        if self.disk.look(|state| state.full) {
            self.staged.clear();
            self.snapshot = None;
            return Err(full());
        }
        self.disk.change(|state| {
            state.allowed -= 1;
            state.commits.push(commit.clone());
        });
        self.keep_staged();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.keep_staged();
        Ok(())
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        self.keep_staged();
        self.disk.change(|state| state.closed = true);
        Ok(())
    }
}

/// A driver at work on a disk that writes `allowed` commits.
fn start(allowed: u64) -> (Handle, Arc<Disk>, JoinHandle<Result<(), DriverError>>) {
    let disk = Arc::new(Disk {
        state: Mutex::new(DiskState { allowed, ..DiskState::default() }),
        ..Disk::default()
    });
    let journal = Box::new(FakeJournal { disk: disk.clone(), staged: Vec::new(), snapshot: None });
    let start = Start {
        journal,
        engine: Engine::new(Config::default()),
        last_seq: 0,
        last_at: Time(0),
        unwritten: Vec::new(),
        journal_bytes: 0,
    };
    let (deletions, _) = mpsc::unbounded_channel();
    let options = DriverOptions { snapshot_every_bytes: 1 << 20, tick_s: 3600.0, deletions };
    let (driver, handle) = Driver::new(start, options).unwrap();
    (handle, disk, tokio::spawn(driver.run()))
}

const PLENTY: u64 = 1_000_000;

fn sweep(trials: u32) -> SweepSpec {
    let source = format!(
        "name: s\nmethod: random\nrun_cap: {trials}\nparameters: {{seed: {{min: 0, max: 9}}}}\n\
         train: {{model: noop, steps: 1}}\n"
    );
    spec::parse(source.as_bytes(), "sweep.yaml").unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn hello() -> Hello {
    Hello {
        name: WorkerName::new("w").unwrap(),
        incarnation: Incarnation(1),
        devices: vec![Device {
            name: DeviceName::new("cpu").unwrap(),
            kind: DeviceKind::Cpu,
            model: String::new(),
            memory_bytes: 0,
        }],
        machine: Machine::default(),
        held: Vec::new(),
        programs_only: false,
        knows: Vec::new(),
    }
}

fn submitting(
    handle: &Handle,
    token: u128,
) -> JoinHandle<Result<Result<Reply, Refusal>, crate::error::Problem>> {
    let handle = handle.clone();
    tokio::spawn(async move { handle.submit(token, sweep(3)).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_before_it_is_durable() {
    let (handle, disk, _driver) = start(0);
    let answer = submitting(&handle, 1);
    disk.until(|state| state.waiting).await;
    let mut attached = handle.attach(hello(), 1).await.unwrap();
    let (turn, has_come) = oneshot::channel();
    let asked = tokio::spawn({
        let handle = handle.clone();
        async move {
            let look = move |engine: &Engine| turn.send(engine.sweeps().count());
            handle.query(look).await.map(|(sent, _)| sent)
        }
    });
    assert_eq!(has_come.await, Ok(1), "the engine has seen it already");
    assert!(!answer.is_finished() && !asked.is_finished());
    assert!(attached.receiver.try_recv().is_err(), "not even the welcome");
    disk.change(|state| state.allowed = PLENTY);
    assert!(matches!(answer.await.unwrap().unwrap(), Ok(Reply::Submitted { new: true, .. })));
    asked.await.unwrap().unwrap().unwrap();
    assert!(matches!(attached.receiver.recv().await, Some(ToSession::Welcome { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_a_commit_is_written_shares_the_next() {
    let (handle, disk, _driver) = start(0);
    let first = submitting(&handle, 1);
    disk.until(|state| state.waiting).await;
    let mut others = Vec::new();
    for token in 2..=100 {
        let (reply, answer) = oneshot::channel();
        handle.inputs.send(Input::Submit { token, spec: Box::new(sweep(3)), reply }).await.unwrap();
        others.push(answer);
    }
    // The driver looks at a question in its turn, though the answer waits: then all before it are taken in.
    let (turn, has_come) = oneshot::channel();
    let asked = tokio::spawn({
        let handle = handle.clone();
        async move { handle.query(move |_| turn.send(())).await }
    });
    has_come.await.unwrap();
    disk.change(|state| state.allowed = PLENTY);
    first.await.unwrap().unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    asked.await.unwrap().unwrap().0.unwrap();
    let commits = disk.look(|state| state.commits.iter().map(|commit| commit.events).collect::<Vec<_>>());
    assert_eq!(commits, [1, 99]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_in_words_and_goes_on_by_itself() {
    let (handle, disk, _driver) = start(PLENTY);
    handle.submit(1, sweep(3)).await.unwrap().unwrap();
    disk.change(|state| state.full = true);
    let caught = handle.submit(2, sweep(3)).await.unwrap_err();
    assert_eq!(caught.code, Code::StorageStalled, "{caught}");
    let asked = handle.query(|engine| engine.sweeps().count()).await.unwrap_err();
    assert_eq!(asked.code, Code::StorageStalled);
    disk.change(|state| state.full = false);
    let mut store = handle.store.clone();
    store.wait_for(|state| state.stalled.is_none()).await.unwrap();
    // The one that was caught is in, whatever its client was told: the same token finds it.
    let again = handle.submit(2, sweep(3)).await.unwrap().unwrap();
    assert!(matches!(again, Reply::Submitted { new: false, .. }), "{again:?}");
    assert_eq!(handle.query(|engine| engine.sweeps().count()).await.unwrap().0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_written_once_for_each_commit_in_order_and_waited_for() {
    let (handle, disk, _driver) = start(PLENTY);
    for token in 1..=20 {
        handle.submit(token, sweep(3)).await.unwrap().unwrap();
    }
    let (_, seq) = handle.query(|_| ()).await.unwrap();
    handle.history_at_least(seq).await.unwrap();
    let history = disk.look(|state| state.history.clone());
    assert_eq!(history, (1..=seq).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_read_is_let_go_and_others_are_served() {
    let (handle, _disk, _driver) = start(PLENTY);
    let slow = handle.attach(hello(), 1).await.unwrap();
    for seq in 1..=(sessions::SESSION_QUEUE as u64 + 100) {
        let batch = ReportBatch { first_seq: seq, metric_names: Vec::new(), reports: Vec::new() };
        assert!(slow.sender.reports(batch).await);
        // One commit each, so that acknowledgements do not join.
        handle.query(|_| ()).await.unwrap();
    }
    let state = handle.query(|engine| engine.workers().next().map(|worker| worker.link)).await.unwrap().0;
    assert!(!format!("{state:?}").contains("Connected"), "{state:?}");
    let mut brisk = handle.attach(Hello { incarnation: Incarnation(2), ..hello() }, 1).await.unwrap();
    assert!(matches!(brisk.receiver.recv().await, Some(ToSession::Welcome { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_hello_does_not_cut_off_the_connection_that_a_worker_uses() {
    let (handle, _disk, _driver) = start(PLENTY);
    let mut in_use = handle.attach(hello(), 2).await.unwrap();
    assert!(matches!(in_use.receiver.recv().await, Some(ToSession::Welcome { .. })));
    let mut overtaken = handle.attach(hello(), 1).await.unwrap();
    assert!(overtaken.receiver.recv().await.is_none(), "it is let go without a welcome");
    handle.submit(1, sweep(1)).await.unwrap().unwrap();
    assert!(in_use.sender.ready(0, 1).await);
    assert!(in_use.receiver.recv().await.is_some(), "the one in use is still served");
    let mut later = handle.attach(hello(), 3).await.unwrap();
    assert!(matches!(later.receiver.recv().await, Some(ToSession::Welcome { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_writes_what_is_under_way_and_a_snapshot() {
    let (handle, disk, driver) = start(0);
    let answer = submitting(&handle, 1);
    disk.until(|state| state.waiting).await;
    handle.shutdown().await;
    disk.change(|state| state.allowed = PLENTY);
    answer.await.unwrap().unwrap().unwrap();
    driver.await.unwrap().unwrap();
    let (commits, snapshots, closed) =
        disk.look(|state| (state.commits.len() as u64, state.snapshots.clone(), state.closed));
    assert_eq!((snapshots, closed), (vec![commits], true));
    let refused = handle.submit(2, sweep(3)).await.unwrap_err();
    assert_eq!(refused.code, Code::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_reach_the_worker_after_their_sweep() {
    let (handle, _disk, _driver) = start(PLENTY);
    let mut attached = handle.attach(hello(), 1).await.unwrap();
    handle.submit(1, sweep(3)).await.unwrap().unwrap();
    assert!(attached.sender.ready(0, 2).await);
    let (mut told, mut granted) = (false, 0);
    while granted < 2 {
        match attached.receiver.recv().await.unwrap() {
            ToSession::Sweep(_) => told = true,
            ToSession::Grants(grants) => {
                assert!(told);
                granted += grants.len();
            }
            ToSession::Welcome { .. }
            | ToSession::Renewed { .. }
            | ToSession::Revoked { .. }
            | ToSession::Regang { .. }
            | ToSession::Acknowledged { .. } => {}
        }
    }
}
