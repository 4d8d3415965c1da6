//! Where the ranks of a gang find each other: a store of keys and values for each trial that a gang trains.
//!
//! Owns what ranks set, who waits for what, and who may ask: a process that was itself granted that very make-up with a
//! rank, or made part of it, over whichever of its connections. A newer make-up of a trial ends the older one as soon as
//! anybody is told of it, and whoever waits in that is answered that nothing will ever be set. Nothing of it is
//! journaled: ranks that connect while the coordinator restarts run into their timeout, and are made up anew.
//!
//! It must not decide who is in a gang (the engine does), nor read what ranks tell each other (that is c10d's).

use super::{from_worker::StoreQuery, to_worker::trial_key};
use crate::driver::ToSession;
use bytes::Bytes;
use spotsweep_engine::{TrialRef, action::GangPlace};
use spotsweep_proto::{
    gang::Generation,
    ids::{Epoch, Incarnation},
    limits::DEVICES_PER_WORKER,
};
use spotsweep_wire::v1;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::mpsc::{self, OwnedPermit};

/// Questions of one connection that wait for their answers: as many as agents let each of their jobs ask.
pub(super) const QUESTIONS_PER_CONNECTION: usize = DEVICES_PER_WORKER * 512;
/// Most keys of one make-up. Gloo sets one or two for each rank and process group.
const KEYS_PER_GENERATION: usize = 1 << 16;
/// Most bytes of the keys and values of one make-up.
const BYTES_PER_GENERATION: usize = 64 << 20;
/// Most questions that wait in one make-up.
const WAITERS_PER_GENERATION: usize = 1 << 16;
/// Most make-ups that are kept, one for each trial; the one that was not used for longest goes first.
const GENERATIONS: usize = 4096;
/// Most bytes of all of them together.
const BYTES: usize = 256 << 20;

/// The limits, which tests make smaller.
#[derive(Debug, Clone, Copy)]
struct Limits {
    keys: usize,
    bytes_each: usize,
    waiters: usize,
    generations: usize,
    bytes: usize,
}

const LIMITS: Limits = Limits {
    keys: KEYS_PER_GENERATION,
    bytes_each: BYTES_PER_GENERATION,
    waiters: WAITERS_PER_GENERATION,
    generations: GENERATIONS,
    bytes: BYTES,
};

/// All stores. Cheap to clone; used from any connection's task.
#[derive(Clone)]
pub(super) struct Rendezvous(Arc<Mutex<Table>>);

impl Default for Rendezvous {
    fn default() -> Self {
        Self::with(LIMITS)
    }
}

impl Rendezvous {
    fn with(limits: Limits) -> Self {
        let table = Table { limits, stores: HashMap::new(), bytes: 0, clock: 0, connections: 0 };
        Self(Arc::new(Mutex::new(table)))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change is whole before anything could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of a process, and where it gets its answers.
    pub(super) fn connect(&self, who: Incarnation) -> (Member, mpsc::Receiver<v1::StoreAnswer>) {
        let (answers, receiver) = mpsc::channel(QUESTIONS_PER_CONNECTION);
        let mut table = self.table();
        table.connections += 1;
        let connection = table.connections;
        drop(table);
        (Member { rendezvous: self.clone(), who, connection, answers }, receiver)
    }
}

/// One connection. What it asked and is not answered is forgotten with it.
pub(super) struct Member {
    rendezvous: Rendezvous,
    who: Incarnation,
    connection: u64,
    answers: mpsc::Sender<v1::StoreAnswer>,
}

impl Member {
    /// The process is about to be told this.
    pub(super) fn told(&self, what: &ToSession) {
        match what {
            ToSession::Grants(grants) => {
                for (_, grant, _) in grants {
                    if let Some(place) = &grant.gang {
                        self.rendezvous.table().place(self.who, grant.trial, grant.epoch, place);
                    }
                }
            }
            ToSession::Regang { trial, epoch, place } => {
                self.rendezvous.table().place(self.who, *trial, *epoch, place);
            }
            ToSession::Revoked { trial, epoch, .. } => {
                self.rendezvous.table().leave(self.who, *trial, *epoch);
            }
            ToSession::Welcome { keep, .. } => {
                let keep: HashSet<_> = keep.iter().map(|lease| (lease.trial, lease.epoch)).collect();
                self.rendezvous.table().keep(self.who, &keep);
            }
            ToSession::Sweep(_) | ToSession::Renewed { .. } | ToSession::Acknowledged { .. } => {}
        }
    }

    /// Answers a question, now or when the value is there. False: so many wait already that there is no room for the
    /// answer.
    pub(super) fn ask(&self, query: StoreQuery) -> bool {
        let Ok(permit) = self.answers.clone().try_reserve_owned() else { return false };
        let waiter = Waiter { connection: self.connection, id: query.id, permit };
        self.rendezvous.table().ask(self.who, query, waiter);
        true
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.rendezvous.table().hang_up(self.connection);
    }
}

/// A question with room for its answer.
struct Waiter {
    connection: u64,
    id: u64,
    permit: OwnedPermit<v1::StoreAnswer>,
}

impl Waiter {
    fn answer(self, trial: TrialRef, epoch: Epoch, value: Option<Bytes>) {
        let answer = v1::StoreAnswer { trial: Some(trial_key(trial)), epoch: epoch.0, id: self.id, value };
        self.permit.send(answer);
    }
}

/// One make-up of a trial's gang.
struct Store {
    epoch: Epoch,
    generation: Generation,
    /// Who has a rank in it.
    ranks: HashSet<Incarnation>,
    values: HashMap<String, Bytes>,
    waiters: HashMap<String, Vec<Waiter>>,
    waiting: usize,
    bytes: usize,
    used: u64,
}

impl Store {
    fn new(epoch: Epoch, generation: Generation) -> Self {
        Self {
            epoch,
            generation,
            ranks: HashSet::new(),
            values: HashMap::new(),
            waiters: HashMap::new(),
            waiting: 0,
            bytes: 0,
            used: 0,
        }
    }

