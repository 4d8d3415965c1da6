//! The engine's outside: `step`, the snapshot, and the questions that may be asked.

use crate::{
    action::{Action, Grant, Record, Refusal, Reply, TrialState},
    config::Config,
    event::{Event, FORMAT_VERSION, Hello, Report, ReportBatch, ReportBody},
    explain::Explanation,
    refs::{SessionId, SweepId, TrialRef, WorkerId},
    time::Time,
    views::{Counts, SweepState, SweepView, Totals, TrialView, WorkerView},
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{
    digest::Digest,
    ids::{Epoch, SweepName},
    spec::SweepSpec,
};
use std::{collections::BTreeMap, sync::Arc};

/// Why bytes are no snapshot of an engine.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Too short to carry a version.
    #[error("the snapshot is cut short")]
    Short,
    /// Written by another version of this program.
    #[error("the snapshot has format {found}, this program reads {FORMAT_VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The state cannot be read.
    #[error("the snapshot cannot be read")]
    Decode(#[source] postcard::Error),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sweep {
    name: SweepName,
    spec: Arc<SweepSpec>,
    at: Time,
    states: Vec<(TrialState, u64)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Worker {
    hello: Box<Hello>,
    credits: Vec<u32>,
    seq: u64,
}

/// The whole state of a coordinator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Engine {
    config: Config,
    sweeps: Vec<Sweep>,
    workers: BTreeMap<SessionId, Worker>,
}

impl Engine {
    /// An empty one. The configuration becomes part of the state, so a journal without a snapshot must be
    /// replayed under the configuration with which it was begun.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, sweeps: Vec::new(), workers: BTreeMap::new() }
    }

    /// Takes one event in and appends what is to be done about it. Never fails: an event that makes no sense
    /// in the present state (a late message of a connection that is over) changes nothing.
    pub fn step(&mut self, at: Time, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Submit { request, token: _, spec } => {
                let sweep = SweepId(u32::try_from(self.sweeps.len()).unwrap_or(u32::MAX));
                let name = spec.name.clone();
                let states = vec![(TrialState::Pending, 0); spec.trials() as usize];
                self.sweeps.push(Sweep { name: name.clone(), spec: Arc::from(spec), at, states });
                actions.push(Action::Record(Record::Sweep { sweep, name: name.clone(), at }));
                actions.push(Action::Reply {
                    request,
                    outcome: Ok(Reply::Submitted { sweep, name, new: true }),
                });
            }
            Event::Control { request, .. } => {
                actions.push(Action::Reply { request, outcome: Err(Refusal::NoSweep) });
            }
            Event::Joined { session, hello } => {
                let credits = vec![0; hello.devices.len()];
                self.workers.insert(session, Worker { hello, credits, seq: 0 });
                let worker = WorkerId(0);
                actions.push(Action::Welcome { session, worker, applied_seq: 0, keep: Vec::new() });
            }
            Event::Ready { session, device, credits } => {
                if let Some(slot) =
                    self.workers.get_mut(&session).and_then(|w| w.credits.get_mut(usize::from(device)))
                {
                    *slot = credits;
                }
            }
            Event::Reports { session, batch } => self.reports(at, session, batch, actions),
            Event::Disconnected { session } | Event::Left { session } => {
                self.workers.remove(&session);
            }
            Event::Tick { heard } => {
                for session in heard {
                    let expires_at = at.after_s(self.config.lease_s);
                    actions.push(Action::Renew { session, expires_at });
                }
            }
            Event::Restarted => self.workers.clear(),
        }
        self.place(at, actions);
    }

    fn reports(&mut self, at: Time, session: SessionId, batch: ReportBatch, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(&session) else { return };
        worker.seq = batch.first_seq + batch.reports.len() as u64 - 1;
        for Report { trial, epoch: _, body } in batch.reports {
            let Some(slot) = self
                .sweeps
                .get_mut(trial.sweep.0 as usize)
                .and_then(|sweep| sweep.states.get_mut(trial.number as usize))
            else {
                continue;
            };
            if let ReportBody::Finished { step, metrics, weights_digest, seconds } = body {
                let metrics = metrics
                    .into_iter()
                    .map(|(i, v)| (batch.metric_names[usize::from(i)].clone(), v))
                    .collect();
                let device = worker.hello.devices[0].name.clone();
                *slot = (TrialState::Completed, slot.1);
                actions.push(Action::Record(Record::Result {
                    trial,
                    steps: step,
                    metrics,
                    weights_digest,
                    device,
                    seconds,
                }));
                let state = TrialState::Completed;
                actions.push(Action::Record(Record::Trial { trial, state, attempts: 1, at }));
            }
        }
        actions.push(Action::Acknowledge { session, seq: worker.seq });
    }

    fn place(&mut self, at: Time, actions: &mut Vec<Action>) {
        for (session, worker) in &mut self.workers {
            for (device, credits) in worker.credits.iter_mut().enumerate() {
                for (id, sweep) in self.sweeps.iter_mut().enumerate() {
                    for (number, slot) in sweep.states.iter_mut().enumerate() {
                        if *credits == 0 || slot.0 != TrialState::Pending {
                            continue;
                        }
                        *credits -= 1;
                        *slot = (TrialState::Running, slot.1 + 1);
                        let trial = TrialRef { sweep: SweepId(id as u32), number: number as u32 };
                        let expires_at = at.after_s(self.config.lease_s);
                        let grant =
                            Grant { trial, epoch: Epoch(slot.1), attempt: 1, expires_at, resume: None };
                        actions.push(Action::Grant { session: *session, device: device as u16, grant });
                    }
                }
            }
        }
    }

    /// The state as bytes, with [`FORMAT_VERSION`] in front.
    #[must_use]
    #[expect(clippy::expect_used, reason = "writing to memory does not fail, and every field serialises")]
    pub fn snapshot(&self) -> Vec<u8> {
        let head = FORMAT_VERSION.to_le_bytes().to_vec();
        postcard::to_extend(self, head).expect("the state serialises")
    }

    /// The engine whose state these bytes are.
    ///
    /// # Errors
    /// [`RestoreError`] if they are no snapshot of this version.
    pub fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        let (head, body) = bytes.split_first_chunk::<4>().ok_or(RestoreError::Short)?;
        let found = u32::from_le_bytes(*head);
        if found != FORMAT_VERSION {
            return Err(RestoreError::Version { found });
        }
        postcard::from_bytes(body).map_err(RestoreError::Decode)
    }

    /// Digest of the state: equal for engines that took the same events.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.snapshot())
    }

    /// Whether anything waits for time to pass, so that [`Event::Tick`] is wanted about once a second.
    #[must_use]
    pub fn wants_tick(&self) -> bool {
        !self.workers.is_empty()
    }

    /// The earliest moment at which a tick would change something besides renewing leases.
    #[must_use]
    pub fn next_due(&self) -> Option<Time> {
        None
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counters of the whole engine.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals::default()
    }

    /// All sweeps, in order of submission.
    pub fn sweeps(&self) -> impl Iterator<Item = SweepView> + '_ {
        (0..self.sweeps.len()).filter_map(|id| self.sweep(SweepId(id as u32)))
    }

    /// One sweep.
    #[must_use]
    pub fn sweep(&self, id: SweepId) -> Option<SweepView> {
        let sweep = self.sweeps.get(id.0 as usize)?;
        let mut counts = Counts::default();
        for (state, _) in &sweep.states {
            *counts.get_mut(*state) += 1;
        }
        let trials = sweep.states.len() as u32;
        Some(SweepView {
            id,
            name: sweep.name.clone(),
            spec: sweep.spec.clone(),
            state: if counts.ended() == trials { SweepState::Completed } else { SweepState::Running },
            submitted_at: sweep.at,
            ended_at: None,
            trials,
            counts,
            leases: counts.running,
            best: None,
            target_reached: false,
            stale_reports: 0,
        })
    }

    /// The sweep of that name.
    #[must_use]
    pub fn sweep_by_name(&self, name: &SweepName) -> Option<SweepView> {
        let id = self.sweeps.iter().position(|sweep| sweep.name == *name)?;
        self.sweep(SweepId(id as u32))
    }

    /// One trial.
    #[must_use]
    pub fn trial(&self, trial: TrialRef) -> Option<TrialView> {
        let &(state, epoch) = self.sweeps.get(trial.sweep.0 as usize)?.states.get(trial.number as usize)?;
        Some(TrialView {
            trial,
            state,
            attempts: u32::from(epoch > 0),
            failures: 0,
            interruptions: 0,
            epoch: Epoch(epoch),
            step: 0,
            total_steps: None,
            objective: None,
            best: None,
            place: None,
            checkpoints: Vec::new(),
            retry_at: None,
            seconds: 0.0,
            last_failure: None,
        })
    }

    /// All workers that are not forgotten, by number.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> + '_ {
        std::iter::empty()
    }

    /// Why a trial waits, runs or ended.
    #[must_use]
    pub fn explain(&self, trial: TrialRef, now: Time) -> Option<Explanation> {
        Some(Explanation { trial, state: self.trial(trial)?.state, now })
    }
}
