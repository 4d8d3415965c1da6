//! The coordinator as the driver runs it: receive, step, journal, commit in groups, and only then act. Its
//! death loses what is not committed; its return replays the journal from the last snapshot.

use super::{
    ledger::{Breach, Ledger, ensure},
    mistake::{self, Mistake},
    oracle::{self, Oracle, Touch},
    store::Store,
};
use crate::clock::MachineClock;
use spotsweep_engine::{
    Action, Engine, Event, SessionId, SweepId, Time, TrialRef, WorkerView, explain::Reason, views::LinkView,
};
use spotsweep_proto::ids::{Epoch, Incarnation};
use std::collections::{BTreeMap, BTreeSet};

/// Commits between two snapshots.
const SNAPSHOT_EVERY: u32 = 40;
/// Events between two checks of all invariants of the state, which cost time in proportion to it. What one event
/// does by itself is checked at each.
const CHECK_EVERY: u64 = 32;

/// The connection that a view tells of, if it is open.
pub(super) fn session_of(link: &LinkView) -> Option<SessionId> {
    match link {
        LinkView::Connected { session } | LinkView::Silent { session, .. } => Some(*session),
        LinkView::Disconnected { .. } | LinkView::Gone { .. } => None,
    }
}

/// When the coordinator dies around a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The write was under way and is not durable.
    Before,
    /// The group is durable and nothing that follows from it was done.
    After,
    /// The group is durable and some of what follows from it was done.
    Between,
}

pub(crate) struct Coordinator {
    pub(crate) engine: Engine,
    pub(crate) clock: MachineClock,
    pub(crate) up: bool,
    /// Grows with every death, so that what was meant for an earlier life is known.
    pub(crate) life: u32,
    pub(crate) heard: BTreeSet<SessionId>,
    /// The open connection of each process, as the driver knows it. Their numbers grow in the order in which agents open them.
    doors: BTreeMap<Incarnation, SessionId>,
    pub(crate) events: u64,
    /// The journal cannot be written until then.
    pub(crate) disk_full_until: Time,
    /// It dies in its next commit.
    pub(crate) doomed: Option<Moment>,
    /// What is on disk: the snapshot with the number of events before it, and the events behind it.
    snapshot: (Vec<u8>, usize),
    journal: Vec<(Time, Event)>,
    committed: usize,
    /// Events whose consequences are in the history.
    in_history: usize,
    waiting: Vec<Action>,
    /// Trials whose checkpoints the open group may change.
    touched: Vec<(TrialRef, Touch)>,
    oracle: Oracle,
    /// Commits since the last snapshot.
    commits: u32,
    mistake: Option<Mistake>,
}

impl Coordinator {
    pub(crate) fn new(mistake: Option<Mistake>) -> Self {
        let engine = Engine::new(mistake::config(mistake));
        Self {
            snapshot: (engine.snapshot(), 0),
            engine,
            clock: MachineClock::default(),
            up: true,
            life: 0,
            heard: BTreeSet::new(),
            doors: BTreeMap::new(),
            events: 0,
            disk_full_until: Time(0),
            doomed: None,
            journal: Vec::new(),
            committed: 0,
            in_history: 0,
            waiting: Vec::new(),
            touched: Vec::new(),
            oracle: Oracle::default(),
            commits: 0,
            mistake,
        }
    }

    /// A hello arrives. False for one that a later connection of the same process has overtaken, which the driver lets go.
    pub(crate) fn opens(&mut self, session: SessionId, incarnation: Incarnation) -> bool {
        let overtaken = self.doors.get(&incarnation).is_some_and(|open| *open > session);
        if !overtaken || self.mistake == Some(Mistake::OldHelloHeeded) {
            self.doors.insert(incarnation, session);
            return true;
        }
        false
    }

    /// The driver sees that a connection is over.
    pub(crate) fn closes(&mut self, session: SessionId) {
        self.doors.retain(|_, open| *open != session);
    }

    /// Takes an event. True if it is the first of a group, so that a commit must be begun.
    pub(crate) fn take(&mut self, now: Time, event: Event) -> Result<bool, Breach> {
        let at = self.clock.read(now);
        let expectation = self.oracle.before(at, &event, &self.engine);
        let first = self.journal.len() == self.committed;
        let Some(taken) = mistake::with_event(self.mistake, &self.engine, &self.oracle, event.clone()) else {
            return Ok(false);
        };
        self.journal.push((at, taken.clone()));
        let refused = self.engine.totals().refused_checkpoints;
        let begin = self.waiting.len();
        self.engine.step(at, taken, &mut self.waiting);
        let actions = &self.waiting[begin..];
        self.oracle.after(at, &event, &expectation, &self.engine, actions)?;
        let refused = self.engine.totals().refused_checkpoints > refused;
        self.touched.extend(oracle::touched(&event, refused));
        for action in &mut self.waiting[begin..] {
            mistake::with_action(self.mistake, &self.engine, action);
        }
        self.events += 1;
        if self.events.is_multiple_of(CHECK_EVERY) {
            self.check(at)?;
        }
        Ok(first)
    }

