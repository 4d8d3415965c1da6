//! A second opinion on what the engine does with reports and silence, from numbers and epochs that it keeps itself.
//! It sees what really arrived, before any planted mistake; it must never ask the engine what is right.

use super::{
    coordinator::session_of,
    ledger::{Breach, ensure},
};
use spotsweep_engine::{
    Action, Engine, Event, SessionId, Time, TrialRef,
    action::Record,
    event::{ReportBatch, ReportBody},
    views::Totals,
};
use spotsweep_proto::ids::{Epoch, Incarnation};
use std::collections::BTreeMap;

/// What it knows. Follows the journal: what a crash takes back, it takes back as well.
#[derive(Default)]
pub(crate) struct Oracle {
    incarnations: BTreeMap<SessionId, Incarnation>,
    /// Number of the last report of an incarnation that was applied.
    numbers: BTreeMap<Incarnation, u64>,
    /// Epoch of the newest lease of a trial.
    epochs: BTreeMap<TrialRef, Epoch>,
    /// When something last came over a connection, as the engine hears of it.
    heard_at: BTreeMap<SessionId, Time>,
    /// How to take back what is not durable, newest last.
    undo: Vec<Undo>,
}

enum Undo {
    Number(Incarnation, Option<u64>),
    Epoch(TrialRef, Option<Epoch>),
}

/// What an event should do, noted before the engine takes it.
pub(crate) struct Expectation {
    reports: Option<(SessionId, u64)>,
    /// Trials of which the event has reports under old epochs only.
    stale: Vec<TrialRef>,
    silence: bool,
    before: Totals,
}

/// What a batch of reports changes about checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    /// One may be kept from now on.
    Kept,
    /// The newest could not be read.
    Unreadable,
    /// One was refused.
    Refused,
}

impl Oracle {
    /// The event arrives.
    pub(crate) fn before(&mut self, at: Time, event: &Event, engine: &Engine) -> Expectation {
        let mut expectation =
            Expectation { reports: None, stale: Vec::new(), silence: false, before: engine.totals() };
        match event {
            Event::Joined { session, hello } => {
                self.incarnations.insert(*session, hello.incarnation);
                self.heard_at.insert(*session, at);
            }
            Event::Ready { session, .. } | Event::Noticed { session, .. } | Event::Gang { session, .. } => {
                self.heard_at.insert(*session, at);
            }
            Event::Reports { session, batch } => {
                self.heard_at.insert(*session, at);
                expectation.reports = Some((*session, self.new_reports(*session, batch)));
                for report in &batch.reports {
                    let old = |epoch: Epoch| self.epochs.get(&report.trial).is_some_and(|e| epoch < *e);
                    let mut same = batch.reports.iter().filter(|other| other.trial == report.trial);
                    if same.all(|other| old(other.epoch)) && !expectation.stale.contains(&report.trial) {
                        expectation.stale.push(report.trial);
                    }
                }
            }
            Event::Tick { heard } => {
                self.heard_at.extend(heard.iter().map(|session| (*session, at)));
                expectation.silence = true;
            }
            Event::Submit { .. }
            | Event::Control { .. }
            | Event::Disconnected { .. }
            | Event::Left { .. }
            | Event::Restarted => {}
        }
        expectation
    }

    /// How many reports of a batch were never applied before, and can be now.
    fn new_reports(&self, session: SessionId, batch: &ReportBatch) -> u64 {
        let count = batch.reports.len() as u64;
        let applied = self.incarnations.get(&session).and_then(|life| self.numbers.get(life));
        match applied {
            Some(last) if batch.first_seq > last + 1 => 0,
            Some(last) => (batch.first_seq + count).saturating_sub((last + 1).max(batch.first_seq)),
            None => count,
        }
    }

