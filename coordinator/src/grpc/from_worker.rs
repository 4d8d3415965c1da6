//! What agents say, from wire to domain: each message is checked here, once, and what breaks a limit is refused.
//!
//! It must not decide anything: it knows no state, only forms.

use crate::{
    driver::RankWord,
    error::{Code, Problem},
};
use spotsweep_engine::{
    SweepId, TrialRef,
    event::{
        CheckpointRef, Device, DeviceKind, GangNews, HeldLease, Hello, IndexedMetrics, Machine, Report,
        ReportBatch, ReportBody,
    },
};
use spotsweep_proto::{
    catalogue::OwnCatalogue,
    digest::Digest,
    gang::{Generation, STORE_KEY_BYTES, STORE_VALUE_BYTES},
    ids::{DeviceName, Epoch, Incarnation, MetricName, WorkerName},
    limits,
    line::FailureKind,
    notice::{Notice, NoticeKind, NoticeSource},
};
use spotsweep_wire::{WORKER_PROTOCOL, v1};

/// Longest free text about a machine or device, in bytes; more is cut.
const MACHINE_TEXT_BYTES: usize = 256;
/// Most leases that one agent can hold.
const HELD_LEASES: usize = limits::DEVICES_PER_WORKER * (limits::CREDITS_PER_DEVICE as usize + 1);
/// Most objects that a checkpoint may name.
const PARTS_PER_CHECKPOINT: usize = 16;

fn bad(message: impl Into<String>) -> Problem {
    Problem::new(Code::BadRequest, message)
}

fn missing(what: &str) -> Problem {
    bad(format!("{what} is missing"))
}

fn too_many(what: &str, found: usize, limit: usize) -> Problem {
    Problem::new(Code::TooLarge, format!("{found} {what}; at most {limit} are taken"))
}

/// A hello, and what its trainer has besides our models.
///
/// # Errors
/// A protocol that is not ours, a name that is none, no device or too many, a malformed lease, or a catalogue that is not to
/// be believed.
pub fn hello(hello: v1::Hello) -> Result<(Hello, OwnCatalogue), Problem> {
    if hello.protocol != WORKER_PROTOCOL {
        let message =
            format!("the agent speaks protocol {}, this coordinator {WORKER_PROTOCOL}", hello.protocol);
        return Err(Problem::new(Code::ProtocolMismatch, message).hint("use the same release on both sides"));
    }
    let incarnation: [u8; 16] =
        hello.incarnation.as_ref().try_into().map_err(|_| bad("an incarnation has 16 bytes"))?;
    if hello.devices.is_empty() {
        return Err(missing("a device"));
    }
    if hello.devices.len() > limits::DEVICES_PER_WORKER {
        return Err(too_many("devices", hello.devices.len(), limits::DEVICES_PER_WORKER));
    }
    if hello.held.len() > HELD_LEASES {
        return Err(too_many("leases", hello.held.len(), HELD_LEASES));
    }
    let devices: Vec<Device> = hello.devices.into_iter().map(device).collect::<Result<_, _>>()?;
    let held = hello.held.iter().map(|lease| held_lease(lease, devices.len())).collect::<Result<_, _>>()?;
    let catalogue = match hello.catalogue.is_empty() {
        true => OwnCatalogue::default(),
        false => OwnCatalogue::read(&hello.catalogue).map_err(|error| bad(error.to_string()))?,
    };
    let hello = Hello {
        name: WorkerName::new(&hello.name).map_err(|error| bad(error.to_string()))?,
        incarnation: Incarnation(u128::from_be_bytes(incarnation)),
        devices,
        machine: hello.machine.map(machine).unwrap_or_default(),
        held,
        programs_only: hello.programs_only,
        knows: catalogue.items(),
    };
    Ok((hello, catalogue))
}

