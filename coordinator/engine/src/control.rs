//! What clients ask for: submit, pause, resume, cancel. Every request is answered in the same step.

use crate::{
    action::{Action, AttemptEnd, Record, Refusal, Reply, RevokeReason, TrialState},
    event::{Command, Target},
    refs::{RequestId, SweepId, TrialRef},
    state::{Out, State, sweep_id},
    sweep::Sweep,
    views::SweepState,
};
use spotsweep_proto::{ids::SweepName, limits::NAME_BYTES, spec::SweepSpec};
use std::sync::Arc;

impl State {
    pub(crate) fn submit(
        &mut self,
        request: RequestId,
        token: u128,
        spec: Box<SweepSpec>,
        out: &mut Out<'_>,
    ) {
        let outcome = self.submitted(token, spec, out);
        out.push(Action::Reply { request, outcome });
    }

    fn submitted(&mut self, token: u128, spec: Box<SweepSpec>, out: &mut Out<'_>) -> Result<Reply, Refusal> {
        if let Some(&sweep) = self.tokens.get(&token) {
            let name = self.sweep(sweep).ok_or(Refusal::NoSweep)?.name.clone();
            return Ok(Reply::Submitted { sweep, name, new: false });
        }
        let limit = self.config.max_sweeps;
        if self.sweeps.len() >= limit {
            return Err(Refusal::TooManySweeps { limit });
        }
        let id = sweep_id(self.sweeps.len());
        let name = self.free_name(&spec.name);
        out.record(Record::Sweep { sweep: id, name: name.clone(), at: out.at });
        self.tokens.insert(token, id);
        self.names.insert(name.clone(), id);
        self.has_gangs |= spec.resources.workers.is_gang();
        let mut sweep = Sweep::new(name.clone(), Arc::from(spec), out.at);
        sweep.end_if_over(id, out);
        self.sweeps.push(sweep);
        self.requeue(id);
        Ok(Reply::Submitted { sweep: id, name, new: true })
    }

    /// The name, or the first of `name-2`, `name-3`, … that no sweep has.
    fn free_name(&self, wanted: &SweepName) -> SweepName {
        let suffixed = |number: u32| {
            let suffix = format!("-{number}");
            // Names are ASCII, so any place is between two characters.
            let stem = wanted.as_str().get(..wanted.as_str().len().min(NAME_BYTES - suffix.len()));
            SweepName::new(&format!("{}{suffix}", stem.unwrap_or("sweep"))).ok()
        };
        std::iter::once(Some(wanted.clone()))
            .chain((2..).map(suffixed))
            .flatten()
            .find(|name| !self.names.contains_key(name))
            .unwrap_or_else(|| wanted.clone())
    }

    pub(crate) fn control(
        &mut self,
        request: RequestId,
        target: Target,
        command: Command,
        out: &mut Out<'_>,
    ) {
        let outcome = match target {
            Target::Sweep(id) => self.control_sweep(id, command, out),
            Target::Trial(trial) => self.control_trial(trial, command, out),
        };
        out.push(Action::Reply { request, outcome: outcome.map(|trials| Reply::Done { trials }) });
    }

    /// A sweep to which something may be done.
    fn changeable(&mut self, id: SweepId) -> Result<&mut Sweep, Refusal> {
        let sweep = self.sweep_mut(id).filter(|sweep| sweep.is_visible()).ok_or(Refusal::NoSweep)?;
        if sweep.import.is_some() { Err(Refusal::ReadOnly) } else { Ok(sweep) }
    }

    fn control_sweep(&mut self, id: SweepId, command: Command, out: &mut Out<'_>) -> Result<u32, Refusal> {
        let sweep = self.changeable(id)?;
        match (sweep.state(), command) {
            (SweepState::Cancelled, Command::Cancel) => return Ok(0),
            (SweepState::Cancelled, Command::Pause | Command::Resume) => {
                return Err(Refusal::Ended { state: TrialState::Cancelled });
            }
            (SweepState::Completed, Command::Pause | Command::Resume | Command::Cancel) => {
                return Err(Refusal::Ended { state: TrialState::Completed });
            }
            (SweepState::Paused, Command::Pause) | (SweepState::Running, Command::Resume) => return Ok(0),
            (SweepState::Running, Command::Pause) | (SweepState::Paused, Command::Resume) => {
                sweep.paused = command == Command::Pause;
                out.record(Record::SweepState { sweep: id, state: sweep.state(), at: out.at });
            }
            (SweepState::Running | SweepState::Paused, Command::Cancel) => sweep.cancelled = true,
        }
        let open: Vec<u32> = sweep.open.iter().copied().collect();
        let rest = match command {
            Command::Pause => TrialState::Paused,
            Command::Resume => TrialState::Pending,
            Command::Cancel => TrialState::Cancelled,
        };
        let mut changed = if sweep.rest.is_final() { 0 } else { sweep.set_rest(id, rest, out) };
        for number in open {
            let trial = TrialRef { sweep: id, number };
            changed += u32::from(match command {
                Command::Pause | Command::Resume => self.refresh_pause(trial, out),
                Command::Cancel => self.cancel_open(trial, out),
            });
        }
        if let Some(sweep) = self.sweep_mut(id) {
            sweep.end_if_over(id, out);
        }
        self.requeue(id);
        Ok(changed)
    }

