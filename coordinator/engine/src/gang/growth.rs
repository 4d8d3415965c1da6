//! Who gets a seat in a gang: all of the least number at once or none, more where devices idle, fewer where trials wait.
//!
//! No two gangs can hold a part of what each needs and wait for the rest of it: a gang gets its least number in one step
//! or nothing, and one that lost workers and cannot get others at once stores its state and gives the rest back. A gang
//! that waits does not starve: trials of single workers fill the gaps until its patience is over, and from then on what
//! becomes idle and fits it is kept for it ([`crate::placement`]).

use super::{Gang, Phase, Seat};
use crate::{
    action::{Action, Grant},
    placement::{Demand, SlotKey},
    refs::{TrialRef, WorkerId},
    state::{Out, State},
    sweep::Lane,
};
use spotsweep_proto::{ids::Epoch, spec::DeviceRequest};
use std::{cmp::Reverse, collections::BTreeSet};

impl State {
    /// Begins a gang on these devices; the first has the trial's lease already.
    pub(crate) fn begin_gang(&mut self, trial_ref: TrialRef, slots: &[SlotKey], out: &mut Out<'_>) {
        let seats: Vec<Seat> =
            slots.iter().map(|&(_, _, device, worker)| Seat::new(worker, device, out.at)).collect();
        let mut gang = Gang::new(out.at);
        gang.joining.clone_from(&seats);
        self.gangs.insert(trial_ref, gang);
        for (index, seat) in seats.into_iter().enumerate() {
            if index == 0 {
                self.set_ganged(seat, true);
            } else {
                self.seat(trial_ref, seat, out);
            }
        }
    }

    /// Gives a worker a seat, and the lease with it.
    fn seat(&mut self, trial_ref: TrialRef, seat: Seat, out: &mut Out<'_>) {
        self.withdraw(seat.worker);
        if let Some(worker) = self.workers.get_mut(&seat.worker)
            && let Some(slot) = worker.devices.get_mut(usize::from(seat.device))
        {
            slot.credits = slot.credits.saturating_sub(1);
            slot.load += 1;
            slot.ganged = true;
            worker.leases.insert(trial_ref);
        }
        self.offer(seat.worker);
        self.totals.leases += 1;
        let Some(trial) = self.trial(trial_ref) else { return };
        let started = trial.lease.as_ref().is_some_and(|lease| lease.started_at.is_some());
        let (epoch, attempt) = (Epoch(trial.epoch), trial.attempts + u32::from(!started));
        let resume = trial.resume_point().cloned();
        if let Some(worker) = self.workers.get(&seat.worker)
            && let Some(session) = worker.session()
            && let Some(gang) = self.gangs.get(&trial_ref)
        {
            let grant = Grant {
                trial: trial_ref,
                epoch,
                attempt,
                expires_at: worker.expires_at,
                resume,
                gang: Some(self.gang_place(gang, seat.worker)),
                interruption_mean_s: self.interruptions.mean_s(),
            };
            out.push(Action::Grant { session, device: seat.device, grant });
        }
    }

    /// Takes a seat out of its worker's books.
    pub(super) fn unseat(&mut self, trial_ref: TrialRef, seat: Seat) {
        self.withdraw(seat.worker);
        if let Some(worker) = self.workers.get_mut(&seat.worker) {
            worker.leases.remove(&trial_ref);
            if let Some(slot) = worker.devices.get_mut(usize::from(seat.device)) {
                slot.load = slot.load.saturating_sub(1);
                slot.ganged = false;
            }
        }
        self.offer(seat.worker);
    }

    /// Whether a device carries a rank, behind which nothing queues.
    pub(super) fn set_ganged(&mut self, seat: Seat, ganged: bool) {
        self.withdraw(seat.worker);
        if let Some(worker) = self.workers.get_mut(&seat.worker)
            && let Some(slot) = worker.devices.get_mut(usize::from(seat.device))
        {
            slot.ganged = ganged;
        }
        self.offer(seat.worker);
    }

    /// Idle devices for a gang, each on a worker of its own and all of one kind: as many as it wants, at least `min`, to
    /// which it gets with workers that were recommended to leave if there are no others. Workers in `without` have a seat
    /// already.
    pub(crate) fn gang_slots(
        &self,
        wanted: Demand,
        min: usize,
        max: usize,
        without: &[WorkerId],
    ) -> Option<Vec<SlotKey>> {
        let of_kind = |kind: Lane| {
            let mut seen = BTreeSet::new();
            let mut slots = self.placement.idle_unnoticed_slots(Demand { lane: kind, ..wanted });
            slots.retain(|(_, _, _, worker)| !without.contains(worker) && seen.insert(*worker));
            slots.truncate(max);
            if slots.len() < min {
                let mut noticed = self.placement.idle_noticed_slots(Demand { lane: kind, ..wanted });
                noticed.retain(|(_, _, _, worker)| !without.contains(worker) && seen.insert(*worker));
                slots.extend(noticed.into_iter().take(min - slots.len()));
            }
            slots
        };
        kinds_of(wanted.lane).iter().map(|&kind| of_kind(kind)).find(|slots| slots.len() >= min.max(1))
    }

    /// Whether there are workers enough for such a gang, busy or not.
    pub(crate) fn could_gather(&self, wanted: Demand, min: usize) -> bool {
        kinds_of(wanted.lane).iter().any(|&kind| {
            let demand = Demand { lane: kind, ..wanted };
            let fitting = self.workers.iter().filter(|(id, worker)| {
                let mut devices = worker.devices.iter().map(|slot| &slot.device);
                self.takes_leases(**id, worker)
                    && devices.any(|device| self.placement.fits(demand, worker, device))
            });
            fitting.count() >= min
        })
    }

