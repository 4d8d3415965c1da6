//! Disasters on a seeded schedule: kill -9 of coordinator, agents and trainers.

use crate::{Cluster, outcome, wait};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use std::{ops::Range, time::Duration};

/// What was done to a cluster.
#[derive(Debug, Default)]
pub struct Damage {
    /// Killed coordinators.
    pub coordinators: u32,
    /// Killed agents.
    pub agents: u32,
    /// Killed trainers.
    pub trainers: u32,
}

impl Damage {
    /// How many processes were killed.
    pub fn kills(&self) -> u32 {
        self.coordinators + self.agents + self.trainers
    }
}

/// Kills something every so many milliseconds and starts it again, `times` times or until the sweep has ended.
pub fn kill_at_random(
    cluster: &mut Cluster,
    sweep: &str,
    seed: u64,
    times: u32,
    every_ms: Range<u64>,
) -> Damage {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut damage = Damage::default();
    for _ in 0..times {
        let wait_ms = every_ms.start + random.next_u64() % (every_ms.end - every_ms.start);
        wait::pause(Duration::from_millis(wait_ms));
        if outcome::ended(cluster, sweep) {
            break;
        }
        let agent = random.next_u32() as usize % cluster.agents();
        match random.next_u32() % 5 {
            0 => {
                cluster.kill_coordinator();
                // Agents train on without it for a while.
                wait::pause(Duration::from_millis(u64::from(random.next_u32() % 300)));
                cluster.start_coordinator();
                damage.coordinators += 1;
            }
            1 | 2 => {
                cluster.kill_agent(agent);
                cluster.start_agent(agent);
                damage.agents += 1;
            }
            _ => damage.trainers += u32::from(cluster.kill_trainer(agent)),
        }
    }
    damage
}
