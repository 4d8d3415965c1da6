//! The loop itself.

use super::{
    Answer, DriverError, Handle, Input, RankWord, Release, WatchItem,
    clock::Clock,
    sessions::Sessions,
    writer::{self, Job, Outcome, Writer},
};
use crate::store::{Commit, CommitHistory, Journal, encode_event};
use spotsweep_engine::{
    Action, Engine, Event, RequestId, SessionId, Time, action::Record, import::ImportStep,
};
use spotsweep_proto::digest::Digest;
use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::MissedTickBehavior,
};

/// Inputs that wait for the driver before those who send them wait too.
const INPUT_QUEUE: usize = 4096;
/// Most events of one commit. What comes beyond waits for the next.
const COMMIT_EVENTS: u32 = 4096;
/// Payload of a commit above which nothing more joins it, in bytes.
const COMMIT_BYTES: usize = 8 << 20;
/// Commits that a watcher may lag behind before it is told that it missed some.
const WATCH_QUEUE: usize = 1024;

/// How the driver behaves.
#[derive(Debug, Clone)]
pub struct DriverOptions {
    /// Journal since the last snapshot after which the next is taken, in bytes.
    pub snapshot_every_bytes: u64,
    /// Time between two ticks, in seconds.
    pub tick_s: f64,
    /// Where objects that nothing refers to any more are named, to be deleted.
    pub deletions: mpsc::UnboundedSender<Vec<Digest>>,
}

/// What the driver starts from: an opened store.
pub struct Start {
    /// Where commits go.
    pub journal: Box<dyn Journal>,
    /// The engine as of `last_seq`.
    pub engine: Engine,
    /// The last commit.
    pub last_seq: u64,
    /// Time of its last event.
    pub last_at: Time,
    /// History of the last process that is not written.
    pub unwritten: Vec<CommitHistory>,
    /// Journal since the last snapshot, in bytes.
    pub journal_bytes: u64,
}

/// What is collected while the commit before is written, or waits for its own.
#[derive(Default)]
struct Group {
    payload: Vec<u8>,
    events: u32,
    actions: Vec<Action>,
    records: Vec<Record>,
    /// For the history alone.
    archived: Vec<Record>,
    releases: Vec<Release>,
}

/// A group that the writer has.
struct InFlight {
    /// When its events were stamped.
    at: Time,
    actions: Vec<Action>,
    records: Arc<Vec<Record>>,
    releases: Vec<Release>,
}

/// The loop and all that it owns.
pub struct Driver {
    engine: Engine,
    clock: Clock,
    options: DriverOptions,
    inputs: mpsc::Receiver<Input>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    writer: Writer,
    store: watch::Receiver<writer::StoreState>,
    watchers: broadcast::Sender<WatchItem>,
    sessions: Sessions,
    answers: HashMap<RequestId, Answer>,
    next_request: u64,
    /// The last commit that the writer was given.
    seq: u64,
    group: Group,
    in_flight: Option<InFlight>,
    scratch: Vec<Action>,
    journal_bytes: u64,
    shutting_down: bool,
}

impl Driver {
    /// Prepares the loop; [`Self::run`] runs it.
    ///
    /// # Errors
    /// The writer's thread cannot be started.
    pub fn new(start: Start, options: DriverOptions) -> std::io::Result<(Self, Handle)> {
        let Start { journal, engine, last_seq, last_at, unwritten, journal_bytes } = start;
        let (inputs, inbox) = mpsc::channel(INPUT_QUEUE);
        let (outcome_sender, outcomes) = mpsc::unbounded_channel();
        let history_seq = unwritten.first().map_or(last_seq, |history| history.seq - 1);
        let (state, store) = watch::channel(writer::StoreState { history_seq, stalled: None });
        let (watchers, _) = broadcast::channel(WATCH_QUEUE);
        let writer = writer::start(journal, unwritten, outcome_sender, state)?;
        let handle = Handle {
            inputs,
            jobs: writer.jobs.clone(),
            store: store.clone(),
            watchers: watchers.downgrade(),
            next_session: Arc::new(AtomicU64::new(1)),
        };
        let mut driver = Self {
            engine,
            clock: Clock::after(last_at),
            options,
            inputs: inbox,
            outcomes,
            writer,
            store,
            watchers,
            sessions: Sessions::default(),
            answers: HashMap::new(),
            next_request: 1,
            seq: last_seq,
            group: Group::default(),
            in_flight: None,
            scratch: Vec::new(),
            journal_bytes,
            shutting_down: false,
        };
        if last_seq > 0 {
            driver.take(Event::Restarted);
        }
        Ok((driver, handle))
    }

