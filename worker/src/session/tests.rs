//! The session without IO: what goes in, what comes out.

use super::*;
use crate::attempt::{Progress, TrialRef};
use crate::gang::{GangNews, StoreQuestion};
use spotsweep_proto::{
    gang::{Shares, StoreOp},
    ids::{Epoch, MetricName, SweepName},
    limits::REPORTS_PER_BATCH,
    spec::{CheckpointPolicy, Every},
};

fn lease(number: u32) -> LeaseKey {
    LeaseKey { trial: TrialRef { sweep: SweepNumber(0), number }, epoch: Epoch(1) }
}

fn grants(numbers: std::ops::Range<u32>) -> Vec<Grant> {
    let grant = |number| Grant {
        lease: lease(number),
        attempt: 1,
        device: 0,
        params_json: "{}".to_owned(),
        resume: None,
        interruption_mean_s: 3600.0,
        gang: None,
    };
    numbers.map(grant).collect()
}

/// Attached, with one device, knowing sweep 0.
fn session(now: Instant) -> Session {
    let mut session = Session::new([DeviceName::new("cpu").unwrap()], None);
    session.told_of(
        SweepNumber(0),
        Sweep {
            name: SweepName::new("s").unwrap(),
            train: serde_json::Value::Null,
            checkpoint: CheckpointPolicy { every: Every::Steps(10), keep_last: 1 },
            metric: String::new(),
            program: None,
        },
    );
    session.welcomed(0, &[], "file:///x");
    assert_eq!(ready(&mut session), Some(1));
    assert_eq!(session.due(), Due::Never);
    assert!(session.tick_is_quiet(now));
    session
}

impl Session {
    fn tick_is_quiet(&mut self, now: Instant) -> bool {
        self.tick(now);
        self.next_outgoing().is_none() && self.next_command().is_none()
    }
}

/// Credits that are announced next, if that is what comes next.
fn ready(session: &mut Session) -> Option<u32> {
    match session.next_outgoing() {
        Some(Outgoing::Ready(ready)) => Some(ready.credits),
        Some(Outgoing::Reports(_) | Outgoing::Gang(_)) | None => None,
    }
}

fn batch(session: &mut Session) -> v1::ReportBatch {
    match session.next_outgoing() {
        Some(Outgoing::Reports(batch)) => batch,
        other => panic!("{other:?}"),
    }
}

fn commands(session: &mut Session) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(command) = session.next_command() {
        texts.push(match command {
            Command::Start { device, attempt } => format!("start {} on {device}", attempt.lease.trial.number),
            Command::Prepare { device, attempt } => {
                format!("prepare {} on {device}", attempt.lease.trial.number)
            }
            Command::Stop { device, lease, how } => {
                format!("stop {} on {device}: {how:?}", lease.trial.number)
            }
            Command::Regang { device, lease, place } => {
                format!("regang {} on {device}: {} as {:?}", lease.trial.number, place.generation, place.rank)
            }
            Command::Answer { device, lease, id, value } => {
                format!("answer {} on {device}: {id} is {value:?}", lease.trial.number)
            }
        });
    }
    texts
}

fn progress(step: u64) -> ReportBody {
    let metrics = vec![(MetricName::new("loss").unwrap(), 0.5)];
    ReportBody::Progress(Progress { step, data_epoch: 0.0, metrics })
}

fn report(session: &mut Session, number: u32, body: ReportBody, now: Instant) {
    session.event(0, TrainerEvent::Report(lease(number), body), now);
}

fn finish(session: &mut Session, number: u32, now: Instant) {
    let body = ReportBody::Finished { step: 1, metrics: Vec::new(), weights_digest: None, seconds: 0.0 };
    report(session, number, body, now);
}

#[test]
fn one_attempt_runs_at_a_time_and_the_next_starts_when_it_has_ended() {
    let now = Instant::now();
    let mut session = session(now);
    session.granted(grants(0..3), now).unwrap();
    assert_eq!(commands(&mut session), ["start 0 on 0"]);
    finish(&mut session, 0, now);
    assert_eq!(commands(&mut session), ["start 1 on 0"]);
    assert_eq!(session.held().len(), 3, "the end of the first is not acknowledged");
    let sent = batch(&mut session);
    assert_eq!((sent.first_seq, sent.reports.len()), (1, 1));
    session.acknowledged(1);
    assert_eq!(session.held(), [(lease(1), 0), (lease(2), 0)]);
}

