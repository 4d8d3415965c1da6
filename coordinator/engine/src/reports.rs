//! What workers report, applied exactly once: numbers against repetition, epochs against the past.
//!
//! Reports of an incarnation are numbered without gaps. What is applied already is skipped; a gap means that
//! something was lost on the way, so nothing is applied and the answer says from where to send again. A worker
//! that the engine has never heard, or has forgotten, may begin with any number: what came before was
//! acknowledged to it and is done with.

use crate::{
    action::{Action, AttemptEnd, Record, RevokeReason, TrialState},
    event::{CheckpointRef, IndexedMetrics, Report, ReportBatch, ReportBody},
    refs::{SessionId, TrialRef, WorkerId},
    retention::{self, Phase},
    state::{Out, State},
    trial::Kept,
    views::Best,
};
use spotsweep_proto::{
    digest::Digest,
    ids::{Epoch, MetricName},
    metric::{Goal, Metrics},
};

/// What stays the same over a batch.
struct Batch<'a> {
    worker: WorkerId,
    session: SessionId,
    names: &'a [MetricName],
    /// Stale leases of which the worker was told already.
    told: Vec<(TrialRef, Epoch)>,
}

impl Batch<'_> {
    fn metrics(&self, indexed: &IndexedMetrics) -> Metrics {
        let named = indexed
            .iter()
            .filter_map(|(index, value)| Some((self.names.get(usize::from(*index))?.clone(), *value)));
        named.collect()
    }

    fn value_of(&self, name: &MetricName, indexed: &IndexedMetrics) -> Option<f64> {
        let found = indexed.iter().find(|(index, _)| self.names.get(usize::from(*index)) == Some(name));
        found.map(|(_, value)| *value).filter(|value| value.is_finite())
    }
}

impl State {
    pub(crate) fn reports(&mut self, session: SessionId, batch: ReportBatch, out: &mut Out<'_>) {
        let Some(&id) = self.sessions.get(&session) else { return };
        self.hear(id, out);
        let Some(worker) = self.workers.get(&id) else { return };
        let applied = worker.applied_seq;
        let next = applied.map_or(batch.first_seq, |seq| seq + 1);
        if batch.first_seq == 0 || batch.first_seq > next {
            self.totals.gaps += 1;
            out.push(Action::Acknowledge { session, seq: applied.unwrap_or(0) });
            return;
        }
        let count = batch.reports.len() as u64;
        let repeated = (next - batch.first_seq).min(count);
        self.totals.repeated_reports += repeated;
        let ReportBatch { first_seq, metric_names, reports } = batch;
        let mut batch = Batch { worker: id, session, names: &metric_names, told: Vec::new() };
        #[expect(clippy::cast_possible_truncation, reason = "at most the batch's length")]
        for report in reports.into_iter().skip(repeated as usize) {
            self.apply(&mut batch, report, out);
        }
        let end = first_seq.saturating_add(count) - 1;
        if let Some(worker) = self.workers.get_mut(&id) {
            if count > 0 {
                worker.applied_seq = applied.max(Some(end));
            }
            out.push(Action::Acknowledge { session, seq: worker.applied_seq.unwrap_or(0) });
        }
    }