    fn control_trial(
        &mut self,
        trial_ref: TrialRef,
        command: Command,
        out: &mut Out<'_>,
    ) -> Result<u32, Refusal> {
        let TrialRef { sweep: id, number } = trial_ref;
        let sweep = self.changeable(id)?;
        let trials = sweep.total;
        let state = sweep.state_of(number).ok_or(Refusal::NoTrial { number, trials })?;
        if state == TrialState::Cancelled && command == Command::Cancel {
            return Ok(0);
        }
        if state.is_final() {
            return Err(Refusal::Ended { state });
        }
        let changed = if sweep.trials.get(number).is_none() {
            Self::control_unopened(sweep, trial_ref, command, out)
        } else {
            match command {
                Command::Pause | Command::Resume => {
                    let trial = sweep.trials.get_mut(number).ok_or(Refusal::NoTrial { number, trials })?;
                    trial.paused = command == Command::Pause;
                    self.refresh_pause(trial_ref, out)
                }
                Command::Cancel => self.cancel_open(trial_ref, out),
            }
        };
        if let Some(sweep) = self.sweep_mut(id) {
            sweep.end_if_over(id, out);
        }
        self.requeue(id);
        Ok(u32::from(changed))
    }

    /// A command for a trial that has no record: it becomes an exception, or ceases to be one.
    fn control_unopened(sweep: &mut Sweep, trial: TrialRef, command: Command, out: &mut Out<'_>) -> bool {
        let before = sweep.ahead.get(&trial.number).copied().unwrap_or(sweep.rest);
        match command {
            Command::Pause => sweep.ahead.insert(trial.number, TrialState::Paused),
            Command::Resume => sweep.ahead.remove(&trial.number),
            Command::Cancel => sweep.ahead.insert(trial.number, TrialState::Cancelled),
        };
        let state = sweep.ahead.get(&trial.number).copied().unwrap_or(sweep.rest);
        if state != before {
            *sweep.counts.get_mut(before) -= 1;
            *sweep.counts.get_mut(state) += 1;
            out.record(Record::Trial { trial, state, attempts: 0, at: out.at });
        }
        sweep.pass_exceptions();
        state != before
    }

    /// Makes an open trial's state follow from whether it or its sweep is paused. A lease is not taken away by
    /// a pause: its worker is told to write a checkpoint and to give it back. Returns whether the state
    /// changed.
    fn refresh_pause(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) -> bool {
        let TrialRef { sweep: id, number } = trial_ref;
        let Some(sweep) = self.sweep_mut(id) else { return false };
        let Some(trial) = sweep.trials.get_mut(number) else { return false };
        let before = trial.state;
        let (paused, leased) = (trial.paused, trial.lease.is_some());
        let after = match sweep.waiting_state(paused) {
            TrialState::Pending if leased => TrialState::Running,
            waiting => waiting,
        };
        if after == before {
            return false;
        }
        sweep.set_state(id, number, after, out);
        if after == TrialState::Paused {
            sweep.make_unready(number);
            let reason = RevokeReason::Paused;
            let lease = sweep.trials.get_mut(number).and_then(|trial| trial.lease.as_mut());
            if lease.is_some_and(|lease| lease.revoked.replace(reason).is_none()) {
                // The others have nothing to keep that the first rank does not.
                self.dismiss(trial_ref, out);
                self.tell_holder_revoked(trial_ref, reason, out);
            }
        } else {
            sweep.make_ready(number);
        }
        true
    }

    /// Cancels a trial that has a record and is not final.
    fn cancel_open(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) -> bool {
        let reason = RevokeReason::Cancelled;
        self.tell_holder_revoked(trial_ref, reason, out);
        self.end_lease(trial_ref, AttemptEnd::Revoked { reason }, None, out);
        self.end_trial(trial_ref, TrialState::Cancelled, out);
        true
    }
}
