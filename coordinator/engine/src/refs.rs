//! How the engine and its driver refer to things: small numbers, cheap to copy and to journal.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A sweep, numbered from 0 in the order of submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SweepId(pub u32);

/// A trial: its sweep and its place in it, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrialRef {
    /// The sweep.
    pub sweep: SweepId,
    /// The place.
    pub number: u32,
}

impl fmt::Display for TrialRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sweep.0, self.number)
    }
}

/// A worker process: one incarnation of an agent, numbered by the engine when it first joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

/// One connection of a worker, numbered by the driver, never twice between two [`crate::Event::Restarted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// A client's request that waits for [`crate::Action::Reply`], numbered by the driver like a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);
