//! A second opinion on what the engine does with reports and silence, from numbers and epochs that it keeps itself.
//! It sees what really arrived, before any planted mistake; it must never ask the engine what is right.

use super::{
    coordinator::session_of,
    ledger::{Breach, ensure},
};
use spotsweep_engine::{
    Action, Engine, Event, SessionId, SweepId, Time, TrialRef,
    action::{Record, RevokeReason},
    event::{GangNews, Report, ReportBatch, ReportBody},
    views::Totals,
};
use spotsweep_proto::{
    gang::Generation,
    ids::{Epoch, Incarnation},
};
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
    /// Under which epoch a worker may report of a trial.
    seats: BTreeMap<(Incarnation, TrialRef), Epoch>,
    /// Least number of workers of the trials of each sweep, in order of submission.
    least: Vec<u32>,
    /// Sweeps whose gangs are of programs: their ranks end one by one.
    programs: Vec<SweepId>,
    /// The present make-up of each gang, and whether a rank has said that it is broken.
    make_ups: BTreeMap<TrialRef, MakeUp>,
    /// How to take back what is not durable, newest last.
    undo: Vec<Undo>,
}

/// A gang as its ranks were told.
#[derive(Debug, Clone, Copy)]
struct MakeUp {
    epoch: Epoch,
    generation: Generation,
    broken: bool,
}

