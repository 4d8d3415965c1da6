//! Why a trial is where it is, in words. Looks at the state and never changes it.

mod words;

pub use words::{lost_words, unreadable_words};

use crate::{
    action::{RevokeReason, TrialState},
    engine::Engine,
    event::DeviceKind,
    gang::{Phase, Seat},
    placement::Demand,
    refs::{SweepId, TrialRef},
    state::State,
    sweep::{Lane, Sweep},
    time::Time,
    trial::Trial,
    views::FailureView,
};
use spotsweep_proto::{
    catalogue::own::{OwnItem, OwnItemKind},
    ids::{DeviceName, SweepName, WorkerName},
    notice::Notice,
};
use std::collections::BTreeMap;

/// Why a trial waits, runs, or ended, and what happened to it before. `Display` is what people read.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The trial.
    pub trial: TrialRef,
    /// Name of its sweep.
    pub sweep: SweepName,
    /// Its state.
    pub state: TrialState,
    /// When this was asked; times are given relative to it.
    pub now: Time,
    /// The reason.
    pub reason: Reason,
    /// The kind of device to which it is bound, and why it would not go elsewhere.
    pub bound_to: Option<DeviceKind>,
    /// How its newest attempts ended, oldest first.
    pub ends: Vec<EndView>,
    /// Attempts that started.
    pub attempts: u32,
    /// How its latest failure came about, where `reason` does not say so already.
    pub last_failure: Option<FailureView>,
}

/// Why a trial is in its state.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// No worker is connected.
    NoWorker {
        /// Workers that were connected and may come back.
        away: usize,
        /// Workers that are connected and leave after a notice.
        draining: usize,
    },
    /// Workers are connected, but none has such a device.
    NoDevice {
        /// What the trial needs.
        need: Need,
        /// What there is: kind, bytes of memory, how many.
        there: Vec<(DeviceKind, u64, u32)>,
    },
    /// Devices would fit, but their workers have no trainer for the models of the catalogue.
    NoTrainer {
        /// Such devices.
        devices: u32,
    },
    /// Devices would fit, but no trainer of their workers has all models and data sets that the sweep uses.
    UnknownToTrainers {
        /// Such devices.
        devices: u32,
        /// What no connected worker's trainer has: kind and name, and whether one has another of that name.
        missing: Vec<(OwnItemKind, String, bool)>,
    },
    /// Every fitting device is taken.
    Busy {
        /// Fitting devices.
        devices: u32,
        /// Leases on them.
        leases: u32,
        /// A sweep of higher priority that waits for them as well.
        outranked_by: Option<(SweepName, i32)>,
        /// Trials of the same sweep that go before.
        before_it: u32,
    },
    /// It is trained by several workers, and fewer are idle.
    Gathers {
        /// How many it needs at once.
        workers: u32,
        /// Workers with a device that fits.
        devices: u32,
        /// Of those, idle ones.
        idle: u32,
        /// It has waited so long that what becomes idle is kept for it.
        kept: bool,
    },
    /// The only free device belongs to the worker on which it just failed, and another could take it.
    Avoids {
        /// That worker.
        worker: WorkerName,
    },
    /// It failed and is tried again after a while.
    BackOff {
        /// When.
        until: Time,
        /// Failures so far.
        failures: u32,
        /// Failures after which it is given up.
        max_failures: u32,
        /// The latest.
        failure: Option<FailureView>,
    },
    /// It is paused.
    Paused {
        /// Because its sweep is.
        sweep: bool,
        /// It still has its lease: this worker writes a checkpoint and gives it back.
        stopping_on: Option<WorkerName>,
    },
    /// It has a lease.
    Leased {
        /// Where.
        worker: WorkerName,
        /// On what.
        device: DeviceName,
        /// When the attempt started; none if it waits on the worker for the device.
        started_at: Option<Time>,
        /// Last step reported.
        step: u64,
        /// Of how many; 0 if unknown.
        total_steps: u64,
        /// The worker's connection is broken since then.
        disconnected_since: Option<Time>,
        /// The worker was told to give it back, and did not yet.
        revoked: Option<RevokeReason>,
        /// Of what the worker was warned.
        notice: Option<Notice>,
        /// The workers that train it together.
        gang: Option<GangView>,
    },
    /// It has its result.
    Completed,
    /// The sweep reached its target before it started.
    Stopped {
        /// Trial and value that reached it.
        best: Option<(u32, f64)>,
    },
    /// It failed for good.
    Failed {
        /// Failures.
        failures: u32,
        /// Failures after which a trial is given up.
        max_failures: u32,
        /// The last.
        failure: Option<FailureView>,
    },
    /// A person cancelled it.
    Cancelled {
        /// With its sweep.
        sweep: bool,
    },
}

