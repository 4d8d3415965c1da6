//! How many seeds of a storm one core simulates in a second.
//!
//! `cargo bench -p spotsweep-sim --bench storm`; the number of seeds as argument (`-- 1000`).
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(missing_docs, reason = "a program")]

use spotsweep_sim::{Scenario, run};
use std::time::Instant;

fn main() {
    let seeds = std::env::args().find_map(|text| text.parse().ok()).unwrap_or(500u32);
    println!(
        "{:>7} {:>7} {:>7} {:>10} {:>12} {:>10}",
        "trials", "agents", "seeds", "seeds/s", "events/seed", "us/event"
    );
    for (trials, agents, disaster_every_s) in [(12, 4, 1.5), (50, 20, 0.5)] {
        let scenario = Scenario { trials, agents, disaster_every_s, ..Scenario::default() };
        let begin = Instant::now();
        let mut events = 0;
        for seed in 0..u64::from(seeds) {
            match run(seed, &scenario) {
                Ok(outcome) => events += outcome.events,
                Err(broken) => return println!("{broken}"),
            }
        }
        let took_s = begin.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let events = events as f64;
        let per_s = f64::from(seeds) / took_s;
        let (each, us) = (events / f64::from(seeds), took_s * 1e6 / events);
        println!("{trials:>7} {agents:>7} {seeds:>7} {per_s:>10.0} {each:>12.0} {us:>10.2}");
    }
}
