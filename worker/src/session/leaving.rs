//! Giving up what is held: leases that are given back, that are somebody else's, and a drain.

use super::{Command, Session, Slot};
use crate::{
    attempt::{Attempt, LeaseKey, ReportBody},
    trainer::HowToStop,
};
use tokio::time::Instant;

/// Of the time that a drain has, a rank of a gang waits for one part in so many to be let go by its gang, which costs
/// nothing; after that it is stopped like any other job.
const GANG_PATIENCE_SHARE: u32 = 3;

impl Session {
    pub(super) fn give_queue_back(&mut self, device: usize, now: Instant) {
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
            if !self.waits_for_gang(lease, by, now) {
                self.give_back(lease, HowToStop::CheckpointBy(by), now);
            }
        }
    }

    /// Whether the job of a lease is left to its gang for now: the coordinator hears of the notice and makes up the gang
    /// without it.
    fn waits_for_gang(&mut self, lease: LeaseKey, by: Instant, now: Instant) -> bool {
        let connected = self.connected;
        let running = self.slots.iter_mut().filter_map(|slot| slot.running.as_mut());
        let Some(running) = running.into_iter().find(|running| running.lease == lease) else { return false };
        if !connected || !running.has_peers() || running.stopping.is_some() {
            return false;
        }
        let until = now + by.saturating_duration_since(now) / GANG_PATIENCE_SHARE;
        running.patience = Some(match running.patience {
            Some((known, known_by)) => (known.min(until), known_by.min(by)),
            None => (until, by),
        });
        true
    }

    /// When [`Self::lose_patience`] has something to do.
    pub(crate) fn patience(&self) -> Option<Instant> {
        let running = self.slots.iter().filter_map(|slot| slot.running.as_ref());
        running.filter_map(|running| running.patience).map(|(until, _)| until).min()
    }

    /// Stops the ranks that their gangs have not let go in time.
    pub(crate) fn lose_patience(&mut self, now: Instant) {
        let running = self.slots.iter_mut().filter_map(|slot| slot.running.as_mut());
        let over = running.filter_map(|running| {
            let (_, by) = running.patience.take_if(|(until, _)| *until <= now)?;
            Some((running.lease, by))
        });
        for (lease, by) in over.collect::<Vec<_>>() {
            self.give_back(lease, HowToStop::CheckpointBy(by), now);
        }
    }

    /// The lease is somebody else's or nobody's: stop, keep nothing, say nothing more.
    pub(super) fn lose(&mut self, lease: LeaseKey) {
        self.log.drop_lease(lease);
        self.gangs.forget(lease);
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
    pub(super) fn give_back(&mut self, lease: LeaseKey, how: HowToStop, now: Instant) {
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
pub(super) fn untouched(attempt: &Attempt) -> ReportBody {
    ReportBody::Released { step: attempt.first_step(), seconds: 0.0 }
}