#[test]
fn progress_is_gathered_and_the_end_of_a_job_is_not_kept_waiting() {
    let now = Instant::now();
    let mut session = session(now);
    session.granted(grants(0..1), now).unwrap();
    report(&mut session, 0, progress(1), now);
    assert_eq!(session.due(), Due::At(now + crate::reports::GATHER));
    for step in 2..REPORTS_PER_BATCH as u64 {
        report(&mut session, 0, progress(step), now);
    }
    assert_eq!(session.due(), Due::At(now + crate::reports::GATHER));
    report(&mut session, 0, progress(REPORTS_PER_BATCH as u64), now);
    assert_eq!(session.due(), Due::Now);
    let sent = batch(&mut session);
    assert_eq!((sent.reports.len(), sent.metric_names.len()), (REPORTS_PER_BATCH, 1));
    assert_eq!(session.due(), Due::Never);
    finish(&mut session, 0, now + Duration::from_secs(9));
    assert_eq!(session.due(), Due::Now);
    assert_eq!(batch(&mut session).first_seq, REPORTS_PER_BATCH as u64 + 1);
    assert_eq!(ready(&mut session), Some(1), "credits follow the report");
}

#[test]
fn a_stale_lease_is_stopped_and_nothing_more_is_said_of_it() {
    let now = Instant::now();
    let mut session = session(now);
    session.granted(grants(0..2), now).unwrap();
    report(&mut session, 0, progress(1), now);
    assert_eq!(batch(&mut session).reports.len(), 1);
    report(&mut session, 0, progress(2), now);
    commands(&mut session);
    session.revoked(lease(0), RevokeReason::Stale, now);
    session.revoked(lease(0), RevokeReason::Stale, now);
    assert_eq!(commands(&mut session), ["stop 0 on 0: Discard"]);
    report(&mut session, 0, progress(3), now);
    session.event(0, TrainerEvent::Dropped(lease(0)), now);
    assert_eq!(commands(&mut session), ["start 1 on 0"]);
    report(&mut session, 1, progress(1), now);
    let sent = batch(&mut session);
    assert_eq!((sent.first_seq, sent.reports.len()), (2, 1), "numbers stay without a gap");
    assert_eq!(sent.reports[0].trial.unwrap().number, 1);
}

#[test]
fn a_job_that_ends_while_it_is_being_dropped_is_not_reported() {
    let now = Instant::now();
    let mut session = session(now);
    session.granted(grants(0..1), now).unwrap();
    session.revoked(lease(0), RevokeReason::Cancelled, now);
    finish(&mut session, 0, now + Duration::from_secs(1));
    assert_eq!(session.held(), []);
    assert_eq!(ready(&mut session), Some(1));
}

#[test]
fn a_pause_stops_with_a_checkpoint_and_a_queued_lease_goes_straight_back() {
    let now = Instant::now();
    let mut session = session(now);
    session.granted(grants(0..2), now).unwrap();
    commands(&mut session);
    session.revoked(lease(0), RevokeReason::Paused, now);
    session.revoked(lease(1), RevokeReason::Paused, now);
    assert_eq!(commands(&mut session), ["stop 0 on 0: Checkpoint"]);
    let sent = batch(&mut session);
    assert_eq!(sent.reports.len(), 1);
    assert!(matches!(sent.reports[0].body, Some(v1::report::Body::Released(v1::Released { step: 0, .. }))));
    // Cancelled on top of it.
    session.revoked(lease(0), RevokeReason::Cancelled, now);
    assert_eq!(commands(&mut session), ["stop 0 on 0: Discard"]);
}

#[test]
fn after_a_reconnect_the_coordinator_decides_which_leases_stand() {
    let now = Instant::now();
    let mut session = session(now);
    session.granted(grants(0..4), now).unwrap();
    finish(&mut session, 0, now);
    commands(&mut session);
    assert_eq!(batch(&mut session).reports.len(), 1);
    session.disconnected();
    assert_eq!(session.due(), Due::Never);
    assert_eq!(session.held(), [(lease(0), 0), (lease(1), 0), (lease(2), 0), (lease(3), 0)]);
    report(&mut session, 1, progress(1), now);
    session.welcomed(0, &[lease(0), lease(1), lease(3)], "file:///x");
    assert_eq!(commands(&mut session), Vec::<String>::new());
    let sent = batch(&mut session);
    assert_eq!((sent.first_seq, sent.reports.len()), (1, 2), "what was not applied goes again");
    session.disconnected();
    session.welcomed(2, &[lease(3)], "file:///x");
    assert_eq!(commands(&mut session), ["stop 1 on 0: Discard"]);
    session.event(0, TrainerEvent::Dropped(lease(1)), now);
    assert_eq!(commands(&mut session), ["start 3 on 0"]);
}