    /// Runs until told to shut down, or until the journal cannot be written for good.
    ///
    /// # Errors
    /// [`DriverError`]; nothing that was answered is lost.
    pub async fn run(mut self) -> Result<(), DriverError> {
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(self.options.tick_s));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inbox = Vec::with_capacity(COMMIT_EVENTS as usize);
        self.dispatch();
        loop {
            if self.shutting_down && self.in_flight.is_none() && self.group.is_empty() {
                return self.close().await;
            }
            let room = COMMIT_EVENTS.saturating_sub(self.group.events) as usize;
            let takes_inputs = room > 0 && self.group.payload.len() < COMMIT_BYTES && !self.shutting_down;
            let takes_ticks = !self.is_stalled() && self.engine.wants_tick() && !self.shutting_down;
            // A moment that is past was the last tick's.
            let now = self.clock.now();
            let gang_due = self.engine.next_gang_due().filter(|due| takes_ticks && *due > now);
            let gang_due_s = gang_due.map_or(0.0, |due| due.seconds_since(now));
            tokio::select! {
                biased;
                outcome = self.outcomes.recv() => match outcome {
                    Some(Outcome::Committed) => self.committed(),
                    Some(Outcome::Stalled) => self.stalled(),
                    Some(Outcome::Failed(error)) => return Err(DriverError::Journal(error)),
                    Some(Outcome::Closed) | None => return Err(DriverError::WriterGone),
                },
                _ = ticks.tick(), if takes_ticks => {
                    let heard = self.sessions.take_heard();
                    self.take(Event::Tick { heard });
                }
                () = tokio::time::sleep(Duration::from_secs_f64(gang_due_s)), if gang_due.is_some() => {
                    let heard = self.sessions.take_heard();
                    self.take(Event::Tick { heard });
                }
                count = self.inputs.recv_many(&mut inbox, room), if takes_inputs => {
                    // Zero: every handle is gone.
                    self.shutting_down |= count == 0;
                    for input in inbox.drain(..) {
                        self.input(input);
                    }
                }
            }
            self.dispatch();
        }
    }

    fn is_stalled(&self) -> bool {
        self.store.borrow().stalled.is_some()
    }

    fn input(&mut self, input: Input) {
        match input {
            // Dropped unanswered while the journal is stalled: the handle says why.
            Input::Submit { .. } | Input::Control { .. } | Input::Query(_) if self.is_stalled() => {}
            Input::Submit { token, spec, reply } => {
                let request = self.request(reply);
                self.take(Event::Submit { request, token, spec });
            }
            Input::Control { target, command, reply } => {
                let request = self.request(reply);
                self.take(Event::Control { request, target, command });
            }
            // While the journal is stalled an import may be given up, and nothing else.
            Input::Import { ref step, .. } if *step != ImportStep::Abandon && self.is_stalled() => {}
            Input::Import { token, step, reply } => {
                let request = self.request(reply);
                self.take(Event::Import { request, token, step });
            }
            Input::Join { hello, link } => {
                let session = link.session;
                if self.sessions.open(link, hello.incarnation, hello.held.clone()) {
                    self.take(Event::Joined { session, hello });
                }
            }
            Input::Ready { session, device, credits } if self.sessions.is_open(session) => {
                self.take(Event::Ready { session, device, credits });
            }
            Input::Reports { session, batch } if self.sessions.is_open(session) => {
                self.take(Event::Reports { session, batch });
            }
            Input::Noticed { session, notice } if self.sessions.is_open(session) => {
                self.take(Event::Noticed { session, notice });
            }
            Input::Gang { session, word } if self.sessions.is_open(session) => {
                let RankWord { trial, epoch, generation, step, news } = word;
                self.take(Event::Gang { session, trial, epoch, generation, step, news });
            }
            // Of a connection that is over.
            Input::Ready { .. } | Input::Reports { .. } | Input::Noticed { .. } | Input::Gang { .. } => {}
            Input::Left { session } => {
                if self.sessions.close(session) {
                    self.take(Event::Left { session });
                }
            }
            Input::Disconnected { session } => self.lost(session),
            Input::Query(question) => {
                // What the engine has seen is durable with the group being collected, or the one in flight.
                let seq = if self.group.events > 0 { self.seq + 1 } else { self.seq };
                let release = question(&self.engine, seq);
                match &mut self.in_flight {
                    _ if self.group.events > 0 => self.group.releases.push(release),
                    Some(in_flight) => in_flight.releases.push(release),
                    None => release(),
                }
            }
            Input::Shutdown => self.shutting_down = true,
        }
    }

    fn lost(&mut self, session: SessionId) {
        if self.sessions.close(session) {
            self.take(Event::Disconnected { session });
        }
    }

    fn request(&mut self, answer: Answer) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.answers.insert(request, answer);
        request
    }

    /// Stamps, writes down, and steps; what is to be done waits for the commit.
    fn take(&mut self, event: Event) {
        let at = self.clock.now();
        encode_event(at, &event, &mut self.group.payload);
        self.group.events += 1;
        self.engine.step(at, event, &mut self.scratch);
        for action in self.scratch.drain(..) {
            match action {
                Action::Record(record) => self.group.records.push(record),
                Action::Archive(record) => self.group.archived.push(record),
                action => self.group.actions.push(action),
            }
        }
    }

    /// Gives the writer what is collected, if it is free.
    fn dispatch(&mut self) {
        if self.in_flight.is_some() || self.group.events == 0 {
            return;
        }
        let Group { payload, events, actions, records, mut archived, releases } =
            std::mem::take(&mut self.group);
        self.seq += 1;
        let seq = self.seq;
        self.journal_bytes += payload.len() as u64;
        let records = Arc::new(records);
        let commit = Commit { seq, at: self.clock.last(), events, payload };
        let all = if archived.is_empty() {
            records.clone()
        } else {
            archived.extend(records.iter().cloned());
            Arc::new(archived)
        };
        let history = CommitHistory { seq, records: all };
        // A writer that has ended has said so, or says so next.
        let _ended = self.writer.jobs.send(Job::Commit(commit, history));
        self.in_flight = Some(InFlight { at: self.clock.last(), actions, records, releases });
        if self.journal_bytes >= self.options.snapshot_every_bytes {
            self.snapshot();
        }
    }

    /// The engine has seen exactly what the writer was given.
    fn snapshot(&mut self) {
        self.journal_bytes = 0;
        let _ended = self.writer.jobs.send(Job::Snapshot { seq: self.seq, bytes: self.engine.snapshot() });
    }

    fn committed(&mut self) {
        let Some(InFlight { at, actions, records, releases }) = self.in_flight.take() else { return };
        // The next group first: the disk works while we talk.
        self.dispatch();
        let now = self.clock.now();
        let lease_s = self.engine.config().lease_s;
        for action in actions {
            match action {
                Action::Reply { request, outcome } => {
                    if let Some(answer) = self.answers.remove(&request) {
                        let _gone = answer.send(outcome);
                    }
                }
                Action::Welcome { session, worker, applied_seq, keep } => {
                    self.sessions.welcome(session, worker, applied_seq, &keep, lease_s);
                }
                Action::Grant { session, device, grant } => {
                    self.sessions.grant(&self.engine, session, device, grant);
                }
                Action::Renew { session, expires_at } => self.sessions.renew(session, expires_at, now),
                Action::Revoke { session, trial, epoch, reason } => {
                    self.sessions.revoke(session, trial, epoch, reason);
                }
                Action::Regang { session, trial, epoch, place } => {
                    self.sessions.regang(session, trial, epoch, place);
                }
                Action::Acknowledge { session, seq } => self.sessions.acknowledge(session, seq),
                Action::DeleteObjects { digests } => {
                    // The engine remembers for a while what it had deleted, and refuses checkpoints that refer to it. Behind
                    // a disk that was full for so long it is safer to leave the objects than to delete them late.
                    let late_s = now.seconds_since(at);
                    if late_s <= self.engine.config().remember_deleted_s / 2.0 {
                        let _nobody = self.options.deletions.send(digests);
                    } else {
                        tracing::warn!(
                            objects = digests.len(),
                            late_s,
                            "objects that nothing refers to are left in the store"
                        );
                    }
                }
                // Taken out by `take`.
                Action::Record(_) | Action::Archive(_) => {}
            }
        }
        for session in self.sessions.send() {
            tracing::warn!(session = session.0, "a worker does not read what it is sent and is disconnected");
            self.take(Event::Disconnected { session });
        }
        for release in releases {
            release();
        }
        if !records.is_empty() && self.watchers.receiver_count() > 0 {
            let seq = self.seq - u64::from(self.in_flight.is_some());
            let _nobody = self.watchers.send(WatchItem::new(seq, records));
        }
    }

    /// The journal cannot be written: whoever waits is told so, by the end of what it waits on.
    fn stalled(&mut self) {
        self.answers.clear();
        self.group.releases.clear();
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.releases.clear();
        }
    }

    /// Snapshot, close, end.
    async fn close(mut self) -> Result<(), DriverError> {
        if self.journal_bytes > 0 {
            self.snapshot();
        }
        let _ended = self.writer.jobs.send(Job::Close);
        loop {
            match self.outcomes.recv().await {
                Some(Outcome::Closed) => break,
                Some(Outcome::Failed(error)) => return Err(DriverError::Journal(error)),
                Some(Outcome::Committed | Outcome::Stalled) => {}
                None => return Err(DriverError::WriterGone),
            }
        }
        self.writer.thread.join().map_err(|_| DriverError::WriterGone)
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        self.events == 0
    }
}
