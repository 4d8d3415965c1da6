//! Whether the machines of a replay could ever run the trials of a sweep.

use super::work::Plan;
use spotsweep_engine::event::DeviceKind;
use spotsweep_proto::spec::{DeviceRequest, SweepSpec};

/// Why there is nothing to replay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// No machine can run the sweep's trials.
    #[error("the machines have {there}, and the sweep asks for {asked}")]
    NoFit {
        /// What machines have.
        there: String,
        /// What the sweep asks for.
        asked: String,
    },
    /// Trials train on several workers, of whose meeting and parting the replay knows nothing.
    #[error(
        "its trials train on {} at once, and a replay knows trials on one worker only",
        in_words(*.min, *.max)
    )]
    Gang {
        /// Least number of workers.
        min: u32,
        /// Greatest number.
        max: u32,
    },
    /// There are to be no machines.
    #[error("there are to be no machines")]
    NoMachines,
}

fn in_words(min: u32, max: u32) -> String {
    if min == max { format!("{max} workers") } else { format!("{min} to {max} workers") }
}

pub(super) fn check_fit(spec: &SweepSpec, plan: &Plan) -> Result<(), ReplayError> {
    if plan.workers == 0 {
        return Err(ReplayError::NoMachines);
    }
    let workers = spec.resources.workers;
    if workers.is_gang() {
        return Err(ReplayError::Gang { min: workers.min, max: workers.max });
    }
    let kind = match (spec.resources.device, plan.device) {
        (DeviceRequest::Any, _)
        | (DeviceRequest::Cpu, DeviceKind::Cpu)
        | (DeviceRequest::Cuda, DeviceKind::Cuda) => true,
        (DeviceRequest::Cpu, DeviceKind::Cuda) | (DeviceRequest::Cuda, DeviceKind::Cpu) => false,
    };
    let asked_bytes = spec.resources.memory_bytes.unwrap_or(0);
    if kind && plan.memory_bytes >= asked_bytes {
        return Ok(());
    }
    let asked = match spec.resources.device {
        DeviceRequest::Any => "any device",
        DeviceRequest::Cpu => "a CPU",
        DeviceRequest::Cuda => "a CUDA device",
    };
    let there = match plan.device {
        DeviceKind::Cpu => "a CPU",
        DeviceKind::Cuda => "a CUDA device",
    };
    Err(ReplayError::NoFit {
        there: format!("{there} with {} bytes of memory", plan.memory_bytes),
        asked: format!("{asked} with {asked_bytes} bytes of memory"),
    })
}
