//! Views of the engine as the messages that clients read. Pure: no state, no IO, no decisions.

use super::{board::Row, how::How};
use crate::store::AttemptRow;
use spotsweep_engine::{
    TrialRef,
    action::TrialState,
    event::{CheckpointRef, Device, DeviceKind, Machine},
    time::Time,
    views::{CheckpointView, Counts, DeviceView, ImportView, LinkView, SweepView, TrialView, WorkerView},
};
use spotsweep_proto::{
    digest::Digest,
    ids::{SweepName, TrialId},
    line::FailureKind,
    metric::{Goal, Metrics},
    value::Assignment,
};
use spotsweep_wire::v1;
use std::collections::HashMap;

/// Every state, in the order in which people read counts.
const STATES: [TrialState; 8] = [
    TrialState::Pending,
    TrialState::Running,
    TrialState::Paused,
    TrialState::Completed,
    TrialState::Stopped,
    TrialState::Failed,
    TrialState::Diverged,
    TrialState::Cancelled,
];

/// The word for a goal.
#[must_use]
pub fn goal(goal: Goal) -> &'static str {
    match goal {
        Goal::Minimize => "minimize",
        Goal::Maximize => "maximize",
    }
}

fn counts(counts: &Counts) -> HashMap<String, u64> {
    let count = |state: TrialState| (state.as_str().to_owned(), u64::from(counts.get(state)));
    STATES.into_iter().map(count).collect()
}

/// Whether a state, as a message names it, never changes again.
#[must_use]
pub fn is_final(state: &str) -> bool {
    STATES.iter().any(|known| known.as_str() == state && known.is_final())
}

/// A trial's name as people write it.
#[must_use]
pub fn trial_name(sweep: &SweepName, number: u32) -> String {
    TrialId { sweep: sweep.clone(), number }.to_string()
}

/// A sweep.
#[must_use]
pub fn sweep(view: &SweepView) -> v1::SweepSummary {
    let objective = view.spec.objective.as_ref();
    v1::SweepSummary {
        sweep: view.name.to_string(),
        state: view.state.as_str().to_owned(),
        trials: u64::from(view.trials),
        counts: counts(&view.counts),
        best_trial: view.best.map(|(number, _)| trial_name(&view.name, number)),
        best_value: view.best.map(|(_, best)| best.value),
        objective: objective.map(|objective| objective.name.to_string()).unwrap_or_default(),
        goal: objective.map(|objective| goal(objective.goal)).unwrap_or_default().to_owned(),
        priority: view.spec.priority,
        submitted_at_us: view.submitted_at.0,
        ended_at_us: view.ended_at.map(|Time(us)| us),
        stale_reports: view.stale_reports,
        spec_digest: view.spec.digest().to_string(),
        description: view.spec.description.clone(),
        // Known beside the engine.
        sink_problems: Vec::new(),
        imported: view.imported.as_ref().map(imported),
        target_reached: view.target_reached,
    }
}

/// The word of a kind of failure, as in the line protocol.
fn kind_word(kind: FailureKind) -> String {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(_) | Err(_) => String::new(),
    }
}

fn imported(view: &ImportView) -> v1::Imported {
    v1::Imported {
        program: view.program.clone(),
        format: view.format,
        digest: view.digest.to_string(),
        at_us: view.at.0,
    }
}

/// An attempt; `None` if its beginning is not known.
///
/// # Errors
/// How it ended cannot be written.
pub fn attempt(number: u32, row: &AttemptRow) -> Result<Option<v1::Attempt>, serde_json::Error> {
    let Some((attempt, worker, device, first_step, started_at)) = &row.started else { return Ok(None) };
    let end = row.ended.as_ref().map(|(end, last_step, at)| {
        let how_json = serde_json::to_string(&How::from(end))?;
        Ok::<_, serde_json::Error>(v1::AttemptEnd { at_us: at.0, last_step: *last_step, how_json })
    });
    Ok(Some(v1::Attempt {
        number,
        epoch: row.epoch.0,
        attempt: *attempt,
        worker: worker.to_string(),
        device: device.to_string(),
        first_step: *first_step,
        started_at_us: started_at.0,
        end: end.transpose()?,
    }))
}

