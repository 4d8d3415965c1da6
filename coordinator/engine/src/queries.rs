//! Answers about the state. Nothing here changes it.

use crate::{
    config::Config,
    engine::Engine,
    refs::{SweepId, TrialRef, WorkerId},
    retention::best_of,
    state::{State, sweep_id},
    sweep::Sweep,
    time::Time,
    trial::{Failure, Label, Trial},
    views::{
        CheckpointView, DeviceView, FailureView, HeldView, LinkView, PlaceView, SweepView, Totals,
        TrialBrief, TrialView, WorkerView,
    },
    worker::{Link, Worker},
};
use spotsweep_proto::{
    digest::Digest,
    ids::{DeviceName, Epoch, SweepName, WorkerName},
};
use std::collections::BTreeMap;

impl State {
    /// Worker and device behind a label.
    pub(crate) fn names_of(&self, label: Label) -> Option<&(WorkerName, DeviceName)> {
        self.labels.get(label as usize)
    }

    fn place_of(&self, trial: &Trial) -> Option<PlaceView> {
        let (worker, label) = match &trial.lease {
            Some(lease) => {
                let slot = self.workers.get(&lease.worker)?.devices.get(usize::from(lease.device))?;
                (lease.worker, slot.label)
            }
            None => trial.place?,
        };
        let (name, device) = self.names_of(label)?.clone();
        Some(PlaceView { worker, name, device })
    }

    pub(crate) fn failure_view(&self, failure: &Failure) -> Option<FailureView> {
        let (worker, _) = self.names_of(failure.label)?.clone();
        Some(FailureView { kind: failure.kind, message: failure.message.clone(), worker, at: failure.at })
    }

    fn checkpoints(sweep: &Sweep, trial: &Trial) -> Vec<CheckpointView> {
        let goal = sweep.spec.objective.as_ref().map(|objective| objective.goal);
        let best = goal.and_then(|goal| best_of(&trial.kept, goal));
        let views = trial.kept.iter().enumerate().map(|(index, kept)| CheckpointView {
            reference: kept.reference.clone(),
            value: known(kept.value),
            best: best == Some(index),
        });
        views.collect()
    }

    /// What a worker holds; every one of its leases is also its trial's, or a seat in its trial's gang.
    fn held(&self, id: WorkerId, worker: &Worker) -> Vec<HeldView> {
        let held = worker.leases.iter().filter_map(|&trial| {
            let seat = self.gangs.get(&trial).and_then(|gang| gang.seat(id));
            let lease = || Some(self.trial(trial)?.lease.as_ref()?.device);
            Some(HeldView { trial, device: seat.map(|seat| seat.device).or_else(lease)? })
        });
        held.collect()
    }

    fn worker_view(&self, worker: &Worker) -> LinkView {
        match worker.link {
            Link::Connected { session, silent: false } => LinkView::Connected { session },
            Link::Connected { session, silent: true } => LinkView::Silent { session, since: worker.heard_at },
            Link::Broken { since, .. } => LinkView::Disconnected { since },
            Link::Gone { since } => LinkView::Gone { since },
        }
    }
}

/// NaN stands for unknown in the state.
fn known(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some(value)
}

impl Engine {
    /// Whether anything waits for time to pass, so that [`crate::Event::Tick`] is wanted about once a second.
    #[must_use]
    pub fn wants_tick(&self) -> bool {
        let state = &self.state;
        state.workers.len() > state.gone.len()
            || !state.gone.is_empty()
            || !state.delayed.is_empty()
            || state.objects.next_due().is_some()
    }

    /// When a gang has waited long enough for something that people wait for: sooner than the next tick is due, perhaps.
    #[must_use]
    pub fn next_gang_due(&self) -> Option<Time> {
        let state = &self.state;
        state.gangs.values().filter(|gang| !gang.is_formed()).filter_map(|gang| gang.due(&state.config)).min()
    }

    /// The earliest moment at which a tick would do something besides renewing leases: a worker falls silent,
    /// does not come back, is forgotten; a back-off ends; an object is deleted; a gang has waited long enough.
    #[must_use]
    pub fn next_due(&self) -> Option<Time> {
        let state = &self.state;
        let half_s = state.config.lease_s / 2.0;
        let workers = state.workers.values().filter_map(|worker| match worker.link {
            Link::Connected { silent: false, .. } => Some(worker.heard_at.after_s(half_s)),
            Link::Connected { silent: true, .. } => (!worker.leases.is_empty()).then_some(worker.expires_at),
            Link::Broken { until, .. } => Some(until),
            Link::Gone { .. } => None,
        });
        let gone = state.gone.first().map(|(since, _)| since.after_s(state.config.forget_worker_s));
        let backoff = state.delayed.first().map(|(due, _)| *due);
        let gangs = state.gangs.values().filter_map(|gang| gang.due(&state.config));
        workers.chain(gangs).chain([gone, backoff, state.objects.next_due()].into_iter().flatten()).min()
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.state.config
    }

