//! The engine's own constants, with their defaults. Part of the state: a journal is replayed under the
//! configuration that its snapshot holds.

use serde::{Deserialize, Serialize};

/// How long the engine waits for what. All in seconds; all at least 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Life of a lease after its worker was last heard of. A machine that vanishes is found out within this, a heartbeat
    /// and a tick: within 10 s by default.
    pub lease_s: f64,
    /// After a connection broke without a goodbye: how long its worker may take to come back before its leases
    /// are given to others. Never longer than the lease itself.
    pub reconnect_grace_s: f64,
    /// How long an object that nothing refers to is kept.
    pub delete_after_s: f64,
    /// How long checkpoints are refused that refer to an object after it was deleted. Together with
    /// `delete_after_s` this must exceed the longest time between an agent's finding an object in the store and
    /// its report that refers to it: the upload of the checkpoint's other objects, and what the lease allows
    /// the agent to be out of reach.
    pub remember_deleted_s: f64,
    /// How long a worker that is gone stays in the list of workers, and its numbered reports are known.
    pub forget_worker_s: f64,
    /// Most sweeps.
    pub max_sweeps: usize,
    /// How long a gang waits for more than its least number of workers before it begins without the others.
    pub gang_gather_s: f64,
    /// How long a worker with a seat in a gang may prepare (its data, its checkpoint) before it is let go.
    pub gang_prepare_s: f64,
    /// How long a gang keeps its make-up before it takes idle workers in, or gives some to trials that wait.
    pub gang_settle_s: f64,
    /// After a rank said that its gang is broken: how long the others may take to say so before they are left behind.
    pub gang_stall_s: f64,
    /// How long a gang waits for its least number of workers before devices that become idle are kept for it.
    pub gang_patience_s: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_s: 8.0,
            reconnect_grace_s: 1.0,
            delete_after_s: 60.0,
            remember_deleted_s: 600.0,
            forget_worker_s: 3600.0,
            max_sweeps: 10_000,
            gang_gather_s: 5.0,
            gang_prepare_s: 600.0,
            gang_settle_s: 5.0,
            gang_stall_s: 0.5,
            gang_patience_s: 30.0,
        }
    }
}
