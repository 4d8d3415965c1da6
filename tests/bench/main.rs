//! `make bench`: measures what docs/benchmarks.md promises, prints a table, and writes it as JSON.
//!
//! It must not judge: no figure makes it fail. The coordinator is a process of its own with a real journal on a
//! real disk; agents are real agents over real gRPC, many in this process, with a trainer that trains nothing.
//!
//! `bench [--quick] [--only WORD] [--json FILE]`

mod data;
mod export;
mod figures;
mod gang;
mod gang_cluster;
mod hosts;
mod latency;
mod memory;
mod programs;
mod recovery;
mod service;
mod training;
mod trials;
mod watchers;
mod web;

use figures::Figures;
use std::path::PathBuf;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// A tenth of the work: to see whether it runs.
    quick: bool,
}

impl Scale {
    /// `full`, or a tenth of it.
    fn of(self, full: u32) -> u32 {
        if self.quick { (full / 10).max(1) } else { full }
    }
}

fn main() -> anyhow::Result<()> {
    let mut scale = Scale { quick: false };
    let (mut only, mut json) = (String::new(), PathBuf::from("target/bench.json"));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => scale.quick = true,
            "--only" => only = arguments.next().unwrap_or_default(),
            "--json" => json = arguments.next().unwrap_or_default().into(),
            other => anyhow::bail!("{other} is no option; bench [--quick] [--only WORD] [--json FILE]"),
        }
    }
    let wanted = |word: &str| only.is_empty() || only == word;
    let mut figures = Figures::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if wanted("trials") {
        runtime.block_on(trials::trials_per_second(scale, &mut figures))?;
    }
    if wanted("reports") {
        runtime.block_on(trials::reports_per_second(scale, &mut figures))?;
    }
    if wanted("latency") {
        runtime.block_on(latency::lease_hand_out(scale, &mut figures))?;
    }
    if wanted("memory") {
        runtime.block_on(memory::memory_and_restart(scale, &mut figures))?;
    }
    if wanted("web") {
        web::looks(scale, &runtime, &mut figures)?;
    }
    if wanted("watchers") {
        runtime.block_on(watchers::cost(scale, &mut figures))?;
    }
    if wanted("recovery") {
        recovery::recovery(scale, &runtime, &mut figures)?;
    }
    if wanted("export") {
        export::points_per_second(scale, &runtime, &mut figures)?;
    }
    if wanted("programs") {
        runtime.block_on(programs::overhead(scale, &mut figures))?;
    }
    drop(runtime);
    if wanted("programs") {
        programs::rate(scale, &mut figures)?;
    }
    if wanted("data") {
        data::add(scale, &mut figures)?;
    }
    if wanted("training") {
        training::beside_python(scale, &mut figures)?;
    }
    if wanted("checkpoints") {
        training::checkpoint_overhead(scale, &mut figures)?;
    }
    if wanted("gang") {
        gang::beside_python(scale, &mut figures)?;
        gang::recovery(scale, &mut figures)?;
    }
    if wanted("hosts") {
        hosts::scaling(scale, &mut figures)?;
    }
    if wanted("gang-recovery") {
        gang_cluster::recovery(scale, &mut figures)?;
    }
    figures.print();
    figures.write(&json)?;
    eprintln!("written to {}", json.display());
    Ok(())
}