    /// Gives idle workers a seat where a gang has too few to train, or has trained long enough with fewer than it
    /// could use. Trials that wait come first: call it behind [`State::place`].
    pub(super) fn fill(&mut self, trial_ref: TrialRef, out: &mut Out<'_>) {
        let workers = self.workers_of(trial_ref);
        let (min, max) = (workers.min as usize, workers.max as usize);
        let Some(gang) = self.gangs.get(&trial_ref) else { return };
        let settled = match gang.phase {
            Phase::Formed => {
                gang.joining.is_empty() && out.at.seconds_since(gang.since) >= self.config.gang_settle_s
            }
            Phase::Gathering | Phase::Forming | Phase::Broken | Phase::Short => false,
        };
        if gang.size() >= max || (gang.size() >= min && !settled) {
            return;
        }
        let wanted = max - gang.size();
        let Some(demand) = self.demand_of_gang(trial_ref) else { return };
        if settled && self.is_reserved(demand) {
            return;
        }
        let there: Vec<WorkerId> = gang.seats().map(|seat| seat.worker).collect();
        let needed = min.saturating_sub(gang.size());
        for (_, _, device, worker) in self.gang_slots(demand, needed, wanted, &there).unwrap_or_default() {
            let seat = Seat::new(worker, device, out.at);
            if let Some(gang) = self.gangs.get_mut(&trial_ref) {
                gang.joining.push(seat);
            }
            self.seat(trial_ref, seat, out);
        }
    }

    /// What a further worker of a running gang must have: a device of the kind that the others have.
    fn demand_of_gang(&self, trial_ref: TrialRef) -> Option<Demand> {
        let lease = self.trial(trial_ref)?.lease.as_ref()?;
        let device = &self.workers.get(&lease.worker)?.devices.get(usize::from(lease.device))?.device;
        let lane = Lane::of(DeviceRequest::Any, Some(device.kind));
        Some(Demand { lane, ..self.demand_of(trial_ref)? })
    }

    /// Everything about gangs that follows from time and from who is idle.
    pub(crate) fn settle_gangs(&mut self, out: &mut Out<'_>) {
        if self.gangs.is_empty() {
            return;
        }
        self.give_to_the_waiting(out);
        let trials: Vec<TrialRef> = self.gangs.keys().copied().collect();
        for trial_ref in trials {
            self.settle(trial_ref, out);
        }
    }

    /// A trial waits for a device that a gang has beyond its least number: one worker leaves the gang that has most of
    /// those, at the end of a step. One at a time, so that nothing is given that turns out not to be needed.
    fn give_to_the_waiting(&mut self, out: &mut Out<'_>) {
        let Some((priority, demand, need)) = self.first_waiting() else { return };
        let fits_seat = |seat: &Seat| {
            self.workers.get(&seat.worker).is_some_and(|worker| {
                let slot = worker.devices.get(usize::from(seat.device));
                slot.is_some_and(|slot| self.placement.fits(demand, worker, &slot.device))
            })
        };
        let leaving =
            self.gangs.values().flat_map(|gang| &gang.leaving).filter(|seat| fits_seat(seat)).count();
        if leaving + self.placement.idle_unnoticed(demand) >= need {
            return;
        }
        let surplus = |trial_ref: &TrialRef, gang: &Gang| {
            let spec = &self.sweep(trial_ref.sweep)?.spec;
            let over = gang.ranks.len().saturating_sub(spec.resources.workers.min as usize);
            let settled = gang.phase == Phase::Formed
                && out.at.seconds_since(gang.since) >= self.config.gang_settle_s
                && spec.priority <= priority;
            let last = gang.ranks.last().filter(|seat| fits_seat(seat))?;
            (settled && over > 0).then_some((over, Reverse(*trial_ref), last.worker))
        };
        let richest = self.gangs.iter().filter_map(|(trial_ref, gang)| surplus(trial_ref, gang)).max();
        let Some((_, Reverse(trial_ref), worker)) = richest else { return };
        if let Some(gang) = self.gangs.get_mut(&trial_ref)
            && let Some((seat, _)) = gang.remove(worker)
        {
            gang.leaving.push(seat);
            self.form(trial_ref, out);
        }
    }

    /// A worker was warned: where its gangs can do without it, it leaves them between two steps.
    pub(crate) fn leave_gangs(&mut self, id: WorkerId, out: &mut Out<'_>) {
        let Some(worker) = self.workers.get(&id) else { return };
        let trials: Vec<TrialRef> =
            worker.leases.iter().copied().filter(|trial_ref| self.gangs.contains_key(trial_ref)).collect();
        for trial_ref in trials {
            let min = self.workers_of(trial_ref).min as usize;
            let Some(gang) = self.gangs.get(&trial_ref) else { continue };
            if self.is_fixed(trial_ref) {
                self.rank_warned(trial_ref, id, out);
                continue;
            }
            let others = gang.ranks.iter().filter(|seat| self.interruption_of(seat.worker).is_none()).count();
            let has_rank = gang.ranks.iter().any(|seat| seat.worker == id);
            if has_rank && others >= min.max(1) && gang.phase == Phase::Formed {
                self.form(trial_ref, out);
            }
        }
    }
}

/// Where bits of a lane can be made, the fastest first.
fn kinds_of(lane: Lane) -> &'static [Lane] {
    match lane {
        Lane::Any => &[Lane::Cuda, Lane::Cpu],
        Lane::Cpu => &[Lane::Cpu],
        Lane::Cuda => &[Lane::Cuda],
    }
}
