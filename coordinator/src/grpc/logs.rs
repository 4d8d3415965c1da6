//! Whose output is taken, and how it is told: an agent's chunks pass if they belong to a lease that its process was granted here,
//! or brought along when the coordinator came back; clients get what is kept as a stream.
//!
//! Owns what is remembered of leases for that. It must not decide who gets one (the engine does), nor keep any output.

use super::from_worker;
use crate::{
    driver::ToSession,
    error::{Code, Problem},
    logs::{Author, Cursor, LogChunk, Logs},
    queries::Queries,
};
use spotsweep_engine::{
    TrialRef,
    action::TrialState,
    event::{HeldLease, ReportBatch, ReportBody},
    views::SweepView,
};
use spotsweep_proto::{
    ids::{Epoch, Incarnation, WorkerName},
    limits::{LOG_BATCH_BYTES, LOG_CHUNKS_PER_BATCH},
};
use spotsweep_wire::v1;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tonic::Status;

/// Leases that have ended and under which a process may still send what was printed: as many as agents keep output of.
const ENDED: usize = 1024;
/// Processes that are remembered after their connections have ended.
const PROCESSES: usize = 16_384;
/// Bytes of one answer.
const ANSWER_BYTES: usize = 256 << 10;
/// Answers that are ready before they are read.
const ANSWERS_AHEAD: usize = 2;
/// Between two looks of one who follows, however much is written.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between two looks where nothing is written: whether the attempt has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Of an attempt that has ended, whose agent did not say that nothing more comes, so long without a word is the end.
const QUIET: Duration = Duration::from_secs(3);

type Lease = (TrialRef, Epoch);

/// The leases of one process, each with the attempt that it becomes, where that is known here.
#[derive(Debug, Default)]
struct Leases {
    held: HashMap<Lease, Option<u32>>,
    ended: VecDeque<(Lease, Option<u32>)>,
}

impl Leases {
    fn grant(&mut self, lease: Lease, attempt: u32) {
        self.held.insert(lease, Some(attempt));
    }

    fn end(&mut self, lease: Lease) {
        if let Some(attempt) = self.held.remove(&lease) {
            if self.ended.len() >= ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back((lease, attempt));
        }
    }

    fn keep(&mut self, keep: &[HeldLease]) {
        let keep: HashSet<Lease> = keep.iter().map(|held| (held.trial, held.epoch)).collect();
        let lost: Vec<Lease> = self.held.keys().filter(|lease| !keep.contains(lease)).copied().collect();
        lost.into_iter().for_each(|lease| self.end(lease));
        for lease in keep {
            self.held.entry(lease).or_insert(None);
        }
    }

    /// The attempt that a lease of this process is, where it says `said`; `None` if it has no such lease.
    fn attempt(&self, lease: Lease, said: u32) -> Option<u32> {
        let held = self.held.get(&lease).copied();
        let known = held.or_else(|| {
            self.ended.iter().rev().find(|(ended, _)| *ended == lease).map(|(_, attempt)| *attempt)
        })?;
        known.is_none_or(|known| known == said).then_some(said)
    }
}

type Processes = HashMap<Incarnation, Arc<Mutex<Leases>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is whole before anything could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where agents hand in what their attempts print. Cheap to clone.
#[derive(Clone)]
pub(super) struct Desk {
    logs: Logs,
    processes: Arc<Mutex<Processes>>,
}

impl Desk {
    pub(super) fn new(logs: Logs) -> Self {
        Self { logs, processes: Arc::default() }
    }

    /// A connection of a process.
    pub(super) fn connect(&self, who: Incarnation, worker: WorkerName) -> Counter {
        let mut processes = lock(&self.processes);
        if processes.len() >= PROCESSES {
            processes.retain(|_, leases| Arc::strong_count(leases) > 1);
        }
        let leases = processes.entry(who).or_default().clone();
        Counter { logs: self.logs.clone(), who, worker, leases }
    }
}

/// One connection at the desk.
pub(super) struct Counter {
    logs: Logs,
    who: Incarnation,
    worker: WorkerName,
    leases: Arc<Mutex<Leases>>,
}

impl Counter {
    /// The process is about to be told this.
    pub(super) fn told(&self, what: &ToSession) {
        match what {
            ToSession::Grants(grants) => {
                let mut leases = lock(&self.leases);
                for (_, grant, _) in grants {
                    leases.grant((grant.trial, grant.epoch), grant.attempt);
                }
            }
            ToSession::Revoked { trial, epoch, .. } => lock(&self.leases).end((*trial, *epoch)),
            ToSession::Welcome { keep, .. } => lock(&self.leases).keep(keep),
            ToSession::Sweep(_)
            | ToSession::Regang { .. }
            | ToSession::Renewed { .. }
            | ToSession::Acknowledged { .. } => {}
        }
    }

