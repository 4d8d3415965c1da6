//! Sweeps that come back from an export: taken in piece by piece, hidden until they are whole, read-only for ever.
//!
//! An import decides nothing anew: its trials have ended, and it says how. Until [`ImportStep::End`] agrees with what came,
//! nobody sees the sweep, though its name is taken and its rows are written. A step that does not fit what came before
//! discards all of it, and so does a restart: whoever imports begins again.

use crate::{
    action::{Action, Record, Refusal, Reply, TrialState},
    lease,
    refs::{RequestId, SweepId, TrialRef, WorkerId},
    state::{Out, State, sweep_id},
    sweep::Sweep,
    trial::{BriefEnd, EndNote, Failure, Trial, TrialTable},
    views::{Best, Counts, ImportView},
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::ids::SweepName;
use std::sync::Arc;

mod items;

pub use items::{
    ImportHead, ImportPart, ImportStep, ImportToken, ImportedAttempt, ImportedFailure, ImportedPoint,
    ImportedResult, ImportedTrial,
};

/// The worker of a place that is on another coordinator. Workers of this one are numbered from 0.
const ELSEWHERE: WorkerId = WorkerId(u32::MAX);
/// What a trial is called that has not come yet; nobody sees it.
const NOT_YET: TrialState = TrialState::Cancelled;

/// What is remembered of an import.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Import {
    /// Where it comes from, and since when it is here.
    pub(crate) from: ImportView,
    pub(crate) stage: Stage,
}

/// How far an import is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// More is to come.
    Coming(Box<Coming>),
    /// It is whole.
    Whole,
    /// It broke off. Its number is not given to another sweep, because rows of the history may still have it.
    Discarded,
}

/// What has come, and what is to come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Coming {
    best_trial: Option<u32>,
    /// How many must come, and how many have.
    attempts: (u64, u64),
    points: (u64, u64),
    /// Number and epoch of the last attempt.
    last_attempt: Option<(u32, u64)>,
    /// Number of the trial whose points came last.
    last_point: u32,
    /// How many trials at the end never did anything and share this state.
    tail: (u32, Option<TrialState>),
}

impl Import {
    /// Whether anybody may see the sweep.
    pub(crate) fn is_whole(&self) -> bool {
        match self.stage {
            Stage::Whole => true,
            Stage::Coming(_) | Stage::Discarded => false,
        }
    }

    fn coming(&mut self) -> Option<&mut Coming> {
        match &mut self.stage {
            Stage::Coming(coming) => Some(coming),
            Stage::Whole | Stage::Discarded => None,
        }
    }
}

impl Sweep {
    /// Whether anybody may see it.
    pub(crate) fn is_visible(&self) -> bool {
        self.import.as_ref().is_none_or(|import| import.is_whole())
    }

    /// Whether its name is taken.
    pub(crate) fn has_name(&self) -> bool {
        self.import.as_ref().is_none_or(|import| !matches!(import.stage, Stage::Discarded))
    }

    fn coming(&mut self) -> Option<&mut Coming> {
        self.import.as_mut()?.coming()
    }
}

fn bad(what: impl Into<String>) -> Refusal {
    Refusal::BadImport { what: what.into() }
}

impl State {
    pub(crate) fn import(
        &mut self,
        request: RequestId,
        token: ImportToken,
        step: ImportStep,
        out: &mut Out<'_>,
    ) {
        let outcome = match step {
            ImportStep::Begin(head) => self.begin_import(token, *head, out),
            ImportStep::Part(part) => self.with_import(token, out, |state, id, out| {
                state.import_part(id, part, out).map(|()| Reply::Done { trials: 0 })
            }),
            ImportStep::End => self.with_import(token, out, Self::end_import),
            ImportStep::Abandon => {
                self.discard(token, out);
                Ok(Reply::Done { trials: 0 })
            }
        };
        out.push(Action::Reply { request, outcome });
    }