/// The workers of a gang, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GangView {
    /// Number of its make-up; 0 before the first.
    pub make_up: u64,
    /// By rank.
    pub ranks: Vec<WorkerName>,
    /// Those that prepare.
    pub joining: Vec<WorkerName>,
    /// Those that leave behind the next step.
    pub leaving: Vec<WorkerName>,
    /// How it stands, in a word.
    pub stands: &'static str,
}

/// What a trial needs of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// A kind, or any.
    pub kind: Option<DeviceKind>,
    /// Bytes of memory; 0 for any.
    pub memory_bytes: u64,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndView {
    /// Which, from 1.
    pub attempt: u32,
    /// Where it ran, how far it came, and how it ended, in words.
    pub what: String,
    /// Where it ran.
    pub worker: WorkerName,
    /// On what.
    pub device: DeviceName,
    /// Last step known.
    pub step: u64,
    /// When.
    pub at: Time,
}

impl Engine {
    /// Why a trial waits, runs or ended; `None` if there is no such trial.
    #[must_use]
    pub fn explain(&self, trial_ref: TrialRef, now: Time) -> Option<Explanation> {
        let state = &self.state;
        let sweep = state.sweep(trial_ref.sweep)?;
        let shown = sweep.state_of(trial_ref.number)?;
        let trial = sweep.trials.get(trial_ref.number);
        let reason = match shown {
            TrialState::Pending => state.why_pending(trial_ref, sweep, trial),
            TrialState::Running => state.why_running(trial_ref, trial?)?,
            TrialState::Paused => Reason::Paused {
                sweep: sweep.paused,
                stopping_on: trial
                    .and_then(|trial| trial.lease.as_ref())
                    .and_then(|lease| Some(state.workers.get(&lease.worker)?.name.clone())),
            },
            TrialState::Completed => Reason::Completed,
            TrialState::Stopped => {
                Reason::Stopped { best: sweep.best.map(|(number, best)| (number, best.value)) }
            }
            TrialState::Failed | TrialState::Diverged => Reason::Failed {
                failures: trial?.failures,
                max_failures: sweep.spec.retry.max_failures,
                failure: state.latest_failure(trial?),
            },
            TrialState::Cancelled => Reason::Cancelled { sweep: sweep.cancelled },
        };
        let history = trial.and_then(|trial| trial.history.as_ref());
        let ends = history.map(|history| history.ends.iter()).into_iter().flatten();
        let ends = ends.filter_map(|note| {
            let (worker, device) = state.names_of(note.label)?.clone();
            let what = words::of_end(note.end, &worker, &device, note.step);
            Some(EndView { attempt: note.attempt, what, worker, device, step: note.step, at: note.at })
        });
        let said = matches!(reason, Reason::BackOff { .. } | Reason::Failed { .. });
        let last_failure = trial.filter(|_| !said).and_then(|trial| state.latest_failure(trial));
        Some(Explanation {
            trial: trial_ref,
            sweep: sweep.name.clone(),
            state: shown,
            now,
            reason,
            bound_to: trial.and_then(|trial| trial.kind).filter(|_| !shown.is_final()),
            ends: ends.collect(),
            attempts: trial.map_or(0, |trial| trial.attempts),
            last_failure,
        })
    }
}

impl State {
    fn latest_failure(&self, trial: &Trial) -> Option<FailureView> {
        self.failure_view(trial.history.as_ref()?.failure.as_ref()?)
    }

    fn gang_view(&self, trial_ref: TrialRef) -> Option<GangView> {
        let gang = self.gangs.get(&trial_ref)?;
        let names = |seats: &[Seat]| {
            seats.iter().filter_map(|seat| Some(self.workers.get(&seat.worker)?.name.clone())).collect()
        };
        Some(GangView {
            make_up: gang.generation.0,
            ranks: names(&gang.ranks),
            joining: names(&gang.joining),
            leaving: names(&gang.leaving),
            stands: match gang.phase {
                Phase::Broken if gang.is_stopping() => "stops what is left",
                Phase::Gathering | Phase::Forming => "connects",
                Phase::Formed => "trains",
                Phase::Broken => "lost a worker: looks who is left",
                Phase::Short => "lost workers: waits for others",
            },
        })
    }

    fn why_running(&self, trial_ref: TrialRef, trial: &Trial) -> Option<Reason> {
        let lease = trial.lease.as_ref()?;
        let worker = self.workers.get(&lease.worker)?;
        Some(Reason::Leased {
            worker: worker.name.clone(),
            device: worker.devices.get(usize::from(lease.device))?.device.name.clone(),
            started_at: lease.started_at,
            step: trial.step,
            total_steps: trial.total_steps,
            disconnected_since: match worker.link {
                crate::worker::Link::Broken { since, .. } => Some(since),
                crate::worker::Link::Connected { .. } | crate::worker::Link::Gone { .. } => None,
            },
            revoked: lease.revoked,
            notice: self.notices.get(&lease.worker).map(|known| known.notice.clone()),
            gang: self.gang_view(trial_ref),
        })
    }