fn device(device: v1::Device) -> Result<Device, Problem> {
    let kind = match device.kind() {
        v1::DeviceKind::Cpu => DeviceKind::Cpu,
        v1::DeviceKind::Cuda => DeviceKind::Cuda,
        v1::DeviceKind::Unspecified => return Err(missing("a device's kind")),
    };
    Ok(Device {
        name: DeviceName::new(&device.name).map_err(|error| bad(error.to_string()))?,
        kind,
        model: cut(device.model, MACHINE_TEXT_BYTES),
        memory_bytes: device.memory_bytes,
    })
}

fn machine(machine: v1::Machine) -> Machine {
    let text = |text| cut(text, MACHINE_TEXT_BYTES);
    Machine {
        host: text(machine.host),
        cpu: text(machine.cpu),
        cores: machine.cores,
        memory_bytes: machine.memory_bytes,
        libtorch: text(machine.libtorch),
        instance_type: text(machine.instance_type),
        zone: text(machine.zone),
        pid: machine.pid,
        version: text(machine.version),
    }
}

fn held_lease(lease: &v1::HeldLease, devices: usize) -> Result<HeldLease, Problem> {
    Ok(HeldLease {
        trial: trial(lease.trial)?,
        epoch: Epoch(lease.epoch),
        device: device_index(lease.device, devices)?,
    })
}

/// An index into the devices of the hello.
///
/// # Errors
/// When there is no such device.
pub fn device_index(index: u32, devices: usize) -> Result<u16, Problem> {
    u16::try_from(index)
        .ok()
        .filter(|index| usize::from(*index) < devices)
        .ok_or_else(|| bad(format!("there is no device {index}; the hello named {devices}")))
}

/// A trial by number.
///
/// # Errors
/// When it is missing.
pub(super) fn trial(key: Option<v1::TrialKey>) -> Result<TrialRef, Problem> {
    let key = key.ok_or_else(|| missing("a trial"))?;
    Ok(TrialRef { sweep: SweepId(key.sweep), number: key.number })
}

/// A batch of reports. Metrics that are not finite are left out: the trainer protocol allows none, so one can only
/// come from a broken agent, and a number that cannot be compared is worth nothing.
///
/// # Errors
/// Numbers that do not begin at 1, too many reports, names that are none, or a malformed report.
pub fn report_batch(batch: v1::ReportBatch) -> Result<ReportBatch, Problem> {
    if batch.first_seq == 0 {
        return Err(bad("reports are numbered from 1"));
    }
    if batch.reports.len() > limits::REPORTS_PER_BATCH {
        return Err(too_many("reports in a batch", batch.reports.len(), limits::REPORTS_PER_BATCH));
    }
    if batch.metric_names.len() > limits::METRICS_PER_TRIAL {
        return Err(too_many(
            "names of metrics in a batch",
            batch.metric_names.len(),
            limits::METRICS_PER_TRIAL,
        ));
    }
    let metric_names: Vec<MetricName> = batch
        .metric_names
        .iter()
        .map(|name| MetricName::new(name).map_err(|error| bad(error.to_string())))
        .collect::<Result<_, _>>()?;
    let reports =
        batch.reports.into_iter().map(|r| report(r, metric_names.len())).collect::<Result<_, _>>()?;
    Ok(ReportBatch { first_seq: batch.first_seq, metric_names, reports })
}