/// What the history knows of a trial and the engine does not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Final metrics, or the newest of each while it runs.
    pub metrics: Metrics,
    /// Of the final weights.
    pub weights_digest: Option<Digest>,
    /// Where it finished, if it did.
    pub device: Option<String>,
}

/// A row of results.
#[must_use]
pub fn trial(sweep: &SweepName, params: &Assignment, view: &TrialView, outcome: Outcome) -> v1::Trial {
    let TrialRef { number, .. } = view.trial;
    let (worker, device) = match &view.place {
        Some(place) => (place.name.to_string(), place.device.to_string()),
        None => (String::new(), String::new()),
    };
    let failure = view.last_failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
    v1::Trial {
        sweep: sweep.to_string(),
        trial: trial_name(sweep, number),
        number,
        state: view.state.as_str().to_owned(),
        params_json: serde_json::Value::Object(params.to_json()).to_string(),
        metrics: metrics(outcome.metrics),
        steps: view.step,
        total_steps: view.total_steps,
        attempts: view.attempts,
        failures: view.failures,
        weights_digest: outcome.weights_digest.map(|digest| digest.to_string()).unwrap_or_default(),
        device: outcome.device.unwrap_or(device),
        worker,
        seconds: view.seconds,
        failure,
        best: view.best.map(|best| best.value),
        interruptions: view.interruptions,
        epoch: view.epoch.0,
        best_step: view.best.map(|best| best.step),
        objective: view.objective,
        last_failure: view.last_failure.as_ref().map(|failure| v1::Failure {
            kind: kind_word(failure.kind),
            worker: failure.worker.to_string(),
            at_us: failure.at.0,
        }),
    }
}

/// A row of a board as a row of results; why it failed is left out.
#[must_use]
pub fn board_row(sweep: &SweepName, row: &Row) -> v1::Trial {
    let brief = &row.brief;
    v1::Trial {
        sweep: sweep.to_string(),
        trial: trial_name(sweep, row.number),
        number: row.number,
        state: brief.state.as_str().to_owned(),
        params_json: serde_json::Value::Object(row.params.to_json()).to_string(),
        metrics: metrics(row.metrics.clone()),
        steps: brief.step,
        total_steps: brief.total_steps,
        attempts: brief.attempts,
        failures: brief.failures,
        weights_digest: row.weights_digest.map(|digest| digest.to_string()).unwrap_or_default(),
        device: row.device().unwrap_or_default().to_owned(),
        worker: row.worker().unwrap_or_default().to_owned(),
        seconds: brief.seconds,
        failure: String::new(),
        best: brief.best.map(|best| best.value),
        interruptions: brief.interruptions,
        epoch: brief.epoch.0,
        best_step: brief.best.map(|best| best.step),
        objective: None,
        last_failure: None,
    }
}

/// Metrics by name.
#[must_use]
pub fn metrics(metrics: Metrics) -> Vec<v1::Metric> {
    metrics.into_iter().map(|(name, value)| v1::Metric { name: name.to_string(), value }).collect()
}

