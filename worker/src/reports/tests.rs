//! Reports under every order of loss, repetition and reconnection.

use super::*;
use crate::attempt::{Progress, SweepNumber, TrialRef};
use proptest::prelude::*;
use spotsweep_proto::ids::{Epoch, MetricName};

fn lease(number: u32) -> LeaseKey {
    LeaseKey { trial: TrialRef { sweep: SweepNumber(0), number }, epoch: Epoch(1) }
}

fn progress(step: u64) -> ReportBody {
    ReportBody::Progress(Progress { step, data_epoch: 0.0, metrics: Vec::new() })
}

/// What happens between agent and coordinator.
#[derive(Debug, Clone)]
enum Happening {
    /// A lease's trainer reports its next step.
    Report(u32),
    /// The next batch is sent, and arrives or is lost with the connection.
    Send { arrives: bool },
    /// The acknowledgement of all that is applied comes back.
    Acknowledge,
    /// The connection breaks and another comes up.
    Reconnect,
    /// A lease is lost.
    Drop(u32),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        8 => (0_u32..3).prop_map(Happening::Report),
        4 => any::<bool>().prop_map(|arrives| Happening::Send { arrives }),
        2 => Just(Happening::Acknowledge),
        1 => Just(Happening::Reconnect),
        1 => (0_u32..3).prop_map(Happening::Drop),
    ];
    prop::collection::vec(one, 0..200)
}

/// A coordinator as far as reports go: applies each number once, in order.
#[derive(Default)]
struct Applied {
    seq: u64,
    steps: Vec<(u32, u64)>,
}

impl Applied {
    fn take(&mut self, batch: &v1::ReportBatch) {
        assert!(batch.first_seq <= self.seq + 1, "a gap before {}", batch.first_seq);
        for (seq, report) in (batch.first_seq..).zip(&batch.reports) {
            if seq > self.seq {
                self.seq = seq;
                let Some(v1::report::Body::Progress(progress)) = &report.body else { panic!("{report:?}") };
                self.steps.push((report.trial.unwrap().number, progress.step));
            }
        }
    }
}

proptest! {
    #[test]
    fn every_report_arrives_once_and_in_order_unless_its_lease_is_lost(happenings in happenings()) {
        let now = Instant::now();
        let mut log = ReportLog::new();
        let mut applied = Applied::default();
        let mut steps = [0_u64; 3];
        let mut kept: Vec<(u32, u64)> = Vec::new();
        let mut lossy = false;
        for happening in happenings {
            match happening {
                Happening::Report(number) => {
                    steps[number as usize] += 1;
                    log.push(0, lease(number), progress(steps[number as usize]), now);
                    kept.push((number, steps[number as usize]));
                }
                Happening::Send { arrives } => {
                    // What is lost on a connection is lost with all that follows on it.
                    lossy |= !arrives;
                    if let Some(batch) = log.next_batch() && !lossy {
                        applied.take(&batch);
                    }
                }
                Happening::Acknowledge => log.acknowledge(applied.seq),
                Happening::Reconnect => {
                    lossy = false;
                    log.reattach(applied.seq);
                }
                Happening::Drop(number) => {
                    log.drop_lease(lease(number));
                    let waiting = |point: &(u32, u64)| {
                        log.numbered.iter().any(|entry| {
                            (entry.lease.trial.number, step_of(entry)) == *point
                        })
                    };
                    kept.retain(|point| point.0 != number || waiting(point) || applied.steps.contains(point));
                }
            }
        }
        log.reattach(applied.seq);
        while let Some(batch) = log.next_batch() {
            applied.take(&batch);
        }
        log.acknowledge(applied.seq);
        prop_assert!(log.is_empty());
        prop_assert_eq!(log.bytes, 0);
        prop_assert_eq!(applied.steps, kept);
    }
}

fn step_of(entry: &Entry) -> u64 {
    match &entry.body {
        ReportBody::Progress(progress) => progress.step,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_keeps_to_its_limits_of_names_and_bytes() {
    let now = Instant::now();
    let mut log = ReportLog::new();
    for report in 0..40 {
        let name = |i: usize| MetricName::new(&format!("m{report}_{i}")).unwrap();
        let metrics = (0..METRICS_PER_REPORT).map(|i| (name(i), 1.0)).collect();
        log.push(0, lease(0), ReportBody::Progress(Progress { step: report, data_epoch: 0.0, metrics }), now);
    }
    let failed = |length: usize| ReportBody::Failed {
        step: 0,
        kind: spotsweep_proto::line::FailureKind::Crashed,
        message: "x".repeat(length),
        seconds: 0.0,
    };
    for _ in 0..1000 {
        log.push(0, lease(0), failed(4096), now);
    }
    let mut reports = 0;
    while let Some(batch) = log.next_batch() {
        assert!(batch.metric_names.len() <= METRICS_PER_TRIAL);
        assert!(prost_len(&batch) < 2 * BATCH_BYTES);
        reports += batch.reports.len();
    }
    assert_eq!(reports, 1040);
}

/// About what a batch takes on the wire, in bytes.
fn prost_len(batch: &v1::ReportBatch) -> usize {
    let names: usize = batch.metric_names.iter().map(String::len).sum();
    let body = |report: &v1::Report| match &report.body {
        Some(v1::report::Body::Progress(progress)) => progress.values.len() * 10,
        Some(v1::report::Body::Failed(failed)) => failed.message.len(),
        other => panic!("{other:?}"),
    };
    names + batch.reports.iter().map(body).sum::<usize>()
}