#[test]
fn a_full_buffer_holds_trainers_back_and_drops_nothing() {
    let now = Instant::now();
    let mut session = session(now);
    session.granted(grants(0..1), now).unwrap();
    session.disconnected();
    let mut step = 0;
    while session.wants_events(0) {
        step += 1;
        report(&mut session, 0, progress(step), now);
    }
    assert!(step > 100_000, "{step} reports fit");
    session.revoked(lease(0), RevokeReason::Paused, now);
    assert!(session.wants_events(0), "a trainer that is told to stop is listened to");
    session.welcomed(0, &[lease(0)], "file:///x");
    let mut seq = 0;
    while let Some(Outgoing::Reports(sent)) = session.next_outgoing() {
        assert_eq!(sent.first_seq, seq + 1);
        seq += sent.reports.len() as u64;
    }
    assert_eq!(seq, step);
    session.acknowledged(seq);
    assert!(session.wants_events(0));
}

#[test]
fn leases_that_wait_behind_a_long_job_go_back_to_whoever_is_idle() {
    let now = Instant::now();
    let mut session = session(now);
    session.granted(grants(0..3), now).unwrap();
    commands(&mut session);
    assert!(session.tick_is_quiet(now + WAIT_LIMIT / 2));
    session.tick(now + WAIT_LIMIT);
    assert_eq!(batch(&mut session).reports.len(), 2);
    assert_eq!(ready(&mut session), None);
    finish(&mut session, 0, now + WAIT_LIMIT * 2);
    assert_eq!(batch(&mut session).reports.len(), 1);
    assert_eq!(ready(&mut session), Some(1));
}

#[test]
fn a_device_without_a_trainer_asks_for_nothing_and_starts_again_when_it_is_back() {
    let now = Instant::now();
    let mut session = session(now);
    session.event(0, TrainerEvent::Available(false), now);
    assert_eq!(ready(&mut session), Some(0));
    // One that crossed on the way.
    session.granted(grants(0..1), now).unwrap();
    assert_eq!(commands(&mut session), Vec::<String>::new());
    session.event(0, TrainerEvent::Available(true), now);
    assert_eq!(commands(&mut session), ["start 0 on 0"]);
    finish(&mut session, 0, now + Duration::from_secs(1));
    assert_eq!(batch(&mut session).reports.len(), 1);
    assert_eq!(ready(&mut session), Some(1));
}

#[test]
fn a_draining_agent_gives_everything_back_and_takes_nothing() {
    let now = Instant::now();
    let mut session = session(now);
    session.granted(grants(0..3), now).unwrap();
    commands(&mut session);
    let (soon, later) = (now + Duration::from_secs(5), now + Duration::from_secs(9));
    session.drain(later, now);
    assert_eq!(commands(&mut session), [format!("stop 0 on 0: CheckpointBy({later:?})")]);
    session.drain(now + Duration::from_secs(20), now);
    assert_eq!(commands(&mut session), [""; 0], "it knows already");
    session.drain(soon, now);
    assert_eq!(commands(&mut session), [format!("stop 0 on 0: CheckpointBy({soon:?})")]);
    assert_eq!(batch(&mut session).reports.len(), 2);
    session.granted(grants(3..4), now).unwrap();
    assert_eq!(batch(&mut session).reports.len(), 1);
    report(&mut session, 0, ReportBody::Released { step: 5, seconds: 1.0 }, now);
    assert_eq!(batch(&mut session).first_seq, 4);
    assert!(session.next_outgoing().is_none() && !session.is_empty());
    session.acknowledged(4);
    assert!(session.is_empty());
}

