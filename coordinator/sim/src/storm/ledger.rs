//! What a bystander sees, and whether it keeps the promises: the history, the grants, what was handed over.

use super::store::Store;
use crate::content::mixed;
use spotsweep_engine::{
    Engine, SweepId, TrialRef,
    action::{Grant, Record, TrialState},
    event::CheckpointRef,
};
use spotsweep_proto::{ids::Epoch, metric::Metrics};
use std::collections::{BTreeMap, BTreeSet};

/// Steps of a trial.
pub(crate) const STEPS: u64 = 40;
/// Steps between two reports of metrics.
pub(crate) const REPORT_STEPS: u64 = 5;

/// A broken rule: its name and what was seen.
pub(crate) type Breach = (&'static str, String);

pub(crate) fn ensure(holds: bool, rule: &'static str, what: impl FnOnce() -> String) -> Result<(), Breach> {
    if holds { Ok(()) } else { Err((rule, what())) }
}

/// What training gives at a step: the same for everyone who trains this trial.
pub(crate) fn loss(trial: TrialRef, step: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "16 bits")]
    let bits = (mixed(u64::from(trial.sweep.0) << 60 | u64::from(trial.number) << 32 | step) >> 48) as f64;
    bits / 65536.0
}

/// The bystander's notes.
#[derive(Default)]
pub(crate) struct Ledger {
    points: BTreeMap<TrialRef, Vec<(u64, f64)>>,
    results: BTreeSet<TrialRef>,
    epochs: BTreeMap<TrialRef, Epoch>,
    /// From which step at least the next attempt of a trial goes on, because a checkpoint of it was handed over.
    handed_over: BTreeMap<TrialRef, u64>,
    /// Trials of which a checkpoint was refused, because an object of it had just been deleted.
    refused: BTreeSet<TrialRef>,
    /// Leases under which ranks of a gang met.
    begun: BTreeSet<(TrialRef, Epoch)>,
}

impl Ledger {
    /// Something is written into the history.
    pub(crate) fn record(&mut self, record: &Record) -> Result<(), Breach> {
        match record {
            Record::Point { trial, step, metrics, .. } => {
                let points = self.points.entry(*trial).or_default();
                let grows = points.last().is_none_or(|(last, _)| last < step);
                ensure(grows, "metric steps strictly grow", || format!("{trial} step {step}: {points:?}"))?;
                points.push((*step, value(metrics)));
                Ok(())
            }
            Record::Result { trial, steps, .. } => {
                let first = self.results.insert(*trial);
                ensure(*steps == STEPS, "a result is of the whole training", || format!("{trial}: {steps}"))?;
                ensure(first, "a trial has one result", || format!("{trial}"))
            }
            Record::Sweep { .. }
            | Record::AttemptStarted { .. }
            | Record::AttemptEnded { .. }
            | Record::Trial { .. }
            | Record::SweepState { .. }
            | Record::Trials { .. }
            | Record::Discarded { .. } => Ok(()),
        }
    }

    /// A lease leaves the coordinator.
    pub(crate) fn granted(&mut self, grant: &Grant) -> Result<(), Breach> {
        let Grant { trial, epoch, resume, gang, .. } = grant;
        let old = self.epochs.insert(*trial, *epoch);
        if gang.is_some() && old == Some(*epoch) {
            // A further seat under the same lease. What its holder resumes from, if from anything, is seen when it meets
            // the others.
            return Ok(());
        }
        ensure(old.is_none_or(|old| old < *epoch), "one live epoch per attempt", || {
            format!("{trial}: {epoch} after {old:?}")
        })?;
        let from = resume.as_ref().map_or(0, |reference| reference.step);
        let least = self.handed_over.get(trial).copied().unwrap_or(0);
        ensure(from >= least, "no more is lost than since the last checkpoint", || {
            format!("{trial} {epoch} resumes from step {from}; step {least} was handed over")
        })
    }

