//! How a program ends: what it left is ended and read, in order, and what its end means is told.

use super::{super::kin, Program, Told};
use crate::attempt::Failure;
use serde_json::Value;
use spotsweep_proto::{
    last_lines::with_last_lines,
    line::{FailureKind, FromTrainer},
};
use std::process::ExitStatus;

impl Program {
    /// The program's process has ended with `status`: ends all that it left, and reads what is left of it.
    pub(super) async fn wind_up(&mut self, status: ExitStatus) {
        self.kill();
        // Its number may become another's from now on.
        kin::forget(self.group.take());
        let left = self.family.end().await;
        if left > 0 {
            tracing::error!(folder = %self.home.folder.display(), left, "processes of a program do not end");
        }
        while self.packing.is_none()
            && let Some(piece) = self.from_program.rest()
        {
            self.heard(piece);
        }
        if self.packing.is_some() || self.looking.is_some() {
            return;
        }
        while let Some(found) = self.output.rest() {
            self.found(found);
        }
        self.output.end().await;
        while let Some(found) = self.output.rest() {
            self.found(found);
        }
        // Once more, for what was written at the very end.
        if let Some(mut events) = self.events.take() {
            loop {
                let (found, warnings, more) = events.look();
                self.take_in(found, warnings);
                if !more {
                    break;
                }
            }
        }
        self.tell_pending(true);
        self.tell_warnings();
        let (untold, not_finite) = (self.tale.untold(), self.tale.not_finite());
        if untold + not_finite > 0 {
            self.output.note(&format!(
                "{untold} more warnings; {not_finite} values that are not finite were left out"
            ));
        }
        self.running = None;
        self.over = true;
        self.conclude(status);
    }

    /// What its end means.
    fn conclude(&mut self, status: ExitStatus) {
        self.queue.extend(self.tale.start(None));
        let (epoch, step) = (self.epoch, self.tale.step());
        let failed = |reason, message| FromTrainer::Failed { epoch, step, reason, message };
        let end = match (self.failed.take(), self.told.take()) {
            (Some(Failure { kind, message }), _) => Some(failed(kind, self.with_last_lines(&message))),
            (None, Some(Told::Failed { kind, message })) => {
                Some(failed(kind, self.with_last_lines(&message)))
            }
            (None, Some(Told::Done)) => Some(self.done()),
            (None, Some(Told::Stopped)) => Some(FromTrainer::Stopped { epoch, step }),
            (None, None) if self.stopping => Some(FromTrainer::Stopped { epoch, step }),
            (None, None) if status.success() => Some(self.done()),
            // The course of the job asks for the status.
            (None, None) => None,
        };
        self.queue.extend(end);
    }

    /// It ended well, if it has a result.
    fn done(&self) -> FromTrainer {
        let (epoch, step) = (self.epoch, self.tale.step());
        if self.tale.is_of_other_rank() {
            return FromTrainer::Done { epoch, step, metrics: serde_json::Map::new(), weights_digest: None };
        }
        let metrics = self.tale.latest();
        if !self.metric.is_empty() && !metrics.contains_key(&self.metric) {
            let names: Vec<&str> = metrics.keys().take(10).map(String::as_str).collect();
            let told = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let message = format!(
                "the program exited with status 0 and without a result: it never reported {}, the metric of the sweep (it reported: {told}; values that are not finite: {})",
                self.metric,
                self.tale.not_finite(),
            );
            let message = self.with_last_lines(&message);
            return FromTrainer::Failed { epoch, step, reason: FailureKind::Config, message };
        }
        // What the sweep is about is among them, whatever else there is.
        let mut chosen = serde_json::Map::<String, Value>::new();
        let most = spotsweep_proto::limits::METRICS_PER_REPORT;
        chosen.extend(metrics.get_key_value(&self.metric).map(|(name, value)| (name.clone(), value.clone())));
        for (name, value) in metrics {
            if chosen.len() < most {
                chosen.insert(name.clone(), value.clone());
            }
        }
        FromTrainer::Done { epoch, step, metrics: chosen, weights_digest: self.digest }
    }

    fn with_last_lines(&self, message: &str) -> String {
        with_last_lines(message, &self.output.last_lines())
    }
}
