//! The promises under thousands of seeded disasters.

#![allow(missing_docs, clippy::print_stdout, reason = "tests")]

use spotsweep_sim::{Broken, Mistake, Outcome, Scenario, run};
use std::collections::{BTreeMap, BTreeSet};

/// Threads over which seeds are spread; the outcome of a seed does not depend on them.
const THREADS: usize = 2;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `SPOTSWEEP_SIM_SEEDS` raises the number of seeds of every scenario.
fn seeds(usual: u64) -> u64 {
    from_environment("SPOTSWEEP_SIM_SEEDS").unwrap_or(usual)
}

/// All seeds; the broken promise with the lowest seed, if any.
fn run_all(seeds: u64, scenario: &Scenario) -> Result<Vec<Outcome>, Broken> {
    let part = move |first: u64| -> Result<Vec<Outcome>, Broken> {
        (first..seeds).step_by(THREADS).map(|seed| run(seed, scenario)).collect()
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0u64..).take(THREADS).map(|first| scope.spawn(move || part(first))).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let first = parts.iter().filter_map(|part| part.as_ref().err()).min_by_key(|broken| broken.seed);
    match first {
        Some(broken) => Err(broken.clone()),
        None => Ok(parts.into_iter().flatten().flatten().collect()),
    }
}

fn storm_over(scenario: &Scenario, seeds: u64) {
    if let Some(seed) = from_environment("SPOTSWEEP_SIM_SEED") {
        println!("{:?}", run(seed, scenario).unwrap_or_else(|broken| panic!("{broken}")));
        return;
    }
    let outcomes = run_all(seeds, scenario).unwrap_or_else(|broken| panic!("{broken}"));
    let mut faults = BTreeMap::<&str, u64>::new();
    for (name, count) in outcomes.iter().flat_map(|outcome| outcome.faults.named()) {
        *faults.entry(name).or_default() += u64::from(count);
    }
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let (attempts, stale) = (sum(|o| u64::from(o.attempts)), sum(|o| o.stale_reports));
    println!(
        "{seeds} seeds: {} events, {attempts} attempts, {stale} stale and {} repeated reports, {faults:?}",
        sum(|o| o.events),
        sum(|o| o.repeated_reports),
    );
    if scenario.gang_trials > 0 {
        let make_ups = sum(|o| u64::from(o.make_ups));
        println!("{make_ups} make-ups of gangs");
        assert!(make_ups > seeds * u64::from(scenario.gang_trials) / 2, "gangs train: {make_ups}");
    } else {
        faults.remove("cuts");
    }
    for (name, count) in faults {
        assert!(count >= seeds / 2, "{name}: {count} in {seeds} seeds");
    }
    assert!(stale > seeds, "reports come under old epochs");
    assert!(attempts > seeds * u64::from(scenario.trials) * 11 / 10, "the disasters interrupt");
}

#[test]
fn the_promises_hold_under_seeded_disasters() {
    storm_over(&Scenario::default(), seeds(4000));
}

#[test]
fn gangs_keep_the_promises_beside_single_workers() {
    storm_over(&Scenario::with_gangs(), seeds(4000));
}

#[test]
fn programs_on_several_workers_keep_the_promises() {
    storm_over(&Scenario::with_programs(), seeds(2000));
}

#[test]
fn gangs_are_not_starved_by_trials_of_single_workers_that_never_run_out() {
    let outcomes = run_all(seeds(300), &Scenario::with_endless_others());
    let outcomes = outcomes.unwrap_or_else(|broken| panic!("{broken}"));
    assert!(outcomes.iter().all(|outcome| outcome.make_ups > 0 || outcome.attempts > 0));
}

#[test]
fn a_sweep_of_50_trials_on_20_agents_keeps_the_promises() {
    let scenario = Scenario { trials: 50, agents: 20, disaster_every_s: 0.5, ..Scenario::default() };
    storm_over(&scenario, seeds(2000));
}

#[test]
fn a_seed_replays_exactly() {
    for scenario in [Scenario::default(), Scenario::with_gangs(), Scenario::with_programs()] {
        for seed in 0..20 {
            assert_eq!(run(seed, &scenario), run(seed, &scenario));
        }
    }
}

#[test]
fn every_planted_mistake_is_found_and_its_seed_finds_it_again() {
    let mut rules = BTreeSet::new();
    for mistake in Mistake::ALL {
        let scenario = mistake.scenario();
        let found = (0..2000).find_map(|seed| run(seed, &scenario).err());
        let broken = found.unwrap_or_else(|| panic!("{mistake:?} was not found"));
        println!("{mistake:?}: {broken}");
        assert_eq!(run(broken.seed, &scenario), Err(broken.clone()), "the seed replays exactly");
        rules.insert(broken.rule);
    }
    assert!(rules.len() >= 8, "different mistakes break different promises: {rules:?}");
}
