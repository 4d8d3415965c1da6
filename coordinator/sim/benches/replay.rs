//! What a replay costs: seconds and memory for so many workers and trials, on one core.
//!
//! `cargo bench -p spotsweep-sim --bench replay`; workers and trials as arguments (`-- 10000 1000000`).
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(missing_docs, reason = "a program")]

use spotsweep_engine::event::DeviceKind;
use spotsweep_proto::spec;
use spotsweep_sim::spot::{Duration, Market, Plan, replay};
use std::time::Instant;

/// The most memory that this process ever had, in MiB; 0 where the system does not tell.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() {
    let sizes: Vec<u32> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    let sizes = match sizes[..] {
        [workers, trials] => vec![(workers, trials)],
        _ => vec![(100, 10_000), (1_000, 100_000), (10_000, 1_000_000)],
    };
    println!(
        "{:>8} {:>9} {:>8} {:>10} {:>10} {:>9} {:>9} {:>13} {:>8}",
        "workers", "trials", "s", "events", "us/event", "peak MiB", "finish h", "interruptions", "goodput"
    );
    for (workers, trials) in sizes {
        let file = format!(
            "method: random\nrun_cap: {trials}\nparameters: {{learning_rate: {{min: 0.001, max: 0.1}}}}\n\
             train: {{model: mlp, data: fashion-mnist, epochs: 3}}\n"
        );
        let spec = match spec::parse(file.as_bytes(), "bench.yaml") {
            Ok(spec) => spec,
            Err(wrong) => return println!("{wrong}"),
        };
        let plan = Plan {
            duration: Duration::TrialSeconds(600.0),
            recovery_s: 15.0,
            notice_s: 0.0,
            checkpoint: None,
            fail_every_s: None,
            device: DeviceKind::Cpu,
            memory_bytes: 8 << 30,
            workers,
            seed: 1,
        };
        let begin = Instant::now();
        let figures = match replay(&spec, &Market::default().draw(workers, 1), &plan) {
            Ok(figures) => figures,
            Err(error) => return println!("{error}"),
        };
        let took_s = begin.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let us = took_s * 1e6 / figures.events as f64;
        println!(
            "{workers:>8} {trials:>9} {took_s:>8.2} {:>10} {us:>10.2} {:>9} {:>9.1} {:>13} {:>8.4}",
            figures.events,
            peak_mib(),
            figures.finish_s / 3600.0,
            figures.interruptions,
            figures.goodput,
        );
    }
}
