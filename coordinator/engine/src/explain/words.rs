//! The words of an explanation: how each reason reads.

use super::{EndView, Explanation, GangView, Need, Reason};
use crate::{action::RevokeReason, event::DeviceKind, time::Time, trial::BriefEnd, views::FailureView};
use spotsweep_proto::{
    ids::{DeviceName, WorkerName},
    line::FailureKind,
    notice::Notice,
};
use std::fmt;

/// How an attempt on a worker's device ended at a step.
pub(super) fn of_end(end: BriefEnd, worker: &WorkerName, device: &DeviceName, step: u64) -> String {
    let how = match end {
        BriefEnd::Finished => "finished",
        BriefEnd::Failed(kind) => failure_words(kind),
        BriefEnd::Released => "given back by the worker",
        BriefEnd::WorkerGone => "interrupted: the worker left",
        BriefEnd::Disconnected => {
            "interrupted: the worker's connection broke and it did not come back in time"
        }
        BriefEnd::Expired => "interrupted: nothing was heard of the worker until the lease ended",
        BriefEnd::Revoked(RevokeReason::Paused) => "stopped by a pause",
        BriefEnd::Revoked(RevokeReason::Cancelled) => "stopped by a cancel",
        BriefEnd::Revoked(RevokeReason::NotNeeded) => "stopped: not needed any more",
        BriefEnd::Revoked(RevokeReason::Stale) => "stopped: the lease went to another worker",
        BriefEnd::Revoked(RevokeReason::Moved) => "moved to another worker",
        BriefEnd::Unreadable { step, next_step } => {
            return format!("on {worker} {device}: {}", unreadable_words(step, next_step, None));
        }
        BriefEnd::Noticed { source, kind, lost_steps } => {
            let how = if kind.is_interruption() { "interrupted by" } else { "moved after" };
            let name = Notice::name(source, kind);
            let lost = lost_words(lost_steps);
            return format!("{how} {name} on worker {worker} ({device}) at step {step}; {lost}");
        }
    };
    format!("on {worker} {device} to step {step}, {how}")
}

/// What an interruption cost: `nothing lost`, `3 steps lost`.
#[must_use]
pub fn lost_words(steps: u64) -> String {
    match steps {
        0 => "nothing lost".to_owned(),
        1 => "1 step lost".to_owned(),
        steps => format!("{steps} steps lost"),
    }
}

/// What follows from a checkpoint of `step` that cannot be read: the attempt after it resumes at `next_step`.
#[must_use]
pub fn unreadable_words(step: u64, next_step: u64, why: Option<&str>) -> String {
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    let next = match next_step {
        0 => "no other is kept, starting from step 0".to_owned(),
        next_step => format!("going on from step {next_step}"),
    };
    format!("the checkpoint of step {step} cannot be read{why}: {next}")
}

fn failure_words(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Diverged => "failed: the loss became NaN or infinite",
        FailureKind::Config => "failed: it cannot run as configured",
        FailureKind::Data => "failed: the data set is missing or damaged on the worker",
        FailureKind::Checkpoint => "failed: the checkpoint to resume from could not be read",
        FailureKind::OutOfMemory => "failed: out of memory",
        FailureKind::Storage => "failed: storage error on the worker",
        FailureKind::Crashed => "failed: the training process crashed",
        FailureKind::Protocol => "failed: the trainer broke the line protocol",
        FailureKind::Internal => "failed: internal error of the training process",
    }
}

fn kind_words(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Cpu => "CPU",
        DeviceKind::Cuda => "CUDA device",
    }
}

/// Bytes as people read them, in GiB with one decimal.
fn gib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let gib = bytes as f64 / f64::from(1u32 << 30);
    format!("{gib:.1} GiB")
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.kind.map_or("device", kind_words))?;
        if self.memory_bytes > 0 {
            write!(f, " with {} of memory", gib(self.memory_bytes))?;
        }
        Ok(())
    }
}

impl fmt::Display for GangView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { make_up, ranks, joining, leaving, stands } = self;
        let listed =
            |names: &[WorkerName]| names.iter().map(WorkerName::as_str).collect::<Vec<_>>().join(", ");
        match ranks.len() {
            0 => f.write_str("its workers prepare")?,
            _ => write!(f, "{stands} on {} (make-up {make_up})", listed(ranks))?,
        }
        for (names, what) in [(joining, "join"), (leaving, "leave")] {
            if !names.is_empty() {
                write!(f, "; to {what}: {}", listed(names))?;
            }
        }
        Ok(())
    }
}

impl Explanation {
    fn ago(&self, at: Time) -> String {
        format!("{:.0} s ago", self.now.seconds_since(at))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} is {}: ", self.sweep, self.trial.number, self.state)?;
        self.write_reason(f)?;
        if let Some(kind) = self.bound_to {
            let kind = kind_words(kind);
            write!(f, "\nit has run on a {kind} and stays on that kind, where its bits stay the same")?;
        }
        if !self.ends.is_empty() {
            write!(f, "\n{} attempts so far:", self.attempts)?;
        }
        for end in &self.ends {
            let EndView { attempt, what, at, .. } = end;
            write!(f, "\n  {attempt}. {what}, {}", self.ago(*at))?;
        }
        if let Some(failure) = &self.last_failure {
            write!(f, "\nthe latest failure, on {}: {}", failure.worker, failure.message)?;
        }
        Ok(())
    }
}

