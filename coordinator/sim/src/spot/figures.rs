//! What a replay comes to.

use serde::Serialize;

/// The outcome. Seconds are of virtual time; machine seconds are summed over machines, until the sweep was over.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Figures {
    /// Trials of the sweep.
    pub trials: u32,
    /// Those that finished.
    pub completed: u32,
    /// Those that failed as often as allowed.
    pub failed: u32,
    /// Whether every trial ended. If not, the replay was given up at its horizon.
    pub finished: bool,
    /// From the first machine's coming until the last trial ended.
    pub finish_s: f64,
    /// Useful training seconds / available machine seconds.
    pub goodput: f64,
    /// Training that counts: each step of a trial once.
    pub useful_s: f64,
    /// Machine seconds during which there was work: the machine had an attempt, or some trial had no machine.
    pub available_s: f64,
    /// All machine seconds, those without work as well: what is paid for.
    pub machine_s: f64,
    /// Attempts that a machine's going ended.
    pub interruptions: u32,
    /// Attempts that started.
    pub attempts: u32,
    /// Attempts that failed.
    pub failures: u32,
    /// Training that had to be done again.
    pub lost_s: f64,
    /// The most that one interruption or failure lost.
    pub lost_most_s: f64,
    /// Machine seconds from a machine's coming to the first step on it.
    pub recovery_s: f64,
    /// Machine seconds between a notice and the machine's going.
    pub drained_s: f64,
    /// Machines that came.
    pub machines: u32,
    /// Events that the engine took.
    pub events: u64,
}
