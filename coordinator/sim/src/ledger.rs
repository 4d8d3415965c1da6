//! What a bystander sees, and whether it keeps the promises: the history, the grants, the object store.

use spotsweep_engine::{Engine, SweepId, TrialRef, action::Record, event::CheckpointRef};
use spotsweep_proto::{digest::Digest, ids::Epoch, metric::Metrics};
use std::collections::{BTreeMap, BTreeSet};

/// Steps of a trial.
pub(crate) const STEPS: u64 = 40;
/// Steps between two reports of metrics.
pub(crate) const REPORT_STEPS: u64 = 5;

/// What training gives at a step: the same for everyone who trains this trial.
pub(crate) fn loss(trial: TrialRef, step: u64) -> f64 {
    let bytes = Digest::of(format!("{trial} {step}").as_bytes()).0;
    f64::from(u16::from_le_bytes([bytes[0], bytes[1]])) / 65536.0
}

/// A broken rule: its name and what was seen.
pub(crate) type Breach = (&'static str, String);

pub(crate) fn ensure(holds: bool, rule: &'static str, what: impl FnOnce() -> String) -> Result<(), Breach> {
    if holds { Ok(()) } else { Err((rule, what())) }
}

/// The bystander's notes.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Objects in the store.
    pub(crate) store: BTreeSet<Digest>,
    points: BTreeMap<TrialRef, Vec<(u64, f64)>>,
    results: BTreeSet<TrialRef>,
    epochs: BTreeMap<TrialRef, Epoch>,
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
            | Record::Trials { .. } => Ok(()),
        }
    }

    /// A lease leaves the coordinator.
    pub(crate) fn granted(&mut self, trial: TrialRef, epoch: Epoch) -> Result<(), Breach> {
        let old = self.epochs.insert(trial, epoch);
        ensure(old.is_none_or(|old| old < epoch), "one live epoch per attempt", || {
            format!("{trial}: {epoch} after {old:?}")
        })
    }

    /// Whether an attempt finds what it resumes from. It may be gone only for one that others have overtaken,
    /// which slept since it got its lease and does not know yet.
    pub(crate) fn resumes(
        &self,
        trial: TrialRef,
        epoch: Epoch,
        from: &CheckpointRef,
    ) -> Result<bool, Breach> {
        let digests = from.parts.iter().chain([&from.manifest]);
        let missing = digests.filter(|digest| !self.store.contains(*digest)).count();
        let overtaken = self.epochs.get(&trial).is_some_and(|newest| *newest > epoch);
        ensure(missing == 0 || overtaken, "an attempt resumes from what is there", || {
            format!("{trial} epoch {epoch} step {}: {missing} objects are gone", from.step)
        })?;
        Ok(missing == 0)
    }

    /// The coordinator has come back: what was in the history must be in its state.
    pub(crate) fn compare(&self, engine: &Engine) -> Result<(), Breach> {
        for trial in &self.results {
            let state = engine.trial(*trial).map(|view| view.state);
            let completed = state == Some(spotsweep_engine::action::TrialState::Completed);
            ensure(completed, "no result is lost", || format!("{trial} is {state:?} after a restart"))?;
        }
        Ok(())
    }

    /// The sweep is over: everything is there, once, and as if nothing had ever happened.
    pub(crate) fn close(&self, engine: &Engine, sweep: SweepId) -> Result<(), Breach> {
        let Some(view) = engine.sweep(sweep) else {
            return Err(("no result is lost", "the sweep is not there".to_owned()));
        };
        let all = view.counts.completed == view.trials && self.results.len() == view.trials as usize;
        ensure(all, "exactly N trials", || format!("{:?}, {} results", view.counts, self.results.len()))?;
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
            let refused = engine.totals().refused_checkpoints > 0;
            ensure(kept || refused, "the final weights are kept", || format!("{trial}: {view:?}"))?;
        }
        let missing = engine.object_references().keys().find(|digest| !self.store.contains(*digest));
        ensure(missing.is_none(), "what is referred to is in the store", || format!("{missing:?}"))
    }
}

fn value(metrics: &Metrics) -> f64 {
    metrics.first().map_or(f64::NAN, |(_, value)| *value)
}
