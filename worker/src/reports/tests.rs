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

/// For so many reports there is room: for none, for some, or for all.
fn room() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), 1_usize..40, Just(1_000_000)]
}

proptest! {
    #[test]
    fn every_report_arrives_once_and_in_order_unless_its_lease_is_lost(
        happenings in happenings(),
        memory in room(),
        disk in prop::option::of(room()),
    ) {
        let now = Instant::now();
        let folder = tempfile::tempdir().unwrap();
        let spill = disk.map(|entries| Spill::limited(folder.path(), entries as u64 * 16));
        let mut log = ReportLog::with(memory * size_of::<Entry>(), spill);
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
            prop_assert!(log.numbered.len() <= memory.max(1) + REPORTS_PER_BATCH);
            applied.take(&batch);
            log.acknowledge(applied.seq);
        }
        prop_assert!(log.is_empty());
        prop_assert_eq!(log.due(), Due::Never);
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
    let mut log = ReportLog::new(None);
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

#[test]
fn what_memory_has_no_room_for_goes_to_disk_and_training_goes_on_until_that_is_full_too() {
    let now = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let mut log = ReportLog::with(3 * size_of::<Entry>(), Some(Spill::limited(folder.path(), 1000)));
    let mut pushed = 0;
    while !log.is_full() {
        pushed += 1;
        log.push(0, lease(0), progress(pushed), now);
    }
    assert!(pushed > 10 && log.fresh.len() == 3 && log.behind.len() == 1, "{pushed}");
    let last = ReportBody::Released { step: pushed, seconds: 0.5 };
    log.push(1, lease(0), last, now);
    assert_eq!(log.ended().collect::<Vec<_>>(), [(lease(0), 1)], "a final report is taken all the same");
    let mut reports = 0;
    while let Some(batch) = log.next_batch() {
        reports += batch.reports.len() as u64;
        log.acknowledge(reports);
    }
    assert_eq!(reports, pushed + 1);
    assert!(log.is_empty() && !log.is_full());
    assert_eq!(std::fs::metadata(folder.path().join("reports")).unwrap().len(), 0, "the disk is free again");
}

#[test]
fn a_disk_that_takes_nothing_makes_training_wait_and_loses_nothing() {
    let now = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let mut log = ReportLog::with(size_of::<Entry>(), Some(Spill::new(&folder.path().join("missing"))));
    log.push(0, lease(0), progress(1), now);
    assert!(!log.is_full(), "disk was not tried yet");
    log.push(0, lease(0), progress(2), now);
    assert!(log.is_full());
    let first = log.next_batch().unwrap();
    assert_eq!(first.reports.len(), 1);
    assert_eq!((log.next_batch(), log.due()), (None, Due::Never), "until there is room in memory");
    log.acknowledge(1);
    assert_eq!(log.due(), Due::Now);
    assert_eq!(log.next_batch().unwrap().first_seq, 2);
    log.acknowledge(2);
    assert!(log.is_empty());
}

#[test]
fn every_kind_of_report_comes_back_from_disk_as_it_was() {
    use crate::attempt::CheckpointRef;
    use spotsweep_proto::{digest::Digest, line::FailureKind};
    let metrics = || vec![(MetricName::new("loss").unwrap(), 0.1 + 0.2)];
    let digest = Digest([7; 32]);
    let bodies = [
        ReportBody::Started { step: 0, total_steps: Some(9) },
        ReportBody::Progress(Progress { step: 1, data_epoch: 1.0 / 3.0, metrics: metrics() }),
        ReportBody::Checkpoint(CheckpointRef {
            step: 2,
            manifest: digest,
            parts: vec![digest],
            bytes: 5,
            last: true,
        }),
        ReportBody::Finished { step: 3, metrics: metrics(), weights_digest: Some(digest), seconds: 0.7 },
        ReportBody::Failed { step: 3, kind: FailureKind::Data, message: "none".to_owned(), seconds: 0.0 },
        ReportBody::Released { step: 4, seconds: 1e-9 },
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut spill = Spill::new(folder.path());
    for body in bodies.clone() {
        spill.push(&Entry { device: 3, lease: lease(8), body }).unwrap();
    }
    for body in bodies {
        let entry = spill.pop().unwrap().unwrap();
        assert_eq!((entry.device, entry.lease, entry.body), (3, lease(8), body));
    }
    assert!(spill.pop().unwrap().is_none());
}

#[test]
fn reports_that_are_damaged_on_disk_are_never_taken_for_others_and_are_given_up_after_a_while() {
    let folder = tempfile::tempdir().unwrap();
    for (byte, what) in [(0, "a length"), (5, "a digest"), (20, "a report")] {
        let mut log = ReportLog::with(0, Some(Spill::new(folder.path())));
        log.push(0, lease(0), progress(1), Instant::now());
        let file = folder.path().join("reports");
        let mut content = std::fs::read(&file).unwrap();
        content[byte] ^= 0x40;
        std::fs::write(&file, content).unwrap();
        for _ in 0..READ_TRIES {
            assert!(!log.is_lost(), "{what}");
            log.read_retry = None;
            assert_eq!(log.next_batch(), None, "{what}");
        }
        assert!(log.is_lost(), "{what}");
    }
}
