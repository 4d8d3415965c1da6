//! What the agent holds and what follows from what happens: leases, queues, credits, reports. Time comes in,
//! messages and commands go out, and no IO but for the report log's spilling; [`crate::agent`] carries them.

mod leaving;

use crate::{
    attempt::{Attempt, LeaseKey, ReportBody, Sweep, SweepNumber},
    attempt_log::AttemptLogs,
    gang::{GangPlace, GangWord, Gangs},
    pace::Pace,
    reports::{Due, ReportLog},
    trainer::{HowToStop, TrainerEvent},
    wire::{Grant, RevokeReason},
};
use leaving::untouched;
use spotsweep_proto::{
    gang::{Generation, StoreValue},
    ids::DeviceName,
};
use spotsweep_wire::v1;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// A lease that waits behind a job running for longer than this is given back, so that an idle worker gets it.
const WAIT_LIMIT: Duration = Duration::from_secs(1);

/// What a trainer shall do.
#[derive(Debug)]
pub(crate) enum Command {
    Start {
        device: usize,
        attempt: Attempt,
    },
    /// This one comes next.
    Prepare {
        device: usize,
        attempt: Attempt,
    },
    Stop {
        device: usize,
        lease: LeaseKey,
        how: HowToStop,
    },
    Regang {
        device: usize,
        lease: LeaseKey,
        place: GangPlace,
    },
    Answer {
        device: usize,
        lease: LeaseKey,
        id: u64,
        value: Option<StoreValue>,
    },
}

/// What the coordinator shall hear.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Reports(v1::ReportBatch),
    Ready(v1::Ready),
    Gang(GangWord),
}

/// A message that breaks the contract.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("a lease for device {device} of {devices}")]
    Device { device: usize, devices: usize },
    #[error("a lease of sweep {0}, of which nothing was said before")]
    Sweep(u32),
}

struct Slot {
    name: DeviceName,
    queue: VecDeque<Attempt>,
    running: Option<Running>,
    pace: Pace,
    /// Leases asked for that have not come yet, as far as this connection is concerned.
    outstanding: u32,
    available: bool,
}

struct Running {
    lease: LeaseKey,
    since: Instant,
    stopping: Option<HowToStop>,
    /// Its newest place in a gang, if it is in one.
    gang: Option<GangPlace>,
    /// While the agent drains: until when its gang may let it go, and by when it is stopped else.
    patience: Option<(Instant, Instant)>,
}

impl Running {
    /// Whether its trial goes on without it once the coordinator knows that it leaves.
    fn has_peers(&self) -> bool {
        self.gang.as_ref().is_some_and(GangPlace::has_peers)
    }

    fn is_newer(&self, generation: Generation) -> bool {
        self.gang.as_ref().is_some_and(|known| generation > known.generation)
    }
}

impl Slot {
    /// Whether it trains under this lease and anybody still wants to hear of it.
    fn is_at_work_on(&self, lease: LeaseKey) -> bool {
        let discarded = |running: &Running| running.stopping == Some(HowToStop::Discard);
        self.running.as_ref().is_some_and(|running| running.lease == lease && !discarded(running))
    }

    fn held(&self) -> usize {
        self.queue.len() + usize::from(self.running.is_some())
    }
}

/// State of one agent.
pub(crate) struct Session {
    slots: Vec<Slot>,
    sweeps: HashMap<SweepNumber, Arc<Sweep>>,
    store_url: Arc<str>,
    data_url: Arc<str>,
    log: ReportLog,
    attempt_logs: AttemptLogs,
    gangs: Gangs,
    connected: bool,
    draining: bool,
    commands: VecDeque<Command>,
}

impl Session {
    /// `scratch` is a folder for reports that memory has no room for.
    pub(crate) fn new(devices: impl IntoIterator<Item = DeviceName>, scratch: Option<&Path>) -> Self {
        let slot = |name| Slot {
            name,
            queue: VecDeque::new(),
            running: None,
            pace: Pace::new(),
            outstanding: 0,
            available: true,
        };
        Self {
            slots: devices.into_iter().map(slot).collect(),
            sweeps: HashMap::new(),
            store_url: "".into(),
            data_url: "".into(),
            log: ReportLog::new(scratch),
            attempt_logs: AttemptLogs::default(),
            gangs: Gangs::default(),
            connected: false,
            draining: false,
            commands: VecDeque::new(),
        }
    }

    /// Leases that the coordinator may think are here, with their devices: queued, running, and ended without
    /// an acknowledged final report.
    pub(crate) fn held(&self) -> Vec<(LeaseKey, usize)> {
        let mut held: Vec<_> = self.log.ended().collect();
        for (device, slot) in self.slots.iter().enumerate() {
            held.extend(slot.running.iter().map(|running| (running.lease, device)));
            held.extend(slot.queue.iter().map(|attempt| (attempt.lease, device)));
        }
        held
    }