/// A worker; `name_of` gives the name of a trial whose lease it holds.
pub fn worker(view: &WorkerView, name_of: impl Fn(TrialRef) -> String) -> v1::WorkerSummary {
    let drains = view.notice.as_ref().is_some_and(|(notice, _)| notice.kind.is_interruption());
    let (state, last_heard) = match view.link {
        LinkView::Connected { .. } if drains => ("draining", None),
        LinkView::Connected { .. } => ("connected", None),
        LinkView::Silent { since, .. } | LinkView::Disconnected { since } => ("silent", Some(since)),
        LinkView::Gone { since } => ("gone", Some(since)),
    };
    let mut devices: Vec<v1::DeviceSummary> = view.devices.iter().map(device_summary).collect();
    for held in &view.leases {
        if let Some(device) = devices.get_mut(usize::from(held.device)) {
            device.trials.push(name_of(held.trial));
        }
    }
    v1::WorkerSummary {
        name: view.name.to_string(),
        state: state.to_owned(),
        devices,
        machine: Some(machine(&view.machine)),
        since_us: view.joined_at.0,
        last_heard_us: last_heard.map(|Time(us)| us),
        notice: view.notice.as_ref().map(|(notice, _)| notice.to_string()).unwrap_or_default(),
        noticed_us: view.notice.as_ref().map(|(_, Time(us))| *us),
    }
}

fn device_summary(view: &DeviceView) -> v1::DeviceSummary {
    v1::DeviceSummary { device: Some(device(&view.device)), credits: view.credits, trials: Vec::new() }
}

fn device(device: &Device) -> v1::Device {
    let kind = match device.kind {
        DeviceKind::Cpu => v1::DeviceKind::Cpu,
        DeviceKind::Cuda => v1::DeviceKind::Cuda,
    };
    v1::Device {
        name: device.name.to_string(),
        kind: kind.into(),
        model: device.model.clone(),
        memory_bytes: device.memory_bytes,
    }
}

fn machine(machine: &Machine) -> v1::Machine {
    v1::Machine {
        host: machine.host.clone(),
        cpu: machine.cpu.clone(),
        cores: machine.cores,
        memory_bytes: machine.memory_bytes,
        libtorch: machine.libtorch.clone(),
        instance_type: machine.instance_type.clone(),
        zone: machine.zone.clone(),
        pid: machine.pid,
        version: machine.version.clone(),
    }
}

/// A checkpoint as a lease carries it.
#[must_use]
pub fn checkpoint_ref(reference: &CheckpointRef) -> v1::Checkpoint {
    let bytes = |digest: &Digest| digest.0.to_vec().into();
    v1::Checkpoint {
        step: reference.step,
        manifest: bytes(&reference.manifest),
        parts: reference.parts.iter().map(bytes).collect(),
        bytes: reference.bytes,
        last: reference.last,
        best: false,
    }
}

/// A checkpoint as clients see it.
#[must_use]
pub fn checkpoint(view: &CheckpointView) -> v1::Checkpoint {
    v1::Checkpoint { best: view.best, ..checkpoint_ref(&view.reference) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_engine::{SweepId, WorkerId, views::HeldView};
    use spotsweep_proto::ids::{DeviceName, Incarnation, WorkerName};

    #[test]
    fn every_trial_stands_at_the_device_that_trains_it() {
        let device = |name: &str| DeviceView {
            device: Device {
                name: DeviceName::new(name).unwrap(),
                kind: DeviceKind::Cuda,
                model: String::new(),
                memory_bytes: 0,
            },
            credits: 0,
            leases: 0,
        };
        let held = |number, device| HeldView { trial: TrialRef { sweep: SweepId(0), number }, device };
        let view = WorkerView {
            id: WorkerId(1),
            name: WorkerName::new("w").unwrap(),
            incarnation: Incarnation(1),
            machine: Machine::default(),
            devices: vec![device("cuda:0"), device("cuda:1"), device("cuda:2")],
            link: LinkView::Gone { since: Time(0) },
            joined_at: Time(0),
            expires_at: Time(0),
            applied_seq: 0,
            leases: vec![held(3, 1), held(4, 0), held(5, 1)],
            notice: None,
        };
        let summary = worker(&view, |trial| format!("s/{}", trial.number));
        let trials: Vec<_> = summary.devices.into_iter().map(|device| device.trials).collect();
        assert_eq!(trials, [vec!["s/4"], vec!["s/3", "s/5"], vec![]]);
    }
}
