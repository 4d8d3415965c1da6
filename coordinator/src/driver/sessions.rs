//! The workers' connections, seen from the driver: what each is sent, and that one which does not read is let go.

use spotsweep_engine::{
    Engine, SessionId, SweepId, Time, TrialRef, WorkerId,
    action::{GangPlace, Grant, RevokeReason},
    event::HeldLease,
};
use spotsweep_proto::{
    ids::{Epoch, Incarnation, SweepName},
    spec::SweepSpec,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::mpsc;

/// Messages that wait for one worker to read them before it is let go.
pub(crate) const SESSION_QUEUE: usize = 1024;

/// What all trials of a sweep share, as workers are told.
#[derive(Debug)]
pub struct SweepCard {
    /// Its number.
    pub id: SweepId,
    /// Its name.
    pub name: SweepName,
    /// What was submitted.
    pub spec: Arc<SweepSpec>,
}

/// What a worker is sent.
#[derive(Debug, Clone)]
pub enum ToSession {
    /// It is in.
    Welcome {
        /// Its number.
        worker: WorkerId,
        /// Reports up to here are applied.
        applied_seq: u64,
        /// Leases that still stand.
        keep: Vec<HeldLease>,
        /// Seconds without word after which leases end.
        lease_s: f64,
    },
    /// A sweep that grants will refer to.
    Sweep(Arc<SweepCard>),
    /// Leases, each on the device of that index.
    Grants(Vec<(u16, Grant, Arc<SweepCard>)>),
    /// All its leases run on for so many seconds.
    Renewed {
        /// From now.
        for_s: f64,
    },
    /// A lease ends.
    Revoked {
        /// The trial.
        trial: TrialRef,
        /// The lease.
        epoch: Epoch,
        /// Why.
        reason: RevokeReason,
    },
    /// The gang of a trial has a new make-up.
    Regang {
        /// The trial.
        trial: TrialRef,
        /// The lease.
        epoch: Epoch,
        /// The worker's place in it.
        place: GangPlace,
    },
    /// Reports up to here are durable and applied.
    Acknowledged {
        /// The last.
        seq: u64,
    },
}

/// The driver's end of a worker's connection.
#[derive(Debug)]
pub struct SessionLink {
    /// Its number.
    pub session: SessionId,
    /// The number that the worker's process gives it, which grows.
    pub connection: u64,
    /// Where messages go; closed when the driver lets go of it.
    pub messages: mpsc::Sender<ToSession>,
    /// Set whenever anything comes from the worker.
    pub heard: Arc<AtomicBool>,
}

struct Session {
    link: SessionLink,
    incarnation: Incarnation,
    held: Vec<HeldLease>,
    told: HashSet<SweepId>,
    /// What this commit sends.
    out: Vec<ToSession>,
    /// Where in `out` further grants may join others.
    grants: Option<usize>,
    /// Where in `out` a later acknowledgement replaces an earlier.
    acknowledged: Option<usize>,
}

/// All open connections.
#[derive(Default)]
pub(crate) struct Sessions {
    open: HashMap<SessionId, Session>,
    touched: Vec<SessionId>,
    cards: HashMap<SweepId, Arc<SweepCard>>,
}

impl Sessions {
    /// A worker said hello. False, and the connection is let go: this hello was so long on its way that a later one of
    /// the same process came before it. To heed it would cut off the connection that the worker uses.
    pub(crate) fn open(&mut self, link: SessionLink, incarnation: Incarnation, held: Vec<HeldLease>) -> bool {
        let overtaken = |session: &Session| {
            session.incarnation == incarnation && session.link.connection > link.connection
        };
        if self.open.values().any(overtaken) {
            tracing::info!(connection = link.connection, "a hello came behind that of a later connection");
            return false;
        }
        // A new connection of the same process: the older one is over, whether or not it has noticed.
        self.open.retain(|_, session| session.incarnation != incarnation);
        let session = Session {
            incarnation,
            held,
            told: HashSet::new(),
            out: Vec::new(),
            grants: None,
            acknowledged: None,
            link,
        };
        self.open.insert(session.link.session, session);
        true
    }

    /// Forgets a connection; false if it was over already.
    pub(crate) fn close(&mut self, session: SessionId) -> bool {
        self.open.remove(&session).is_some()
    }

    pub(crate) fn is_open(&self, session: SessionId) -> bool {
        self.open.contains_key(&session)
    }

    /// Connections over which anything came since the last call, in order.
    pub(crate) fn take_heard(&mut self) -> Vec<SessionId> {
        let heard = self.open.values().filter(|session| session.link.heard.swap(false, Ordering::Relaxed));
        let mut heard: Vec<_> = heard.map(|session| session.link.session).collect();
        heard.sort_unstable();
        heard
    }

    pub(crate) fn welcome(
        &mut self,
        session: SessionId,
        worker: WorkerId,
        applied_seq: u64,
        keep: &[(TrialRef, Epoch)],
        lease_s: f64,
    ) {
        self.push(session, |session| {
            let mut held = std::mem::take(&mut session.held);
            held.retain(|lease| keep.contains(&(lease.trial, lease.epoch)));
            session.out.push(ToSession::Welcome { worker, applied_seq, keep: held, lease_s });
        });
    }

    pub(crate) fn grant(&mut self, engine: &Engine, session: SessionId, device: u16, grant: Grant) {
        let id = grant.trial.sweep;
        let Some(card) = self.card(engine, id) else { return };
        self.push(session, |session| {
            if session.told.insert(id) {
                // Before the grants of this commit, so that none comes before its sweep.
                let at = session.grants.unwrap_or(session.out.len());
                session.out.insert(at, ToSession::Sweep(card.clone()));
                session.grants = session.grants.map(|grants| grants + 1);
                session.acknowledged = session.acknowledged.map(|ack| if ack >= at { ack + 1 } else { ack });
            }
            match session.grants.and_then(|at| session.out.get_mut(at)) {
                Some(ToSession::Grants(grants)) => grants.push((device, grant, card)),
                _ => {
                    session.grants = Some(session.out.len());
                    session.out.push(ToSession::Grants(vec![(device, grant, card)]));
                }
            }
        });
    }

    pub(crate) fn renew(&mut self, session: SessionId, expires_at: Time, now: Time) {
        self.push(session, |session| {
            session.out.push(ToSession::Renewed { for_s: expires_at.seconds_since(now) });
        });
    }

    pub(crate) fn revoke(&mut self, session: SessionId, trial: TrialRef, epoch: Epoch, reason: RevokeReason) {
        self.push(session, |session| {
            // Grants that come later must stay behind this.
            session.grants = None;
            session.out.push(ToSession::Revoked { trial, epoch, reason });
        });
    }

    pub(crate) fn regang(&mut self, session: SessionId, trial: TrialRef, epoch: Epoch, place: GangPlace) {
        self.push(session, |session| {
            // As with a revocation: grants that come later must stay behind this.
            session.grants = None;
            session.out.push(ToSession::Regang { trial, epoch, place });
        });
    }

    pub(crate) fn acknowledge(&mut self, session: SessionId, seq: u64) {
        self.push(session, |session| match session.acknowledged.and_then(|at| session.out.get_mut(at)) {
            Some(ToSession::Acknowledged { seq: known }) => *known = seq,
            _ => {
                session.acknowledged = Some(session.out.len());
                session.out.push(ToSession::Acknowledged { seq });
            }
        });
    }

    /// Sends what this commit has for each. Gives the connections that are let go because they do not read.
    pub(crate) fn send(&mut self) -> Vec<SessionId> {
        let mut slow = Vec::new();
        for id in self.touched.drain(..) {
            let Some(session) = self.open.get_mut(&id) else { continue };
            session.grants = None;
            session.acknowledged = None;
            let messages = &session.link.messages;
            if session.out.drain(..).any(|message| messages.try_send(message).is_err()) {
                self.open.remove(&id);
                slow.push(id);
            }
        }
        slow
    }

    fn push(&mut self, session: SessionId, work: impl FnOnce(&mut Session)) {
        let Some(open) = self.open.get_mut(&session) else { return };
        if open.out.is_empty() {
            self.touched.push(session);
        }
        work(open);
    }

    fn card(&mut self, engine: &Engine, id: SweepId) -> Option<Arc<SweepCard>> {
        if let Some(card) = self.cards.get(&id) {
            return Some(card.clone());
        }
        let view = engine.sweep(id)?;
        let card = Arc::new(SweepCard { id, name: view.name, spec: view.spec });
        self.cards.insert(id, card.clone());
        Some(card)
    }
}