    fn end(self, trial: TrialRef) {
        for waiter in self.waiters.into_values().flatten() {
            waiter.answer(trial, self.epoch, None);
        }
    }
}

struct Table {
    limits: Limits,
    /// The newest make-up of each trial.
    stores: HashMap<TrialRef, Store>,
    bytes: usize,
    /// Counts uses, for finding the store that was not used for longest.
    clock: u64,
    connections: u64,
}

impl Table {
    fn place(&mut self, who: Incarnation, trial: TrialRef, epoch: Epoch, place: &GangPlace) {
        let told = (epoch, place.generation);
        if self.stores.get(&trial).is_some_and(|store| (store.epoch, store.generation) > told) {
            // Two messages on two connections have crossed: this one is over already.
            return;
        }
        if self.stores.get(&trial).is_some_and(|store| (store.epoch, store.generation) < told) {
            self.end(trial);
        }
        self.clock += 1;
        let store = self.stores.entry(trial).or_insert_with(|| Store::new(epoch, place.generation));
        store.used = self.clock;
        match place.rank {
            Some(_) => store.ranks.insert(who),
            None => store.ranks.remove(&who),
        };
        self.make_room();
    }

    /// The process has the lease no more.
    fn leave(&mut self, who: Incarnation, trial: TrialRef, epoch: Epoch) {
        let Some(store) = self.stores.get_mut(&trial).filter(|store| store.epoch == epoch) else { return };
        store.ranks.remove(&who);
        if store.ranks.is_empty() {
            self.end(trial);
        }
    }

    /// The process keeps only these leases.
    fn keep(&mut self, who: Incarnation, keep: &HashSet<(TrialRef, Epoch)>) {
        let lost = self
            .stores
            .iter()
            .filter(|(trial, store)| store.ranks.contains(&who) && !keep.contains(&(**trial, store.epoch)));
        let lost: Vec<_> = lost.map(|(trial, store)| (*trial, store.epoch)).collect();
        for (trial, epoch) in lost {
            self.leave(who, trial, epoch);
        }
    }

    fn ask(&mut self, who: Incarnation, query: StoreQuery, waiter: Waiter) {
        let StoreQuery { trial, epoch, generation, id: _, key, set } = query;
        let limits = self.limits;
        self.clock += 1;
        let asked = (epoch, generation);
        let Some(store) = self
            .stores
            .get_mut(&trial)
            .filter(|store| (store.epoch, store.generation) == asked && store.ranks.contains(&who))
        else {
            let over = self.stores.get(&trial).is_some_and(|store| asked < (store.epoch, store.generation));
            if over {
                tracing::debug!(?trial, %epoch, %generation, "a question to the rendezvous of a make-up that is over");
            } else {
                tracing::warn!(?trial, %epoch, %generation, "a question to the rendezvous of a gang from a worker that has no rank in it");
            }
            return waiter.answer(trial, epoch, None);
        };
        store.used = self.clock;
        let Some(value) = set else {
            if let Some(value) = store.values.get(&key) {
                let value = value.clone();
                return waiter.answer(trial, epoch, Some(value));
            }
            if store.waiting >= limits.waiters {
                tracing::warn!(
                    ?trial,
                    limit = limits.waiters,
                    "too many questions wait in the rendezvous of a gang"
                );
                return waiter.answer(trial, epoch, None);
            }
            store.waiting += 1;
            store.waiters.entry(key).or_default().push(waiter);
            return;
        };
        let replaced = store.values.get(&key).map(|value| key.len() + value.len());
        let bytes = store.bytes - replaced.unwrap_or(0) + key.len() + value.len();
        if (replaced.is_none() && store.values.len() >= limits.keys) || bytes > limits.bytes_each {
            tracing::warn!(?trial, keys = store.values.len(), bytes, "the rendezvous of a gang is full");
            return waiter.answer(trial, epoch, None);
        }
        self.bytes = self.bytes - store.bytes + bytes;
        store.bytes = bytes;
        let waiting = store.waiters.remove(&key).unwrap_or_default();
        store.waiting -= waiting.len();
        store.values.insert(key, value.clone());
        waiter.answer(trial, epoch, Some(Bytes::new()));
        for waiter in waiting {
            waiter.answer(trial, epoch, Some(value.clone()));
        }
        self.make_room();
    }

    fn hang_up(&mut self, connection: u64) {
        for store in self.stores.values_mut() {
            store.waiters.retain(|_, waiters| {
                waiters.retain(|waiter| waiter.connection != connection);
                !waiters.is_empty()
            });
            store.waiting = store.waiters.values().map(Vec::len).sum();
        }
    }

    fn make_room(&mut self) {
        while self.stores.len() > self.limits.generations
            || (self.bytes > self.limits.bytes && self.stores.len() > 1)
        {
            let oldest = self.stores.iter().min_by_key(|(_, store)| store.used).map(|(trial, _)| *trial);
            let Some(trial) = oldest else { return };
            tracing::warn!(
                ?trial,
                "there are too many rendezvous of gangs: the one that was not used for longest ends"
            );
            self.end(trial);
        }
    }

    fn end(&mut self, trial: TrialRef) {
        if let Some(store) = self.stores.remove(&trial) {
            self.bytes -= store.bytes;
            store.end(trial);
        }
    }
}

#[cfg(test)]
mod tests;
