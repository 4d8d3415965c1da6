//! The whole state, and the small steps that every part of the engine takes on it. The parts are `impl State`
//! blocks in the files named after them.

use crate::{
    action::{Action, Record},
    config::Config,
    gang::Gang,
    import::ImportToken,
    interruptions::Interruptions,
    notices::WorkerNotice,
    placement::Placement,
    refs::{SessionId, SweepId, TrialRef, WorkerId},
    retention::Objects,
    sweep::Sweep,
    time::Time,
    trial::{Label, Trial},
    views::Totals,
    worker::Worker,
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::ids::{DeviceName, Incarnation, SweepName, WorkerName};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that the engine knows. Fields under `serde(skip)` follow from the others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) config: Config,
    /// Time of the newest event.
    pub(crate) now: Time,
    pub(crate) sweeps: Vec<Sweep>,
    /// Which submission made which sweep.
    pub(crate) tokens: BTreeMap<u128, SweepId>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) next_worker: u32,
    /// Workers that are gone, by when; at most [`crate::connection::REMEMBERED_WORKERS`].
    pub(crate) gone: BTreeSet<(Time, WorkerId)>,
    /// Every (worker name, device name) that a trial may have run on.
    pub(crate) labels: Vec<(WorkerName, DeviceName)>,
    /// Trials in back-off, by its end.
    pub(crate) delayed: BTreeSet<(Time, TrialRef)>,
    pub(crate) objects: Objects,
    pub(crate) totals: Totals,
    /// Of what workers were warned.
    pub(crate) notices: BTreeMap<WorkerId, WorkerNotice>,
    /// What was lost without notice.
    pub(crate) interruptions: Interruptions,
    /// Trials that several workers train together, while they have their lease.
    pub(crate) gangs: BTreeMap<TrialRef, Gang>,
    /// Sweeps whose trials wait for more workers than are idle, since when.
    pub(crate) short: BTreeMap<SweepId, Time>,
    /// Imports of which more is to come.
    pub(crate) imports: BTreeMap<ImportToken, SweepId>,
    #[serde(skip)]
    pub(crate) names: BTreeMap<SweepName, SweepId>,
    #[serde(skip)]
    pub(crate) incarnations: BTreeMap<Incarnation, WorkerId>,
    #[serde(skip)]
    pub(crate) sessions: BTreeMap<SessionId, WorkerId>,
    #[serde(skip)]
    pub(crate) label_index: BTreeMap<(WorkerName, DeviceName), Label>,
    #[serde(skip)]
    pub(crate) placement: Placement,
    /// Whether any sweep ever wanted gangs.
    #[serde(skip)]
    pub(crate) has_gangs: bool,
}

/// Where a step writes what is to be done, and the time at which it happens.
pub(crate) struct Out<'a> {
    pub(crate) at: Time,
    pub(crate) actions: &'a mut Vec<Action>,
}

impl Out<'_> {
    pub(crate) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(crate) fn record(&mut self, record: Record) {
        self.actions.push(Action::Record(record));
    }

    pub(crate) fn archive(&mut self, record: Record) {
        self.actions.push(Action::Archive(record));
    }
}

impl State {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            now: Time(0),
            sweeps: Vec::new(),
            tokens: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_worker: 0,
            gone: BTreeSet::new(),
            labels: Vec::new(),
            delayed: BTreeSet::new(),
            objects: Objects::default(),
            totals: Totals::default(),
            notices: BTreeMap::new(),
            interruptions: Interruptions::default(),
            gangs: BTreeMap::new(),
            short: BTreeMap::new(),
            imports: BTreeMap::new(),
            names: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            sessions: BTreeMap::new(),
            label_index: BTreeMap::new(),
            placement: Placement::default(),
            has_gangs: false,
        }
    }

    /// Makes what follows from the rest, after the rest was read from a snapshot.
    pub(crate) fn rebuild(&mut self) {
        for (id, sweep) in (0..).map(SweepId).zip(&self.sweeps) {
            if sweep.has_name() {
                self.names.insert(sweep.name.clone(), id);
            }
            self.has_gangs |= sweep.spec.resources.workers.is_gang();
            for trial in sweep.trials.iter() {
                for kept in &trial.kept {
                    self.objects.count_kept(&kept.reference);
                }
            }
        }
        for (&id, worker) in &self.workers {
            self.incarnations.insert(worker.incarnation, id);
            if let Some(session) = worker.session() {
                self.sessions.insert(session, id);
            }
        }
        for (label, names) in (0..).zip(&self.labels) {
            self.label_index.insert(names.clone(), label);
        }
        let workers: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in workers {
            self.offer(id);
        }
        for id in 0..self.sweeps.len() {
            self.requeue(sweep_id(id));
        }
    }

    pub(crate) fn sweep_mut(&mut self, id: SweepId) -> Option<&mut Sweep> {
        self.sweeps.get_mut(id.0 as usize)
    }

    pub(crate) fn sweep(&self, id: SweepId) -> Option<&Sweep> {
        self.sweeps.get(id.0 as usize)
    }

    pub(crate) fn trial_mut(&mut self, trial: TrialRef) -> Option<&mut Trial> {
        self.sweep_mut(trial.sweep)?.trials.get_mut(trial.number)
    }

    pub(crate) fn trial(&self, trial: TrialRef) -> Option<&Trial> {
        self.sweep(trial.sweep)?.trials.get(trial.number)
    }

    /// The number under which this worker and device are remembered.
    #[expect(clippy::cast_possible_truncation, reason = "four billion different devices do not fit memory")]
    pub(crate) fn label(&mut self, worker: &WorkerName, device: &DeviceName) -> Label {
        let names = (worker.clone(), device.clone());
        if let Some(label) = self.label_index.get(&names) {
            return *label;
        }
        let label = self.labels.len() as Label;
        self.label_index.insert(names.clone(), label);
        self.labels.push(names);
        label
    }
}

/// The id of the sweep at this place.
#[expect(clippy::cast_possible_truncation, reason = "their number is limited by Config::max_sweeps")]
pub(crate) fn sweep_id(index: usize) -> SweepId {
    SweepId(index as u32)
}