    /// All invariants of the state, and that one trial after the other has a reason.
    pub(crate) fn check(&self, at: Time) -> Result<(), Breach> {
        self.engine.check().map_err(|violation| (violation.rule, violation.what))?;
        let Some(sweep) = self.engine.sweep(SweepId(0)) else { return Ok(()) };
        #[expect(clippy::cast_possible_truncation, reason = "a number of a trial")]
        let number = (self.events / CHECK_EVERY % u64::from(sweep.trials.max(1))) as u32;
        let trial = TrialRef { sweep: SweepId(0), number };
        let reason = self.engine.explain(trial, at).map(|explanation| explanation.reason);
        // One that leaves after a notice takes nothing more, so it counts as none.
        let stays =
            |w: &WorkerView| w.notice.as_ref().is_none_or(|(notice, _)| !notice.kind.is_interruption());
        let connected = || {
            self.engine.workers().filter(|w| matches!(w.link, LinkView::Connected { .. }) && stays(w)).count()
        };
        let true_to_fact = match &reason {
            None => false,
            Some(Reason::NoWorker { .. }) => connected() == 0,
            Some(Reason::Busy { devices, .. }) => *devices > 0 && connected() > 0,
            Some(_) => true,
        };
        ensure(true_to_fact, "every waiting trial has a reason", || format!("{trial}: {reason:?}"))
    }

    /// Whether the engine counts on what comes over this connection about this trial.
    pub(crate) fn seats(&self, link: Option<SessionId>, (trial, epoch): (TrialRef, Epoch)) -> bool {
        let current = self.engine.trial(trial).is_some_and(|view| view.epoch == epoch);
        let mut workers =
            self.engine.workers().filter(|worker| worker.leases.iter().any(|l| l.trial == trial));
        self.up && current && link.is_some() && workers.any(|worker| session_of(&worker.link) == link)
    }

    /// Whether answers leave before the commit.
    pub(crate) fn answers_at_once(&self) -> bool {
        self.mistake == Some(Mistake::AnswerBeforeCommit)
    }

    /// Actions that may be performed; their events are durable, unless the mistake is made. A snapshot is never
    /// ahead of the history, which could not be made up for behind it.
    pub(crate) fn release(&mut self) -> Vec<Action> {
        self.in_history = self.journal.len();
        if self.commits >= SNAPSHOT_EVERY && self.in_history == self.committed {
            self.snapshot = (self.engine.snapshot(), self.committed);
            self.commits = 0;
        }
        std::mem::take(&mut self.waiting)
    }

    /// Of what may be performed, as much as is done before a death in the middle of it: answers, but no history,
    /// which is written in one piece.
    pub(crate) fn release_some(&mut self, keep: usize) -> Vec<Action> {
        let mut answers = std::mem::take(&mut self.waiting);
        answers.retain(|action| !matches!(action, Action::Record(_) | Action::Archive(_)));
        answers.truncate(keep);
        answers
    }

    /// Answers that wait.
    pub(crate) fn answers(&self) -> usize {
        self.waiting.iter().filter(|action| !matches!(action, Action::Record(_) | Action::Archive(_))).count()
    }

    /// The group is durable.
    pub(crate) fn commit(&mut self, ledger: &mut Ledger) {
        self.committed = self.journal.len();
        self.oracle.commit();
        for (trial, touch) in self.touched.drain(..) {
            if touch == Touch::Refused {
                ledger.refused(trial);
            }
            let kept = self.engine.trial(trial).map(|view| view.checkpoints).unwrap_or_default();
            let step = kept.last().map_or(0, |view| view.reference.step);
            ledger.durable(trial, step, touch == Touch::Unreadable);
        }
        self.commits += 1;
    }

    /// Kill -9: what is not committed never happened.
    pub(crate) fn die(&mut self) {
        self.journal.truncate(self.committed);
        self.in_history = self.in_history.min(self.committed);
        self.oracle.roll_back();
        self.touched.clear();
        self.waiting.clear();
        self.heard.clear();
        self.doors.clear();
        self.doomed = None;
        self.up = false;
        self.life += 1;
    }

    /// Comes back from what is on disk.
    pub(crate) fn restart(
        &mut self,
        now: Time,
        ledger: &mut Ledger,
        store: &mut Store,
        whole: bool,
    ) -> Result<(), Breach> {
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
                    Action::Record(record) | Action::Archive(record) => ledger.record(record)?,
                    Action::DeleteObjects { digests } => store.delete(digests, now),
                    // The connections and requests for which these were are gone.
                    Action::Reply { .. }
                    | Action::Welcome { .. }
                    | Action::Grant { .. }
                    | Action::Renew { .. }
                    | Action::Revoke { .. }
                    | Action::Regang { .. }
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
        self.take(now, Event::Restarted)?;
        let at = self.clock.read(now);
        self.check(at)
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