    /// The ranks of a gang begin together, or go on, from this step. When a gang breaks one of its ranks may have finished a
    /// step more than the others; if it stores its state and goes, the others go on from memory, one step behind.
    pub(crate) fn begins(&mut self, trial: TrialRef, epoch: Epoch, step: u64) -> Result<(), Breach> {
        let overtaken = self.epochs.get(&trial).is_some_and(|newest| *newest > epoch);
        let least = self.handed_over.get(&trial).copied().unwrap_or(0);
        self.begun.insert((trial, epoch));
        ensure(
            overtaken || step + REPORT_STEPS >= least,
            "no more is lost than since the last checkpoint",
            || format!("the gang of {trial} {epoch} begins from step {step}; step {least} was handed over"),
        )
    }

    /// The coordinator would resume from this step, and that is durable. `anew`: the checkpoint before turned out
    /// to be unreadable, so that less counts.
    pub(crate) fn durable(&mut self, trial: TrialRef, step: u64, anew: bool) {
        let least = self.handed_over.entry(trial).or_default();
        *least = if anew { step } else { step.max(*least) };
    }

    /// A worker that nothing disturbed has handed over a checkpoint of this step.
    pub(crate) fn hand_over(&mut self, trial: TrialRef, step: u64) {
        if !self.refused.contains(&trial) {
            self.durable(trial, step, false);
        }
    }

    /// A checkpoint was refused; what its worker believes to have handed over does not count from now on.
    pub(crate) fn refused(&mut self, trial: TrialRef) {
        self.refused.insert(trial);
    }

    /// Whether an attempt finds what it resumes from. It may be gone only for one that others have overtaken,
    /// which slept since it got its lease and does not know yet, or without which its gang began.
    pub(crate) fn resumes(
        &self,
        trial: TrialRef,
        epoch: Epoch,
        from: &CheckpointRef,
        missing: usize,
    ) -> Result<bool, Breach> {
        let overtaken = self.epochs.get(&trial).is_some_and(|newest| *newest > epoch)
            || self.begun.contains(&(trial, epoch));
        ensure(missing == 0 || overtaken, "an attempt resumes from what is there", || {
            format!("{trial} epoch {epoch} step {}: {missing} objects are gone", from.step)
        })?;
        Ok(missing == 0)
    }

    /// The coordinator has come back: what was in the history must be in its state.
    pub(crate) fn compare(&self, engine: &Engine) -> Result<(), Breach> {
        for trial in &self.results {
            let state = engine.trial(*trial).map(|view| view.state);
            ensure(state == Some(TrialState::Completed), "no result is lost", || {
                format!("{trial} is {state:?} after a restart")
            })?;
        }
        Ok(())
    }

    /// The sweep is over: everything is there, once, and as if nothing had ever happened.
    pub(crate) fn close(&self, engine: &Engine, store: &Store, sweep: SweepId) -> Result<(), Breach> {
        let Some(view) = engine.sweep(sweep) else {
            return Err(("no result is lost", "the sweep is not there".to_owned()));
        };
        let results = self.results.iter().filter(|trial| trial.sweep == sweep).count();
        let all = view.counts.completed == view.trials && results == view.trials as usize;
        ensure(all, "exactly N trials", || format!("{:?}, {results} results", view.counts))?;
        for number in 0..view.trials {
            let trial = TrialRef { sweep, number };
            let steps = (1..=STEPS / REPORT_STEPS).map(|n| n * REPORT_STEPS);
            let expected: Vec<(u64, f64)> = steps.map(|step| (step, loss(trial, step))).collect();
            let points = self.points.get(&trial);
            ensure(points == Some(&expected), "interrupted equals uninterrupted", || {
                format!("{trial}: {points:?}, not {expected:?}")
            })?;
            let view = engine.trial(trial);
            let kept = view.iter().flat_map(|view| &view.checkpoints).any(|c| c.reference.last);
            let refused = self.refused.contains(&trial);
            ensure(kept || refused, "the final weights are kept", || format!("{trial}: {view:?}"))?;
        }
        let missing = engine.object_references().keys().find(|digest| !store.contains(digest));
        ensure(missing.is_none(), "what is referred to is in the store", || format!("{missing:?}"))
    }
}

fn value(metrics: &Metrics) -> f64 {
    metrics.first().map_or(f64::NAN, |(_, value)| *value)
}