    /// The process said this.
    pub(super) fn reported(&self, batch: &ReportBatch) {
        let ends = |body: &ReportBody| match body {
            ReportBody::Started { .. } | ReportBody::Progress { .. } | ReportBody::Checkpoint(_) => false,
            ReportBody::Finished { .. } | ReportBody::Failed { .. } | ReportBody::Released { .. } => true,
        };
        let mut ended = batch.reports.iter().filter(|report| ends(&report.body)).peekable();
        if ended.peek().is_some() {
            let mut leases = lock(&self.leases);
            ended.for_each(|report| leases.end((report.trial, report.epoch)));
        }
    }

    /// The process hands in what was printed.
    ///
    /// # Errors
    /// A batch or a chunk that is none. What belongs to no lease of the process is left out.
    pub(super) fn take(&self, batch: v1::LogBatch) -> Result<(), Problem> {
        let bytes: usize = batch.chunks.iter().map(|chunk| chunk.text.len()).sum();
        if batch.chunks.len() > LOG_CHUNKS_PER_BATCH || bytes > LOG_BATCH_BYTES {
            let message = format!(
                "{} chunks and {bytes} bytes of logs at once; at most {LOG_CHUNKS_PER_BATCH} and {LOG_BATCH_BYTES} are taken",
                batch.chunks.len()
            );
            return Err(Problem::new(Code::TooLarge, message));
        }
        for chunk in batch.chunks {
            let trial = from_worker::trial(chunk.trial)?;
            if chunk.attempt == 0 || chunk.offset.checked_add(chunk.text.len() as u64).is_none() {
                return Err(Problem::new(Code::BadRequest, "a chunk of a log that cannot be"));
            }
            let epoch = Epoch(chunk.epoch);
            let Some(attempt) = lock(&self.leases).attempt((trial, epoch), chunk.attempt) else {
                tracing::warn!(worker = %self.worker, %trial, %epoch, "a worker sends the log of a lease that it never had here");
                continue;
            };
            let (TrialRef { sweep, number }, who, worker) = (trial, self.who, self.worker.clone());
            let author = Author { sweep, number, attempt, epoch, who, worker };
            let v1::LogChunk { offset, text, last, .. } = chunk;
            self.logs.offer(LogChunk { author, offset, text, last });
        }
        Ok(())
    }
}

/// Somebody who reads a log.
pub(crate) struct Reader {
    queries: Queries,
    logs: Logs,
    sweep: SweepView,
    trial: TrialRef,
    attempt: u32,
}

/// How an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It may print more.
    Open,
    /// Nothing more happens to it.
    Over,
}

impl Reader {
    /// Of attempt `attempt` of the trial called `target`; 0: of the newest.
    ///
    /// # Errors
    /// There is no such sweep, trial or attempt.
    pub(crate) async fn open(
        queries: &Queries,
        logs: &Logs,
        target: &str,
        attempt: u32,
    ) -> Result<Self, Problem> {
        let (sweep, trial) = queries.find_trial(target).await?;
        let view = queries.ask(move |engine| engine.trial_brief(trial)).await?;
        let (begun, running) =
            view.map_or((0, false), |view| (view.attempts, view.state == TrialState::Running));
        let newest = begun.max(logs.newest(&sweep.name, trial.number).await);
        if attempt > newest.max(1) && !(running && attempt == begun + 1) {
            let message = format!("{target} has no attempt {attempt}");
            let hint = match newest {
                0 => "none has begun yet".to_owned(),
                newest => format!("it has attempts 1 to {newest}"),
            };
            return Err(Problem::new(Code::NoSuchAttempt, message).hint(hint));
        }
        let attempt = if attempt == 0 { newest.max(1) } else { attempt };
        Ok(Self { queries: queries.clone(), logs: logs.clone(), sweep, trial, attempt })
    }

    /// All that is kept, with a line that says why where that is nothing.
    ///
    /// # Errors
    /// The coordinator ends.
    pub(crate) async fn whole(&self) -> Result<(Vec<u8>, Option<String>), Problem> {
        let standing = self.standing().await?;
        let (reading, _) =
            self.logs.read(&self.sweep.name, self.trial.number, self.attempt, Cursor::default()).await;
        let note = reading.text.is_empty().then(|| self.why_nothing(standing, reading.damaged));
        Ok((reading.text, note))
    }

