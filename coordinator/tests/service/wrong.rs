//! What is wrong is refused in words, with a stable code, and harms nobody else.

use crate::{
    agent::{Agent, hello},
    place::{Place, nothing, submission},
};
use spotsweep_coordinator::{Code, Problem, http::HttpAddress, server::Coordinator, store::StoreOptions};
use spotsweep_wire::v1::{self, from_worker, to_worker};

fn code(status: tonic::Status) -> Code {
    Problem::from_status(&status).code
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_its_code() {
    let place = Place::start().await;
    let mut client = place.client().await;
    let show = |target: &str| v1::ShowSweepRequest { target: target.to_owned() };
    assert_eq!(code(client.show_sweep(show("none")).await.unwrap_err()), Code::NoSuchSweep);
    assert_eq!(code(client.show_sweep(show("a b")).await.unwrap_err()), Code::BadRequest);
    client.submit(submission(&nothing("s", 2), 1)).await.unwrap();
    assert_eq!(code(client.show_sweep(show("s/2")).await.unwrap_err()), Code::NoSuchTrial);
    let broken = client.submit(submission("name: [", 2)).await.unwrap_err();
    assert_eq!(code(broken.clone()), Code::BadSweepFile);
    assert!(Problem::from_status(&broken).message.contains("sweep.yaml"), "{broken}");
    let short = v1::SubmitRequest { token: vec![1].into(), ..submission(&nothing("s", 2), 3) };
    assert_eq!(code(client.submit(short).await.unwrap_err()), Code::BadRequest);
    let cancel = || v1::ControlRequest { target: "s".to_owned() };
    client.cancel(cancel()).await.unwrap();
    assert_eq!(code(client.pause(cancel()).await.unwrap_err()), Code::AlreadyEnded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_is_none_is_rejected_and_others_are_served() {
    let place = Place::start().await;
    let wrong = v1::Hello { protocol: 99, ..hello("a", 1) };
    let (mut agent, first) = Agent::connect(&place.url, wrong).await;
    let to_worker::Message::Rejected(rejected) = first else { panic!("{first:?}") };
    assert_eq!(rejected.code, Code::ProtocolMismatch.as_str());
    assert!(agent.next().await.is_none(), "the stream ends");
    let (_, first) = Agent::connect(&place.url, hello("b", 2)).await;
    assert!(matches!(first, to_worker::Message::Welcome(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_report_ends_the_stream_with_its_reason_and_nothing_else() {
    let place = Place::start().await;
    let (mut good, _) = Agent::connect(&place.url, hello("good", 1)).await;
    let (mut bad, _) = Agent::connect(&place.url, hello("bad", 2)).await;
    bad.tell(from_worker::Message::Reports(v1::ReportBatch::default())).await;
    let end = loop {
        match bad.hear.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the reason is missing"),
            Err(status) => break status,
        }
    };
    assert_eq!(code(end), Code::BadRequest);
    place.client().await.submit(submission(&nothing("s", 1), 1)).await.unwrap();
    good.ready(1).await;
    assert_eq!(good.grants(&mut Vec::new()).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_coordinator_on_the_folder_is_told_who_has_it() {
    let place = Place::start().await;
    let problem = Coordinator::open(&place.dir(), &StoreOptions::default()).err().unwrap();
    assert_eq!(problem.code, Code::InUse);
    assert!(problem.message.contains(&std::process::id().to_string()), "{problem}");
    assert!(problem.message.contains(&place.url), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_strangers_reach_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::open(folder.path(), &StoreOptions::default()).unwrap();
    let problem = coordinator.serve("0.0.0.0:0".parse().unwrap(), HttpAddress::Off).await.err().unwrap();
    assert_eq!(problem.code, Code::NotLoopback);
}