impl Explanation {
    fn write_reason(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::NoWorker { away: 0, draining: 0 } => {
                f.write_str("no worker is connected\nhint: start one with `spotsweep-worker`")
            }
            Reason::NoWorker { away, draining: 0 } => {
                write!(f, "no worker is connected; {away} may come back")
            }
            Reason::NoWorker { away: _, draining } => {
                write!(f, "no worker takes work: {draining} hand over and leave after a notice")
            }
            Reason::NoDevice { need, there } => {
                write!(f, "it needs {need}, and no connected worker has one; there are:")?;
                for (kind, memory, count) in there {
                    write!(f, "\n  {count} × {} with {}", kind_words(*kind), gib(*memory))?;
                }
                Ok(())
            }
            Reason::NoTrainer { devices } => write!(
                f,
                "it needs a worker with the trainer; the {devices} devices that fit belong to workers that carry out programs alone (--trainer none)"
            ),
            Reason::UnknownToTrainers { devices, missing } => {
                if missing.is_empty() {
                    f.write_str("no one worker's trainer has all models and data sets of its sweep")?;
                }
                for (index, (kind, name, is_named)) in missing.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { "; " })?;
                    if *is_named {
                        write!(
                            f,
                            "connected workers' trainers describe the {kind} {name} otherwise than when the sweep was submitted"
                        )?;
                    } else {
                        write!(f, "no connected worker's trainer knows the {kind} {name}")?;
                    }
                }
                write!(
                    f,
                    "; the {devices} devices that fit belong to others\nhint: start a worker with the trainer that has it: `spotsweep-worker --trainer PATH`"
                )
            }
            Reason::Busy { devices, leases, outranked_by, before_it } => {
                write!(f, "the {devices} devices that fit are busy with {leases} leases")?;
                if let Some((name, priority)) = outranked_by {
                    write!(f, "; sweep {name} goes first with priority {priority}")?;
                }
                match before_it {
                    0 => f.write_str("; it is the next of its sweep"),
                    n => write!(f, "; {n} trials of its sweep go before it"),
                }
            }
            Reason::Gathers { workers, devices, idle, kept } => {
                write!(f, "it needs {workers} workers at once; of the {devices} that fit {idle} are idle")?;
                if *kept {
                    f.write_str(", and what becomes idle is kept for it")?;
                }
                Ok(())
            }
            Reason::Avoids { worker } => {
                write!(f, "only {worker} is free, where it just failed; it waits for another worker")
            }
            Reason::BackOff { until, failures, max_failures, failure } => {
                let wait_s = until.seconds_since(self.now);
                write!(f, "failure {failures} of {max_failures}, tried again in {wait_s:.0} s")?;
                Self::write_failure(failure.as_ref(), f)
            }
            Reason::Paused { sweep, stopping_on } => {
                f.write_str(if *sweep { "its sweep is paused" } else { "it was paused" })?;
                match stopping_on {
                    Some(worker) => write!(f, "; {worker} writes its checkpoint and gives it back"),
                    None => Ok(()),
                }
            }
            Reason::Leased {
                worker,
                device,
                started_at,
                step,
                total_steps,
                disconnected_since,
                revoked,
                notice,
                gang,
            } => {
                match started_at {
                    Some(at) => write!(f, "on {worker} {device}, started {}", self.ago(*at))?,
                    None => write!(f, "waits on {worker} for {device}")?,
                }
                match total_steps {
                    0 => write!(f, ", step {step}")?,
                    total => write!(f, ", step {step} of {total}")?,
                }
                if let Some(gang) = gang {
                    write!(f, "; {gang}")?;
                }
                if let Some(since) = disconnected_since {
                    write!(f, "; the worker's connection broke {}", self.ago(*since))?;
                }
                match notice {
                    Some(notice) if notice.kind.is_interruption() => {
                        write!(f, "; {worker} hands it over and leaves after {notice}")?;
                    }
                    Some(notice) => write!(f, "; {worker} may be taken ({notice})")?,
                    None => {}
                }
                match revoked {
                    Some(RevokeReason::Moved) => f.write_str("; it moves to a worker that stands ready"),
                    Some(
                        RevokeReason::Stale
                        | RevokeReason::Paused
                        | RevokeReason::Cancelled
                        | RevokeReason::NotNeeded,
                    ) => f.write_str("; the worker was told to give it back"),
                    None => Ok(()),
                }
            }
            Reason::Completed => f.write_str("it has its result"),
            Reason::Stopped { best: Some((number, value)) } => {
                write!(f, "trial {number} reached the sweep's target with {value} before this one started")
            }
            Reason::Stopped { best: None } => f.write_str("the sweep reached its target before it started"),
            Reason::Failed { failures, max_failures, failure } => {
                write!(f, "{failures} of at most {max_failures} failures")?;
                Self::write_failure(failure.as_ref(), f)
            }
            Reason::Cancelled { sweep: true } => f.write_str("its sweep was cancelled"),
            Reason::Cancelled { sweep: false } => f.write_str("it was cancelled"),
        }
    }

    fn write_failure(failure: Option<&FailureView>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match failure {
            Some(FailureView { kind, message, worker, .. }) => {
                let words = failure_words(*kind);
                let what = words.strip_prefix("failed: ").unwrap_or(words);
                // Many a message says the same, and more.
                if message.starts_with(what) {
                    write!(f, "; on {worker} it failed: {message}")
                } else {
                    write!(f, "; on {worker} it {words}: {message}")
                }
            }
            None => Ok(()),
        }
    }
}
