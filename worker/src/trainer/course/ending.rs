//! How a job ends: what follows from a death, a breach, silence, and what could not be stored.

use super::{Closing, Course, End, Ending};
use crate::{
    attempt::{Failure, ReportBody},
    trainer::{HowToStop, carrier::Carrier, child::Death, stderr::failure_text},
};
use spotsweep_proto::line::FailureKind;

impl Course {
    pub(super) async fn babbled<C: Carrier>(&mut self, process: Option<C>, what: &str) {
        if let Some(process) = process {
            let death = process.end(true).await;
            let text = death.text(&format!("the trainer broke the line protocol and was killed: {what}"));
            let ending = Some(self.failure(FailureKind::Protocol, &text));
            self.closing = Some(Closing { ending, healthy: false });
        }
    }

    pub(super) async fn late<C: Carrier>(&mut self, process: Option<C>) {
        let Some(process) = process else { return };
        let death = process.end(true).await;
        let ending = match self.stop {
            None => {
                let before = format!(
                    "the trainer hung and was killed: it said nothing for {} s",
                    self.silence.as_secs_f64()
                );
                Some(self.failure(FailureKind::Crashed, &death.text(&before)))
            }
            Some((how, _)) => {
                tracing::warn!(lease = %self.lease, "the trainer did not stop in time and was killed");
                self.released(how)
            }
        };
        self.closing = Some(Closing { ending, healthy: false });
    }

    /// The trainer is done and its newest checkpoint is not: the attempt ends with the newest that is stored.
    pub(super) fn out_of_time(&mut self) {
        self.uploads.abandon();
        tracing::warn!(lease = %self.lease, step = self.watch.step(), "the newest checkpoint is not stored in time: handing back with the one before");
        let released = self.released(HowToStop::Checkpoint);
        if let Some(closing) = &mut self.closing
            && matches!(closing.ending, Some(ReportBody::Finished { .. }))
        {
            closing.ending = released;
        }
    }

    /// The trainer died before the job could begin.
    pub(crate) fn died(mut self, death: Death, before: &str) -> End {
        let ending = self.death(&death, before);
        self.close(Closing { ending, healthy: false })
    }

    /// The ending that follows from the trainer's death by itself.
    pub(super) fn death(&mut self, death: &Death, before: &str) -> Ending {
        if let Some((how, _)) = self.stop {
            return self.released(how);
        }
        if death.is_interruption() {
            return self.released(HowToStop::Checkpoint);
        }
        Some(self.failure(death.kind(), &death.text(before)))
    }

    pub(super) fn released(&self, how: HowToStop) -> Ending {
        match how {
            HowToStop::Checkpoint | HowToStop::CheckpointBy(_) => {
                Some(ReportBody::Released { step: self.watch.step(), seconds: self.seconds() })
            }
            HowToStop::Discard => None,
        }
    }

    /// Everything is stored that can be.
    pub(super) fn close(&mut self, closing: Closing) -> End {
        let Closing { mut ending, healthy } = closing;
        if let Some(lost) = self.lost.take()
            && matches!(ending, Some(ReportBody::Finished { .. }))
        {
            ending = Some(self.failure(lost.kind, &lost.message));
        }
        if let Some(Failure { kind, message }) = self.unsupplied.take()
            && matches!(ending, Some(ReportBody::Released { .. }))
        {
            ending = Some(self.failure(kind, &message));
        }
        if matches!(self.stop, Some((HowToStop::Discard, _))) {
            ending = None;
        }
        if self.watch.ignored_values() > 0 {
            let values = self.watch.ignored_values();
            tracing::warn!(lease = %self.lease, values, "metrics without a finite value were left out");
        }
        let started = self.started.is_some();
        if healthy { End::Healthy(ending) } else { End::Broken { ending, started } }
    }

    pub(super) fn failure(&self, kind: FailureKind, message: &str) -> ReportBody {
        let message = match &self.name {
            Some(name) => failure_text(&format!("{name}: {message}")),
            None => failure_text(message),
        };
        tracing::warn!(lease = %self.lease, ?kind, %message, "the attempt failed");
        ReportBody::Failed { step: self.watch.step(), kind, message, seconds: self.seconds() }
    }

    /// Seconds that the job trained so far.
    pub(super) fn seconds(&self) -> f64 {
        self.started.map_or(0.0, |started| started.elapsed().as_secs_f64())
    }
}