    fn why_nothing(&self, standing: Standing, damaged: bool) -> String {
        let attempt = self.attempt;
        match standing {
            _ if damaged => format!("what attempt {attempt} printed cannot be read any more"),
            Standing::Open => format!("attempt {attempt} has printed nothing so far"),
            Standing::Over => format!("attempt {attempt} printed nothing, or nothing of it is kept"),
        }
    }

    async fn standing(&self) -> Result<Standing, Problem> {
        let (trial, attempt) = (self.trial, self.attempt);
        let view = self.queries.ask(move |engine| engine.trial_brief(trial)).await?;
        let over = |view: spotsweep_engine::views::TrialBrief| {
            let later = view.attempts > attempt;
            let ended = view.attempts == attempt && view.state != TrialState::Running;
            later || ended || view.state.is_final()
        };
        Ok(if view.is_none_or(over) { Standing::Over } else { Standing::Open })
    }

    /// All that is kept, and with `follow` what comes until the attempt has ended.
    pub(super) fn stream(self, follow: bool) -> mpsc::Receiver<Result<v1::ReadLogResponse, Status>> {
        let (out, answers) = mpsc::channel(ANSWERS_AHEAD);
        tokio::spawn(async move {
            if let Err(problem) = self.tell(&out, follow).await {
                let _gone = out.send(Err(problem.into())).await;
            }
        });
        answers
    }

    async fn tell(
        self,
        out: &mpsc::Sender<Result<v1::ReadLogResponse, Status>>,
        follow: bool,
    ) -> Result<(), Problem> {
        let mut written = self.logs.written().filter(|_| follow);
        let mut cursor = Cursor::default();
        let mut quiet_since = Instant::now();
        let mut caught_up = false;
        loop {
            if let Some(written) = &mut written {
                written.mark_unchanged();
            }
            // Before the log is read: what an attempt that is over printed is there then, if it comes at all.
            let standing = self.standing().await?;
            let (reading, moved_on) =
                self.logs.read(&self.sweep.name, self.trial.number, self.attempt, cursor).await;
            cursor = moved_on;
            if !reading.text.is_empty() {
                quiet_since = Instant::now();
            }
            let text = bytes::Bytes::from(reading.text);
            for at in (0..text.len()).step_by(ANSWER_BYTES) {
                let text = text.slice(at..text.len().min(at + ANSWER_BYTES));
                let answer = v1::ReadLogResponse { text, attempt: self.attempt, ..Default::default() };
                if out.send(Ok(answer)).await.is_err() {
                    return Ok(());
                }
            }
            if !std::mem::replace(&mut caught_up, true) {
                let note =
                    if text.is_empty() { self.why_nothing(standing, reading.damaged) } else { String::new() };
                let attempt = self.attempt;
                let answer = v1::ReadLogResponse { note, caught_up: true, attempt, ..Default::default() };
                let _gone = out.send(Ok(answer)).await;
            }
            let Some(written) = &mut written else { return Ok(()) };
            if standing == Standing::Over && (reading.ended || quiet_since.elapsed() >= QUIET) {
                return Ok(());
            }
            tokio::select! {
                () = out.closed() => return Ok(()),
                () = sleep(LOOK_AGAIN) => {}
                () = async {
                    if written.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                    sleep(LOOK_EVERY).await;
                } => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_engine::SweepId;

    fn lease(number: u32, epoch: u64) -> Lease {
        (TrialRef { sweep: SweepId(0), number }, Epoch(epoch))
    }

    #[test]
    fn only_leases_that_a_process_has_or_had_are_its_own() {
        let mut leases = Leases::default();
        leases.grant(lease(0, 1), 1);
        leases.grant(lease(1, 3), 2);
        assert_eq!(leases.attempt(lease(0, 1), 1), Some(1));
        assert_eq!(leases.attempt(lease(0, 2), 1), None, "another lease");
        assert_eq!(leases.attempt(lease(1, 3), 1), None, "another attempt than was granted");
        leases.end(lease(0, 1));
        assert_eq!(leases.attempt(lease(0, 1), 1), Some(1), "it had it");
        let held =
            |number, epoch| HeldLease { trial: lease(number, epoch).0, epoch: Epoch(epoch), device: 0 };
        leases.keep(&[held(7, 4)]);
        assert_eq!(leases.attempt(lease(7, 4), 5), Some(5), "of one brought along its word counts");
        assert_eq!(leases.attempt(lease(1, 3), 2), Some(2), "of one not kept the rest is taken");
        for number in 100..100 + 2 * u32::try_from(ENDED).unwrap() {
            leases.grant(lease(number, 1), 1);
            leases.end(lease(number, 1));
        }
        assert_eq!((leases.ended.len(), leases.attempt(lease(0, 1), 1)), (ENDED, None));
    }
}