    /// No trainer has all of what a sweep uses.
    fn why_unknown(&self, sweep: SweepId, devices: u32) -> Reason {
        let there = || self.workers.iter().filter(|(id, worker)| self.takes_leases(**id, worker));
        let known = |item: &OwnItem| there().any(|(_, worker)| worker.knows.contains(item));
        let named = |item: &OwnItem| {
            there().any(|(_, worker)| {
                worker.knows.iter().any(|other| (other.kind, &other.name) == (item.kind, &item.name))
            })
        };
        let missing = self.placement.needs(sweep).filter(|item| !known(item));
        let missing = missing.map(|item| (item.kind, item.name.clone(), named(item))).collect();
        Reason::UnknownToTrainers { devices, missing }
    }

    fn why_pending(&self, trial_ref: TrialRef, sweep: &Sweep, trial: Option<&Trial>) -> Reason {
        if let Some(trial) = trial
            && trial.retry_at != Time(0)
        {
            return Reason::BackOff {
                until: trial.retry_at,
                failures: trial.failures,
                max_failures: sweep.spec.retry.max_failures,
                failure: self.latest_failure(trial),
            };
        }
        let any = Demand { lane: Lane::Any, memory_bytes: 0, trainer: false, own: None };
        let demand = self.demand_of(trial_ref).unwrap_or(any);
        let mut there: BTreeMap<(u8, u64), (DeviceKind, u32)> = BTreeMap::new();
        let (mut devices, mut leases, mut free, mut without_trainer, mut without_own) = (0, 0, 0, 0, 0);
        let workers = self.workers.iter().filter(|(id, worker)| self.takes_leases(**id, worker));
        for (worker, slot) in
            workers.flat_map(|(_, worker)| worker.devices.iter().map(move |slot| (worker, slot)))
        {
            let kind = slot.device.kind;
            let key = (u8::from(kind == DeviceKind::Cuda), slot.device.memory_bytes);
            there.entry(key).or_insert((kind, 0)).1 += 1;
            let fits = |demand| self.placement.fits(demand, worker, &slot.device);
            without_trainer += u32::from(fits(Demand { trainer: false, own: None, ..demand }));
            without_own += u32::from(fits(Demand { own: None, ..demand }));
            if fits(demand) {
                devices += 1;
                leases += slot.load;
                free += u32::from(slot.credits > 0);
            }
        }
        if there.is_empty() {
            let present = self.workers.iter().filter(|(_, worker)| !worker.is_gone());
            let (leaving, away): (Vec<_>, Vec<_>) =
                present.partition(|(id, worker)| worker.is_heard() && self.interruption_of(**id).is_some());
            return Reason::NoWorker { away: away.len(), draining: leaving.len() };
        }
        if devices == 0 && without_own > 0 {
            return self.why_unknown(trial_ref.sweep, without_own);
        }
        if devices == 0 && without_trainer > 0 {
            return Reason::NoTrainer { devices: without_trainer };
        }
        if devices == 0 {
            let there = there.into_iter().map(|((_, memory), (kind, count))| (kind, memory, count));
            return Reason::NoDevice { need: need_of(demand), there: there.collect() };
        }
        let workers = sweep.spec.resources.workers;
        if workers.is_gang()
            && self.gang_slots(demand, workers.min as usize, workers.max as usize, &[]).is_none()
        {
            let idle = u32::try_from(self.placement.idle_unnoticed(demand)).unwrap_or(u32::MAX);
            let kept = self.is_reserved(demand);
            return Reason::Gathers { workers: workers.min, devices, idle, kept };
        }
        let avoided = trial.and_then(|trial| self.workers.get(&trial.avoid?));
        if let (Some(worker), true) = (avoided, free > 0) {
            return Reason::Avoids { worker: worker.name.clone() };
        }
        let waits = |other: &Sweep| other.has_fresh() || other.ready.iter().any(|lane| !lane.is_empty());
        let outranked_by = self
            .sweeps
            .iter()
            .filter(|other| other.spec.priority > sweep.spec.priority && waits(other))
            .max_by_key(|other| other.spec.priority)
            .map(|other| (other.name.clone(), other.spec.priority));
        let ready: usize = match trial {
            Some(_) => sweep.ready.iter().map(|lane| lane.range(..trial_ref.number).count()).sum(),
            None => sweep.ready.iter().map(std::collections::BTreeSet::len).sum(),
        };
        let fresh = if trial.is_none() { trial_ref.number - sweep.trials.len() } else { 0 };
        let before_it = u32::try_from(ready).unwrap_or(u32::MAX).saturating_add(fresh);
        Reason::Busy { devices, leases, outranked_by, before_it }
    }
}

fn need_of(Demand { lane, memory_bytes, trainer: _, own: _ }: Demand) -> Need {
    let kind = match lane {
        Lane::Any => None,
        Lane::Cpu => Some(DeviceKind::Cpu),
        Lane::Cuda => Some(DeviceKind::Cuda),
    };
    Need { kind, memory_bytes }
}
