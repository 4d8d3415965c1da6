//! An agent beside a scripted coordinator: reports, credits, reconnects and farewells. Its trainer trains nothing.

use spotsweep_proto::{
    ids::WorkerName,
    notice::{Notice, NoticeKind, NoticeSource},
};
use spotsweep_tests::fake_coordinator::{Conversation, FakeCoordinator};
use spotsweep_wire::v1::{self, from_worker::Message, report::Body};
use spotsweep_worker::{Agent, AgentConfig, AgentError, Drain, Machine, NoopTrainers};
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

struct Running {
    task: JoinHandle<Result<(), AgentError>>,
    leave: oneshot::Sender<()>,
}

fn start(coordinator: &FakeCoordinator, trainers: NoopTrainers) -> Running {
    let config = AgentConfig {
        coordinators: vec![coordinator.url()],
        name: WorkerName::new("tested").unwrap(),
        machine: Machine::default(),
    };
    let (leave, told) = oneshot::channel();
    let shutdown = async move {
        let _dropped = told.await;
        Drain { grace: Duration::from_secs(10), orphaned: false }
    };
    Running { task: tokio::spawn(Agent::new(config, trainers).run(shutdown)), leave }
}

async fn attach(coordinator: &mut FakeCoordinator) -> Conversation {
    let mut conversation = coordinator.accept().await;
    let hello = conversation.hello().await;
    assert_eq!((hello.name.as_str(), hello.held.len(), hello.devices.len()), ("tested", 0, 1));
    conversation.welcome(0, Vec::new(), "file:///nowhere").await;
    conversation.tell_of_sweep(serde_json::json!({}), 10).await;
    conversation
}

