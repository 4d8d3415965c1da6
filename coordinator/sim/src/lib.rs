//! The simulator: the real engine among modelled agents, in virtual time, from one seed.
//!
//! A run draws disasters from its seed (agents killed, stopped and cut off, streams that stall in one direction
//! or break, the coordinator killed between any two journal writes and between a commit and what follows from
//! it) and checks the promises after every step. The same seed gives the same run, to the last message. It
//! must not know the wire, the real store or the real agent: those have tests with real processes.

mod agent;
mod coordinator;
mod dice;
mod ledger;
mod storm;
mod world;

use spotsweep_engine::Time;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Trials of the sweep.
    pub trials: u32,
    /// Agents, each with one CPU.
    pub agents: usize,
    /// Virtual seconds during which disasters happen. Afterwards all machines return.
    pub storm_s: f64,
    /// Mean virtual seconds between two disasters.
    pub disaster_every_s: f64,
    /// A mistake to make on purpose, to see that it is found.
    pub mistake: Option<Mistake>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self { trials: 12, agents: 4, storm_s: 60.0, disaster_every_s: 2.0, mistake: None }
    }
}

/// Mistakes of a coordinator that the invariants must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// Answers before the journal is durable.
    AnswerBeforeCommit,
    /// Writes history again for events that it replays.
    HistoryTwice,
    /// Replays the journal without the last event before the commit.
    LoseLastEvent,
    /// Deletes objects as soon as nothing refers to them.
    DeleteAtOnce,
}

/// How a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Events that the engine took.
    pub events: u64,
    /// Virtual time at which the sweep was over.
    pub ended_at: Time,
    /// Attempts that started.
    pub attempts: u32,
    /// Reports dropped because their epoch was stale.
    pub stale_reports: u64,
    /// Times that the coordinator died.
    pub crashes: u32,
    /// Checkpoints refused.
    pub refused_checkpoints: u64,
}

/// A promise that was broken, and how to see it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed} at {at_s} s: {rule}: {what}\nhint: SPOTSWEEP_SIM_SEED={seed} replays exactly this run")]
pub struct Broken {
    /// The seed.
    pub seed: u64,
    /// Virtual seconds since the start.
    pub at_s: u64,
    /// The rule.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

/// Runs the scenario under a seed.
///
/// # Errors
/// The first promise that is broken.
pub fn run(seed: u64, scenario: &Scenario) -> Result<Outcome, Broken> {
    world::World::new(seed, *scenario).run()
}
