//! Trials and reports a second, from submit to durable.

use crate::{
    Scale,
    figures::{Figures, Target},
    service::{Agents, Service},
};
use spotsweep_worker::NoopTrainers;

/// Reports of each trial where reports are counted.
const REPORTS_PER_TRIAL: u32 = 10_000;

/// Trials a second at several numbers of agents and trials.
pub(crate) async fn trials_per_second(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    for agents in [1, 8, 200] {
        let mut service = Service::start().await?;
        let running = Agents::start(&service.url(), agents, &NoopTrainers::new())?;
        running.joined(&service).await?;
        // The first sweep warms caches and the agents' idea of how short a trial is.
        service.sweep_of_nothing(scale.of(2000)).await?;
        for trials in [1_000, 10_000, 100_000] {
            let trials = scale.of(trials);
            let seconds = service.sweep_of_nothing(trials).await?;
            let what = format!("trials/s, {agents} agents, {trials} trials");
            figures.add(what, f64::from(trials) / seconds, "/s", Some(Target::AtLeast(10_000.0)));
        }
        running.stop().await;
    }
    Ok(())
}

/// Reports a second.
pub(crate) async fn reports_per_second(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    for agents in [8, 200] {
        let mut service = Service::start().await?;
        let trainers = NoopTrainers::new().with_reports(u64::from(REPORTS_PER_TRIAL));
        let running = Agents::start(&service.url(), agents, &trainers)?;
        running.joined(&service).await?;
        service.sweep_of_nothing(1).await?;
        let trials = scale.of(100);
        let seconds = service.sweep_of_nothing(trials).await?;
        let rate = f64::from(trials) * f64::from(REPORTS_PER_TRIAL) / seconds;
        figures.add(format!("reports/s, {agents} agents"), rate, "/s", Some(Target::AtLeast(50_000.0)));
        running.stop().await;
    }
    Ok(())
}