fn is_finished(body: &Body) -> bool {
    matches!(body, Body::Finished(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_device_asks_for_one_lease_and_for_more_while_jobs_are_short() {
    let mut coordinator = FakeCoordinator::start().await;
    let agent = start(&coordinator, NoopTrainers::new());
    let mut conversation = attach(&mut coordinator).await;
    let mut next = 0;
    let mut asked = Vec::new();
    for _ in 0..7 {
        let credits = conversation.ready().await.credits;
        asked.push(credits);
        conversation.grant(next..next + credits, &serde_json::json!({})).await;
        next += credits;
        let mut finished = 0;
        while finished < credits {
            let seen = conversation.until(is_finished).await;
            finished += seen.iter().filter(|seen| is_finished(&seen.body)).count() as u32;
        }
    }
    assert_eq!(asked, [1, 4, 16, 64, 256, 512, 512]);
    agent.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_that_were_not_acknowledged_come_again_with_the_same_numbers() {
    let mut coordinator = FakeCoordinator::start().await;
    let agent = start(&coordinator, NoopTrainers::new().with_reports(3));
    let mut conversation = attach(&mut coordinator).await;
    conversation.grant(0..1, &serde_json::json!({})).await;
    let mut first = Vec::new();
    while first.len() < 5 {
        first.extend(conversation.reports().await.reports);
    }
    drop(conversation);

    let mut conversation = coordinator.accept().await;
    let held = conversation.hello().await.held;
    assert_eq!(held.len(), 1, "its end is not acknowledged, so it is still held");
    conversation.welcome(2, held, "file:///nowhere").await;
    let batch = conversation.reports().await;
    assert_eq!((batch.first_seq, batch.reports.len()), (3, 3));
    let values = |reports: &[v1::Report]| reports.iter().map(|r| r.body.clone()).collect::<Vec<_>>();
    assert_eq!(values(&batch.reports), values(&first[2..]));
    agent.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_coordinator_at_the_same_address_gets_numbers_from_one_and_no_old_reports() {
    let mut coordinator = FakeCoordinator::start().await;
    let agent = start(&coordinator, NoopTrainers::new());
    let mut conversation = attach(&mut coordinator).await;
    conversation.grant(0..1, &serde_json::json!({})).await;
    conversation.until(is_finished).await;
    conversation.ready().await;
    drop(conversation);

    let mut conversation = attach(&mut coordinator).await;
    assert_eq!(conversation.ready().await.credits, 4);
    conversation.grant(0..4, &serde_json::json!({})).await;
    conversation.until(is_finished).await;
    agent.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_told_to_leave_hands_everything_over_and_says_goodbye() {
    let mut coordinator = FakeCoordinator::start().await;
    // A job that has not ended when the agent is told to leave.
    let agent = start(&coordinator, NoopTrainers::new().with_reports(u64::MAX));
    let mut conversation = attach(&mut coordinator).await;
    conversation.grant(0..2, &serde_json::json!({})).await;
    conversation.until(|body| matches!(body, Body::Progress(_))).await;
    agent.leave.send(()).unwrap();
    let mut released = 0;
    while released < 2 {
        let seen = conversation.until(|body| matches!(body, Body::Released(_))).await;
        released += seen.iter().filter(|seen| matches!(seen.body, Body::Released(_))).count();
    }
    loop {
        match conversation.next().await {
            Some(Message::Goodbye(_)) => break,
            Some(Message::Heartbeat(_) | Message::Ready(_) | Message::Logs(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(conversation.next().await.is_none(), "nothing follows the goodbye");
    drop(conversation);
    agent.task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_agent_ends_with_the_reason_and_the_hint() {
    let mut coordinator = FakeCoordinator::start().await;
    let agent = start(&coordinator, NoopTrainers::new());
    let mut conversation = coordinator.accept().await;
    conversation.hello().await;
    let text = |text: &str| text.to_owned();
    let rejected =
        v1::Rejected { code: text("version"), message: text("too old"), hint: text("update the worker") };
    conversation.say(v1::to_worker::Message::Rejected(rejected)).await;
    let error = agent.task.await.unwrap().unwrap_err().to_string();
    assert_eq!(error, "the coordinator rejected this agent: too old (version)\nhint: update the worker");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_break_the_contract_end_the_connection_and_not_the_agent() {
    let mut coordinator = FakeCoordinator::start().await;
    let agent = start(&coordinator, NoopTrainers::new());
    let unknown_sweep = v1::GrantBatch {
        grants: vec![v1::Grant { trial: Some(v1::TrialKey { sweep: 9, number: 0 }), ..v1::Grant::default() }],
    };
    let unknown_device = v1::GrantBatch {
        grants: vec![v1::Grant {
            trial: Some(v1::TrialKey { sweep: 0, number: 0 }),
            device: 7,
            ..v1::Grant::default()
        }],
    };
    let no_trial = v1::GrantBatch { grants: vec![v1::Grant::default()] };
    for broken in [unknown_sweep, unknown_device, no_trial] {
        let mut conversation = attach(&mut coordinator).await;
        conversation.say(v1::to_worker::Message::Granted(broken)).await;
        while conversation.next().await.is_some() {}
    }
    let mut conversation = attach(&mut coordinator).await;
    conversation.grant(0..1, &serde_json::json!({})).await;
    conversation.until(is_finished).await;
    agent.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_is_told_at_once_and_again_on_the_next_connection() {
    let mut coordinator = FakeCoordinator::start().await;
    let config = AgentConfig {
        coordinators: vec![coordinator.url()],
        name: WorkerName::new("tested").unwrap(),
        machine: Machine::default(),
    };
    let (warn, notices) = mpsc::channel(1);
    let agent = Agent::new(config, NoopTrainers::new()).with_notices(notices, Duration::from_secs(10));
    let agent = tokio::spawn(agent.run(std::future::pending()));
    let mut conversation = attach(&mut coordinator).await;
    let rebalance = Notice::new(NoticeSource::Aws, NoticeKind::Rebalance, None);
    warn.send(rebalance).await.unwrap();
    assert_eq!(next_notice(&mut conversation).await, v1::NoticeKind::Rebalance);
    drop(conversation);
    let mut conversation = attach(&mut coordinator).await;
    assert_eq!(next_notice(&mut conversation).await, v1::NoticeKind::Rebalance);
    let preempted = Notice::new(NoticeSource::Gce, NoticeKind::Preempt, Some(30.0));
    warn.send(preempted).await.unwrap();
    assert_eq!(next_notice(&mut conversation).await, v1::NoticeKind::Preempt);
    while !matches!(conversation.next().await, Some(Message::Goodbye(_))) {}
    drop(conversation);
    agent.await.unwrap().unwrap();
}

/// The next notice that comes, whatever else does.
async fn next_notice(conversation: &mut Conversation) -> v1::NoticeKind {
    loop {
        match conversation.next().await {
            Some(Message::Noticed(noticed)) => return noticed.kind(),
            Some(_) => {}
            None => panic!("the agent ended its stream"),
        }
    }
}