enum Undo {
    Seat((Incarnation, TrialRef), Option<Epoch>),
    MakeUp(TrialRef, Option<MakeUp>),
    Sweep,
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
            Event::Ready { session, .. } | Event::Noticed { session, .. } => {
                self.heard_at.insert(*session, at);
            }
            Event::Gang { session, trial, epoch, generation, news, .. } => {
                self.heard_at.insert(*session, at);
                if let (GangNews::Broken { .. }, Some(now)) = (news, self.make_ups.get(trial))
                    && (now.epoch, now.generation) == (*epoch, *generation)
                {
                    self.make_up(*trial, MakeUp { broken: true, ..*now });
                }
            }
            Event::Submit { spec, .. } => {
                self.least.push(spec.resources.workers.min);
                let sweep = SweepId(u32::try_from(self.least.len() - 1).unwrap_or(u32::MAX));
                if spec.program.is_some() && !self.programs.contains(&sweep) {
                    self.programs.push(sweep);
                }
                self.undo.push(Undo::Sweep);
            }
            Event::Reports { session, batch } => {
                self.heard_at.insert(*session, at);
                expectation.reports = Some((*session, self.new_reports(*session, batch)));
                for report in &batch.reports {
                    let mut same = batch.reports.iter().filter(|other| other.trial == report.trial);
                    if same.all(|other| !self.may_report(*session, other))
                        && !expectation.stale.contains(&report.trial)
                    {
                        expectation.stale.push(report.trial);
                    }
                }
            }
            Event::Tick { heard } => {
                self.heard_at.extend(heard.iter().map(|session| (*session, at)));
                expectation.silence = true;
            }
            Event::Control { .. }
            | Event::Disconnected { .. }
            | Event::Left { .. }
            | Event::Restarted
            | Event::Import { .. } => {}
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
        self.check_gangs(actions)?;
        for action in actions {
            self.follow(action);
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

    /// Notes what an action says about who holds what.
    fn follow(&mut self, action: &Action) {
        match action {
            Action::Grant { session, grant, .. } => {
                let old = self.epochs.insert(grant.trial, grant.epoch);
                self.undo.push(Undo::Epoch(grant.trial, old));
                self.seat(*session, grant.trial, Some(grant.epoch));
            }
            Action::Revoke { session, trial, epoch, reason } => match reason {
                RevokeReason::Stale | RevokeReason::Cancelled | RevokeReason::NotNeeded => {
                    let life = self.incarnations.get(session);
                    if life.and_then(|life| self.seats.get(&(*life, *trial))) == Some(epoch) {
                        self.seat(*session, *trial, None);
                    }
                }
                RevokeReason::Paused | RevokeReason::Moved => {}
            },
            Action::Regang { trial, epoch, place, .. } => {
                let (epoch, generation) = (*epoch, place.generation);
                let new = self
                    .make_ups
                    .get(trial)
                    .is_none_or(|old| (old.epoch, old.generation) < (epoch, generation));
                if new {
                    self.make_up(*trial, MakeUp { epoch, generation, broken: false });
                }
            }
            Action::Reply { .. }
            | Action::Welcome { .. }
            | Action::Renew { .. }
            | Action::Acknowledge { .. }
            | Action::Record(_)
            | Action::Archive(_)
            | Action::DeleteObjects { .. } => {}
        }
    }

    fn seat(&mut self, session: SessionId, trial: TrialRef, epoch: Option<Epoch>) {
        let Some(life) = self.incarnations.get(&session) else { return };
        let key = (*life, trial);
        let old = match epoch {
            Some(epoch) => self.seats.insert(key, epoch),
            None => self.seats.remove(&key),
        };
        self.undo.push(Undo::Seat(key, old));
    }

    fn make_up(&mut self, trial: TrialRef, now: MakeUp) {
        let old = self.make_ups.insert(trial, now);
        self.undo.push(Undo::MakeUp(trial, old));
    }

    /// Whether a report may count: it comes under the newest epoch, from a worker that was given a part in it and was
    /// not told that it lost it.
    pub(crate) fn may_report(&self, session: SessionId, report: &Report) -> bool {
        let seat = self.incarnations.get(&session).and_then(|life| self.seats.get(&(*life, report.trial)));
        seat == Some(&report.epoch)
            && self.epochs.get(&report.trial).is_none_or(|newest| *newest <= report.epoch)
    }

    /// The newest make-up of a trial's gang that was told.
    pub(crate) fn generation(&self, trial: TrialRef) -> Option<Generation> {
        self.make_ups.get(&trial).map(|now| now.generation)
    }

    /// A gang begins with all that it needs, trains with no less, and leaves nobody behind unless it is broken.
    fn check_gangs(&self, actions: &[Action]) -> Result<(), Breach> {
        let rule = "a gang gets all that it needs or nothing";
        let least =
            |trial: TrialRef| self.least.get(trial.sweep.0 as usize).map_or(1, |least| *least as usize);
        for action in actions {
            match action {
                Action::Grant { grant, .. } if self.epochs.get(&grant.trial) != Some(&grant.epoch) => {
                    let is_seat = |action: &&Action| {
                        matches!(action, Action::Grant { grant: g, .. }
                            if (g.trial, g.epoch) == (grant.trial, grant.epoch))
                    };
                    let seats = actions.iter().filter(is_seat).count();
                    ensure(seats >= least(grant.trial), rule, || {
                        format!("{} {} with {seats} workers", grant.trial, grant.epoch)
                    })?;
                }
                Action::Regang { trial, place, .. } if place.rank.is_some() => {
                    let ranks = place.shares.ranks() as usize;
                    let alone = ranks == 1 && place.generation.0 > 1 && self.programs.contains(&trial.sweep);
                    ensure(alone || ranks >= least(*trial), rule, || format!("{trial} with {ranks} ranks"))?;
                }
                Action::Revoke { trial, epoch, reason: RevokeReason::NotNeeded, .. } => {
                    let now = self.make_ups.get(trial).filter(|now| now.epoch == *epoch);
                    let goes_on = !actions.iter().any(|action| ends(action, *trial));
                    let whole = now.filter(|now| goes_on && !now.broken);
                    ensure(whole.is_none(), "only a broken gang leaves a rank behind", || {
                        format!("{trial} {epoch}: {whole:?}")
                    })?;
                }
                _ => {}
            }
        }
        Ok(())
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
                Undo::Seat(key, Some(old)) => drop(self.seats.insert(key, old)),
                Undo::Seat(key, None) => drop(self.seats.remove(&key)),
                Undo::MakeUp(trial, Some(old)) => drop(self.make_ups.insert(trial, old)),
                Undo::MakeUp(trial, None) => drop(self.make_ups.remove(&trial)),
                Undo::Sweep => drop(self.least.pop()),
                Undo::Epoch(trial, Some(old)) => drop(self.epochs.insert(trial, old)),
                Undo::Epoch(trial, None) => drop(self.epochs.remove(&trial)),
            }
        }
    }
}

/// Whether an action ends a trial's gang: the attempt, or all of it but the rank that stores the state.
fn ends(action: &Action, of: TrialRef) -> bool {
    match action {
        Action::Record(Record::AttemptEnded { trial, .. } | Record::Trial { trial, .. }) => *trial == of,
        Action::Revoke { trial, reason: RevokeReason::Moved | RevokeReason::Paused, .. } => *trial == of,
        _ => false,
    }
}

/// Whether a record says that an attempt of this trial did something.
fn is_of_attempt(record: &Record, of: TrialRef) -> bool {
    match record {
        Record::Point { trial, .. }
        | Record::AttemptStarted { trial, .. }
        | Record::AttemptEnded { trial, .. }
        | Record::Result { trial, .. } => *trial == of,
        Record::Sweep { .. }
        | Record::Trial { .. }
        | Record::SweepState { .. }
        | Record::Trials { .. }
        | Record::Discarded { .. } => false,
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