    /// The engine has taken it.
    pub(crate) fn after(
        &mut self,
        at: Time,
        event: &Event,
        expectation: &Expectation,
        engine: &Engine,
        actions: &[Action],
    ) -> Result<(), Breach> {
        for action in actions {
            if let Action::Grant { grant, .. } = action {
                let old = self.epochs.insert(grant.trial, grant.epoch);
                self.undo.push(Undo::Epoch(grant.trial, old));
            }
        }
        if let (Some((session, new)), Event::Reports { batch, .. }) = (expectation.reports, event) {
            let answered =
                |action: &Action| matches!(action, Action::Acknowledge { session: s, .. } if *s == session);
            if actions.iter().any(answered) {
                let (before, now) = (expectation.before, engine.totals());
                let taken = now.reports + now.stale_reports - before.reports - before.stale_reports;
                ensure(taken == new, "no report is applied twice, and none is passed over", || {
                    format!("{session:?} from {}: {taken} taken, {new} are new", batch.first_seq)
                })?;
                self.count(session, batch, new);
            }
        }
        let changed = |trial: TrialRef| {
            actions
                .iter()
                .any(|action| matches!(action, Action::Record(record) if is_of_attempt(record, trial)))
        };
        let broken = expectation.stale.iter().find(|trial| changed(**trial));
        ensure(broken.is_none(), "a report under an old epoch changes nothing", || format!("{broken:?}"))?;
        if expectation.silence { self.check_silence(at, engine) } else { Ok(()) }
    }

    fn count(&mut self, session: SessionId, batch: &ReportBatch, new: u64) {
        if let Some(life) = self.incarnations.get(&session)
            && new > 0
        {
            let last = batch.first_seq + batch.reports.len() as u64 - 1;
            let old = self.numbers.insert(*life, last);
            self.undo.push(Undo::Number(*life, old));
        }
    }

    fn check_silence(&self, at: Time, engine: &Engine) -> Result<(), Breach> {
        for worker in engine.workers().filter(|worker| !worker.leases.is_empty()) {
            let heard = session_of(&worker.link).and_then(|session| self.heard_at.get(&session));
            let over = heard.is_some_and(|heard| at >= heard.after_s(engine.config().lease_s));
            ensure(!over, "a lease ends when nothing is heard of its worker", || {
                format!("{} was heard at {heard:?} and holds {:?}", worker.name, worker.leases)
            })?;
        }
        Ok(())
    }

    /// What was taken so far is durable.
    pub(crate) fn commit(&mut self) {
        self.undo.clear();
    }

    /// What is not durable never happened.
    pub(crate) fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Number(life, Some(old)) => drop(self.numbers.insert(life, old)),
                Undo::Number(life, None) => drop(self.numbers.remove(&life)),
                Undo::Epoch(trial, Some(old)) => drop(self.epochs.insert(trial, old)),
                Undo::Epoch(trial, None) => drop(self.epochs.remove(&trial)),
            }
        }
    }
}

/// Whether a record says that an attempt of this trial did something.
fn is_of_attempt(record: &Record, of: TrialRef) -> bool {
    match record {
        Record::Point { trial, .. }
        | Record::AttemptStarted { trial, .. }
        | Record::AttemptEnded { trial, .. }
        | Record::Result { trial, .. } => *trial == of,
        Record::Sweep { .. } | Record::Trial { .. } | Record::SweepState { .. } | Record::Trials { .. } => {
            false
        }
    }
}

/// Trials whose checkpoints a batch of reports may change.
pub(crate) fn touched(event: &Event, refused: bool) -> Vec<(TrialRef, Touch)> {
    use spotsweep_proto::line::FailureKind;
    let Event::Reports { batch, .. } = event else { return Vec::new() };
    let touches = batch.reports.iter().filter_map(|report| {
        let touch = match &report.body {
            ReportBody::Checkpoint(_) if refused => Touch::Refused,
            ReportBody::Checkpoint(_) => Touch::Kept,
            ReportBody::Failed { kind: FailureKind::Checkpoint, .. } => Touch::Unreadable,
            ReportBody::Started { .. }
            | ReportBody::Progress { .. }
            | ReportBody::Finished { .. }
            | ReportBody::Failed { .. }
            | ReportBody::Released { .. } => return None,
        };
        Some((report.trial, touch))
    });
    touches.collect()
}