#[test]
fn a_coordinator_with_another_history_gets_numbers_that_follow_its_own() {
    let now = Instant::now();
    let mut session = session(now);
    session.granted(grants(0..1), now).unwrap();
    report(&mut session, 0, progress(1), now);
    batch(&mut session);
    session.acknowledged(1);
    report(&mut session, 0, progress(2), now);
    batch(&mut session);
    session.disconnected();
    session.welcomed(0, &[], "file:///y");
    assert_eq!(commands(&mut session).last().unwrap(), "stop 0 on 0: Discard");
    session.event(0, TrainerEvent::Dropped(lease(0)), now);
    assert_eq!(ready(&mut session), Some(1));
    session.granted(grants(0..1), now).unwrap();
    report(&mut session, 0, progress(1), now);
    assert_eq!(batch(&mut session).first_seq, 1);
}

#[test]
fn a_grant_that_makes_no_sense_is_refused() {
    let now = Instant::now();
    let mut session = session(now);
    let mut elsewhere = grants(0..1);
    elsewhere[0].device = 1;
    assert!(matches!(session.granted(elsewhere, now), Err(SessionError::Device { device: 1, devices: 1 })));
    let mut unknown = grants(0..1);
    unknown[0].lease.trial.sweep = SweepNumber(4);
    assert!(matches!(session.granted(unknown, now), Err(SessionError::Sweep(4))));
}

#[test]
fn what_waits_behind_a_running_attempt_and_resumes_is_prepared_meanwhile() {
    use crate::attempt::CheckpointRef;
    use spotsweep_proto::digest::Digest;
    let now = Instant::now();
    let mut session = session(now);
    let mut granted = grants(0..3);
    let digest = Digest([1; 32]);
    granted[1].resume =
        Some(CheckpointRef { step: 5, manifest: digest, parts: vec![digest], bytes: 1 << 20, last: false });
    session.granted(granted, now).unwrap();
    let said = commands(&mut session);
    assert_eq!(said.first().map(String::as_str), Some("start 0 on 0"));
    assert!(said.len() > 1 && said[1..].iter().all(|text| text == "prepare 1 on 0"), "{said:?}");
    finish(&mut session, 0, now);
    assert_eq!(commands(&mut session), ["start 1 on 0"], "the last one begins from nothing");
}

fn place(generation: u64, rank: Option<u32>) -> GangPlace {
    GangPlace { generation: Generation(generation), rank, shares: Shares::even(4, 2) }
}

/// Trial `number` in the first make-up of a gang of two.
fn ganged(number: u32) -> Vec<Grant> {
    let mut grants = grants(number..number + 1);
    grants[0].gang = Some(place(1, Some(0)));
    grants
}

fn word(session: &mut Session) -> GangWord {
    match session.next_outgoing() {
        Some(Outgoing::Gang(word)) => word,
        other => panic!("{other:?}"),
    }
}

fn formed(generation: u64) -> GangNews {
    GangNews { generation: Generation(generation), step: 0, broken: None, ready: false }
}

#[test]
fn a_new_make_up_reaches_the_job_that_runs_and_the_one_that_waits_and_no_other() {
    let now = Instant::now();
    let mut session = session(now);
    session.granted(ganged(0), now).unwrap();
    session.granted(ganged(1), now).unwrap();
    commands(&mut session);
    for generation in [2, 2, 1] {
        session.regang(lease(0), place(generation, Some(1)), now);
    }
    assert_eq!(commands(&mut session), ["regang 0 on 0: 2 as Some(1)"], "once, and never an older one");
    session.regang(lease(1), place(3, Some(1)), now);
    session.regang(lease(7), place(3, Some(1)), now);
    assert_eq!(commands(&mut session), [""; 0]);
    finish(&mut session, 0, now);
    let Some(Command::Start { attempt, .. }) = session.next_command() else { panic!("the next one starts") };
    assert_eq!(attempt.gang, Some(place(3, Some(1))));
    // One whose gang goes on without it before it has begun.
    session.granted(ganged(2), now).unwrap();
    session.regang(lease(2), place(2, None), now);
    assert!(
        !session.held().contains(&(lease(2), 0)) || session.log.ended().any(|(ended, _)| ended == lease(2))
    );
    assert_eq!(batch(&mut session).reports.len(), 2, "finished, and released");
}

