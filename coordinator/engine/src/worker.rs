//! What the engine remembers of one worker: its devices, its connection, what it holds. No decisions.

use crate::{
    event::{Device, Hello, Machine},
    refs::{SessionId, TrialRef},
    time::Time,
    trial::Label,
};
use serde::{Deserialize, Serialize};
use spotsweep_proto::{
    catalogue::own::OwnItem,
    ids::{Incarnation, WorkerName},
};
use std::{collections::BTreeSet, sync::Arc};

/// A worker: one incarnation of an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Worker {
    pub(crate) name: WorkerName,
    pub(crate) incarnation: Incarnation,
    pub(crate) machine: Machine,
    pub(crate) devices: Vec<Slot>,
    pub(crate) link: Link,
    pub(crate) joined_at: Time,
    /// When anything last came from it.
    pub(crate) heard_at: Time,
    /// When its leases end unless it is heard of. One moment for all of them.
    pub(crate) expires_at: Time,
    /// Reports up to here are applied; `None` before the first, whatever its number is.
    pub(crate) applied_seq: Option<u64>,
    /// What it holds.
    pub(crate) leases: BTreeSet<TrialRef>,
    /// It has no trainer for the models of the catalogue.
    pub(crate) programs_only: bool,
    /// Models and data sets that its trainer has besides those of Spotsweep.
    pub(crate) knows: Arc<BTreeSet<OwnItem>>,
}

/// A device and what it may be given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Slot {
    pub(crate) device: Device,
    pub(crate) label: Label,
    /// How many more leases it takes.
    pub(crate) credits: u32,
    /// Leases that it holds.
    pub(crate) load: u32,
    /// It carries a rank of a gang, behind which nothing queues.
    pub(crate) ganged: bool,
}

/// Whether a worker can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Link {
    /// Its stream is open.
    Connected {
        session: SessionId,
        /// Not heard for half a lease: it gets nothing new until it is.
        silent: bool,
    },
    /// Its stream broke; its leases are taken back at `until`.
    Broken { since: Time, until: Time },
    /// It holds nothing and is not expected back.
    Gone { since: Time },
}

impl Worker {
    pub(crate) fn new(hello: Hello, session: SessionId, at: Time, devices: Vec<Slot>) -> Self {
        Self {
            name: hello.name,
            incarnation: hello.incarnation,
            machine: hello.machine,
            devices,
            link: Link::Connected { session, silent: false },
            joined_at: at,
            heard_at: at,
            expires_at: at,
            applied_seq: None,
            leases: BTreeSet::new(),
            programs_only: hello.programs_only,
            knows: Arc::new(hello.knows.into_iter().collect()),
        }
    }

    /// The connection, if it may be sent something.
    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.link {
            Link::Connected { session, .. } => Some(session),
            Link::Broken { .. } | Link::Gone { .. } => None,
        }
    }

    /// Whether it is connected and was heard of lately.
    pub(crate) fn is_heard(&self) -> bool {
        match self.link {
            Link::Connected { silent, .. } => !silent,
            Link::Broken { .. } | Link::Gone { .. } => false,
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        match self.link {
            Link::Gone { .. } => true,
            Link::Connected { .. } | Link::Broken { .. } => false,
        }
    }
}
