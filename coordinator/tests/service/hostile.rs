//! Whatever comes in over the port, the coordinator answers everybody else and loses nothing.

use crate::{
    agent::{Agent, hello, whole_trial},
    bystander::Bystander,
    place::{Place, nothing, results, submission},
    raw::{End, call, frame},
};
use prost::Message as _;
use spotsweep_coordinator::{Code, Problem, store::StoreOptions};
use spotsweep_proto::limits::{GRPC_MESSAGE_BYTES, REPORTS_PER_BATCH, STEPS_PER_TRIAL};
use spotsweep_wire::v1::{self, from_worker::Message, report::Body, to_worker};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SUBMIT: &str = "spotsweep.v1.Control/Submit";
const ATTACH: &str = "spotsweep.v1.Worker/Attach";

fn code(status: &tonic::Status) -> Code {
    Problem::from_status(status).code
}

async fn sweeps(place: &Place) -> Vec<String> {
    let listed = place.client().await.list_sweeps(v1::ListSweepsRequest {}).await.unwrap();
    listed.into_inner().sweeps.into_iter().map(|sweep| sweep.sweep).collect()
}

/// Why the coordinator ended an agent's stream.
async fn end_of(agent: &mut Agent) -> tonic::Status {
    loop {
        match agent.hear.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ends without a reason"),
            Err(status) => return status,
        }
    }
}

/// An agent with one lease of a sweep of its own.
async fn with_a_lease(place: &Place, name: &str) -> (Agent, v1::Grant) {
    place.client().await.submit(submission(&nothing(name, 1), 0xbad)).await.unwrap();
    let (mut agent, _) = Agent::connect(&place.url, hello(name, 0xbad)).await;
    agent.ready(1).await;
    let grant = agent.grants(&mut Vec::new()).await.remove(0);
    (agent, grant)
}