    /// Time of the newest event.
    #[must_use]
    pub fn now(&self) -> Time {
        self.state.now
    }

    /// Counters of the whole engine.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.state.totals
    }

    /// All sweeps that anybody may see, in order of submission and of the beginning of imports.
    pub fn sweeps(&self) -> impl Iterator<Item = SweepView> + '_ {
        let all = self.state.sweeps.iter().enumerate().filter(|(_, sweep)| sweep.is_visible());
        all.map(|(index, sweep)| sweep_view(sweep_id(index), sweep))
    }

    fn visible(&self, id: SweepId) -> Option<&Sweep> {
        self.state.sweep(id).filter(|sweep| sweep.is_visible())
    }

    /// One sweep.
    #[must_use]
    pub fn sweep(&self, id: SweepId) -> Option<SweepView> {
        Some(sweep_view(id, self.visible(id)?))
    }

    /// The sweep of that name.
    #[must_use]
    pub fn sweep_by_name(&self, name: &SweepName) -> Option<SweepView> {
        self.sweep(*self.state.names.get(name)?)
    }

    /// One trial; `None` if there is no such sweep or it has no such trial.
    #[must_use]
    pub fn trial(&self, trial_ref: TrialRef) -> Option<TrialView> {
        let sweep = self.visible(trial_ref.sweep)?;
        let unopened = Trial::new(sweep.state_of(trial_ref.number)?);
        let trial = sweep.trials.get(trial_ref.number).unwrap_or(&unopened);
        let brief = self.trial_brief(trial_ref)?;
        let failure = trial.history.as_ref().and_then(|history| history.failure.as_ref());
        Some(TrialView {
            trial: trial_ref,
            state: brief.state,
            attempts: brief.attempts,
            failures: brief.failures,
            interruptions: brief.interruptions,
            epoch: brief.epoch,
            step: brief.step,
            total_steps: brief.total_steps,
            objective: known(trial.objective),
            best: brief.best,
            place: self.state.place_of(trial),
            checkpoints: State::checkpoints(sweep, trial),
            retry_at: (trial.retry_at != Time(0)).then_some(trial.retry_at),
            seconds: brief.seconds,
            last_failure: failure.and_then(|failure| self.state.failure_view(failure)),
        })
    }

    /// The number from which on no trial of the sweep has had a lease.
    #[must_use]
    pub fn opened(&self, sweep: SweepId) -> Option<u32> {
        self.visible(sweep).map(|sweep| sweep.trials.len())
    }

    /// The brief part of [`Self::trial`].
    #[must_use]
    pub fn trial_brief(&self, trial_ref: TrialRef) -> Option<TrialBrief> {
        let sweep = self.visible(trial_ref.sweep)?;
        let state = sweep.state_of(trial_ref.number)?;
        let unopened = Trial::new(state);
        let trial = sweep.trials.get(trial_ref.number).unwrap_or(&unopened);
        Some(TrialBrief {
            state,
            attempts: trial.attempts,
            failures: trial.failures,
            interruptions: trial.interruptions,
            epoch: Epoch(trial.epoch),
            step: trial.step,
            total_steps: (trial.total_steps > 0).then_some(trial.total_steps),
            best: known(trial.best.value).map(|_| trial.best),
            seconds: trial.seconds,
        })
    }

    /// All workers that are not forgotten, by number.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> + '_ {
        self.state.workers.iter().map(|(id, worker)| WorkerView {
            id: *id,
            name: worker.name.clone(),
            incarnation: worker.incarnation,
            machine: worker.machine.clone(),
            devices: worker
                .devices
                .iter()
                .map(|slot| DeviceView {
                    device: slot.device.clone(),
                    credits: slot.credits,
                    leases: slot.load,
                })
                .collect(),
            link: self.state.worker_view(worker),
            joined_at: worker.joined_at,
            expires_at: worker.expires_at,
            applied_seq: worker.applied_seq.unwrap_or(0),
            leases: self.state.held(*id, worker),
            notice: self.state.notices.get(id).map(|known| (known.notice.clone(), known.at)),
        })
    }

    /// How many kept checkpoints refer to each object in the store.
    #[must_use]
    pub fn object_references(&self) -> &BTreeMap<Digest, u32> {
        self.state.objects.references()
    }
}

fn sweep_view(id: SweepId, sweep: &Sweep) -> SweepView {
    SweepView {
        id,
        name: sweep.name.clone(),
        spec: sweep.spec.clone(),
        state: sweep.state(),
        submitted_at: sweep.submitted_at,
        ended_at: sweep.ended_at,
        trials: sweep.total,
        counts: sweep.counts,
        leases: sweep.leases,
        best: sweep.best,
        target_reached: sweep.target_reached,
        stale_reports: sweep.stale_reports,
        imported: sweep.import.as_ref().map(|import| import.from.clone()),
    }
}
