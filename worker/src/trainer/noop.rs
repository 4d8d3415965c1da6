//! A trainer that trains nothing, in the agent's own process: for measuring everything but training.

use super::{Equipment, FoundDevice, HowToStop, Trainer, TrainerError, TrainerEvent, Trainers};
use crate::attempt::{Attempt, LeaseKey, Progress, ReportBody};
use futures::future::BoxFuture;
use spotsweep_proto::ids::{DeviceName, MetricName};
use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

/// Gives trainers that finish every attempt at once.
#[derive(Debug, Clone)]
pub struct NoopTrainers {
    devices: u16,
    reports: u64,
}

impl NoopTrainers {
    /// On one device, with no metrics but the final one.
    #[must_use]
    pub fn new() -> Self {
        Self { devices: 1, reports: 0 }
    }

    /// With `reports` reports of one metric (`loss`) each, before the attempt finishes.
    #[must_use]
    pub fn with_reports(self, reports: u64) -> Self {
        Self { reports, ..self }
    }

    /// With `devices` devices, called `cpu`, `cpu:1`, `cpu:2`, …
    #[must_use]
    pub fn with_devices(self, devices: u16) -> Self {
        Self { devices, ..self }
    }
}

impl Default for NoopTrainers {
    fn default() -> Self {
        Self::new()
    }
}

impl Trainers for NoopTrainers {
    fn find(&mut self) -> BoxFuture<'_, Result<Equipment, TrainerError>> {
        let device = |index: u16| {
            let name = if index == 0 { "cpu".to_owned() } else { format!("cpu:{index}") };
            let name = DeviceName::new(&name).ok()?;
            Some(FoundDevice { name, model: "nothing".to_owned(), memory_bytes: 0 })
        };
        let devices = (0..self.devices).filter_map(device).collect();
        Box::pin(std::future::ready(Ok(Equipment { devices, ..Equipment::default() })))
    }

    fn open(&mut self, _device: &FoundDevice) -> Box<dyn Trainer> {
        Box::new(NoopTrainer {
            reports: self.reports,
            loss: MetricName::new("loss").ok(),
            job: None,
            events: VecDeque::new(),
            waker: None,
        })
    }
}

/// The trainer of one device.
struct NoopTrainer {
    reports: u64,
    /// `None` never: the name is well formed.
    loss: Option<MetricName>,
    /// The lease of the attempt that is being "trained", and its next step.
    job: Option<(LeaseKey, u64)>,
    events: VecDeque<TrainerEvent>,
    waker: Option<Waker>,
}

impl NoopTrainer {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn metrics(&self, step: u64) -> Vec<(MetricName, f64)> {
        #[expect(clippy::cast_precision_loss, reason = "a toy loss; steps are far below 2^53")]
        let loss = 1.0 / (1.0 + step as f64);
        self.loss.iter().map(|name| (name.clone(), loss)).collect()
    }
}

impl Trainer for NoopTrainer {
    fn start(&mut self, attempt: Attempt) {
        let step = attempt.first_step();
        let total_steps = Some(self.reports);
        self.events.push_back(TrainerEvent::Report(attempt.lease, ReportBody::Started { step, total_steps }));
        self.job = Some((attempt.lease, step));
        self.wake();
    }

    fn stop(&mut self, lease: LeaseKey, how: HowToStop) {
        let Some((running, step)) = self.job.filter(|(running, _)| *running == lease) else { return };
        self.job = None;
        self.events.push_back(match how {
            HowToStop::Checkpoint | HowToStop::CheckpointBy(_) => {
                TrainerEvent::Report(running, ReportBody::Released { step, seconds: 0.0 })
            }
            HowToStop::Discard => TrainerEvent::Dropped(running),
        });
        self.wake();
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<TrainerEvent> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        let Some((lease, step)) = self.job else {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if step < self.reports {
            let step = step + 1;
            self.job = Some((lease, step));
            #[expect(clippy::cast_precision_loss, reason = "steps are far below 2^53")]
            let data_epoch = step as f64 / self.reports as f64;
            let progress = Progress { step, data_epoch, metrics: self.metrics(step) };
            return Poll::Ready(TrainerEvent::Report(lease, ReportBody::Progress(progress)));
        }
        self.job = None;
        let metrics = self.metrics(step);
        let finished = ReportBody::Finished { step, metrics, weights_digest: None, seconds: 0.0 };
        Poll::Ready(TrainerEvent::Report(lease, finished))
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}
