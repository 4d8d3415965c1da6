//! Memory and disk of the coordinator per finished trial, and how long it takes to come back.

use crate::{
    Scale,
    figures::{Figures, Target},
    service::{Agents, Service},
};
use spotsweep_worker::NoopTrainers;

/// After a sweep of 100,000 trials.
pub(crate) async fn memory_and_restart(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    let mut service = Service::start().await?;
    let running = Agents::start(&service.url(), 8, &NoopTrainers::new())?;
    running.joined(&service).await?;
    service.sweep_of_nothing(1000).await?;
    let (memory, disk) = (service.resident_bytes()?, service.disk_bytes()?);
    let trials = scale.of(100_000);
    service.sweep_of_nothing(trials).await?;
    let per_trial = |after: u64, before: u64| after.saturating_sub(before) as f64 / f64::from(trials);
    let target = Some(Target::AtMost(2048.0));
    let what = |what: &str| format!("{what} a trial, {trials} trials");
    figures.add(what("memory"), per_trial(service.resident_bytes()?, memory), "B", target);
    figures.add(what("disk"), per_trial(service.disk_bytes()?, disk), "B", None);
    running.stop().await;
    service.kill()?;
    let seconds = service.restart().await?;
    figures.add(format!("restart after kill -9, {trials} trials"), seconds, "s", Some(Target::AtMost(5.0)));
    Ok(())
}
