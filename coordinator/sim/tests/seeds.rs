//! The promises under thousands of seeded disasters.

#![allow(missing_docs, reason = "tests")]

use spotsweep_sim::{Mistake, Scenario, run};

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `SPOTSWEEP_SIM_SEEDS` raises the number of seeds, `SPOTSWEEP_SIM_SEED` replays a single one.
#[test]
fn the_promises_hold_under_seeded_disasters() {
    let scenario = Scenario::default();
    if let Some(seed) = from_environment("SPOTSWEEP_SIM_SEED") {
        println!("{:?}", run(seed, &scenario).unwrap_or_else(|broken| panic!("{broken}")));
        return;
    }
    let seeds = from_environment("SPOTSWEEP_SIM_SEEDS").unwrap_or(2000);
    let (mut crashes, mut stale, mut attempts, mut events) = (0, 0, 0, 0);
    for seed in 0..seeds {
        let outcome = run(seed, &scenario).unwrap_or_else(|broken| panic!("{broken}"));
        crashes += u64::from(outcome.crashes);
        stale += outcome.stale_reports;
        attempts += u64::from(outcome.attempts);
        events += outcome.events;
    }
    println!("{seeds} seeds: {events} events, {attempts} attempts, {stale} stale reports, {crashes} crashes");
    assert!(crashes > seeds && stale > seeds, "the disasters happen");
    assert!(attempts > seeds * u64::from(scenario.trials) * 11 / 10, "and they interrupt");
}

#[test]
fn a_seed_replays_exactly() {
    let scenario = Scenario::default();
    for seed in 0..20 {
        assert_eq!(run(seed, &scenario), run(seed, &scenario));
    }
}

#[test]
fn a_sweep_of_50_trials_on_20_agents_keeps_the_promises() {
    let scenario = Scenario { trials: 50, agents: 20, disaster_every_s: 0.5, ..Scenario::default() };
    for seed in 0..100 {
        run(seed, &scenario).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

#[test]
fn every_planted_mistake_is_found() {
    for mistake in
        [Mistake::AnswerBeforeCommit, Mistake::HistoryTwice, Mistake::LoseLastEvent, Mistake::DeleteAtOnce]
    {
        let scenario = Scenario { mistake: Some(mistake), ..Scenario::default() };
        let found = (0..2000).find_map(|seed| run(seed, &scenario).err());
        let broken = found.unwrap_or_else(|| panic!("{mistake:?} was not found"));
        println!("{mistake:?}: {broken}");
    }
}
