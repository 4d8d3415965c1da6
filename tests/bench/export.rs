//! Points a second that leave and come back: from a folder at rest, through `spotsweep export`, to a durable file, and from an
//! export as JSON, through `spotsweep import`, into the journal of a new folder.

use crate::{
    Scale,
    figures::{Figures, Target},
    service::{Agents, Service},
};
use anyhow::ensure;
use spotsweep_tests::binaries;
use spotsweep_worker::NoopTrainers;
use std::{path::Path, process::Command, time::Instant};

/// Reports of each trial, one point each.
const REPORTS_PER_TRIAL: u32 = 100_000;
/// Times that each format is written; the fastest counts, for what disturbs only slows.
const TURNS: u32 = 3;

/// Points a second of every format that holds them in one file.
pub(crate) fn points_per_second(
    scale: Scale,
    runtime: &tokio::runtime::Runtime,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let trials = scale.of(20);
    let points = f64::from(trials) * f64::from(REPORTS_PER_TRIAL);
    let service = runtime.block_on(async {
        let mut service = Service::start().await?;
        let trainers = NoopTrainers::new().with_reports(u64::from(REPORTS_PER_TRIAL));
        let running = Agents::start(&service.url(), 2, &trainers)?;
        running.joined(&service).await?;
        service.sweep_of_nothing(trials).await?;
        running.stop().await;
        service.kill()?;
        anyhow::Ok(service)
    })?;
    for (kind, target) in [("parquet", Some(Target::AtLeast(1_000_000.0))), ("csv", None), ("json", None)] {
        let mut fastest = f64::INFINITY;
        for _ in 0..TURNS {
            fastest = fastest.min(export(&service.dir(), kind)?);
        }
        figures.add(format!("points/s exported as {kind}"), points / fastest, "/s", target);
    }
    figures.add("points/s imported from json", points / import(&service.dir())?, "/s", None);
    Ok(())
}

/// Seconds of one export.
fn export(dir: &Path, kind: &str) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir_in(binaries::folder())?;
    export_to(&folder.path().join("out"), dir, kind)
}

fn export_to(to: &Path, dir: &Path, kind: &str) -> anyhow::Result<f64> {
    let mut command = Command::new(binaries::spotsweep());
    command.args(["export", "--as", kind, "--dir"]).arg(dir).arg("--to").arg(to);
    seconds_of(&mut command)
}

/// Seconds of one way back, of an export that is made first.
fn import(dir: &Path) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir_in(binaries::folder())?;
    let export = folder.path().join("export");
    export_to(&export, dir, "json")?;
    let mut command = Command::new(binaries::spotsweep());
    command.arg("import").arg(export).arg("--dir").arg(folder.path().join("there"));
    seconds_of(&mut command)
}

fn seconds_of(command: &mut Command) -> anyhow::Result<f64> {
    let start = Instant::now();
    let output = command.output()?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(seconds)
}
