//! The coordinator as the driver runs it: receive, step, journal, commit in groups, and only then act. Its
//! death loses what is not committed; its return replays the journal from the last snapshot.

use crate::{
    Mistake,
    ledger::{Breach, Ledger, ensure},
};
use spotsweep_engine::{Action, Config, Engine, Event, SessionId, Time};
use std::collections::BTreeSet;

/// Commits between two snapshots.
const SNAPSHOT_EVERY: u32 = 40;
/// Events between two checks of all invariants of the state.
const CHECK_EVERY: u64 = 16;

pub(crate) struct Coordinator {
    pub(crate) engine: Engine,
    pub(crate) up: bool,
    /// Grows with every death, so that what was meant for an earlier life is known.
    pub(crate) life: u32,
    pub(crate) heard: BTreeSet<SessionId>,
    pub(crate) events: u64,
    /// What is on disk: the snapshot with the number of events before it, and the events behind it.
    snapshot: (Vec<u8>, usize),
    journal: Vec<(Time, Event)>,
    committed: usize,
    /// Events whose consequences are in the history.
    in_history: usize,
    waiting: Vec<Action>,
    commits: u32,
    mistake: Option<Mistake>,
}

impl Coordinator {
    pub(crate) fn new(mistake: Option<Mistake>) -> Self {
        // Short, so that deletions happen within a run; the memory of them covers every stall of a live lease.
        let (delete_after_s, remember_deleted_s) =
            if mistake == Some(Mistake::DeleteAtOnce) { (0.0, 0.0) } else { (5.0, 60.0) };
        let engine = Engine::new(Config { delete_after_s, remember_deleted_s, ..Config::default() });
        Self {
            snapshot: (engine.snapshot(), 0),
            engine,
            up: true,
            life: 0,
            heard: BTreeSet::new(),
            events: 0,
            journal: Vec::new(),
            committed: 0,
            in_history: 0,
            waiting: Vec::new(),
            commits: 0,
            mistake,
        }
    }

    /// Takes an event. True if it is the first of a group, so that a commit must be begun.
    pub(crate) fn take(&mut self, at: Time, event: Event) -> Result<bool, Breach> {
        let first = self.journal.len() == self.committed;
        self.journal.push((at, event.clone()));
        self.engine.step(at, event, &mut self.waiting);
        self.events += 1;
        if self.events.is_multiple_of(CHECK_EVERY) {
            self.engine.check().map_err(|violation| (violation.rule, violation.what))?;
        }
        Ok(first)
    }

    /// Whether answers leave before the commit.
    pub(crate) fn answers_at_once(&self) -> bool {
        self.mistake == Some(Mistake::AnswerBeforeCommit)
    }

    /// Actions that may be performed; their events are durable, unless the mistake is made.
    pub(crate) fn release(&mut self) -> Vec<Action> {
        self.in_history = self.journal.len();
        std::mem::take(&mut self.waiting)
    }

    /// The group is durable.
    pub(crate) fn commit(&mut self) {
        self.committed = self.journal.len();
        self.commits += 1;
        if self.commits.is_multiple_of(SNAPSHOT_EVERY) {
            self.snapshot = (self.engine.snapshot(), self.committed);
        }
    }

    /// Kill -9. If `after_commit`, the open group has just become durable, and nothing of it was performed.
    pub(crate) fn die(&mut self, after_commit: bool) {
        if after_commit {
            self.committed = self.journal.len();
        }
        self.journal.truncate(self.committed);
        self.in_history = self.in_history.min(self.committed);
        self.waiting.clear();
        self.heard.clear();
        self.up = false;
        self.life += 1;
    }

    /// Comes back from what is on disk.
    pub(crate) fn restart(&mut self, at: Time, ledger: &mut Ledger, whole: bool) -> Result<(), Breach> {
        let unreadable = |error| ("a snapshot can be read", format!("{error}"));
        self.engine = Engine::restore(&self.snapshot.0).map_err(unreadable)?;
        if self.mistake == Some(Mistake::LoseLastEvent) && self.journal.len() > self.snapshot.1 {
            self.journal.pop();
            self.committed = self.journal.len();
        }
        let mut actions = Vec::new();
        for (index, (at, event)) in self.journal.iter().enumerate().skip(self.snapshot.1) {
            actions.clear();
            self.engine.step(*at, event.clone(), &mut actions);
            if index < self.in_history && self.mistake != Some(Mistake::HistoryTwice) {
                continue;
            }
            for action in &actions {
                match action {
                    Action::Record(record) => ledger.record(record)?,
                    Action::DeleteObjects { digests } => {
                        for digest in digests {
                            ledger.store.remove(digest);
                        }
                    }
                    // The connections and requests for which these were are gone.
                    Action::Reply { .. }
                    | Action::Welcome { .. }
                    | Action::Grant { .. }
                    | Action::Renew { .. }
                    | Action::Revoke { .. }
                    | Action::Acknowledge { .. } => {}
                }
            }
        }
        self.in_history = self.journal.len();
        if whole {
            self.compare_with_whole_replay()?;
        }
        ledger.compare(&self.engine)?;
        self.up = true;
        self.take(at, Event::Restarted)?;
        self.commit();
        Ok(())
    }

    /// A snapshot and the rest of the journal give the state that the whole journal gives.
    fn compare_with_whole_replay(&self) -> Result<(), Breach> {
        let mut whole = Engine::new(*self.engine.config());
        let mut actions = Vec::new();
        for (at, event) in &self.journal {
            actions.clear();
            whole.step(*at, event.clone(), &mut actions);
        }
        let same = whole.digest() == self.engine.digest();
        ensure(same, "snapshot and rest equal the whole journal", || {
            format!("{} events, snapshot behind {}", self.journal.len(), self.snapshot.1)
        })
    }
}
