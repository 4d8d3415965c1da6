//! The simulator: the real engine among modelled agents, in virtual time, from one seed.
//!
//! Two ways to use it. [`run`] draws disasters from its seed (machines taken with and without a notice, processes
//! stopped, connections cut, stalled one way, slowed, delivering twice or late, the coordinator killed between any
//! two journal writes and in the middle of a commit, clocks set, disks full, a store that does not answer) and
//! checks the promises after every step; the same seed gives the same run, to the last message. [`spot`] replays
//! the comings and goings of spot machines, real or drawn, and tells how a sweep fares among them.
//!
//! It must not know the wire, the real store or the real agent: those have tests with real processes.

mod clock;
mod content;
mod dice;
pub mod spot;
mod storm;

use spotsweep_engine::Time;
pub use storm::Mistake;

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Trials of the sweep.
    pub trials: u32,
    /// Trials of a second sweep, each trained by several agents; how many, the seed says.
    pub gang_trials: u32,
    /// What gangs train are programs, each on a number of agents that never changes.
    pub programs: bool,
    /// Trials of single agents never run out: `trials` are more than the run can take, and it ends with those of gangs.
    pub endless: bool,
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
        Self {
            trials: 12,
            gang_trials: 0,
            programs: false,
            endless: false,
            agents: 4,
            storm_s: 60.0,
            disaster_every_s: 1.5,
            mistake: None,
        }
    }
}

impl Scenario {
    /// The usual one, and trials of gangs beside those of single agents.
    #[must_use]
    pub fn with_gangs() -> Self {
        Self { gang_trials: 4, ..Self::default() }
    }

    /// The usual one, and programs on several agents each beside trials of single agents.
    #[must_use]
    pub fn with_programs() -> Self {
        Self { programs: true, ..Self::with_gangs() }
    }

    /// Trials of gangs beside trials of single agents that never run out.
    #[must_use]
    pub fn with_endless_others() -> Self {
        Self { trials: 100_000, gang_trials: 2, endless: true, storm_s: 20.0, ..Self::default() }
    }
}

/// How often which disaster happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Machines taken from one moment to the next, noticed before or not.
    pub kills: u32,
    /// Notices that a machine will be taken.
    pub notices: u32,
    /// Recommendations to leave a machine.
    pub recommendations: u32,
    /// Agents that handed everything over after a notice and went.
    pub drains: u32,
    /// Processes stopped for a while.
    pub pauses: u32,
    /// Connections that broke.
    pub breaks: u32,
    /// Connections over which nothing got through for a while, one way or both.
    pub partitions: u32,
    /// Connections that delivered twice for a while.
    pub duplicates: u32,
    /// Connections that were slow for a while.
    pub delays: u32,
    /// Times that the coordinator was killed.
    pub crashes: u32,
    /// Times that the coordinator's clock was set.
    pub clock_jumps: u32,
    /// Times that the object store did not answer for a while.
    pub store_outages: u32,
    /// Times that the coordinator's disk was full for a while.
    pub disks_full: u32,
    /// Times that a person paused or resumed the sweep.
    pub controls: u32,
    /// Machines that could not reach each other for a while; only where there are gangs.
    pub cuts: u32,
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
    /// Make-ups of gangs that trained.
    pub make_ups: u32,
    /// Reports dropped because their epoch was stale.
    pub stale_reports: u64,
    /// Reports that came again.
    pub repeated_reports: u64,
    /// Checkpoints refused.
    pub refused_checkpoints: u64,
    /// What befell it.
    pub faults: Faults,
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
    storm::World::new(seed, *scenario).run()
}
