//! What attempts printed: files in the coordinator's folder, written by one keeper and read by whoever asks.
//!
//! Owns the files, their format and their limits. Logs are no part of the journal and of no decision, and best effort
//! throughout: what finds no room in the queue or on the disk is left out, and a log that is damaged or gone is an empty one with
//! a sentence. It must not hold anything up, and does not decide whose output is taken (that is `grpc::logs`).

mod file;
mod keeper;
mod place;
mod read;
mod readable;

pub use read::{Cursor, Reading};
pub(crate) use readable::{Readable, last_lines};

use crate::driver::Handle;
use keeper::Keeper;
use place::Stream;
use spotsweep_engine::SweepId;
use spotsweep_proto::ids::{Epoch, Incarnation, SweepName, WorkerName};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};

/// Folder of the logs in the coordinator's folder.
pub const LOGS_FOLDER: &str = "logs";
/// Most bytes of all logs together; the oldest of attempts that have ended go first.
pub const LOGS_BYTES: u64 = 1 << 30;
/// Chunks that wait to be written; beyond that they are left out.
const QUEUE: usize = 1024;
/// Chunks that are written in one go.
const AT_ONCE: usize = 64;
/// How long what waits may take to be written when the coordinator goes down.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Whose output a chunk is.
#[derive(Debug, Clone)]
pub(crate) struct Author {
    /// The trial's sweep.
    pub(crate) sweep: SweepId,
    /// The trial.
    pub(crate) number: u32,
    /// Which attempt the lease is, from 1.
    pub(crate) attempt: u32,
    /// The lease.
    pub(crate) epoch: Epoch,
    /// The process.
    pub(crate) who: Incarnation,
    /// As people call it.
    pub(crate) worker: WorkerName,
}

impl Author {
    fn stream(&self) -> Stream {
        Stream { attempt: self.attempt, epoch: self.epoch, who: self.who }
    }
}

/// What somebody printed.
#[derive(Debug, Clone)]
pub(crate) struct LogChunk {
    pub(crate) author: Author,
    /// Bytes that were printed before.
    pub(crate) offset: u64,
    pub(crate) text: bytes::Bytes,
    /// Nothing more is printed.
    pub(crate) last: bool,
}

enum Job {
    Write(LogChunk),
    Flush(oneshot::Sender<()>),
}

/// The logs of a folder. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    root: Arc<Path>,
    /// `None` for a folder at rest.
    jobs: Option<mpsc::Sender<Job>>,
    /// Changes whenever anything was written.
    written: watch::Receiver<u64>,
}

impl Logs {
    /// Of the coordinator's folder `dir`, on which none runs.
    #[must_use]
    pub fn at_rest(dir: &Path) -> Self {
        let (_, written) = watch::channel(0);
        Self { root: dir.join(LOGS_FOLDER).into(), jobs: None, written }
    }

    /// Of a coordinator at work on `dir`, which knows its sweeps by `handle`.
    #[must_use]
    pub fn live(dir: &Path, handle: Handle) -> Self {
        let root: Arc<Path> = dir.join(LOGS_FOLDER).into();
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (tell, written) = watch::channel(0);
        let writer = Writer { root: root.to_path_buf(), names: HashMap::new(), handle, tell };
        tokio::spawn(writer.run(queue));
        Self { root, jobs: Some(jobs), written }
    }

    /// Takes what somebody printed, if there is room for it just now.
    pub(crate) fn offer(&self, chunk: LogChunk) {
        if let Some(jobs) = &self.jobs
            && jobs.try_send(Job::Write(chunk)).is_err()
        {
            tracing::debug!("what an attempt printed finds no room in the queue");
        }
    }

    /// Waits until what was taken is written, though not for long.
    pub async fn flush(&self) {
        let Some(jobs) = &self.jobs else { return };
        let flushed = async {
            let (done, written) = oneshot::channel();
            if jobs.send(Job::Flush(done)).await.is_ok() {
                let _gone = written.await;
            }
        };
        let _late = tokio::time::timeout(FLUSH_LIMIT, flushed).await;
    }

    /// What an attempt printed since `cursor` was there, which moves on.
    pub async fn read(
        &self,
        sweep: &SweepName,
        number: u32,
        attempt: u32,
        mut cursor: Cursor,
    ) -> (Reading, Cursor) {
        let (root, sweep) = (self.root.clone(), sweep.clone());
        let before = cursor.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let reading = read::read(&root, &sweep, number, attempt, &mut cursor);
            (reading, cursor)
        });
        reading.await.unwrap_or((Reading::default(), before))
    }

    /// The newest attempt of a trial of which anything is kept; 0 if there is none.
    pub async fn newest(&self, sweep: &SweepName, number: u32) -> u32 {
        let (root, sweep) = (self.root.clone(), sweep.clone());
        let newest = tokio::task::spawn_blocking(move || {
            let streams = place::streams(&root, &sweep, number).unwrap_or_default();
            streams.iter().map(|stream| stream.attempt).max().unwrap_or(0)
        });
        newest.await.unwrap_or(0)
    }

    /// Changes whenever anything was written; `None` for a folder at rest.
    #[must_use]
    pub fn written(&self) -> Option<watch::Receiver<u64>> {
        self.jobs.is_some().then(|| self.written.clone())
    }
}

/// Takes chunks from the queue to the keeper, on a thread that may wait for the disk.
struct Writer {
    root: PathBuf,
    names: HashMap<SweepId, SweepName>,
    handle: Handle,
    tell: watch::Sender<u64>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut keeper = None;
        let mut jobs = Vec::new();
        while queue.recv_many(&mut jobs, AT_ONCE).await > 0 {
            let (mut chunks, mut flushed) = (Vec::new(), Vec::new());
            for job in jobs.drain(..) {
                match job {
                    Job::Write(chunk) => {
                        if let Some(name) = self.name(chunk.author.sweep).await {
                            chunks.push((name, chunk));
                        }
                    }
                    Job::Flush(done) => flushed.push(done),
                }
            }
            let root = self.root.clone();
            let written = tokio::task::spawn_blocking(move || {
                let mut keeper = keeper.unwrap_or_else(|| Keeper::open(root, LOGS_BYTES));
                chunks.iter().for_each(|(name, chunk)| keeper.write(name, chunk));
                keeper
            });
            // After a panic, from what lies on the disk.
            keeper = written.await.ok();
            self.tell.send_modify(|count| *count += 1);
            for done in flushed {
                let _gone = done.send(());
            }
        }
    }

    async fn name(&mut self, id: SweepId) -> Option<SweepName> {
        if let Some(name) = self.names.get(&id) {
            return Some(name.clone());
        }
        // While the journal is stalled nobody is told anything, and the disk is full anyway.
        let (view, _) = self.handle.query(move |engine| engine.sweep(id)).await.ok()?;
        let name = view?.name;
        self.names.insert(id, name.clone());
        Some(name)
    }
}
