//! Who gets the next lease, and where. Owns the queues of sweeps and the free slots; both follow from the rest
//! of the state.
//!
//! Order of sweeps: strictly by priority; among equals the one with the fewest leases (fair share), then the
//! older. Within a sweep: trials that ran before go before fresh ones, by number. Where: on a worker that was not
//! warned of anything if one has a fitting device free, and there on the one with the fewest leases, so that leases spread over all devices before any is given a second one ahead. A
//! trial that has bits of one kind of device (a point, a checkpoint) stays on that kind, because only there
//! are its bits the same; one that just failed on a worker goes to another, if another could take it.
//!
//! A grant costs O(log n) in sweeps, trials and slots, times the number of different demands (kind of device
//! and memory) and of different devices (kind and memory) that are free.

use crate::{
    action::{Action, Grant, TrialState},
    event::DeviceKind,
    refs::{SweepId, TrialRef, WorkerId},
    state::{Out, State},
    sweep::{Lane, QueueKey},
    trial::Lease,
};
use spotsweep_proto::ids::Epoch;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// Ready trials looked at in one lane before it counts as blocked for the moment.
const LOOK_AHEAD: usize = 16;

/// What a lane of a sweep needs: kind of device and bytes of its memory.
pub(crate) type Demand = (Lane, u64);
/// Devices that are alike: kind and bytes of memory.
type Class = (Lane, u64);
/// A free device: whether its worker was warned, leases that it holds, its index, its worker. Warned workers come
/// last. Index before worker, so that workers get one lease each before one gets a second on another of its
/// devices.
type SlotKey = (bool, u32, u16, WorkerId);

/// Queues and free slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    queues: BTreeMap<Demand, BTreeSet<QueueKey>>,
    free: BTreeMap<Class, BTreeSet<SlotKey>>,
}

fn class_of(kind: DeviceKind, memory_bytes: u64) -> Class {
    match kind {
        DeviceKind::Cpu => (Lane::Cpu, memory_bytes),
        DeviceKind::Cuda => (Lane::Cuda, memory_bytes),
    }
}

/// Whether a device satisfies a demand.
pub(crate) fn fits(demand: Demand, kind: DeviceKind, memory_bytes: u64) -> bool {
    demand.0.takes(kind) && memory_bytes >= demand.1
}

impl Placement {
    /// The least loaded free device that satisfies the demand, on another worker than `avoid`.
    fn best_slot(&self, demand: Demand, avoid: Option<WorkerId>) -> Option<(SlotKey, Class)> {
        self.classes_for(demand)
            .filter_map(|(class, slots)| {
                let slot = slots.iter().find(|(_, _, _, worker)| Some(*worker) != avoid)?;
                Some((*slot, *class))
            })
            .min()
    }

    /// Classes of free devices that satisfy the demand.
    fn classes_for(&self, (lane, memory): Demand) -> impl Iterator<Item = (&Class, &BTreeSet<SlotKey>)> {
        let kinds: &[Lane] = match lane {
            Lane::Any => &[Lane::Cpu, Lane::Cuda],
            Lane::Cpu => &[Lane::Cpu],
            Lane::Cuda => &[Lane::Cuda],
        };
        kinds.iter().flat_map(move |&kind| self.free.range((kind, memory)..=(kind, u64::MAX)))
    }

    /// Whether any device of a worker that was not warned has nothing to do.
    pub(crate) fn has_idle_unnoticed(&self) -> bool {
        self.free.values().any(|slots| slots.first().is_some_and(is_idle_unnoticed))
    }

    /// How many of them satisfy the demand.
    pub(crate) fn idle_unnoticed(&self, demand: Demand) -> usize {
        self.classes_for(demand)
            .map(|(_, slots)| slots.iter().take_while(|s| is_idle_unnoticed(s)).count())
            .sum()
    }

    fn remove_slot(&mut self, class: Class, slot: SlotKey) {
        if let Some(slots) = self.free.get_mut(&class) {
            slots.remove(&slot);
            if slots.is_empty() {
                self.free.remove(&class);
            }
        }
    }
}

/// These come first among free devices.
fn is_idle_unnoticed((noticed, load, _, _): &SlotKey) -> bool {
    !noticed && *load == 0
}

/// A trial and where it goes.
pub(crate) struct Choice {
    sweep: SweepId,
    /// `None`: the sweep's next trial without a record.
    number: Option<u32>,
    slot: SlotKey,
}

impl State {
    /// Puts a worker's devices that take leases among the free slots.
    pub(crate) fn offer(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        if !self.takes_leases(id, worker) {
            return;
        }
        let noticed = self.is_noticed(id);
        for (index, slot) in (0..).zip(&worker.devices) {
            if slot.credits > 0 {
                let class = class_of(slot.device.kind, slot.device.memory_bytes);
                self.placement.free.entry(class).or_default().insert((noticed, slot.load, index, id));
            }
        }
    }

    /// Takes a worker's devices from the free slots. Call before anything changes that [`Self::offer`] looks
    /// at, and `offer` after.
    pub(crate) fn withdraw(&mut self, id: WorkerId) {
        let noticed = self.is_noticed(id);
        let Some(worker) = self.workers.get(&id) else { return };
        for (index, slot) in (0..).zip(&worker.devices) {
            if slot.credits > 0 {
                let class = class_of(slot.device.kind, slot.device.memory_bytes);
                self.placement.remove_slot(class, (noticed, slot.load, index, id));
            }
        }
    }

