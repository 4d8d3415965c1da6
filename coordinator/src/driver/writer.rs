//! The thread that owns the journal: one commit at a time, history in its shadow, and patience with a full disk.
//!
//! The history of a commit is staged while the next is collected, and becomes durable with it: no second fsync.

use crate::store::{Commit, CommitHistory, Journal, StoreError};
use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::{mpsc::UnboundedSender, watch};

/// How long staged history waits for a commit to ride on.
const IDLE: Duration = Duration::from_millis(5);
/// First wait after a failed write; it doubles up to [`BACK_OFF_MAX`].
const BACK_OFF: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// What the writer is asked to do, in order.
pub(crate) enum Job {
    /// Make this durable. At most one of these waits at any time.
    Commit(Commit, CommitHistory),
    /// The engine as it is after the last commit.
    Snapshot { seq: u64, bytes: Vec<u8> },
    /// Make the history durable now.
    Flush,
    /// Make everything durable and end.
    Close,
}

/// What the writer says to the driver.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The commit is durable.
    Committed,
    /// It could not be written yet, and is tried again.
    Stalled,
    /// It will never be written; the writer has ended.
    Failed(StoreError),
    /// Everything is durable and the files are closed; the writer has ended.
    Closed,
}

/// How far things are.
#[derive(Debug, Clone, Default)]
pub struct StoreState {
    /// The history is durable up to this commit.
    pub history_seq: u64,
    /// Why the journal cannot be written just now.
    pub stalled: Option<String>,
}

pub(crate) struct Writer {
    pub(crate) jobs: Sender<Job>,
    pub(crate) thread: JoinHandle<()>,
}

/// Starts the thread. `unwritten` is history that the last process left undone.
pub(crate) fn start(
    journal: Box<dyn Journal>,
    unwritten: Vec<CommitHistory>,
    outcomes: UnboundedSender<Outcome>,
    state: watch::Sender<StoreState>,
) -> std::io::Result<Writer> {
    let (jobs, inbox) = channel();
    let writing = Writing {
        journal,
        pending: unwritten.into(),
        staged: 0,
        snapshot: None,
        snapshot_staged: false,
        outcomes,
        state,
        inbox,
    };
    let run = move || {
        let last_words = writing.outcomes.clone();
        let outcome = match writing.run() {
            Ok(()) => Outcome::Closed,
            Err(error) => Outcome::Failed(error),
        };
        let _driver_gone = last_words.send(outcome);
    };
    let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(run)?;
    Ok(Writer { jobs, thread })
}

struct Writing {
    journal: Box<dyn Journal>,
    /// History that is not durable yet.
    pending: VecDeque<CommitHistory>,
    /// How many of these are staged.
    staged: usize,
    snapshot: Option<(u64, Vec<u8>)>,
    snapshot_staged: bool,
    outcomes: UnboundedSender<Outcome>,
    state: watch::Sender<StoreState>,
    inbox: Receiver<Job>,
}

impl Writing {
    fn run(mut self) -> Result<(), StoreError> {
        loop {
            let job = if self.pending.is_empty() && self.snapshot.is_none() {
                self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.inbox.recv_timeout(IDLE)
            };
            match job {
                Ok(Job::Commit(commit, history)) => {
                    self.commit(&commit)?;
                    let _driver_gone = self.outcomes.send(Outcome::Committed);
                    self.tidy()?;
                    self.pending.push_back(history);
                    self.stage_quietly();
                }
                Ok(Job::Snapshot { seq, bytes }) => {
                    self.snapshot = Some((seq, bytes));
                    self.stage_quietly();
                }
                Ok(Job::Flush) | Err(RecvTimeoutError::Timeout) => self.flush_quietly()?,
                Ok(Job::Close) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.stage()?;
        self.journal.close()
    }

    /// Writes a commit, however often that takes, unless told to end.
    fn commit(&mut self, commit: &Commit) -> Result<(), StoreError> {
        let mut wait = BACK_OFF;
        // History first, if it is not staged already; but when the disk is full, what was promised goes alone.
        let mut written = self.stage().and_then(|()| self.journal.append(commit));
        while let Err(error) = written {
            self.unstage();
            self.snapshot = None;
            if !error.is_temporary() {
                return Err(error);
            }
            self.stall(&error);
            match self.inbox.recv_timeout(wait) {
                Ok(Job::Close) | Err(RecvTimeoutError::Disconnected) => return Err(error),
                Ok(Job::Flush | Job::Snapshot { .. } | Job::Commit(..)) | Err(RecvTimeoutError::Timeout) => {}
            }
            wait = (wait * 2).min(BACK_OFF_MAX);
            written = self.journal.append(commit);
        }
        self.made_durable();
        Ok(())
    }

    fn stall(&mut self, error: &StoreError) {
        let text = crate::error::chain(error);
        let first = self.state.borrow().stalled.is_none();
        if first {
            tracing::error!("the journal cannot be written, nothing is answered until it can: {text}");
            self.state.send_modify(|state| state.stalled = Some(text));
            let _driver_gone = self.outcomes.send(Outcome::Stalled);
        }
    }

    /// Stages all history and the snapshot that are not staged yet.
    fn stage(&mut self) -> Result<(), StoreError> {
        let mut run = || {
            while let Some(history) = self.pending.get(self.staged) {
                self.journal.stage_history(history)?;
                self.staged += 1;
            }
            if let Some((seq, bytes)) = &self.snapshot
                && !self.snapshot_staged
            {
                self.journal.stage_snapshot(*seq, bytes)?;
                self.snapshot_staged = true;
            }
            Ok(())
        };
        let outcome = run();
        if outcome.is_err() {
            self.unstage();
        }
        outcome
    }

    fn unstage(&mut self) {
        self.staged = 0;
        self.snapshot_staged = false;
    }

    /// As [`Self::stage`], but an error waits for the next commit, which meets it again.
    fn stage_quietly(&mut self) {
        if let Err(error) = self.stage() {
            tracing::debug!("history is staged later: {}", crate::error::chain(&error));
        }
    }

    fn flush_quietly(&mut self) -> Result<(), StoreError> {
        match self.stage().and_then(|()| self.journal.flush()) {
            Ok(()) => {
                self.made_durable();
                self.tidy()
            }
            Err(error) if error.is_temporary() => {
                self.unstage();
                self.stall(&error);
                // Whoever waits is told by the stall; the next commit, flush or idle moment tries again.
                std::thread::sleep(BACK_OFF);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        self.journal.tidy().or_else(|error| if error.is_temporary() { Ok(()) } else { Err(error) })
    }

    fn made_durable(&mut self) {
        let last = self.pending.drain(..self.staged).next_back();
        if self.snapshot_staged {
            self.snapshot = None;
        }
        self.unstage();
        self.state.send_modify(|state| {
            if let Some(history) = last {
                state.history_seq = history.seq;
            }
            if state.stalled.take().is_some() {
                tracing::info!("the journal can be written again");
            }
        });
    }
}