fn report(report: v1::Report, names: usize) -> Result<Report, Problem> {
    use v1::report::Body;
    let body = match report.body.ok_or_else(|| missing("a report's body"))? {
        Body::Started(started) => {
            let total_steps = started.total_steps.map(steps).transpose()?;
            ReportBody::Started { step: steps(started.step)?, total_steps }
        }
        Body::Progress(progress) => ReportBody::Progress {
            step: steps(progress.step)?,
            data_epoch: finite(progress.data_epoch),
            metrics: metrics(&progress.names, &progress.values, names)?,
        },
        Body::Checkpoint(found) => ReportBody::Checkpoint(checkpoint(&found)?),
        Body::Finished(finished) => ReportBody::Finished {
            step: steps(finished.step)?,
            metrics: metrics(&finished.names, &finished.values, names)?,
            weights_digest: match finished.weights_digest.len() {
                0 => None,
                _ => Some(digest(&finished.weights_digest)?),
            },
            seconds: seconds(finished.seconds),
        },
        Body::Failed(failed) => ReportBody::Failed {
            step: steps(failed.step)?,
            kind: failure_kind(failed.kind())?,
            message: cut(failed.message, limits::FAILURE_TEXT_BYTES),
            seconds: seconds(failed.seconds),
        },
        Body::Released(released) => {
            ReportBody::Released { step: steps(released.step)?, seconds: seconds(released.seconds) }
        }
    };
    Ok(Report { trial: trial(report.trial)?, epoch: Epoch(report.epoch), body })
}

fn metrics(indexes: &[u32], values: &[f64], names: usize) -> Result<IndexedMetrics, Problem> {
    if indexes.len() != values.len() {
        return Err(bad(format!("{} names of metrics for {} values", indexes.len(), values.len())));
    }
    if indexes.len() > limits::METRICS_PER_REPORT {
        return Err(too_many("metrics in a report", indexes.len(), limits::METRICS_PER_REPORT));
    }
    let mut metrics = IndexedMetrics::with_capacity(indexes.len());
    for (&index, &value) in indexes.iter().zip(values) {
        let index = u16::try_from(index).ok().filter(|index| usize::from(*index) < names);
        let index = index.ok_or_else(|| bad("a metric without a name"))?;
        if value.is_finite() {
            metrics.push((index, value));
        }
    }
    Ok(metrics)
}

fn checkpoint(found: &v1::Checkpoint) -> Result<CheckpointRef, Problem> {
    if found.parts.len() > PARTS_PER_CHECKPOINT {
        return Err(too_many("parts of a checkpoint", found.parts.len(), PARTS_PER_CHECKPOINT));
    }
    Ok(CheckpointRef {
        step: steps(found.step)?,
        manifest: digest(&found.manifest)?,
        parts: found.parts.iter().map(|part| digest(part)).collect::<Result<_, _>>()?,
        bytes: found.bytes,
        last: found.last,
    })
}

/// A number of steps; the history keeps none that is larger.
fn steps(steps: u64) -> Result<u64, Problem> {
    if steps > limits::STEPS_PER_TRIAL {
        return Err(bad(format!("step {steps} of a trial; at most {} are taken", limits::STEPS_PER_TRIAL)));
    }
    Ok(steps)
}

fn digest(bytes: &[u8]) -> Result<Digest, Problem> {
    bytes.try_into().map(Digest).map_err(|_| bad(format!("a digest has 32 bytes, not {}", bytes.len())))
}

fn failure_kind(kind: v1::FailureKind) -> Result<FailureKind, Problem> {
    Ok(match kind {
        v1::FailureKind::Unspecified => return Err(missing("a failure's kind")),
        v1::FailureKind::Diverged => FailureKind::Diverged,
        v1::FailureKind::Config => FailureKind::Config,
        v1::FailureKind::Data => FailureKind::Data,
        v1::FailureKind::Checkpoint => FailureKind::Checkpoint,
        v1::FailureKind::OutOfMemory => FailureKind::OutOfMemory,
        v1::FailureKind::Storage => FailureKind::Storage,
        v1::FailureKind::Crashed => FailureKind::Crashed,
        v1::FailureKind::Protocol => FailureKind::Protocol,
        v1::FailureKind::Internal => FailureKind::Internal,
    })
}

