use super::*;
use crate::attempt::{SweepNumber, TrialRef};
use spotsweep_proto::{
    ids::Epoch,
    limits::{LOG_HEAD_BYTES, LOG_TAIL_BYTES},
    line::FailureKind,
};

fn lease(number: u32) -> LeaseKey {
    LeaseKey { trial: TrialRef { sweep: SweepNumber(0), number }, epoch: Epoch(1) }
}

fn begun(logs: &mut AttemptLogs, number: u32, now: Instant) -> AttemptLog {
    let log = AttemptLog::new(lease(number), 1);
    logs.begin(&log, 0, "cpu", now);
    log
}

fn finished() -> ReportBody {
    ReportBody::Finished { step: 5, metrics: Vec::new(), weights_digest: None, seconds: 1.0 }
}

/// Chunks as text, with the trial's number and whether they are the last.
fn texts(batch: Option<v1::LogBatch>) -> Vec<(u32, String, bool)> {
    let chunks = batch.into_iter().flat_map(|batch| batch.chunks);
    chunks
        .map(|chunk| {
            (chunk.trial.unwrap().number, String::from_utf8(chunk.text.to_vec()).unwrap(), chunk.last)
        })
        .collect()
}

#[test]
fn what_is_printed_goes_out_with_what_the_agent_has_to_say_and_ends_with_its_last_chunk() {
    let mut logs = AttemptLogs::default();
    let now = Instant::now();
    let log = begun(&mut logs, 3, now);
    log.push(b"one\ntw");
    let begins = "[spotsweep: attempt 1 begins at step 0 on cpu]\n";
    assert_eq!(texts(logs.next_batch(now, false)), [(3, format!("{begins}one\ntw"), false)]);
    log.push(b"o");
    assert_eq!(texts(logs.next_batch(now, false)), [], "not before the time is up");
    let failed = ReportBody::Failed {
        step: 2,
        kind: FailureKind::Crashed,
        message: "bad; its last lines were:\nx".to_owned(),
        seconds: 1.0,
    };
    logs.end(lease(3), Some(&failed));
    let rest = "o\n[spotsweep: failed at step 2: bad]\n";
    assert_eq!(texts(logs.next_batch(now + EVERY, false)), [(3, rest.to_owned(), true)]);
    log.push(b"too late");
    assert!(!logs.waits());
}

#[test]
fn a_short_attempt_that_prints_nothing_leaves_nothing_and_a_failure_is_always_told() {
    let mut logs = AttemptLogs::default();
    let now = Instant::now();
    begun(&mut logs, 0, now);
    assert_eq!(texts(logs.next_batch(now, false)), []);
    logs.end(lease(0), Some(&finished()));
    assert_eq!((logs.due(now), logs.waits()), (None, false));

    begun(&mut logs, 1, now);
    let message = "boom".to_owned();
    logs.end(
        lease(1),
        Some(&ReportBody::Failed { step: 0, kind: FailureKind::Crashed, message, seconds: 0.1 }),
    );
    let told = texts(logs.next_batch(now, true));
    assert!(told[0].1.ends_with("[spotsweep: failed at step 0: boom]\n") && told[0].2, "{told:?}");

    begun(&mut logs, 2, now);
    let told = texts(logs.next_batch(now + REMARKED_AFTER, false));
    assert_eq!(told, [(2, "[spotsweep: attempt 1 begins at step 0 on cpu]\n".to_owned(), false)]);
}

#[test]
fn a_batch_has_its_limit_and_whoever_floods_leaves_room_for_others() {
    let mut logs = AttemptLogs::default();
    let now = Instant::now();
    let (loud, quiet) = (begun(&mut logs, 0, now), begun(&mut logs, 1, now));
    loud.push(&vec![b'x'; 50 << 20]);
    quiet.push(b"here\n");
    let batch = logs.next_batch(now, false).unwrap();
    assert_eq!(batch.chunks.iter().map(|chunk| chunk.text.len()).sum::<usize>(), LOG_BATCH_BYTES);
    assert!(batch.chunks.iter().any(|chunk| chunk.text.ends_with(b"here\n")));
    let (mut sent, mut at) = (LOG_BATCH_BYTES, now);
    logs.end(lease(0), Some(&finished()));
    while logs.waits() {
        at += EVERY;
        sent += logs
            .next_batch(at, false)
            .into_iter()
            .flat_map(|batch| batch.chunks)
            .map(|chunk| chunk.text.len())
            .sum::<usize>();
    }
    assert!(sent <= LOG_HEAD_BYTES + LOG_TAIL_BYTES + 200, "{sent}");
    assert!(at - now <= 6 * EVERY);
}

#[test]
fn on_a_new_connection_what_may_be_lost_goes_again() {
    let mut logs = AttemptLogs::default();
    let now = Instant::now();
    begun(&mut logs, 0, now).push(b"a\n");
    logs.end(lease(0), Some(&finished()));
    let first = texts(logs.next_batch(now, true));
    logs.reconnected();
    assert_eq!(texts(logs.next_batch(now, true)), first);
    assert!(first[0].2);
    // Long after, nothing does.
    assert!(logs.next_batch(now, true).is_none());
    assert!(logs.next_batch(now + Duration::from_secs(60), true).is_none());
    logs.reconnected();
    assert!(logs.due(now).is_none());
}

#[test]
fn output_that_nobody_takes_is_bounded_over_all_attempts() {
    let mut logs = AttemptLogs::default();
    let now = Instant::now();
    for number in 0..2000 {
        begun(&mut logs, number, now).push(&[b'x'; 40_000]);
        logs.end(lease(number), Some(&finished()));
    }
    let kept: usize = logs.open.iter().map(|log| log.0.text().kept.bytes()).sum();
    assert!(kept <= ENDED_BYTES && logs.open.len() <= ENDED, "{kept}");
    assert_eq!(logs.open.last().unwrap().0.lease, lease(1999), "the newest are kept");
}

#[test]
fn a_worker_that_comes_back_to_a_gang_goes_on_with_its_log() {
    let mut logs = AttemptLogs::default();
    let now = Instant::now();
    begun(&mut logs, 0, now).push(b"first\n");
    logs.end(lease(0), Some(&finished()));
    let sent = texts(logs.next_batch(now, true)).remove(0).1.len() as u64;
    let again = logs.of(lease(0), 1);
    logs.begin(&again, 5, "cpu", now);
    again.push(b"second\n");
    let chunk = logs.next_batch(now, true).unwrap().chunks.remove(0);
    assert_eq!((chunk.offset, chunk.last), (sent, false));
    logs.end(lease(0), Some(&finished()));
    for seconds in [0, 60, 120, 180] {
        logs.next_batch(now + Duration::from_secs(seconds), true);
    }
    assert!(logs.open.is_empty());
    let later = logs.of(lease(0), 1);
    logs.begin(&later, 5, "cpu", now);
    later.push(b"third\n");
    assert!(logs.next_batch(now, true).unwrap().chunks[0].offset > sent + 7);
}
