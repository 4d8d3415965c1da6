//! Why a trial is where it is, in words.

use crate::{action::TrialState, refs::TrialRef, time::Time};
use std::fmt;

/// Why a trial waits, runs, or ended, and what happened to it before. `Display` is what people read.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The trial.
    pub trial: TrialRef,
    /// Its state.
    pub state: TrialState,
    /// When this was asked; times are given relative to it.
    pub now: Time,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trial {} is {}", self.trial, self.state)
    }
}