/// A notice; `None` where a newer agent says one that this program does not know: it is better not to know why a
/// worker leaves than to break its stream off while it does.
#[must_use]
pub fn noticed(noticed: v1::Noticed) -> Option<Notice> {
    let source = match noticed.source() {
        v1::NoticeSource::Unspecified => return None,
        v1::NoticeSource::Aws => NoticeSource::Aws,
        v1::NoticeSource::Gce => NoticeSource::Gce,
        v1::NoticeSource::Azure => NoticeSource::Azure,
        v1::NoticeSource::Slurm => NoticeSource::Slurm,
        v1::NoticeSource::Signal => NoticeSource::Signal,
        v1::NoticeSource::File => NoticeSource::File,
        v1::NoticeSource::Http => NoticeSource::Http,
    };
    let kind = match noticed.kind() {
        v1::NoticeKind::Unspecified => return None,
        v1::NoticeKind::Terminate => NoticeKind::Terminate,
        v1::NoticeKind::Stop => NoticeKind::Stop,
        v1::NoticeKind::Hibernate => NoticeKind::Hibernate,
        v1::NoticeKind::Preempt => NoticeKind::Preempt,
        v1::NoticeKind::Reboot => NoticeKind::Reboot,
        v1::NoticeKind::Redeploy => NoticeKind::Redeploy,
        v1::NoticeKind::Maintenance => NoticeKind::Maintenance,
        v1::NoticeKind::Rebalance => NoticeKind::Rebalance,
    };
    Some(Notice::new(source, kind, noticed.in_s).because(&noticed.reason))
}

/// How a make-up of a gang stands, as one of its ranks sees it.
///
/// # Errors
/// No trial, generation 0 (they grow from 1) of one that has a rank, or a step beyond the limit.
pub fn gang_news(news: v1::GangNews) -> Result<RankWord, Problem> {
    let v1::GangNews { trial, epoch, generation, step, broken, ready, shard_us } = news;
    Ok(RankWord {
        trial: self::trial(trial)?,
        epoch: Epoch(epoch),
        generation: if ready { Generation(0) } else { self::generation(generation)? },
        step: steps(step)?,
        news: match broken {
            _ if ready => GangNews::Ready,
            None => match shard_us {
                0 => GangNews::Formed,
                shard_us => GangNews::Pace { shard_us },
            },
            Some(message) => GangNews::Broken { message: cut(message, limits::FAILURE_TEXT_BYTES) },
        },
    })
}

fn generation(generation: u64) -> Result<Generation, Problem> {
    match generation {
        0 => Err(bad("generations of a gang are numbered from 1")),
        _ => Ok(Generation(generation)),
    }
}

/// A question to a rendezvous store, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreQuery {
    /// The trial.
    pub trial: TrialRef,
    /// The lease.
    pub epoch: Epoch,
    /// Whose store.
    pub generation: Generation,
    /// Repeated in the answer.
    pub id: u64,
    /// At most [`STORE_KEY_BYTES`].
    pub key: String,
    /// The value to keep, at most [`STORE_VALUE_BYTES`]; `None`: it is asked for.
    pub set: Option<bytes::Bytes>,
}

/// A question of a rank to the rendezvous store of its generation.
///
/// # Errors
/// No trial, generation 0, or a key or value beyond its limit.
pub fn store_query(query: v1::StoreQuery) -> Result<StoreQuery, Problem> {
    let v1::StoreQuery { trial, epoch, generation, id, key, set } = query;
    if key.len() > STORE_KEY_BYTES {
        return Err(too_many("bytes in a key of a rendezvous store", key.len(), STORE_KEY_BYTES));
    }
    if let Some(value) = set.as_ref().filter(|value| value.len() > STORE_VALUE_BYTES) {
        return Err(too_many("bytes in a value of a rendezvous store", value.len(), STORE_VALUE_BYTES));
    }
    Ok(StoreQuery {
        trial: self::trial(trial)?,
        epoch: Epoch(epoch),
        generation: self::generation(generation)?,
        id,
        key,
        set,
    })
}

fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

fn seconds(value: f64) -> f64 {
    finite(value).max(0.0)
}

/// At most `limit` bytes of `text`, cut between characters.
fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests;