    /// The coordinator answered the hello: `keep` are the leases that still stand.
    pub(crate) fn welcomed(&mut self, applied_seq: u64, keep: &[LeaseKey], store_url: &str) {
        let keep: HashSet<LeaseKey> = keep.iter().copied().collect();
        self.connected = true;
        if *self.store_url != *store_url {
            self.store_url = store_url.into();
        }
        self.log.reattach(applied_seq);
        self.gangs.reconnected();
        self.attempt_logs.reconnected();
        for (lease, _) in self.held() {
            if !keep.contains(&lease) {
                self.lose(lease);
            }
        }
    }

    /// Where added data sets are stored, as the coordinator says it.
    pub(crate) fn data_at(&mut self, url: &str) {
        if *self.data_url != *url {
            self.data_url = url.into();
        }
    }

    /// The connection is gone. Work goes on; what was asked for on it will not come.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        for slot in &mut self.slots {
            slot.outstanding = 0;
        }
    }

    pub(crate) fn told_of(&mut self, number: SweepNumber, sweep: Sweep) {
        self.sweeps.insert(number, Arc::new(sweep));
    }

    pub(crate) fn granted(&mut self, grants: Vec<Grant>, now: Instant) -> Result<(), SessionError> {
        for grant in grants {
            let number = grant.lease.trial.sweep;
            let sweep = self.sweeps.get(&number).ok_or(SessionError::Sweep(number.0))?.clone();
            let (device, devices) = (grant.device, self.slots.len());
            let slot = self.slots.get_mut(device).ok_or(SessionError::Device { device, devices })?;
            slot.outstanding = slot.outstanding.saturating_sub(1);
            let attempt = Attempt {
                lease: grant.lease,
                sweep,
                number: grant.attempt,
                device: slot.name.clone(),
                params_json: grant.params_json,
                resume: grant.resume,
                interruption_mean_s: grant.interruption_mean_s,
                gang: grant.gang,
                store_url: self.store_url.clone(),
                data_url: self.data_url.clone(),
                log: self.attempt_logs.of(grant.lease, grant.attempt),
            };
            if self.draining {
                self.log.push(device, attempt.lease, untouched(&attempt), now);
                continue;
            }
            let is_next = slot.queue.is_empty();
            slot.queue.push_back(attempt);
            self.start_next(device, now);
            if is_next {
                self.prepare_next(device);
            }
        }
        Ok(())
    }

    pub(crate) fn revoked(&mut self, lease: LeaseKey, reason: RevokeReason, now: Instant) {
        match reason {
            RevokeReason::Stale | RevokeReason::Cancelled | RevokeReason::NotNeeded => self.lose(lease),
            RevokeReason::Paused | RevokeReason::Moved => {
                self.give_back(lease, HowToStop::Checkpoint, now);
            }
        }
    }

    /// The gang of a lease has a new make-up. Of other leases than those that are here, and for none newer, nothing
    /// happens.
    pub(crate) fn regang(&mut self, lease: LeaseKey, place: GangPlace, now: Instant) {
        for device in 0..self.slots.len() {
            let slot = &mut self.slots[device];
            if let Some(running) = slot.running.as_mut().filter(|running| running.lease == lease) {
                if running.is_newer(place.generation) {
                    running.gang = Some(place.clone());
                    self.commands.push_back(Command::Regang { device, lease, place: place.clone() });
                }
            } else if let Some(at) = slot.queue.iter().position(|attempt| attempt.lease == lease) {
                if place.rank.is_some() {
                    slot.queue[at].gang = Some(place.clone());
                } else if let Some(attempt) = slot.queue.remove(at) {
                    self.log.push(device, lease, untouched(&attempt), now);
                }
            }
        }
    }

    /// The answer of a rendezvous store.
    pub(crate) fn answered(&mut self, lease: LeaseKey, id: u64, value: Option<StoreValue>) {
        if !self.gangs.answered(lease, id) {
            return;
        }
        let runs = |slot: &Slot| slot.running.as_ref().is_some_and(|running| running.lease == lease);
        if let Some(device) = self.slots.iter().position(runs) {
            self.commands.push_back(Command::Answer { device, lease, id, value });
        }
    }

    pub(crate) fn acknowledged(&mut self, seq: u64) {
        self.log.acknowledge(seq);
    }

    /// Whether the trainer of a device shall be asked for events. While reports pile up it shall not, unless it
    /// has been told to stop.
    pub(crate) fn wants_events(&self, device: usize) -> bool {
        let stopping = |running: &Running| running.stopping.is_some();
        !self.log.is_full() || self.slots[device].running.as_ref().is_some_and(stopping)
    }

    /// Something happened on a device.
    pub(crate) fn event(&mut self, device: usize, event: TrainerEvent, now: Instant) {
        let slot = &mut self.slots[device];
        match event {
            TrainerEvent::Available(available) => {
                slot.available = available;
                if !available {
                    self.give_queue_back(device, now);
                }
                self.start_next(device, now);
            }
            TrainerEvent::Gang(lease, news) => {
                if slot.is_at_work_on(lease) {
                    self.gangs.note(lease, news);
                }
            }
            TrainerEvent::Ask(lease, question) => {
                if slot.is_at_work_on(lease) {
                    self.gangs.ask(lease, question);
                }
            }
            TrainerEvent::Dropped(lease) => {
                if slot.running.take_if(|running| running.lease == lease).is_some() {
                    self.gangs.forget(lease);
                    self.attempt_logs.end(lease, None);
                    self.start_next(device, now);
                }
            }
            TrainerEvent::Report(lease, body) => {
                let Some(running) = slot.running.as_ref().filter(|running| running.lease == lease) else {
                    return;
                };
                let (since, discard) = (running.since, running.stopping == Some(HowToStop::Discard));
                let ended = body.is_final();
                if matches!(body, ReportBody::Finished { .. }) {
                    slot.pace.observe(now.saturating_duration_since(since));
                }
                if ended {
                    self.attempt_logs.end(lease, Some(&body));
                }
                if !discard {
                    self.log.push(device, lease, body, now);
                }
                if ended {
                    self.gangs.forget(lease);
                    self.slots[device].running = None;
                    self.start_next(device, now);
                }
            }
        }
    }

    /// Time passed: leases that wait behind a long job, or for a trainer that does not start, go back.
    pub(crate) fn tick(&mut self, now: Instant) {
        for device in 0..self.slots.len() {
            let slot = &mut self.slots[device];
            let long = |running: &Running| now.saturating_duration_since(running.since) >= WAIT_LIMIT;
            let stuck = slot.running.as_ref().is_some_and(long) || !slot.available;
            if stuck && !slot.queue.is_empty() {
                slot.pace.slow_down();
                self.give_queue_back(device, now);
            }
        }
    }

    /// Whether nothing is left to do or to say.
    pub(crate) fn has_lost_reports(&self) -> bool {
        self.log.is_lost()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.log.is_empty() && self.is_idle()
    }

    /// Whether no device has anything to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.slots.iter().all(|slot| slot.held() == 0)
    }

    pub(crate) fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`Self::next_outgoing`] has something.
    pub(crate) fn due(&self) -> Due {
        if !self.connected {
            return Due::Never;
        }
        if self.gangs.has_word() || (0..self.slots.len()).any(|device| self.credits_to_say(device).is_some())
        {
            return Due::Now;
        }
        self.log.due()
    }

    /// What to send next: reports first, so that the coordinator knows of an ended lease before it hears that
    /// the device takes another.
    pub(crate) fn next_outgoing(&mut self) -> Option<Outgoing> {
        if !self.connected {
            return None;
        }
        if let Some(batch) = self.log.next_batch() {
            return Some(Outgoing::Reports(batch));
        }
        if let Some(word) = self.gangs.next_word() {
            return Some(Outgoing::Gang(word));
        }
        let (device, credits) = (0..self.slots.len())
            .find_map(|device| self.credits_to_say(device).map(|credits| (device, credits)))?;
        self.slots[device].outstanding = credits;
        let device = u32::try_from(device).unwrap_or(u32::MAX);
        Some(Outgoing::Ready(v1::Ready { device, credits }))
    }

    /// What attempts print, which goes behind everything else.
    pub(crate) fn attempt_logs(&mut self) -> &mut AttemptLogs {
        &mut self.attempt_logs
    }

    /// The number of credits to announce for a device, if it differs enough from what is on its way. Leases that
    /// are under way when the number is replaced come besides, so it is raised only once half of them are here.
    fn credits_to_say(&self, device: usize) -> Option<u32> {
        let slot = &self.slots[device];
        let wanted = if self.draining || !slot.available {
            0
        } else {
            slot.pace.target().saturating_sub(u32::try_from(slot.held()).unwrap_or(u32::MAX))
        };
        let fewer = wanted < slot.outstanding;
        let more = wanted > slot.outstanding && slot.outstanding <= wanted / 2;
        (fewer || more).then_some(wanted)
    }

    fn start_next(&mut self, device: usize, now: Instant) {
        let slot = &mut self.slots[device];
        if slot.running.is_some() || !slot.available {
            return;
        }
        if let Some(attempt) = slot.queue.pop_front() {
            let (lease, gang) = (attempt.lease, attempt.gang.clone());
            slot.running = Some(Running { lease, since: now, stopping: None, gang, patience: None });
            self.attempt_logs.begin(&attempt.log, attempt.first_step(), slot.name.as_str(), now);
            self.commands.push_back(Command::Start { device, attempt });
            self.prepare_next(device);
        }
    }

    /// What comes next and resumes from a checkpoint can have it fetched.
    fn prepare_next(&mut self, device: usize) {
        if let Some(next) = self.slots[device].queue.front().filter(|next| next.resume.is_some()) {
            let attempt = next.clone();
            self.commands.push_back(Command::Prepare { device, attempt });
        }
    }
}

#[cfg(test)]
mod tests;
