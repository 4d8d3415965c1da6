//! What the agent holds and what follows from what happens: leases, queues, credits, reports. Pure: time comes
//! in, messages and commands go out; [`crate::agent`] carries them.

use crate::{
    attempt::{Attempt, LeaseKey, ReportBody, Sweep, SweepNumber},
    pace::Pace,
    reports::{Due, ReportLog},
    trainer::{HowToStop, TrainerEvent},
    wire::{Grant, RevokeReason},
};
use spotsweep_proto::ids::DeviceName;
use spotsweep_wire::v1;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// A lease that waits behind a job running for longer than this is given back, so that an idle worker gets it.
const WAIT_LIMIT: Duration = Duration::from_secs(1);

/// What a trainer shall do.
#[derive(Debug)]
pub(crate) enum Command {
    Start { device: usize, attempt: Attempt },
    Stop { device: usize, lease: LeaseKey, how: HowToStop },
}

/// What the coordinator shall hear.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Reports(v1::ReportBatch),
    Ready(v1::Ready),
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
}

impl Slot {
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
    connected: bool,
    draining: bool,
    commands: VecDeque<Command>,
}

impl Session {
    pub(crate) fn new(devices: impl IntoIterator<Item = DeviceName>) -> Self {
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
            log: ReportLog::new(),
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
                store_url: self.store_url.clone(),
                data_url: self.data_url.clone(),
            };
            if self.draining {
                self.log.push(device, attempt.lease, untouched(&attempt), now);
                continue;
            }
            slot.queue.push_back(attempt);
            self.start_next(device, now);
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
            TrainerEvent::Dropped(lease) => {
                if slot.running.take_if(|running| running.lease == lease).is_some() {
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
                if !discard {
                    self.log.push(device, lease, body, now);
                }
                if ended {
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

    fn give_queue_back(&mut self, device: usize, now: Instant) {
        for attempt in self.slots[device].queue.drain(..) {
            self.log.push(device, attempt.lease, untouched(&attempt), now);
        }
    }

    /// Take nothing new, stop everything with a checkpoint by then, give all leases back. Once more with an earlier
    /// time if there turns out to be less.
    pub(crate) fn drain(&mut self, by: Instant, now: Instant) {
        self.draining = true;
        let held: Vec<LeaseKey> = self.slots.iter().flat_map(leases).collect();
        for lease in held {
            self.give_back(lease, HowToStop::CheckpointBy(by), now);
        }
    }

    /// Whether nothing is left to do or to say.
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
        if (0..self.slots.len()).any(|device| self.credits_to_say(device).is_some()) {
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
        let (device, credits) = (0..self.slots.len())
            .find_map(|device| self.credits_to_say(device).map(|credits| (device, credits)))?;
        self.slots[device].outstanding = credits;
        let device = u32::try_from(device).unwrap_or(u32::MAX);
        Some(Outgoing::Ready(v1::Ready { device, credits }))
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
            slot.running = Some(Running { lease: attempt.lease, since: now, stopping: None });
            self.commands.push_back(Command::Start { device, attempt });
        }
    }

    /// The lease is somebody else's or nobody's: stop, keep nothing, say nothing more.
    fn lose(&mut self, lease: LeaseKey) {
        self.log.drop_lease(lease);
        for device in 0..self.slots.len() {
            let slot = &mut self.slots[device];
            slot.queue.retain(|attempt| attempt.lease != lease);
            if let Some(running) = slot.running.as_mut().filter(|running| running.lease == lease)
                && running.stopping != Some(HowToStop::Discard)
            {
                running.stopping = Some(HowToStop::Discard);
                self.commands.push_back(Command::Stop { device, lease, how: HowToStop::Discard });
            }
        }
    }

    /// Stop with a checkpoint, then report that it is released.
    fn give_back(&mut self, lease: LeaseKey, how: HowToStop, now: Instant) {
        for (device, slot) in self.slots.iter_mut().enumerate() {
            if let Some(running) = slot.running.as_mut().filter(|running| running.lease == lease) {
                let news = match (running.stopping, how) {
                    (None, _) => true,
                    (Some(HowToStop::Checkpoint), HowToStop::CheckpointBy(_)) => true,
                    (Some(HowToStop::CheckpointBy(known)), HowToStop::CheckpointBy(by)) => by < known,
                    (Some(_), _) => false,
                };
                if news {
                    running.stopping = Some(how);
                    self.commands.push_back(Command::Stop { device, lease, how });
                }
            } else if let Some(place) = slot.queue.iter().position(|attempt| attempt.lease == lease)
                && let Some(attempt) = slot.queue.remove(place)
            {
                self.log.push(device, lease, untouched(&attempt), now);
            }
        }
    }
}

fn leases(slot: &Slot) -> impl Iterator<Item = LeaseKey> {
    let running = slot.running.iter().map(|running| running.lease);
    running.chain(slot.queue.iter().map(|attempt| attempt.lease))
}

/// The report that gives a lease back under which nothing was done.
fn untouched(attempt: &Attempt) -> ReportBody {
    ReportBody::Released { step: attempt.first_step(), seconds: 0.0 }
}

#[cfg(test)]
mod tests;