    /// Puts a sweep's lanes where they belong in the queues. Call after anything changed that decides it.
    pub(crate) fn requeue(&mut self, id: SweepId) {
        let Some(sweep) = self.sweeps.get_mut(id.0 as usize) else { return };
        let memory = sweep.spec.resources.memory_bytes.unwrap_or(0);
        for lane in Lane::ALL {
            let again = !sweep.ready[lane as usize].is_empty();
            let waits = again || (lane == sweep.fresh_lane() && sweep.has_fresh());
            let key = waits.then_some((Reverse(sweep.spec.priority), sweep.leases, id, !again, lane));
            let old = std::mem::replace(&mut sweep.queued[lane as usize], key);
            if old == key {
                continue;
            }
            let queue = self.placement.queues.entry((lane, memory)).or_default();
            if let Some(old) = old {
                queue.remove(&old);
            }
            if let Some(key) = key {
                queue.insert(key);
            }
            if queue.is_empty() {
                self.placement.queues.remove(&(lane, memory));
            }
        }
    }

    /// Grants leases while there are trials that wait and slots that they fit.
    pub(crate) fn place(&mut self, out: &mut Out<'_>) {
        while !self.placement.free.is_empty() && !self.placement.queues.is_empty() {
            let Some(choice) = self.choose() else { return };
            self.grant(&choice, out);
        }
    }

    /// The next lease to grant.
    pub(crate) fn choose(&self) -> Option<Choice> {
        let mut blocked = Vec::new();
        loop {
            let (key, demand) = self
                .placement
                .queues
                .iter()
                .filter(|(demand, _)| self.placement.best_slot(**demand, None).is_some())
                .filter_map(|(demand, queue)| {
                    Some((*queue.iter().find(|key| !blocked.contains(*key))?, *demand))
                })
                .min()?;
            let choice = self.choose_in(key, demand);
            if choice.is_some() {
                return choice;
            }
            blocked.push(key);
        }
    }

    /// The first trial of a lane that can be placed.
    fn choose_in(&self, key: QueueKey, demand: Demand) -> Option<Choice> {
        let (_, _, id, _, lane) = key;
        let sweep = self.sweep(id)?;
        for &number in sweep.ready[lane as usize].iter().take(LOOK_AHEAD) {
            let avoid = sweep.trials.get(number)?.avoid;
            let mut slot = self.placement.best_slot(demand, avoid);
            if let (None, Some(avoid)) = (slot, avoid)
                && !self.fits_elsewhere(demand, avoid)
            {
                slot = self.placement.best_slot(demand, None);
            }
            if let Some((slot, _)) = slot {
                return Some(Choice { sweep: id, number: Some(number), slot });
            }
        }
        if lane != sweep.fresh_lane() || !sweep.has_fresh() {
            return None;
        }
        let (slot, _) = self.placement.best_slot(demand, None)?;
        Some(Choice { sweep: id, number: None, slot })
    }

    /// Whether a worker other than `avoid`, busy or not, has a device for this demand.
    fn fits_elsewhere(&self, demand: Demand, avoid: WorkerId) -> bool {
        self.workers.iter().any(|(id, worker)| {
            *id != avoid
                && self.takes_leases(*id, worker)
                && worker.devices.iter().any(|s| fits(demand, s.device.kind, s.device.memory_bytes))
        })
    }

    fn grant(&mut self, choice: &Choice, out: &mut Out<'_>) {
        let &Choice { sweep: id, number, slot: (_, _, device, worker_id) } = choice;
        self.withdraw(worker_id);
        let granted = self.grant_to(id, number, worker_id, device, out);
        debug_assert!(granted.is_some(), "a choice is made of what is there");
        self.offer(worker_id);
        self.requeue(id);
    }

    fn grant_to(
        &mut self,
        id: SweepId,
        number: Option<u32>,
        worker_id: WorkerId,
        device: u16,
        out: &mut Out<'_>,
    ) -> Option<()> {
        let sweep = self.sweeps.get_mut(id.0 as usize)?;
        let worker = self.workers.get_mut(&worker_id)?;
        let session = worker.session()?;
        let slot = worker.devices.get_mut(usize::from(device))?;
        let number = match number {
            Some(number) => {
                sweep.make_unready(number);
                number
            }
            None => sweep.open_next(),
        };
        let trial_ref = TrialRef { sweep: id, number };
        slot.credits -= 1;
        slot.load += 1;
        worker.leases.insert(trial_ref);
        sweep.leases += 1;
        let trial = sweep.trials.get_mut(number)?;
        debug_assert!(trial.lease.is_none(), "at most one lease");
        trial.epoch += 1;
        trial.avoid = None;
        let resume = trial.resume_point().cloned();
        let resumed_from = resume.as_ref().map(|r| r.manifest);
        trial.lease = Some(Box::new(Lease::new(worker_id, device, out.at, resumed_from)));
        let (epoch, attempt) = (Epoch(trial.epoch), trial.attempts + 1);
        sweep.set_state(id, number, TrialState::Running, out);
        self.totals.leases += 1;
        let expires_at = worker.expires_at;
        let interruption_mean_s = self.interruptions.mean_s();
        let grant =
            Grant { trial: trial_ref, epoch, attempt, expires_at, resume, gang: None, interruption_mean_s };
        out.push(Action::Grant { session, device, grant });
        Some(())
    }

    /// What a trial needs, for the explanation.
    pub(crate) fn demand_of(&self, trial: TrialRef) -> Option<Demand> {
        let sweep = self.sweep(trial.sweep)?;
        let kind = sweep.trials.get(trial.number).and_then(|trial| trial.kind);
        let lane = Lane::of(sweep.spec.resources.device, kind);
        Some((lane, sweep.spec.resources.memory_bytes.unwrap_or(0)))
    }
}
