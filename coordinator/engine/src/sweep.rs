//! What the engine remembers of one sweep: its trials, how many are in which state, which of them wait.
//!
//! Trials that never had a lease have no record: all numbers from `trials.len()` on share the state `rest`,
//! except those that a person paused or cancelled one by one, which stand in `ahead`.

use crate::{
    action::{Record, TrialState},
    event::DeviceKind,
    import::Import,
    refs::{SweepId, TrialRef},
    state::Out,
    time::Time,
    trial::{Trial, TrialTable},
    views::{Best, Counts, SweepState},
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{
    ids::SweepName,
    spec::{DeviceRequest, SweepSpec},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Trials that accept the same kinds of device. A sweep has up to three, because a trial that has bits of one
/// kind stays on that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Any,
    Cpu,
    Cuda,
}

impl Lane {
    pub(crate) const ALL: [Self; 3] = [Self::Any, Self::Cpu, Self::Cuda];

    pub(crate) fn of(request: DeviceRequest, bits: Option<DeviceKind>) -> Self {
        match (bits, request) {
            (Some(DeviceKind::Cpu), _) | (None, DeviceRequest::Cpu) => Self::Cpu,
            (Some(DeviceKind::Cuda), _) | (None, DeviceRequest::Cuda) => Self::Cuda,
            (None, DeviceRequest::Any) => Self::Any,
        }
    }

    /// Whether it takes all that the other takes.
    pub(crate) fn includes(self, other: Self) -> bool {
        self == Self::Any || self == other
    }
}

/// Place in the queue: higher priority first, then the sweep with fewer leases (fair share), then the older
/// sweep, and within a sweep the lane that holds trials which ran before.
pub(crate) type QueueKey = (Reverse<i32>, u32, SweepId, bool, Lane);

/// A sweep.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sweep {
    pub(crate) name: SweepName,
    #[serde(with = "crate::spec_json")]
    pub(crate) spec: Arc<SweepSpec>,
    pub(crate) submitted_at: Time,
    pub(crate) ended_at: Option<Time>,
    /// How many trials there are.
    pub(crate) total: u32,
    /// Records of trials 0..len.
    pub(crate) trials: TrialTable,
    /// State of the trials behind them.
    pub(crate) rest: TrialState,
    /// Exceptions among those: paused or cancelled by themselves.
    pub(crate) ahead: BTreeMap<u32, TrialState>,
    /// Of all trials, those without a record as well.
    pub(crate) counts: Counts,
    pub(crate) paused: bool,
    pub(crate) cancelled: bool,
    pub(crate) target_reached: bool,
    /// Leases held by workers.
    pub(crate) leases: u32,
    pub(crate) best: Option<(u32, Best)>,
    pub(crate) stale_reports: u64,
    /// Trials with a record that are not final.
    pub(crate) open: BTreeSet<u32>,
    /// Of those, the ones that wait for a worker and nothing else, by lane.
    pub(crate) ready: [BTreeSet<u32>; 3],
    /// Where it comes from, if it was imported.
    pub(crate) import: Option<Box<Import>>,
    /// Where its lanes stand in the queues; rebuilt after a restore.
    #[serde(skip)]
    pub(crate) queued: [Option<QueueKey>; 3],
}

impl Sweep {
    pub(crate) fn new(name: SweepName, spec: Arc<SweepSpec>, at: Time) -> Self {
        let total = spec.trials();
        Self {
            name,
            spec,
            submitted_at: at,
            ended_at: None,
            total,
            trials: TrialTable::default(),
            rest: TrialState::Pending,
            ahead: BTreeMap::new(),
            counts: Counts { pending: total, ..Counts::default() },
            paused: false,
            cancelled: false,
            target_reached: false,
            leases: 0,
            best: None,
            stale_reports: 0,
            open: BTreeSet::new(),
            ready: Default::default(),
            import: None,
            queued: [None; 3],
        }
    }

    pub(crate) fn state(&self) -> SweepState {
        match (self.ended_at, self.cancelled, self.paused) {
            (Some(_), true, _) => SweepState::Cancelled,
            (Some(_), false, _) => SweepState::Completed,
            (None, _, true) => SweepState::Paused,
            (None, _, false) => SweepState::Running,
        }
    }

    /// Whether its trials need a trainer that has more than Spotsweep has.
    pub(crate) fn own(&self) -> bool {
        self.spec.program.is_none() && !self.spec.train.own.is_empty()
    }