    /// Takes a step of an import that has begun; if that is refused, the whole import is discarded.
    fn with_import(
        &mut self,
        token: ImportToken,
        out: &mut Out<'_>,
        step: impl FnOnce(&mut Self, SweepId, &mut Out<'_>) -> Result<Reply, Refusal>,
    ) -> Result<Reply, Refusal> {
        let id = *self.imports.get(&token).ok_or(Refusal::NoImport)?;
        let outcome = step(self, id, out);
        if outcome.is_err() {
            self.discard(token, out);
        }
        outcome
    }

    fn begin_import(
        &mut self,
        token: ImportToken,
        head: ImportHead,
        out: &mut Out<'_>,
    ) -> Result<Reply, Refusal> {
        let limit = self.config.max_sweeps;
        if self.sweeps.len() >= limit {
            return Err(Refusal::TooManySweeps { limit });
        }
        if self.imports.contains_key(&token) {
            return Err(bad("it has begun already"));
        }
        let same = |sweep: &&Sweep| {
            sweep.import.as_ref().is_some_and(|import| import.is_whole() && import.from.digest == head.digest)
        };
        if let Some(sweep) = self.sweeps.iter().find(same).filter(|_| !head.renamed) {
            return Err(Refusal::AlreadyImported { name: sweep.name.clone() });
        }
        if let Some(id) = self.names.get(&head.name) {
            let coming = self.sweep(*id).is_some_and(|sweep| !sweep.is_visible());
            return Err(Refusal::NameTaken { name: head.name, coming });
        }
        let id = sweep_id(self.sweeps.len());
        let mut sweep = Sweep::new(head.name.clone(), Arc::from(head.spec), head.submitted_at);
        sweep.ended_at = Some(head.ended_at);
        sweep.cancelled = head.cancelled;
        sweep.target_reached = head.target_reached;
        sweep.stale_reports = head.stale_reports;
        sweep.forget_trials();
        let coming = Coming {
            best_trial: head.best_trial,
            attempts: (head.attempts, 0),
            points: (head.points, 0),
            ..Coming::default()
        };
        sweep.import = Some(Box::new(Import {
            from: ImportView { program: head.program, format: head.format, digest: head.digest, at: out.at },
            stage: Stage::Coming(Box::new(coming)),
        }));
        self.names.insert(head.name, id);
        self.imports.insert(token, id);
        self.sweeps.push(sweep);
        Ok(Reply::Importing { sweep: id })
    }

    fn import_part(&mut self, id: SweepId, part: ImportPart, out: &mut Out<'_>) -> Result<(), Refusal> {
        match part {
            ImportPart::Trials(trials) => {
                trials.into_iter().try_for_each(|trial| self.import_trial(id, trial, out))
            }
            ImportPart::Attempts(attempts) => {
                attempts.into_iter().try_for_each(|attempt| self.import_attempt(id, attempt, out))
            }
            ImportPart::Points { metric_names, points } => {
                let name = |index: u16| {
                    let name = metric_names.get(usize::from(index)).cloned();
                    name.ok_or_else(|| bad("a point has a metric without a name"))
                };
                points.into_iter().try_for_each(|point| {
                    let metrics = point.metrics.iter().map(|(index, value)| Ok((name(*index)?, *value)));
                    let metrics = metrics.collect::<Result<_, Refusal>>()?;
                    let trial = self.import_point(id, &point)?;
                    let ImportedPoint { step, data_epoch, at, .. } = point;
                    out.archive(Record::Point { trial, step, data_epoch, metrics, at });
                    Ok(())
                })
            }
        }
    }

    fn import_trial(&mut self, id: SweepId, new: ImportedTrial, out: &mut Out<'_>) -> Result<(), Refusal> {
        let label = new.place.as_ref().map(|(worker, device)| self.label(worker, device));
        let failure = new.failure.map(|failure| {
            let device = new.place.as_ref().map_or(&failure.device, |(_, device)| device);
            let label = self.label(&failure.worker, device);
            Failure { kind: failure.kind, message: failure.message, label, at: failure.at }
        });
        let sweep = self.sweep_mut(id).ok_or(Refusal::NoImport)?;
        let number = sweep.trials.len();
        let total = sweep.total;
        if number >= total {
            return Err(bad(format!("it has more than {total} trials")));
        }
        let sound = new.state.is_final()
            && u64::from(new.attempts) <= new.epoch.0
            && (new.state == TrialState::Completed) == new.result.is_some()
            && (new.attempts == 0 || label.is_some())
            && (new.attempts > 0 || new.result.is_none());
        if !sound {
            return Err(bad(format!("what is said of trial {number} contradicts itself")));
        }
        let mut trial = Trial::new(new.state);
        trial.epoch = new.epoch.0;
        trial.attempts = new.attempts;
        trial.failures = new.failures;
        trial.interruptions = new.interruptions;
        trial.place = label.map(|label| (ELSEWHERE, label));
        trial.step = new.step;
        trial.total_steps = new.total_steps.unwrap_or(0);
        trial.seconds = new.seconds;
        trial.objective = new.objective.unwrap_or(f64::NAN);
        trial.best = new.best.unwrap_or(Best { value: f64::NAN, step: 0 });
        if failure.is_some() {
            trial.history.get_or_insert_default().failure = failure;
        }
        *sweep.counts.get_mut(NOT_YET) -= 1;
        *sweep.counts.get_mut(new.state) += 1;
        let did_nothing = new.epoch.0 == 0 && new.step == 0 && trial.history.is_none();
        if let Some(coming) = sweep.coming() {
            coming.tail = match coming.tail {
                (count, Some(state)) if did_nothing && state == new.state => (count + 1, Some(state)),
                _ if did_nothing => (1, Some(new.state)),
                _ => (0, None),
            };
        }
        sweep.trials.push(trial);
        if let (Some(result), Some((_, device))) = (new.result, new.place) {
            let trial = TrialRef { sweep: id, number };
            let ImportedResult { metrics, weights_digest } = result;
            let (steps, seconds) = (new.step, new.seconds);
            out.archive(Record::Result { trial, steps, metrics, weights_digest, device, seconds });
        }
        Ok(())
    }

    fn import_attempt(
        &mut self,
        id: SweepId,
        new: ImportedAttempt,
        out: &mut Out<'_>,
    ) -> Result<(), Refusal> {
        let ImportedAttempt { number, epoch, attempt, worker, device, first_step, started_at, .. } = new;
        let label = self.label(&worker, &device);
        let sweep = self.sweep_mut(id).ok_or(Refusal::NoImport)?;
        let coming = sweep.coming().ok_or(Refusal::NoImport)?;
        if coming.last_attempt >= Some((number, epoch.0)) {
            return Err(bad(format!("an attempt of trial {number} is out of order")));
        }
        coming.last_attempt = Some((number, epoch.0));
        coming.attempts.1 += 1;
        let trial = sweep.trials.get_mut(number);
        let trial = trial.filter(|trial| epoch.0 <= trial.epoch && attempt <= trial.attempts);
        let trial = trial.ok_or_else(|| bad(format!("trial {number} had no such attempt")))?;
        let brief = lease::brief(&new.end);
        if trial.history.is_some() || brief != BriefEnd::Finished {
            let (step, at) = (new.last_step, new.ended_at);
            trial.note_end(EndNote { attempt, end: brief, label, step, at });
        }
        let trial = TrialRef { sweep: id, number };
        let at = started_at;
        out.archive(Record::AttemptStarted { trial, epoch, attempt, worker, device, step: first_step, at });
        let ImportedAttempt { end, last_step: step, ended_at: at, .. } = new;
        out.archive(Record::AttemptEnded { trial, epoch, end, step, at });
        Ok(())
    }

    fn import_point(&mut self, id: SweepId, point: &ImportedPoint) -> Result<TrialRef, Refusal> {
        let sweep = self.sweep_mut(id).ok_or(Refusal::NoImport)?;
        let number = point.number;
        let coming = sweep.coming().ok_or(Refusal::NoImport)?;
        if number < coming.last_point {
            return Err(bad(format!("points of trial {number} are out of order")));
        }
        coming.last_point = number;
        coming.points.1 += 1;
        let trial = sweep.trials.get_mut(number).filter(|trial| trial.attempts > 0);
        let trial = trial.ok_or_else(|| bad(format!("trial {number} cannot have reported anything")))?;
        if point.step < trial.points_until || point.step > trial.step {
            return Err(bad(format!("step {} of trial {number} is out of order", point.step)));
        }
        trial.points_until = point.step.saturating_add(1);
        Ok(TrialRef { sweep: id, number })
    }

    /// All has come: from now on the sweep is there.
    fn end_import(&mut self, id: SweepId, out: &mut Out<'_>) -> Result<Reply, Refusal> {
        let sweep = self.sweep_mut(id).ok_or(Refusal::NoImport)?;
        let (come, total) = (sweep.trials.len(), sweep.total);
        let Coming { best_trial, attempts, points, tail, .. } =
            sweep.coming().map(std::mem::take).ok_or(Refusal::NoImport)?;
        if come != total || attempts.0 != attempts.1 || points.0 != points.1 {
            return Err(bad(format!(
                "{come} of {total} trials, {} of {} attempts and {} of {} points came",
                attempts.1, attempts.0, points.1, points.0
            )));
        }
        if let Some(number) = best_trial {
            let best = sweep.trials.get(number).map(|trial| trial.best);
            let best = best.filter(|best| !best.value.is_nan());
            sweep.best = Some((number, best.ok_or_else(|| bad("its best trial has no best value"))?));
        }
        // Those at the end that never did anything need no record, as in any sweep.
        if let (count, Some(state)) = tail {
            sweep.trials.truncate(total - count);
            sweep.rest = state;
        }
        if let Some(import) = &mut sweep.import {
            import.from.at = out.at;
            import.stage = Stage::Whole;
        }
        let (name, state) = (sweep.name.clone(), sweep.state());
        self.imports.retain(|_, coming| *coming != id);
        out.record(Record::Sweep { sweep: id, name: name.clone(), at: out.at });
        out.record(Record::SweepState { sweep: id, state, at: out.at });
        Ok(Reply::Submitted { sweep: id, name, new: true })
    }

    /// An import is over before it was whole: nothing of it stays but its number.
    fn discard(&mut self, token: ImportToken, out: &mut Out<'_>) {
        let Some(id) = self.imports.remove(&token) else { return };
        let Some(sweep) = self.sweep_mut(id) else { return };
        sweep.forget_trials();
        if let Some(import) = &mut sweep.import {
            import.stage = Stage::Discarded;
        }
        let name: SweepName = sweep.name.clone();
        self.names.remove(&name);
        out.archive(Record::Discarded { sweep: id });
    }

    /// The coordinator was away: nobody sends the rest.
    pub(crate) fn discard_imports(&mut self, out: &mut Out<'_>) {
        let tokens: Vec<ImportToken> = self.imports.keys().copied().collect();
        for token in tokens {
            self.discard(token, out);
        }
    }
}

impl Sweep {
    /// As if none of its trials had come.
    fn forget_trials(&mut self) {
        self.trials = TrialTable::default();
        self.rest = NOT_YET;
        self.counts = Counts::default();
        *self.counts.get_mut(NOT_YET) = self.total;
        self.best = None;
    }
}
