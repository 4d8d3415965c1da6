//! Logs of attempts over real sockets: taken under leases and not else, read while they grow, and there after a restart.

use crate::{
    agent::{Agent, hello, whole_trial},
    bystander::Bystander,
    http::{call, get},
    place::{Place, nothing, submission},
};
use hyper::{Method, StatusCode};
use spotsweep_coordinator::{Code, Problem, store::StoreOptions};
use spotsweep_proto::limits::LOG_BATCH_BYTES;
use spotsweep_wire::v1::{self, from_worker::Message, to_worker};

const LOG: &str = "/api/v1/sweeps/s/trials/0/attempts/1/log";

fn chunk(grant: &v1::Grant, offset: u64, text: &str, last: bool) -> v1::LogChunk {
    let text = text.to_owned().into();
    v1::LogChunk { trial: grant.trial, epoch: grant.epoch, attempt: grant.attempt, offset, text, last }
}

fn batch(chunks: Vec<v1::LogChunk>) -> Message {
    Message::Logs(v1::LogBatch { chunks })
}

/// A sweep `s` of one trial, which an agent has begun.
async fn begun(place: &Place) -> (Agent, v1::Grant) {
    place.client().await.submit(submission(&nothing("s", 1), 1)).await.unwrap();
    let (mut agent, _) = Agent::connect(&place.url, hello("a", 1)).await;
    agent.ready(1).await;
    let grant = agent.grants(&mut Vec::new()).await.remove(0);
    agent.report(&grant, &["val_loss"], whole_trial(1.0).drain(..1).collect()).await;
    agent.acknowledged().await;
    (agent, grant)
}

/// Waits until everything that the agent has said is heard: questions are answered in turn.
async fn heard(agent: &mut Agent) {
    let trial = Some(v1::TrialKey { sweep: 0, number: 0 });
    let key = "k".to_owned();
    agent
        .tell(Message::Store(v1::StoreQuery { trial, epoch: 9, generation: 1, id: 7, key, set: None }))
        .await;
    while !matches!(agent.next().await, Some(to_worker::Message::Store(_))) {}
}

/// Follows the log of `s/0` until `wanted` stands there; gives all of it.
async fn followed(place: &Place, wanted: &str) -> String {
    let request = v1::ReadLogRequest { trial: "s/0".to_owned(), attempt: 0, follow: true };
    let mut answers = place.client().await.read_log(request).await.unwrap().into_inner();
    let mut text = String::new();
    while !text.contains(wanted) {
        let answer = answers.message().await.unwrap().expect("it goes on while the attempt runs");
        assert_eq!(answer.attempt, 1);
        text += std::str::from_utf8(&answer.text).unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_grows_while_it_is_followed_and_ends_with_its_attempt() {
    let place = Place::start().await;
    let (mut agent, grant) = begun(&place).await;
    assert!(get(&place, LOG).await.text().contains("has printed nothing so far"));
    let request = v1::ReadLogRequest { trial: "s/0".to_owned(), attempt: 1, follow: true };
    let mut answers = place.client().await.read_log(request).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert!(first.caught_up && first.note.contains("nothing so far"), "{first:?}");
    agent.tell(batch(vec![chunk(&grant, 0, "one\n", false), chunk(&grant, 0, "one\n", false)])).await;
    let mut text = answers.message().await.unwrap().unwrap().text.to_vec();
    agent.tell(batch(vec![chunk(&grant, 100, "late\n", true)])).await;
    agent.report(&grant, &["val_loss"], whole_trial(1.0).drain(1..).collect()).await;
    while let Some(answer) = answers.message().await.unwrap() {
        text.extend_from_slice(&answer.text);
    }
    assert_eq!(String::from_utf8(text).unwrap(), "one\n[spotsweep: 96 bytes are left out here]\nlate\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_into_the_log_of_a_lease_that_is_not_theirs() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (agent, grant) = {
        place.client().await.submit(submission(&nothing("s", 1), 1)).await.unwrap();
        let (mut agent, _) = Agent::connect(&place.url, hello("a", 1)).await;
        agent.ready(1).await;
        let grant = agent.grants(&mut Vec::new()).await.remove(0);
        (agent, grant)
    };
    let (mut foreign, _) = Agent::connect(&place.url, hello("a", 0xf0)).await;
    let mut forged = chunk(&grant, 0, "forged\n", true);
    foreign.tell(batch(vec![forged.clone()])).await;
    heard(&mut foreign).await;
    // Not even its own worker into another attempt, or under another lease.
    forged.attempt = 7;
    agent.tell(batch(vec![forged.clone()])).await;
    (forged.attempt, forged.epoch) = (1, grant.epoch + 1);
    agent.tell(batch(vec![forged, chunk(&grant, 0, "right\n", false)])).await;
    assert_eq!(followed(&place, "right").await, "right\n");
    assert_eq!(get(&place, &LOG.replace("/1/log", "/7/log")).await.code(), "no_such_attempt");
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_beyond_its_limit_ends_the_connection_and_no_other() {
    let place = Place::start().await;
    let bystander = Bystander::at_work(&place).await;
    let (mut agent, grant) = begun(&place).await;
    agent.tell(batch(vec![chunk(&grant, 0, &"x".repeat(LOG_BATCH_BYTES + 1), false)])).await;
    let status = loop {
        match agent.hear.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it is told why"),
            Err(status) => break status,
        }
    };
    assert_eq!(Problem::from_status(&status).code, Code::TooLarge);
    bystander.goes_on(&place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_goes_on_after_a_restart_of_the_coordinator_under_the_lease_that_was_kept() {
    let mut place = Place::start().await;
    let (agent, grant) = begun(&place).await;
    agent.tell(batch(vec![chunk(&grant, 0, "before\n", false)])).await;
    followed(&place, "before").await;
    drop(agent);
    place.shut_down().await;
    place.restart(StoreOptions::default()).await;
    let held = vec![v1::HeldLease { trial: grant.trial, epoch: grant.epoch, device: 0 }];
    let (agent, _) = Agent::connect(&place.url, v1::Hello { held, connection: 1, ..hello("a", 1) }).await;
    agent.tell(batch(vec![chunk(&grant, 0, "before\nafter\n", false)])).await;
    assert_eq!(followed(&place, "after").await, "before\nafter\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_hostile_output_is_plain_text_that_drives_nothing() {
    let place = Place::start().await;
    let (agent, grant) = begun(&place).await;
    let hostile = "<script>alert(1)</script>\u{1b}[31m red \u{1b}[2J\u{202e}x\r50%\r\n";
    agent.tell(batch(vec![chunk(&grant, 0, hostile, false)])).await;
    followed(&place, "50%").await;
    let answer = get(&place, LOG).await;
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(answer.text(), "<script>alert(1)</script> red \\u{1b}[2J\\u{202e}x\n50%\n");
    assert_eq!(get(&place, &format!("{LOG}?tail=1")).await.text(), "50%\n");
    let same = call(&place, Method::GET, LOG, &[("if-none-match", answer.header("etag"))]).await;
    assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
}
