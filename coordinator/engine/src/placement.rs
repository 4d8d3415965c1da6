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
    action::{Action, GangPlace, Grant, TrialState},
    event::{Device, DeviceKind},
    refs::{SweepId, TrialRef, WorkerId},
    state::{Out, State},
    sweep::{Lane, QueueKey},
    trial::Lease,
    worker::Worker,
};
use spotsweep_proto::{
    catalogue::own::OwnItem,
    gang::{Generation, Shares},
    ids::Epoch,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Ready trials looked at in one lane before it counts as blocked for the moment.
const LOOK_AHEAD: usize = 16;

/// What a lane of a sweep needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Demand {
    /// Kind of device.
    pub(crate) lane: Lane,
    /// Bytes of its memory.
    pub(crate) memory_bytes: u64,
    /// A trainer for the models of the catalogue; programs need none.
    pub(crate) trainer: bool,
    /// A trainer that has the models and data sets that this sweep uses and Spotsweep has not.
    pub(crate) own: Option<SweepId>,
}

/// What a worker can train.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Skill {
    /// Programs alone.
    Programs,
    /// Models as well: those of Spotsweep, and these.
    Models(Arc<BTreeSet<OwnItem>>),
}

impl Skill {
    fn of(worker: &Worker) -> Self {
        if worker.programs_only { Self::Programs } else { Self::Models(worker.knows.clone()) }
    }
}

/// Devices that are alike: kind, what its worker can train, and bytes of memory.
type Class = (Lane, Skill, u64);
/// A free device: whether its worker was warned, leases that it holds, its index, its worker. Warned workers come
/// last. Index before worker, so that workers get one lease each before one gets a second on another of its
/// devices.
pub(crate) type SlotKey = (bool, u32, u16, WorkerId);

/// Queues and free slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    queues: BTreeMap<Demand, BTreeSet<QueueKey>>,
    free: BTreeMap<Class, BTreeSet<SlotKey>>,
    /// What sweeps use that Spotsweep has not, of those that do.
    needs: BTreeMap<SweepId, BTreeSet<OwnItem>>,
}

fn class_of(worker: &Worker, device: &Device) -> Class {
    let lane = match device.kind {
        DeviceKind::Cpu => Lane::Cpu,
        DeviceKind::Cuda => Lane::Cuda,
    };
    (lane, Skill::of(worker), device.memory_bytes)
}

impl Placement {
    /// The least loaded free device that satisfies the demand, on another worker than `avoid`, and does not satisfy any
    /// demand that is `kept` for.
    fn best_slot(&self, demand: Demand, avoid: Option<WorkerId>, kept: &[Demand]) -> Option<SlotKey> {
        self.classes_for(demand)
            .filter(|(class, _)| !kept.iter().any(|kept| self.satisfies(class, *kept)))
            .filter_map(|(_, slots)| slots.iter().find(|(_, _, _, worker)| Some(*worker) != avoid))
            .min()
            .copied()
    }

    /// Idle devices of workers that were not warned, which satisfy the demand, in order.
    pub(crate) fn idle_unnoticed_slots(&self, demand: Demand) -> Vec<SlotKey> {
        let mut slots: Vec<SlotKey> = self
            .classes_for(demand)
            .flat_map(|(_, slots)| slots.iter().take_while(|slot| is_idle_unnoticed(slot)).copied())
            .collect();
        slots.sort_unstable();
        slots
    }

    /// The same of workers that were recommended to leave.
    pub(crate) fn idle_noticed_slots(&self, demand: Demand) -> Vec<SlotKey> {
        let (from, to) = ((true, 0, 0, WorkerId(0)), (true, 1, 0, WorkerId(0)));
        let mut slots: Vec<SlotKey> =
            self.classes_for(demand).flat_map(|(_, slots)| slots.range(from..to).copied()).collect();
        slots.sort_unstable();
        slots
    }

    /// Classes of free devices that satisfy the demand.
    fn classes_for(&self, demand: Demand) -> impl Iterator<Item = (&Class, &BTreeSet<SlotKey>)> {
        self.free.iter().filter(move |(class, _)| self.satisfies(class, demand))
    }

    fn satisfies(&self, (kind, skill, memory_bytes): &Class, demand: Demand) -> bool {
        demand.lane.includes(*kind) && *memory_bytes >= demand.memory_bytes && self.can(skill, demand)
    }

    /// Whether a trainer has what a demand is for.
    fn can(&self, skill: &Skill, demand: Demand) -> bool {
        match skill {
            Skill::Programs => !demand.trainer,
            Skill::Models(knows) => {
                let needs = demand.own.and_then(|sweep| self.needs.get(&sweep));
                needs.is_none_or(|needs| needs.is_subset(knows))
            }
        }
    }

    /// Whether a worker's device satisfies a demand.
    pub(crate) fn fits(&self, demand: Demand, worker: &Worker, device: &Device) -> bool {
        self.satisfies(&class_of(worker, device), demand)
    }