    fn apply(&mut self, batch: &mut Batch<'_>, report: Report, out: &mut Out<'_>) {
        let Report { trial: trial_ref, epoch, body } = report;
        let seated = self.gangs.get(&trial_ref).is_some_and(|gang| gang.has(batch.worker));
        let live = self.trial_mut(trial_ref).and_then(|trial| {
            let current = Epoch(trial.epoch) == epoch;
            trial.lease.as_mut().filter(|lease| current && (seated || lease.worker == batch.worker))
        });
        let Some(lease) = live else {
            return self.drop_stale(batch, trial_ref, epoch, &body, out);
        };
        lease.reported_at = out.at;
        let has_trained = matches!(
            body,
            ReportBody::Progress { .. } | ReportBody::Checkpoint(_) | ReportBody::Finished { .. }
        );
        if seated && has_trained {
            self.note_state(trial_ref, batch.worker);
        }
        let Some(lease) = self.trial(trial_ref).and_then(|trial| trial.lease.as_ref()) else { return };
        let paused = lease.revoked == Some(RevokeReason::Paused);
        let started = lease.started_at.is_some();
        self.totals.reports += 1;
        match body {
            ReportBody::Started { step, total_steps } => {
                self.begin(trial_ref, step, out);
                if let (Some(trial), Some(total)) = (self.trial_mut(trial_ref), total_steps) {
                    trial.total_steps = total;
                }
            }
            ReportBody::Progress { step, data_epoch, metrics } => {
                self.begin(trial_ref, step, out);
                if self.point_counts(trial_ref, batch.worker, step) {
                    self.progress(batch, trial_ref, step, data_epoch, &metrics, out);
                    self.catch_up(trial_ref);
                }
            }
            ReportBody::Checkpoint(reference) => {
                self.begin(trial_ref, reference.step, out);
                if self.is_complete(trial_ref, batch.worker) {
                    self.keep(trial_ref, reference, out);
                }
            }
            ReportBody::Finished { step, metrics, weights_digest, seconds } => {
                self.begin(trial_ref, step, out);
                if !self.is_complete(trial_ref, batch.worker) {
                    return self.lose_seat(trial_ref, batch.worker, AttemptEnd::Released, Some(seconds), out);
                }
                if self.is_rigid(trial_ref) && !self.rank_done(trial_ref, batch.worker, seconds, out) {
                    return;
                }
                self.promote(trial_ref, batch.worker);
                self.finish(batch, trial_ref, step, &metrics, weights_digest, seconds, out);
            }
            ReportBody::Failed { step, kind, message, seconds } => {
                self.begin(trial_ref, step, out);
                self.reach_step(trial_ref, step);
                self.rank_failed(trial_ref, batch.worker, kind, message, seconds, out);
            }
            ReportBody::Released { step, seconds } => {
                if started {
                    self.reach_step(trial_ref, step);
                }
                let reason = RevokeReason::Paused;
                let end = if paused { AttemptEnd::Revoked { reason } } else { AttemptEnd::Released };
                self.lose_seat(trial_ref, batch.worker, end, Some(seconds), out);
            }
        }
    }

    fn drop_stale(
        &mut self,
        batch: &mut Batch<'_>,
        trial: TrialRef,
        epoch: Epoch,
        body: &ReportBody,
        out: &mut Out<'_>,
    ) {
        self.totals.stale_reports += 1;
        if let Some(sweep) = self.sweep_mut(trial.sweep) {
            sweep.stale_reports += 1;
        }
        let goes_on = match body {
            ReportBody::Started { .. } | ReportBody::Progress { .. } | ReportBody::Checkpoint(_) => true,
            ReportBody::Finished { .. } | ReportBody::Failed { .. } | ReportBody::Released { .. } => false,
        };
        if goes_on && !batch.told.contains(&(trial, epoch)) {
            batch.told.push((trial, epoch));
            let (session, reason) = (batch.session, RevokeReason::Stale);
            out.push(Action::Revoke { session, trial, epoch, reason });
        }
    }

    /// The first report under a lease makes it an attempt.
    fn begin(&mut self, trial_ref: TrialRef, step: u64, out: &mut Out<'_>) {
        let Some(sweep) = self.sweeps.get_mut(trial_ref.sweep.0 as usize) else { return };
        let Some(trial) = sweep.trials.get_mut(trial_ref.number) else { return };
        let Some(lease) = trial.lease.as_mut().filter(|lease| lease.started_at.is_none()) else { return };
        lease.started_at = Some(out.at);
        trial.attempts += 1;
        let Some(worker) = self.workers.get(&lease.worker) else { return };
        let Some(slot) = worker.devices.get(usize::from(lease.device)) else { return };
        trial.place = Some((lease.worker, slot.label));
        out.record(Record::AttemptStarted {
            trial: trial_ref,
            epoch: Epoch(trial.epoch),
            attempt: trial.attempts,
            worker: worker.name.clone(),
            device: slot.device.name.clone(),
            step,
            at: out.at,
        });
        self.reach_step(trial_ref, step);
    }

    fn reach_step(&mut self, trial_ref: TrialRef, step: u64) {
        if let Some(trial) = self.trial_mut(trial_ref) {
            trial.step = trial.step.max(step);
        }
    }

    /// The trial has bits now, and stays on the kind of device that made them.
    fn settle_kind(&mut self, trial_ref: TrialRef) {
        let Some(sweep) = self.sweeps.get_mut(trial_ref.sweep.0 as usize) else { return };
        let Some(trial) = sweep.trials.get_mut(trial_ref.number) else { return };
        if trial.kind.is_none()
            && let Some(lease) = &trial.lease
            && let Some(worker) = self.workers.get(&lease.worker)
            && let Some(slot) = worker.devices.get(usize::from(lease.device))
        {
            trial.kind = Some(slot.device.kind);
        }
    }

