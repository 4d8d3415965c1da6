//! The invariants of the state, each by name, checked from the ground up. For tests and the simulator: it
//! costs time proportional to the state.

use crate::{
    engine::Engine,
    gang::Phase,
    refs::{TrialRef, WorkerId},
    state::{State, sweep_id},
    sweep::Sweep,
    time::Time,
    trial::Trial,
    views::Counts,
    worker::Link,
};
use spotsweep_proto::digest::Digest;
use std::collections::{BTreeMap, BTreeSet};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {what}")]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// Where it is broken.
    pub what: String,
}

fn ensure(holds: bool, rule: &'static str, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { rule, what: what() }) }
}

impl Engine {
    /// Checks every invariant of the state.
    ///
    /// # Errors
    /// The first [`Violation`] found.
    pub fn check(&self) -> Result<(), Violation> {
        let state = &self.state;
        for (index, sweep) in state.sweeps.iter().enumerate() {
            check_counts(sweep)?;
            for number in 0..sweep.trials.len() {
                let trial_ref = TrialRef { sweep: sweep_id(index), number };
                check_trial(state, sweep, trial_ref)?;
            }
        }
        check_leases(state)?;
        check_gangs(state)?;
        check_workers(state)?;
        check_references(state)?;
        check_nothing_idle(state)
    }
}

/// Exactly N trials, each in one state, and the sweep is over exactly when all are final.
fn check_counts(sweep: &Sweep) -> Result<(), Violation> {
    let rule = "exactly N trials";
    let mut counts = Counts::default();
    for trial in sweep.trials.iter() {
        *counts.get_mut(trial.state) += 1;
    }
    for state in sweep.ahead.values() {
        *counts.get_mut(*state) += 1;
    }
    let behind = sweep.total - sweep.trials.len();
    let exceptions = u32::try_from(sweep.ahead.len()).unwrap_or(u32::MAX);
    ensure(exceptions <= behind, rule, || format!("{exceptions} exceptions among {behind}"))?;
    *counts.get_mut(sweep.rest) += behind - exceptions;
    ensure(counts == sweep.counts, rule, || format!("counted {counts:?}, kept {:?}", sweep.counts))?;
    ensure(counts.total() == sweep.total, rule, || format!("{counts:?} of {}", sweep.total))?;
    let over = counts.ended() == sweep.total;
    ensure(over == sweep.ended_at.is_some(), "a sweep is over when all its trials are final", || {
        format!("{} with {counts:?}", sweep.name)
    })?;
    ensure(
        sweep.ahead.first_key_value().is_none_or(|(number, _)| *number > sweep.trials.len()),
        "the next trial without a record is no exception",
        || format!("{:?} at {}", sweep.ahead, sweep.trials.len()),
    )
}

/// Every trial that waits has exactly one reason that the engine acts upon.
fn check_trial(state: &State, sweep: &Sweep, trial_ref: TrialRef) -> Result<(), Violation> {
    let number = trial_ref.number;
    let Some(trial) = sweep.trials.get(number) else { return Ok(()) };
    let rule = "every waiting trial has a reason";
    let in_lanes = sweep.ready.iter().filter(|lane| lane.contains(&number)).count();
    let delayed = state.delayed.contains(&(trial.retry_at, trial_ref));
    let leased = trial.lease.is_some();
    let show = || format!("{trial_ref}: {trial:?}, in {in_lanes} lanes, delayed {delayed}");
    ensure(delayed == (trial.retry_at != Time(0)), rule, show)?;
    ensure(sweep.open.contains(&number) != trial.state.is_final(), rule, show)?;
    let waits_for_worker = trial.state == crate::action::TrialState::Pending && !delayed;
    ensure(in_lanes == usize::from(waits_for_worker), rule, show)?;
    ensure(!(leased && (trial.state.is_final() || delayed || in_lanes > 0)), rule, show)?;
    let shown = match sweep.waiting_state(trial.paused) {
        crate::action::TrialState::Pending if leased => crate::action::TrialState::Running,
        waiting => waiting,
    };
    ensure(trial.state.is_final() || trial.state == shown, rule, show)?;
    check_steps(trial, trial_ref)
}

fn check_steps(trial: &Trial, trial_ref: TrialRef) -> Result<(), Violation> {
    let show = || format!("{trial_ref}: {trial:?}");
    let ascending = trial.kept.is_sorted_by(|a, b| a.reference.step < b.reference.step);
    ensure(ascending, "checkpoints ascend by step", show)?;
    ensure(trial.points_until <= trial.step + 1, "metric steps strictly grow", show)?;
    ensure(u64::from(trial.attempts) <= trial.epoch, "an attempt has a lease of its own", show)
}

/// Leases stand in the books of the trial, the worker and the sweep alike.
fn check_leases(state: &State) -> Result<(), Violation> {
    let rule = "at most one live epoch per trial";
    let mut held: BTreeMap<TrialRef, BTreeSet<WorkerId>> = BTreeMap::new();
    for (id, worker) in &state.workers {
        for trial in &worker.leases {
            held.entry(*trial).or_default().insert(*id);
        }
    }
    let mut leases = 0;
    for (index, sweep) in state.sweeps.iter().enumerate() {
        let mut of_sweep = 0;
        for (number, trial) in (0..).zip(sweep.trials.iter()) {
            let Some(lease) = &trial.lease else { continue };
            let trial_ref = TrialRef { sweep: sweep_id(index), number };
            of_sweep += 1;
            let holders = held.get(&trial_ref);
            let expected = match state.gangs.get(&trial_ref) {
                Some(gang) => gang.seats().map(|seat| seat.worker).collect(),
                None => BTreeSet::from([lease.worker]),
            };
            let holds = holders == Some(&expected) && expected.contains(&lease.worker);
            ensure(holds, rule, || format!("{trial_ref}: {lease:?}, {holders:?}, {expected:?}"))?;
        }
        ensure(of_sweep == sweep.leases, rule, || format!("{} has {of_sweep} leases", sweep.name))?;
        leases += of_sweep as usize;
    }
    ensure(leases == held.len(), rule, || format!("{leases} in trials, {} at workers", held.len()))
}