    /// What trials of a sweep use that Spotsweep has not.
    pub(crate) fn needs(&self, sweep: SweepId) -> impl Iterator<Item = &OwnItem> {
        self.needs.get(&sweep).into_iter().flatten()
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

    fn remove_slot(&mut self, class: &Class, slot: SlotKey) {
        if let Some(slots) = self.free.get_mut(class) {
            slots.remove(&slot);
            if slots.is_empty() {
                self.free.remove(class);
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
    /// One, or those of a gang.
    slots: Vec<SlotKey>,
}

/// What is looked for, for a moment: who is next, and what is kept for whom.
#[derive(Default)]
struct Search {
    /// Lanes that cannot be served now.
    blocked: Vec<QueueKey>,
    /// Demands of gangs whose patience is over.
    kept: Vec<Demand>,
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
            if slot.credits > 0 && !slot.ganged {
                let class = class_of(worker, &slot.device);
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
            if slot.credits > 0 && !slot.ganged {
                let class = class_of(worker, &slot.device);
                self.placement.remove_slot(&class, (noticed, slot.load, index, id));
            }
        }
    }

    /// Puts a sweep's lanes where they belong in the queues. Call after anything changed that decides it.
    pub(crate) fn requeue(&mut self, id: SweepId) {
        let Some(sweep) = self.sweeps.get_mut(id.0 as usize) else { return };
        let memory_bytes = sweep.spec.resources.memory_bytes.unwrap_or(0);
        let trainer = sweep.spec.program.is_none();
        let own = sweep.own().then_some(id);
        if own.is_some() {
            let items = || sweep.spec.train.own.items().into_iter().collect();
            self.placement.needs.entry(id).or_insert_with(items);
        }
        for lane in Lane::ALL {
            let again = !sweep.ready[lane as usize].is_empty();
            let waits = again || (lane == sweep.fresh_lane() && sweep.has_fresh());
            let key = waits.then_some((Reverse(sweep.spec.priority), sweep.leases, id, !again, lane));
            let old = std::mem::replace(&mut sweep.queued[lane as usize], key);
            if old == key {
                continue;
            }
            let demand = Demand { lane, memory_bytes, trainer, own };
            let queue = self.placement.queues.entry(demand).or_default();
            if let Some(old) = old {
                queue.remove(&old);
            }
            if let Some(key) = key {
                queue.insert(key);
            }
            if queue.is_empty() {
                self.placement.queues.remove(&demand);
            }
        }
    }

    /// Grants leases while there are trials that wait and slots that they fit.
    pub(crate) fn place(&mut self, out: &mut Out<'_>) {
        while !self.placement.free.is_empty() && !self.placement.queues.is_empty() {
            let Some(choice) = self.choose() else { break };
            self.grant(&choice, out);
        }
        self.note_short(out);
    }

    /// The next lease to grant.
    pub(crate) fn choose(&self) -> Option<Choice> {
        let mut search = Search::default();
        while let Some((key, demand)) = self.next_in_order(&search) {
            let choice = self.choose_in(key, demand, &search.kept);
            if choice.is_some() {
                return choice;
            }
            if self.is_patience_over(key.2, demand) {
                search.kept.push(demand);
            }
            search.blocked.push(key);
        }
        None
    }

    /// The lane that is served next, among those for which any device is free. Gangs whose patience is over go before
    /// others of their priority.
    fn next_in_order(&self, search: &Search) -> Option<(QueueKey, Demand)> {
        let unblocked = |key: &QueueKey| !search.blocked.contains(key);
        let first = self
            .placement
            .queues
            .iter()
            .filter(|(demand, _)| self.placement.best_slot(**demand, None, &search.kept).is_some())
            .filter_map(|(demand, queue)| Some((*queue.iter().find(|key| unblocked(key))?, *demand)))
            .min();
        let gang = self
            .waiting_gangs()
            .filter(|(key, demand)| unblocked(key) && self.is_patience_over(key.2, *demand))
            .min();
        match (first, gang) {
            (Some(first), Some(gang)) => Some(if gang.0.0 <= first.0.0 { gang } else { first }),
            (first, _) => first,
        }
    }

    /// The first trial of a lane that can be placed.
    fn choose_in(&self, key: QueueKey, demand: Demand, kept: &[Demand]) -> Option<Choice> {
        let (_, _, id, _, lane) = key;
        let sweep = self.sweep(id)?;
        let workers = sweep.spec.resources.workers;
        if workers.is_gang() {
            let ready = sweep.ready[lane as usize].first().copied();
            if ready.is_none() && (lane != sweep.fresh_lane() || !sweep.has_fresh()) {
                return None;
            }
            let slots = self.gang_slots(demand, workers.min as usize, workers.max as usize, &[])?;
            return Some(Choice { sweep: id, number: ready, slots });
        }
        for &number in sweep.ready[lane as usize].iter().take(LOOK_AHEAD) {
            let avoid = sweep.trials.get(number)?.avoid;
            let mut slot = self.placement.best_slot(demand, avoid, kept);
            if let (None, Some(avoid)) = (slot, avoid)
                && !self.fits_elsewhere(demand, avoid)
            {
                slot = self.placement.best_slot(demand, None, kept);
            }
            if let Some(slot) = slot {
                return Some(Choice { sweep: id, number: Some(number), slots: vec![slot] });
            }
        }
        if lane != sweep.fresh_lane() || !sweep.has_fresh() {
            return None;
        }
        let slot = self.placement.best_slot(demand, None, kept)?;
        Some(Choice { sweep: id, number: None, slots: vec![slot] })
    }

    /// Whether a sweep's gangs have waited so long that devices are kept for them, and could ever have enough.
    fn is_patience_over(&self, id: SweepId, demand: Demand) -> bool {
        let Some(since) = self.short.get(&id) else { return false };
        self.now.seconds_since(*since) >= self.config.gang_patience_s
            && self
                .sweep(id)
                .is_some_and(|sweep| self.could_gather(demand, sweep.spec.resources.workers.min as usize))
    }

    /// Whether what satisfies the demand is kept for a gang that waits.
    pub(crate) fn is_reserved(&self, Demand { lane, memory_bytes: _, trainer: _, own: _ }: Demand) -> bool {
        self.waiting_gangs().any(|(key, demand)| {
            self.is_patience_over(key.2, demand) && (demand.lane.includes(lane) || lane.includes(demand.lane))
        })
    }

    /// Lanes with gangs that wait for workers, and what they need.
    fn waiting_gangs(&self) -> impl Iterator<Item = (QueueKey, Demand)> {
        let queues = self.has_gangs.then_some(&self.placement.queues).into_iter().flatten();
        let lanes = queues.flat_map(|(demand, queue)| queue.iter().map(|key| (*key, *demand)));
        lanes.filter(|(key, _)| self.sweep(key.2).is_some_and(|sweep| sweep.spec.resources.workers.is_gang()))
    }

    /// The first trial in order that waits: its priority, what it needs, and of how many workers.
    pub(crate) fn first_waiting(&self) -> Option<(i32, Demand, usize)> {
        let first =
            |(demand, queue): (&Demand, &BTreeSet<QueueKey>)| queue.first().map(|key| (*key, *demand));
        let (key, demand) = self.placement.queues.iter().filter_map(first).min()?;
        let sweep = self.sweep(key.2)?;
        Some((sweep.spec.priority, demand, sweep.spec.resources.workers.min as usize))
    }

    /// Notes which sweeps have gangs that wait for more workers than are idle, and since when.
    fn note_short(&mut self, out: &Out<'_>) {
        let waiting: BTreeSet<SweepId> = self.waiting_gangs().map(|(key, _)| key.2).collect();
        self.short.retain(|id, _| waiting.contains(id));
        for id in waiting {
            self.short.entry(id).or_insert(out.at);
        }
    }

    /// Whether a worker other than `avoid`, busy or not, has a device for this demand.
    fn fits_elsewhere(&self, demand: Demand, avoid: WorkerId) -> bool {
        self.workers.iter().any(|(id, worker)| {
            *id != avoid
                && self.takes_leases(*id, worker)
                && worker.devices.iter().any(|s| self.placement.fits(demand, worker, &s.device))
        })
    }

    fn grant(&mut self, choice: &Choice, out: &mut Out<'_>) {
        let Choice { sweep: id, number, slots } = choice;
        let Some(&(_, _, device, worker_id)) = slots.first() else { return };
        self.withdraw(worker_id);
        let granted = self.grant_to(*id, *number, worker_id, device, out);
        debug_assert!(granted.is_some(), "a choice is made of what is there");
        self.offer(worker_id);
        self.short.remove(id);
        if let Some(trial_ref) = granted.filter(|trial_ref| self.workers_of(*trial_ref).is_gang()) {
            self.begin_gang(trial_ref, slots, out);
        }
        self.requeue(*id);
    }

    fn grant_to(
        &mut self,
        id: SweepId,
        number: Option<u32>,
        worker_id: WorkerId,
        device: u16,
        out: &mut Out<'_>,
    ) -> Option<TrialRef> {
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
        // A worker of a gang gets its rank when it is ready.
        let workers = self.workers_of(trial_ref);
        let gang = workers.is_gang().then(|| GangPlace {
            generation: Generation(0),
            rank: None,
            shares: Shares::even(workers.max, 1),
        });
        let grant = Grant { trial: trial_ref, epoch, attempt, expires_at, resume, gang, interruption_mean_s };
        out.push(Action::Grant { session, device, grant });
        Some(trial_ref)
    }

    /// What a trial needs, for the explanation.
    pub(crate) fn demand_of(&self, trial: TrialRef) -> Option<Demand> {
        let sweep = self.sweep(trial.sweep)?;
        let kind = sweep.trials.get(trial.number).and_then(|trial| trial.kind);
        let lane = Lane::of(sweep.spec.resources.device, kind);
        let memory_bytes = sweep.spec.resources.memory_bytes.unwrap_or(0);
        let own = sweep.own().then_some(trial.sweep);
        Some(Demand { lane, memory_bytes, trainer: sweep.spec.program.is_none(), own })
    }
}