#[test]
fn news_and_questions_of_a_rank_go_out_at_once_and_again_after_a_reconnect() {
    let now = Instant::now();
    let mut session = session(now);
    session.granted(ganged(0), now).unwrap();
    commands(&mut session);
    report(&mut session, 0, progress(1), now);
    let question = |generation, id| StoreQuestion {
        generation: Generation(generation),
        id,
        op: StoreOp::Get { key: "k".to_owned() },
    };
    session.event(0, TrainerEvent::Gang(lease(0), formed(1)), now);
    session.event(0, TrainerEvent::Ask(lease(0), question(1, 5)), now);
    assert_eq!(session.due(), Due::Now);
    assert_eq!(batch(&mut session).reports.len(), 1, "what came before is said before");
    assert_eq!(word(&mut session), GangWord::News(lease(0), formed(1)));
    assert_eq!(word(&mut session), GangWord::Ask(lease(0), question(1, 5)));
    session.disconnected();
    session.welcomed(1, &[lease(0)], "file:///x");
    assert_eq!(word(&mut session), GangWord::News(lease(0), formed(1)));
    assert_eq!(word(&mut session), GangWord::Ask(lease(0), question(1, 5)));
    session.answered(lease(0), 5, None);
    session.answered(lease(0), 5, None);
    session.answered(lease(1), 5, None);
    assert_eq!(commands(&mut session), ["answer 0 on 0: 5 is None"]);
    // A trainer that waits in an older make-up hears that it is over.
    session.event(0, TrainerEvent::Ask(lease(0), question(1, 6)), now);
    session.regang(lease(0), place(2, Some(0)), now);
    assert_eq!(word(&mut session), GangWord::Ask(lease(0), question(1, 6)));
    session.answered(lease(0), 6, None);
    assert_eq!(commands(&mut session), ["regang 0 on 0: 2 as Some(0)", "answer 0 on 0: 6 is None"]);
    // Nothing is said of a lease that is lost.
    session.event(0, TrainerEvent::Gang(lease(0), formed(2)), now);
    session.revoked(lease(0), RevokeReason::NotNeeded, now);
    session.event(0, TrainerEvent::Gang(lease(0), formed(2)), now);
    assert!(session.next_outgoing().is_none());
}

#[test]
fn on_a_notice_the_gang_has_a_third_of_the_time_to_let_its_rank_go() {
    let now = Instant::now();
    let (by, until) = (now + Duration::from_secs(9), now + Duration::from_secs(3));
    let mut patient = session(now);
    patient.granted(ganged(0), now).unwrap();
    commands(&mut patient);
    patient.drain(by, now);
    assert_eq!((commands(&mut patient), patient.patience()), (Vec::new(), Some(until)));
    patient.regang(lease(0), place(2, None), now);
    assert_eq!(commands(&mut patient), ["regang 0 on 0: 2 as None"]);
    report(&mut patient, 0, ReportBody::Released { step: 5, seconds: 1.0 }, now);
    assert_eq!(patient.patience(), None);

    let mut left_alone = session(now);
    left_alone.granted(ganged(0), now).unwrap();
    commands(&mut left_alone);
    left_alone.drain(by, now);
    left_alone.lose_patience(now + Duration::from_secs(2));
    assert_eq!(commands(&mut left_alone), [""; 0]);
    // Less time than was thought.
    let sooner = now + Duration::from_secs(6);
    left_alone.drain(sooner, now);
    assert_eq!(left_alone.patience(), Some(now + Duration::from_secs(2)));
    left_alone.lose_patience(now + Duration::from_secs(2));
    assert_eq!(commands(&mut left_alone), [format!("stop 0 on 0: CheckpointBy({sooner:?})")]);
    assert_eq!(left_alone.patience(), None);

    // Nobody to go on without it, or nobody to hear of the notice.
    let mut last = session(now);
    let mut alone = ganged(0);
    alone[0].gang = Some(GangPlace { shares: Shares::even(4, 1), ..place(1, Some(0)) });
    last.granted(alone, now).unwrap();
    commands(&mut last);
    last.drain(by, now);
    assert_eq!(commands(&mut last), [format!("stop 0 on 0: CheckpointBy({by:?})")]);
    let mut cut_off = session(now);
    cut_off.granted(ganged(0), now).unwrap();
    commands(&mut cut_off);
    cut_off.disconnected();
    cut_off.drain(by, now);
    assert_eq!(commands(&mut cut_off), [format!("stop 0 on 0: CheckpointBy({by:?})")]);
}