    fn progress(
        &mut self,
        batch: &Batch<'_>,
        trial_ref: TrialRef,
        step: u64,
        data_epoch: f64,
        metrics: &IndexedMetrics,
        out: &mut Out<'_>,
    ) {
        self.settle_kind(trial_ref);
        self.reach_step(trial_ref, step);
        let Some(sweep) = self.sweeps.get_mut(trial_ref.sweep.0 as usize) else { return };
        let objective = sweep.spec.objective.as_ref();
        let value = objective.and_then(|objective| batch.value_of(&objective.name, metrics));
        let Some(trial) = sweep.trials.get_mut(trial_ref.number) else { return };
        if let (Some(lease), Some(value)) = (&mut trial.lease, value) {
            lease.note_value(step, value);
        }
        if step < trial.points_until {
            // A repetition after a resume: the same bits, so the same values.
            return;
        }
        trial.points_until = step.saturating_add(1);
        let metrics = batch.metrics(metrics);
        out.record(Record::Point { trial: trial_ref, step, data_epoch, metrics, at: out.at });
        if let Some(value) = value {
            self.observe(trial_ref, Best { value, step }, out);
        }
    }

    /// A new value of the objective.
    fn observe(&mut self, trial_ref: TrialRef, new: Best, out: &mut Out<'_>) {
        let Some(sweep) = self.sweeps.get_mut(trial_ref.sweep.0 as usize) else { return };
        let Some(objective) = &sweep.spec.objective else { return };
        let (goal, target) = (objective.goal, objective.target);
        let Some(trial) = sweep.trials.get_mut(trial_ref.number) else { return };
        trial.objective = new.value;
        if goal.better(new.value, trial.best.value) {
            trial.best = new;
        }
        if sweep.best.is_none_or(|(_, best)| goal.better(new.value, best.value)) {
            sweep.best = Some((trial_ref.number, new));
        }
        let reached = target.is_some_and(|target| match goal {
            Goal::Minimize => new.value <= target,
            Goal::Maximize => new.value >= target,
        });
        if reached && !sweep.target_reached {
            self.reach_target(trial_ref.sweep, out);
        }
    }

    /// A checkpoint is whole in the store: it is kept, and others may be needed no more.
    fn keep(&mut self, trial_ref: TrialRef, reference: CheckpointRef, out: &mut Out<'_>) {
        self.settle_kind(trial_ref);
        self.reach_step(trial_ref, reference.step);
        let delete_at = out.at.after_s(self.config.delete_after_s);
        if !self.objects.acquire(&reference, delete_at) {
            self.totals.refused_checkpoints += 1;
            return;
        }
        let Some(sweep) = self.sweeps.get_mut(trial_ref.sweep.0 as usize) else { return };
        let goal = sweep.spec.objective.as_ref().map(|objective| objective.goal);
        let keep_last = sweep.spec.checkpoint.keep_last;
        let Some(trial) = sweep.trials.get_mut(trial_ref.number) else { return };
        let value = trial.lease.as_ref().and_then(|lease| lease.value_at(reference.step));
        let mut kept = Kept { reference, value: value.unwrap_or(f64::NAN) };
        let place = trial.kept.binary_search_by_key(&kept.reference.step, |k| k.reference.step);
        let mut dropped = Vec::new();
        match place {
            Ok(index) => {
                // The same step again, after a resume: the newer one counts, the older one's value is as good.
                let old = &mut trial.kept[index];
                if kept.value.is_nan() {
                    kept.value = old.value;
                }
                dropped.push(std::mem::replace(old, kept).reference);
            }
            Err(index) => trial.kept.insert(index, kept),
        }
        dropped.extend(retention::prune(&mut trial.kept, Phase::Open { keep_last }, goal));
        for reference in dropped {
            self.objects.release(&reference, delete_at);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one report")]
    fn finish(
        &mut self,
        batch: &Batch<'_>,
        trial_ref: TrialRef,
        step: u64,
        metrics: &IndexedMetrics,
        weights_digest: Option<Digest>,
        seconds: f64,
        out: &mut Out<'_>,
    ) {
        self.reach_step(trial_ref, step);
        let Some(sweep) = self.sweep(trial_ref.sweep) else { return };
        let objective = sweep.spec.objective.as_ref();
        let value = objective.and_then(|objective| batch.value_of(&objective.name, metrics));
        self.end_lease(trial_ref, AttemptEnd::Finished, Some(seconds), out);
        let Some(trial) = self.trial(trial_ref) else { return };
        let Some((_, device)) = trial.place.and_then(|(_, label)| self.labels.get(label as usize)) else {
            return;
        };
        out.record(Record::Result {
            trial: trial_ref,
            steps: step,
            metrics: batch.metrics(metrics),
            weights_digest,
            device: device.clone(),
            seconds: trial.seconds,
        });
        self.end_trial(trial_ref, TrialState::Completed, out);
        if let Some(value) = value {
            self.observe(trial_ref, Best { value, step }, out);
        }
    }
}