/// What gangs hold: nobody twice, the holder first, and never a part of what one needs while it waits for the rest.
fn check_gangs(state: &State) -> Result<(), Violation> {
    for (trial_ref, gang) in &state.gangs {
        let show = || format!("{trial_ref}: {gang:?}");
        let workers: Vec<WorkerId> = gang.seats().map(|seat| seat.worker).collect();
        let distinct: BTreeSet<&WorkerId> = workers.iter().collect();
        ensure(distinct.len() == workers.len(), "a worker has one seat in a gang", show)?;
        let bounds = state.workers_of(*trial_ref);
        let (mut min, max) = (bounds.min as usize, bounds.max as usize);
        if state.is_rigid(*trial_ref) && gang.has_begun() {
            // Ranks end one after the other, and none comes in their place.
            min = 1;
        }
        ensure((min..=max).contains(&gang.size()), "a gang holds all that it needs or nothing", show)?;
        let trains = matches!(gang.phase, Phase::Forming | Phase::Formed);
        ensure(!trains || gang.ranks.len() >= min, "no gang trains with fewer than its least number", show)?;
        let holder = state.trial(*trial_ref).and_then(|trial| Some(trial.lease.as_ref()?.worker));
        let first = gang.ranks.first().or(gang.joining.first()).map(|seat| seat.worker);
        ensure(holder == first, "the lease of a gang is the first rank's", show)?;
        for seat in gang.seats() {
            let worker = state.workers.get(&seat.worker);
            let slot = worker.and_then(|worker| worker.devices.get(usize::from(seat.device)));
            ensure(slot.is_some_and(|slot| slot.ganged), "nothing queues behind a rank", show)?;
        }
    }
    let ganged = state.workers.values().flat_map(|worker| &worker.devices).filter(|slot| slot.ganged).count();
    let seats: usize = state.gangs.values().map(|gang| gang.seats().count()).sum();
    ensure(ganged == seats, "nothing queues behind a rank", || format!("{ganged} devices, {seats} seats"))
}

fn check_workers(state: &State) -> Result<(), Violation> {
    let rule = "connections and workers match";
    for (id, worker) in &state.workers {
        let mut loads = vec![0; worker.devices.len()];
        for trial in &worker.leases {
            let seat = state.gangs.get(trial).and_then(|gang| gang.seat(*id));
            let lease = || state.trial(*trial).and_then(|trial| Some(trial.lease.as_ref()?.device));
            let device = seat.map(|seat| seat.device).or_else(lease);
            if let Some(load) = device.and_then(|device| loads.get_mut(usize::from(device))) {
                *load += 1;
            }
        }
        let kept: Vec<u32> = worker.devices.iter().map(|slot| slot.load).collect();
        ensure(loads == kept, "loads count leases", || format!("{id:?}: {loads:?}, kept {kept:?}"))?;
        let session = worker.session();
        let points_back = session.is_none_or(|session| state.sessions.get(&session) == Some(id));
        ensure(points_back, rule, || format!("{id:?}: {:?}", worker.link))?;
        if let Link::Gone { since } = worker.link {
            let listed = state.gone.contains(&(since, *id)) && worker.leases.is_empty();
            ensure(listed, "who is gone holds nothing", || format!("{id:?}: {worker:?}"))?;
        }
    }
    let stray = state.notices.keys().find(|id| !state.workers.contains_key(id));
    ensure(stray.is_none(), rule, || format!("a notice of {stray:?}"))?;
    let connected = state.workers.values().filter(|worker| worker.session().is_some()).count();
    ensure(connected == state.sessions.len(), rule, || format!("{:?}", state.sessions))?;
    let gone = state.workers.values().filter(|worker| worker.is_gone()).count();
    ensure(gone == state.gone.len(), rule, || format!("{:?}", state.gone))
}

/// References count kept checkpoints, and nothing that is referred to is condemned.
fn check_references(state: &State) -> Result<(), Violation> {
    let mut counted: BTreeMap<Digest, u32> = BTreeMap::new();
    let trials = state.sweeps.iter().flat_map(|sweep| sweep.trials.iter());
    for reference in trials.flat_map(|trial| &trial.kept).map(|kept| &kept.reference) {
        for digest in reference.parts.iter().chain([&reference.manifest]) {
            *counted.entry(*digest).or_default() += 1;
        }
    }
    let rule = "references equal kept checkpoints";
    ensure(&counted == state.objects.references(), rule, || {
        format!("counted {counted:?}, kept {:?}", state.objects.references())
    })?;
    let condemned: BTreeSet<Digest> = state.objects.condemned().collect();
    let both = counted.keys().find(|digest| condemned.contains(digest));
    ensure(both.is_none(), "nothing that is referred to is deleted", || format!("{both:?}"))
}

/// No free device stands beside a trial that it could take, except one that just failed there.
fn check_nothing_idle(state: &State) -> Result<(), Violation> {
    let choice = state.choose();
    ensure(choice.is_none(), "no device idles beside a trial that it fits", || {
        "a lease could be granted".to_owned()
    })
}