    /// The visible state of any trial of the sweep.
    pub(crate) fn state_of(&self, number: u32) -> Option<TrialState> {
        if number >= self.total {
            return None;
        }
        Some(match self.trials.get(number) {
            Some(trial) => trial.state,
            None => self.ahead.get(&number).copied().unwrap_or(self.rest),
        })
    }

    /// The lane of trials that never ran.
    pub(crate) fn fresh_lane(&self) -> Lane {
        Lane::of(self.spec.resources.device, None)
    }

    /// Whether there is a trial without a record that may start. The first such is number `trials.len()`.
    pub(crate) fn has_fresh(&self) -> bool {
        self.rest == TrialState::Pending && self.trials.len() < self.total
    }

    /// Gives the next trial a record, and then those behind it that are exceptions, so that the trial behind
    /// the last record is never one.
    pub(crate) fn open_next(&mut self) -> u32 {
        let number = self.trials.len();
        self.trials.push(Trial::new(self.rest));
        self.open.insert(number);
        self.pass_exceptions();
        number
    }

    /// Gives records to exceptions that stand directly behind the last record.
    pub(crate) fn pass_exceptions(&mut self) {
        while let Some(state) = self.ahead.remove(&self.trials.len()) {
            let number = self.trials.len();
            let mut trial = Trial::new(state);
            trial.paused = state == TrialState::Paused;
            if !state.is_final() {
                self.open.insert(number);
            }
            self.trials.push(trial);
        }
    }

    /// What a trial without a lease that is not final shows.
    pub(crate) fn waiting_state(&self, paused: bool) -> TrialState {
        if paused || self.paused { TrialState::Paused } else { TrialState::Pending }
    }

    /// Changes the state of all trials that have no record. A final state takes those paused one by one along.
    /// Returns how many changed.
    pub(crate) fn set_rest(&mut self, id: SweepId, state: TrialState, out: &mut Out<'_>) -> u32 {
        if self.rest == state {
            return 0;
        }
        let behind = self.total - self.trials.len();
        #[expect(clippy::cast_possible_truncation, reason = "fewer than the sweep's trials")]
        let unexcepted = behind - self.ahead.len() as u32;
        let mut changed = unexcepted;
        *self.counts.get_mut(self.rest) -= unexcepted;
        if state.is_final() {
            #[expect(clippy::cast_possible_truncation, reason = "fewer than the sweep's trials")]
            let paused = self.ahead.values().filter(|state| **state == TrialState::Paused).count() as u32;
            self.ahead.retain(|_, state| *state != TrialState::Paused);
            *self.counts.get_mut(TrialState::Paused) -= paused;
            changed += paused;
        }
        *self.counts.get_mut(state) += changed;
        self.rest = state;
        let mut from = self.trials.len();
        for until in self.ahead.keys().copied().chain([self.total]) {
            if from < until {
                out.record(Record::Trials { sweep: id, from, until, state, at: out.at });
            }
            from = until + 1;
        }
        changed
    }

    /// Changes the visible state of a trial that has a record, and says so.
    pub(crate) fn set_state(&mut self, id: SweepId, number: u32, state: TrialState, out: &mut Out<'_>) {
        let Some(trial) = self.trials.get_mut(number) else { return };
        if trial.state == state {
            return;
        }
        debug_assert!(!trial.state.is_final(), "a final state never changes");
        *self.counts.get_mut(trial.state) -= 1;
        *self.counts.get_mut(state) += 1;
        trial.state = state;
        let trial_ref = TrialRef { sweep: id, number };
        out.record(Record::Trial { trial: trial_ref, state, attempts: trial.attempts, at: out.at });
        if state.is_final() {
            trial.shrink();
            self.open.remove(&number);
        }
    }

    /// Ends the sweep if its last trial is final.
    pub(crate) fn end_if_over(&mut self, id: SweepId, out: &mut Out<'_>) {
        if self.ended_at.is_none() && self.counts.ended() == self.total {
            self.ended_at = Some(out.at);
            out.record(Record::SweepState { sweep: id, state: self.state(), at: out.at });
        }
    }

    /// Puts a trial that waits for a worker and nothing else into its lane.
    pub(crate) fn make_ready(&mut self, number: u32) {
        if let Some(trial) = self.trials.get(number)
            && trial.state == TrialState::Pending
            && trial.lease.is_none()
            && trial.retry_at == Time(0)
        {
            let lane = Lane::of(self.spec.resources.device, trial.kind);
            self.ready[lane as usize].insert(number);
        }
    }

    /// Takes a trial out of its lane, if it stands in one.
    pub(crate) fn make_unready(&mut self, number: u32) {
        for lane in &mut self.ready {
            lane.remove(&number);
        }
    }
}