fn progress(step: u64, names: Vec<u32>, values: Vec<f64>) -> Body {
    Body::Progress(v1::Progress { step, data_epoch: 0.5, names, values })
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http2_harm_nobody() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let address = place.url.trim_start_matches("http://").to_owned();
    let mut noise = vec![0; 1 << 16];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut noise);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut inputs = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 4096],
        vec![0; 1 << 20],
        b"\x16\x03\x01\x02\x00\x01\x00".to_vec(),
        preface[..preface.len() - 4].to_vec(),
        [&preface[..], &[0xff; 9]].concat(),
        // A frame of 16 MiB that never comes.
        [&preface[..], &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
    ];
    inputs.extend(noise.chunks(1 << 13).map(<[u8]>::to_vec));
    inputs.extend(noise.chunks(1 << 13).map(|chunk| [&preface[..], chunk].concat()));
    for bytes in inputs {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        // It may hang up before it has read everything.
        let _cut = stream.write_all(&bytes).await;
        let _cut = stream.shutdown().await;
        let mut answer = Vec::new();
        // However it ends, it ends.
        let _ended = stream.read_to_end(&mut answer).await;
    }
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_frame_cut_short_ends_its_call_alone() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let whole = frame(&submission(&nothing("never", 3), 7).encode_to_vec());
    for length in [0, 1, 4, 5, 6, whole.len() / 2, whole.len() - 1] {
        for end in [End::Closed, End::Reset] {
            let status = call(&place.url, SUBMIT, vec![whole[..length].to_vec()], end).await;
            assert!(status.is_none_or(|status| status.code() != tonic::Code::Ok), "{length}, {end:?}");
        }
    }
    let greeting = v1::FromWorker { message: Some(Message::Hello(hello("cut", 5))) };
    let ready = v1::FromWorker { message: Some(Message::Ready(v1::Ready { device: 0, credits: 5 })) };
    let (greeting, ready) = (frame(&greeting.encode_to_vec()), frame(&ready.encode_to_vec()));
    for end in [End::Closed, End::Reset] {
        let cut = ready[..ready.len() - 1].to_vec();
        let status = call(&place.url, ATTACH, vec![greeting.clone(), cut], end).await;
        assert!(status.is_none_or(|status| status.code() != tonic::Code::Ok), "{end:?}");
    }
    assert_eq!(sweeps(&place).await, ["calm"], "what did not come whole is not there");
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_cut_short_is_refused_and_changes_nothing() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let whole = submission(&nothing("never", 3), 7).encode_to_vec();
    for length in 0..whole.len() {
        let status = call(&place.url, SUBMIT, vec![frame(&whole[..length])], End::Closed).await.unwrap();
        assert_ne!(status.code(), tonic::Code::Ok, "{length}");
    }
    let whole = v1::FromWorker { message: Some(Message::Hello(hello("cut", 5))) }.encode_to_vec();
    for length in 1..whole.len() {
        // Refused by a message (`Rejected`, and an end in order) or by a status; never taken in.
        call(&place.url, ATTACH, vec![frame(&whole[..length])], End::Closed).await.unwrap();
    }
    let workers = place.client().await.list_workers(v1::ListWorkersRequest {}).await.unwrap().into_inner();
    let names: Vec<_> = workers.workers.into_iter().map(|worker| worker.name).collect();
    assert_eq!(names, ["calm"]);
    assert_eq!(sweeps(&place).await, ["calm"]);
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_above_the_limit_is_refused_as_too_large() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let large = submission(&" ".repeat(GRPC_MESSAGE_BYTES + 1), 4);
    let refused = place.client().await.submit(large).await.unwrap_err();
    assert_eq!(code(&refused), Code::TooLarge);
    // Only said to be large: nothing is set aside for it.
    let claim = [&[0][..], &u32::MAX.to_be_bytes(), b"x"].concat();
    let refused = call(&place.url, SUBMIT, vec![claim], End::Closed).await.unwrap();
    assert_eq!(code(&refused), Code::TooLarge);
    assert_eq!(sweeps(&place).await, ["calm"]);
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_message_above_the_limit_ends_its_stream_alone() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (mut agent, grant) = with_a_lease(&place, "large").await;
    let before = results(&mut place.client().await, "large").await;
    let message = "x".repeat(GRPC_MESSAGE_BYTES);
    let failed = v1::Failed { step: 1, kind: v1::FailureKind::Crashed.into(), message, seconds: 0.0 };
    agent.report(&grant, &[], vec![Body::Failed(failed)]).await;
    assert_eq!(code(&end_of(&mut agent).await), Code::TooLarge);
    let after = results(&mut place.client().await, "large").await;
    assert_eq!(after, before, "nothing of it was applied");
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_reports_than_a_batch_may_have_end_the_stream_alone() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (mut agent, grant) = with_a_lease(&place, "many").await;
    let steps = 1..=REPORTS_PER_BATCH as u64 + 1;
    agent.report(&grant, &["val_loss"], steps.map(|step| progress(step, vec![0], vec![0.5])).collect()).await;
    assert_eq!(code(&end_of(&mut agent).await), Code::TooLarge);
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_hello_ends_the_stream_with_its_reason() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (mut agent, _) = Agent::connect(&place.url, hello("twice", 9)).await;
    agent.tell(Message::Hello(hello("twice", 9))).await;
    let end = end_of(&mut agent).await;
    assert_eq!((code(&end), end.message()), (Code::BadRequest, "a second hello"));
    // It may come again, properly.
    let (_, first) = Agent::connect(&place.url, hello("twice", 9)).await;
    assert!(matches!(first, to_worker::Message::Welcome(_)));
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_says_nothing_is_rejected_in_the_end() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (_say, said) = tokio::sync::mpsc::channel(1);
    let mut client = v1::worker_client::WorkerClient::connect(place.url.clone()).await.unwrap();
    let said = tokio_stream::wrappers::ReceiverStream::new(said);
    let mut hear = client.attach(said).await.unwrap().into_inner();
    // The stream ends by itself after the limit for a hello.
    let first = hear.message().await.unwrap().unwrap().message.unwrap();
    let to_worker::Message::Rejected(rejected) = first else { panic!("{first:?}") };
    assert_eq!(rejected.code, Code::BadRequest.as_str());
    assert!(rejected.message.starts_with("no hello came within "), "{}", rejected.message);
    assert!(hear.message().await.unwrap().is_none());
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_begins_with_anything_but_a_hello_is_rejected() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let openings = [
        Some(Message::Heartbeat(v1::Heartbeat {})),
        Some(Message::Ready(v1::Ready { device: 0, credits: 1 })),
        Some(Message::Goodbye(v1::Goodbye {})),
        None,
    ];
    for opening in openings {
        let message = v1::FromWorker { message: opening };
        let mut client = v1::worker_client::WorkerClient::connect(place.url.clone()).await.unwrap();
        let mut hear = client.attach(tokio_stream::iter([message])).await.unwrap().into_inner();
        let first = hear.message().await.unwrap().unwrap().message.unwrap();
        assert!(
            matches!(&first, to_worker::Message::Rejected(why) if why.code == "bad_request"),
            "{first:?}"
        );
    }
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_behind_a_gap_is_not_applied_and_the_agent_is_told_where_to_go_on() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (mut agent, grant) = with_a_lease(&place, "gap").await;
    let bodies = whole_trial(5.0);
    agent.report(&grant, &["val_loss"], bodies[..2].to_vec()).await;
    agent.acknowledged().await;
    // Report 3 is missing.
    agent.next_seq = 4;
    agent.report(&grant, &["val_loss"], bodies[3..].to_vec()).await;
    let acknowledged = loop {
        if let Some(to_worker::Message::Acknowledged(ack)) = agent.next().await {
            break ack.seq;
        }
    };
    assert_eq!(acknowledged, 2);
    let mut client = place.client().await;
    let row = results(&mut client, "gap").await.remove(0);
    assert_eq!((row.state.as_str(), row.steps), ("running", 1));
    agent.next_seq = 3;
    agent.report(&grant, &["val_loss"], bodies[2..].to_vec()).await;
    agent.acknowledged().await;
    let row = results(&mut client, "gap").await.remove(0);
    assert_eq!((row.state.as_str(), row.steps), ("completed", 2));
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_for_trials_that_do_not_exist_are_dropped() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (mut agent, grant) = with_a_lease(&place, "real").await;
    let own = grant.trial.unwrap();
    for (sweep, number) in [(own.sweep, 1), (own.sweep, u32::MAX), (own.sweep + 1, 0), (u32::MAX, u32::MAX)] {
        let trial = Some(v1::TrialKey { sweep, number });
        let nowhere = v1::Grant { trial, ..grant.clone() };
        agent.report(&nowhere, &["val_loss"], whole_trial(9.0)).await;
    }
    agent.report(&grant, &["val_loss"], whole_trial(1.0)).await;
    agent.acknowledged().await;
    let rows = results(&mut place.client().await, "real").await;
    assert_eq!((rows.len(), rows[0].state.as_str(), rows[0].metrics[0].value), (1, "completed", 1.0));
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_under_a_stale_or_future_epoch_or_of_anothers_lease_are_dropped_and_counted() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (mut agent, grant) = with_a_lease(&place, "epochs").await;
    let mut client = place.client().await;
    let before = results(&mut client, "epochs").await;
    for epoch in [0, grant.epoch - 1, grant.epoch + 1, u64::MAX] {
        let other = v1::Grant { epoch, ..grant.clone() };
        agent.report(&other, &["val_loss"], whole_trial(9.0)).await;
    }
    // Both trials of the bystander are its own.
    for number in 0..2 {
        let trial = Some(v1::TrialKey { sweep: 0, number });
        agent.report(&v1::Grant { trial, ..grant.clone() }, &["val_loss"], whole_trial(9.0)).await;
    }
    agent.acknowledged().await;
    assert_eq!(results(&mut client, "epochs").await, before, "nothing of it was applied");
    let status = client.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.stale_reports, 6 * whole_trial(9.0).len() as u64);
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_a_megabyte_is_refused_and_not_kept() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let long = "m".repeat(1 << 20);
    let (mut agent, grant) = with_a_lease(&place, "names").await;
    agent.report(&grant, &[long.as_str()], vec![progress(1, vec![0], vec![0.5])]).await;
    let end = end_of(&mut agent).await;
    assert_eq!(code(&end), Code::BadRequest);
    assert!(end.message().len() < 1000, "the name is not sent back");
    let (_, first) = Agent::connect(&place.url, hello(&long, 11)).await;
    assert!(matches!(&first, to_worker::Message::Rejected(why) if why.message.len() < 1000), "{first:?}");
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_that_are_no_numbers_are_left_out_and_the_trial_goes_on() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (mut agent, grant) = with_a_lease(&place, "nan").await;
    let mut bodies = whole_trial(4.0);
    bodies[1] = progress(1, vec![0, 1, 0], vec![f64::NAN, 2.5, f64::NEG_INFINITY]);
    agent.report(&grant, &["val_loss", "other"], bodies).await;
    agent.acknowledged().await;
    let mut client = place.client().await;
    let row = results(&mut client, "nan").await.remove(0);
    assert_eq!(row.state, "completed");
    let request = v1::MetricsRequest { trial: "nan/0".to_owned(), first_step: 0 };
    let mut pages = client.metrics(request).await.unwrap().into_inner();
    let first = pages.message().await.unwrap().unwrap().points.remove(0);
    assert_eq!(first.metrics, [v1::Metric { name: "other".to_owned(), value: 2.5 }]);
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_no_journal_can_hold_ends_the_stream_alone() {
    let mut place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (mut agent, grant) = with_a_lease(&place, "step").await;
    agent.report(&grant, &["val_loss"], vec![progress(u64::MAX, vec![0], vec![0.5])]).await;
    assert_eq!(code(&end_of(&mut agent).await), Code::BadRequest);
    bystander.goes_on(&place).await;
    let before = results(&mut place.client().await, "calm").await;
    place.shut_down().await;
    place.restart(StoreOptions::default()).await;
    assert_eq!(results(&mut place.client().await, "calm").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_at_the_end_of_their_range_break_nothing() {
    let mut place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (mut agent, grant) = with_a_lease(&place, "ends").await;
    agent.ready(u32::MAX).await;
    let digest = || vec![3; 32].into();
    let step = STEPS_PER_TRIAL;
    let checkpoint = v1::Checkpoint {
        step,
        manifest: digest(),
        parts: vec![digest()],
        bytes: u64::MAX,
        last: false,
        best: false,
    };
    agent.next_seq = u64::MAX - 100;
    let started = Body::Started(v1::Started { step, total_steps: Some(step) });
    let bodies = vec![started, progress(step, vec![0], vec![f64::MAX]), Body::Checkpoint(checkpoint)];
    agent.report(&grant, &["val_loss"], bodies).await;
    agent.acknowledged().await;
    let finished = v1::Finished { step, seconds: f64::MAX, ..v1::Finished::default() };
    agent.report(&grant, &[], vec![Body::Finished(finished)]).await;
    agent.acknowledged().await;
    // It would take whatever comes next.
    agent.tell(Message::Goodbye(v1::Goodbye {})).await;
    while agent.next().await.is_some() {}
    bystander.goes_on(&place).await;
    let before = results(&mut place.client().await, "ends").await;
    assert_eq!((before.len(), before[0].steps), (1, step));
    place.shut_down().await;
    place.restart(StoreOptions::default()).await;
    assert_eq!(results(&mut place.client().await, "ends").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_connections_that_never_speak_keeps_nobody_out() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let address = place.url.trim_start_matches("http://").to_owned();
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    bystander.goes_on(&place).await;
}
