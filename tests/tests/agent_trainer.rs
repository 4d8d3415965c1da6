//! An agent with a real trainer process beside a scripted coordinator: jobs from lease to end, checkpoints,
//! interruptions, and trainers that die, hang or babble.

use spotsweep_proto::{
    checkpoint::{Manifest, object_path},
    digest::Digest,
    ids::{DeviceName, WorkerName},
};
use spotsweep_tests::fake_coordinator::{Conversation, FakeCoordinator, Seen, grant};
use spotsweep_wire::v1::{self, FailureKind, from_worker::Message, report::Body};
use spotsweep_worker::{
    Agent, AgentConfig, AgentError, DataFolders, DeviceChoice, Drain, GangAddress, GangSettings, Machine,
    ProcessSettings, ProcessTrainers,
};
use std::{path::PathBuf, time::Duration};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

/// A step takes this long where a test interrupts it.
const SLOW: (&str, &str) = ("SPOTSWEEP_STUB_STEP_US", "5000");

struct Bench {
    folder: TempDir,
    coordinator: FakeCoordinator,
    agent: JoinHandle<Result<(), AgentError>>,
    leave: Option<oneshot::Sender<()>>,
}

impl Bench {
    async fn start(environment: &[(&str, &str)]) -> Self {
        Self::with(environment, |_| {}).await
    }

    async fn with(environment: &[(&str, &str)], change: impl FnOnce(&mut ProcessSettings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("objects")).unwrap();
        let coordinator = FakeCoordinator::start().await;
        let mut settings = ProcessSettings {
            program: Some(PathBuf::from(env!("CARGO_BIN_EXE_stub-trainer"))),
            guard: None,
            device: DeviceChoice::Auto,
            scratch: folder.path().join("scratch"),
            data: DataFolders::new(Some(folder.path().join("data"))),
            grace: Duration::from_secs(10),
            silence: Duration::from_secs(60),
            gang: GangSettings {
                address: GangAddress::Given("127.0.0.1".to_owned()),
                timeout: Duration::from_secs(10),
            },
            environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        change(&mut settings);
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
        let agent = tokio::spawn(Agent::new(config, ProcessTrainers::new(settings)).run(shutdown));
        Self { folder, coordinator, agent, leave: Some(leave) }
    }

    fn store_url(&self) -> String {
        format!("file://{}", self.folder.path().join("objects").display())
    }

    /// The next connection, welcomed, with sweep 0 of `steps` steps.
    async fn attach(&mut self, steps: u64) -> Conversation {
        let mut conversation = self.coordinator.accept().await;
        conversation.hello().await;
        conversation.welcome(0, Vec::new(), &self.store_url()).await;
        tell(&mut conversation, steps).await;
        conversation
    }

    fn object(&self, digest: &[u8]) -> Vec<u8> {
        let digest = Digest(digest.try_into().unwrap());
        std::fs::read(self.folder.path().join("objects").join(object_path(&digest))).unwrap()
    }

    fn scratch_files(&self) -> Vec<PathBuf> {
        let agents = std::fs::read_dir(self.folder.path().join("scratch")).unwrap().flatten();
        let agents = agents.filter(|entry| entry.path().is_dir());
        agents
            .flat_map(|agent| std::fs::read_dir(agent.path()).unwrap().flatten())
            .map(|e| e.path())
            .collect()
    }
}

async fn tell(conversation: &mut Conversation, steps: u64) {
    let train = serde_json::json!({
        "model": "softmax", "data": "fashion-mnist", "length": {"steps": steps}, "seed": 3, "threads": 1,
    });
    conversation.tell_of_sweep(train, 20).await;
}

fn params() -> serde_json::Value {
    serde_json::json!({"learning_rate": 0.1})
}

fn is_final(body: &Body) -> bool {
    matches!(body, Body::Finished(_) | Body::Failed(_) | Body::Released(_))
}

/// Metrics by step.
fn curve(seen: &[Seen]) -> Vec<(u64, Vec<f64>)> {
    let points = seen.iter().filter_map(|seen| match &seen.body {
        Body::Progress(progress) => Some((progress.step, progress.values.clone())),
        _ => None,
    });
    points.collect()
}

fn last_checkpoint(seen: &[Seen]) -> v1::Checkpoint {
    let mut checkpoints = seen.iter().rev().filter_map(|seen| match &seen.body {
        Body::Checkpoint(checkpoint) => Some(checkpoint.clone()),
        _ => None,
    });
    checkpoints.next().expect("a checkpoint")
}

fn finished(seen: &[Seen]) -> v1::Finished {
    match &seen.last().unwrap().body {
        Body::Finished(finished) => finished.clone(),
        other => panic!("{other:?}"),
    }
}

fn failed(seen: &[Seen]) -> v1::Failed {
    match &seen.last().unwrap().body {
        Body::Failed(failed) => failed.clone(),
        other => panic!("{other:?}"),
    }
}

async fn alone(steps: u64) -> Vec<Seen> {
    let mut bench = Bench::start(&[]).await;
    let mut conversation = bench.attach(steps).await;
    conversation.grant(0..1, &params()).await;
    conversation.until(is_final).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_runs_from_its_lease_to_its_end_and_its_last_checkpoint_is_reported_before() {
    let mut bench = Bench::start(&[]).await;
    let mut conversation = bench.attach(50).await;
    conversation.grant(0..1, &params()).await;
    let seen = conversation.until(is_final).await;
    assert!(matches!(seen[0].body, Body::Started(v1::Started { step: 0, total_steps: Some(50) })));
    assert_eq!(curve(&seen).iter().map(|(step, _)| *step).collect::<Vec<_>>(), [10, 20, 30, 40, 50]);
    let steps = seen.iter().filter_map(|seen| match &seen.body {
        Body::Checkpoint(checkpoint) => Some((checkpoint.step, checkpoint.last)),
        _ => None,
    });
    assert_eq!(steps.collect::<Vec<_>>(), [(20, false), (40, false), (50, true)]);
    let end = finished(&seen);
    assert_eq!((end.step, end.weights_digest.len()), (50, 32));
    assert!(end.seconds > 0.0);

    let last = last_checkpoint(&seen);
    let manifest = bench.object(&last.manifest);
    let manifest = Manifest::decode(&manifest, Digest(last.manifest[..].try_into().unwrap())).unwrap();
    assert_eq!((manifest.trial.to_string().as_str(), manifest.step), ("fake/0", 50));
    for (part, named) in [manifest.weights, manifest.state].iter().zip(&last.parts) {
        assert_eq!(part.digest.0, named[..]);
        assert_eq!(Digest::of(&bench.object(named)), part.digest);
    }
    bench.agent.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_that_is_paused_and_goes_on_ends_with_the_same_bits_and_points() {
    let expected = alone(100).await;
    let mut bench = Bench::start(&[SLOW]).await;
    let mut conversation = bench.attach(100).await;
    conversation.grant(0..1, &params()).await;
    let mut seen = conversation.until(|body| matches!(body, Body::Progress(p) if p.step >= 30)).await;
    conversation.revoke(0, 1, v1::RevokeReason::Paused).await;
    seen.extend(conversation.until(is_final).await);
    let checkpoint = last_checkpoint(&seen);
    match &seen.last().unwrap().body {
        Body::Released(released) => assert_eq!(released.step, checkpoint.step),
        other => panic!("{other:?}"),
    }
    let again = grant(0, 2, &params(), Some(checkpoint.clone()));
    conversation.say(v1::to_worker::Message::Granted(v1::GrantBatch { grants: vec![again] })).await;
    let rest = conversation.until(is_final).await;
    assert!(matches!(rest[0].body, Body::Started(v1::Started { step, .. }) if step == checkpoint.step));
    assert_eq!(finished(&rest).weights_digest, finished(&expected).weights_digest);
    assert_eq!([curve(&seen), curve(&rest)].concat(), curve(&expected));
    bench.agent.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn training_goes_on_without_a_coordinator_and_no_report_is_missing_or_doubled() {
    let expected = alone(100).await;
    let mut bench = Bench::start(&[SLOW]).await;
    let mut conversation = bench.attach(100).await;
    conversation.grant(0..1, &params()).await;
    let mut seen = conversation.until(|body| matches!(body, Body::Progress(p) if p.step >= 20)).await;
    let mut applied = conversation.next_seq - 1;
    for _ in 0..3 {
        drop(conversation);
        conversation = bench.coordinator.accept().await;
        let held = conversation.hello().await.held;
        assert_eq!(held.len(), 1);
        conversation.welcome(applied, held, &bench.store_url()).await;
        seen.extend(conversation.until(|body| is_final(body) || matches!(body, Body::Progress(_))).await);
        applied = conversation.next_seq - 1;
    }
    if !is_final(&seen.last().unwrap().body) {
        seen.extend(conversation.until(is_final).await);
    }
    assert_eq!(curve(&seen), curve(&expected));
    assert_eq!(finished(&seen).weights_digest, finished(&expected).weights_digest);
    bench.agent.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_lost_is_dropped_and_the_device_takes_the_next() {
    let mut bench = Bench::start(&[SLOW]).await;
    let mut conversation = bench.attach(100_000).await;
    for (number, reason) in [(0, v1::RevokeReason::Stale), (1, v1::RevokeReason::Cancelled)] {
        conversation.grant(number..number + 1, &params()).await;
        conversation.until(|body| matches!(body, Body::Progress(_))).await;
        conversation.revoke(number, 1, reason).await;
    }
    // Lost while there was no connection: the coordinator does not keep it.
    conversation.grant(2..3, &params()).await;
    conversation.until(|body| matches!(body, Body::Started(_))).await;
    let applied = conversation.next_seq - 1;
    drop(conversation);
    let mut conversation = bench.coordinator.accept().await;
    assert_eq!(conversation.hello().await.held.len(), 1);
    conversation.welcome(applied, Vec::new(), &bench.store_url()).await;
    tell(&mut conversation, 30).await;
    conversation.grant(3..4, &params()).await;
    let seen = conversation.until(is_final).await;
    finished(&seen);
    for number in 0..4 {
        let ends = seen.iter().filter(|seen| seen.trial == number && is_final(&seen.body)).count();
        assert_eq!(ends, usize::from(number == 3), "of trial {number}");
    }
    bench.agent.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trainer_that_fails_is_told_apart_and_the_next_trial_finds_a_healthy_one() {
    let faults = "0:crash@15,1:abort@15,2:garbage@15,3:spew@15,4:diverge@15,5:oom@15,6:hang@15";
    let mut bench = Bench::with(&[("SPOTSWEEP_STUB_FAULT", faults)], |settings| {
        settings.silence = Duration::from_millis(400);
    })
    .await;
    let mut conversation = bench.attach(50).await;
    let expected = [
        (
            FailureKind::Crashed,
            "the trainer exited with status 3; its last lines were:\nstub-trainer: last words\\u{1b}[31m before the crash",
        ),
        (FailureKind::Crashed, "the trainer was killed by signal 6 (SIGABRT)"),
        (
            FailureKind::Protocol,
            "the trainer broke the line protocol and was killed: it wrote a line that is no message (expected value at line 1 column 1): \"Epoch 1: loss=0.3 \\u{1b}[2J\"",
        ),
        (
            FailureKind::Protocol,
            "the trainer broke the line protocol and was killed: it wrote a line longer than 1048576 bytes, which begins with \"xxxxx",
        ),
        (FailureKind::Diverged, "the loss is NaN"),
        (FailureKind::OutOfMemory, "planned"),
        (FailureKind::Crashed, "the trainer hung and was killed: it said nothing for 0.4 s"),
    ];
    for (number, (kind, message)) in (0..).zip(expected) {
        assert_eq!(conversation.ready().await.credits, 1, "a healthy trainer is ready");
        conversation.grant(number..number + 1, &params()).await;
        let failure = failed(&conversation.until(is_final).await);
        assert_eq!(failure.kind(), kind, "{number}: {failure:?}");
        assert!(failure.message.starts_with(message), "{number}: {:?}", failure.message);
        assert!(failure.message.len() <= 4096 && failure.step >= 10, "{number}: {failure:?}");
    }
    conversation.ready().await;
    conversation.grant(7..8, &params()).await;
    assert_eq!(finished(&conversation.until(is_final).await).step, 50);
    let words = "stub-trainer: last words\u{1b}[31m before the crash\n";
    let log = conversation.log_with(0, words).await;
    assert!(log.starts_with("[spotsweep: attempt 1 begins at step 0 on cpu]\n"), "{log}");
    bench.agent.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_never_resumes_from_a_damaged_or_missing_checkpoint() {
    let mut bench = Bench::start(&[]).await;
    let mut conversation = bench.attach(50).await;
    conversation.grant(0..1, &params()).await;
    let checkpoint = last_checkpoint(&conversation.until(is_final).await);
    let state = Digest(checkpoint.parts[1][..].try_into().unwrap());
    let path = bench.folder.path().join("objects").join(object_path(&state));
    let mut content = std::fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&path, content).unwrap();
    let missing = v1::Checkpoint { manifest: vec![7; 32].into(), ..checkpoint.clone() };
    for (number, resume) in (0..).zip([checkpoint, missing]) {
        // Trial 0 both times, as the checkpoint says.
        let lease = grant(0, 2 + number, &params(), Some(resume));
        conversation.say(v1::to_worker::Message::Granted(v1::GrantBatch { grants: vec![lease] })).await;
        let seen = conversation.until(is_final).await;
        assert_eq!(failed(&seen).kind(), FailureKind::Checkpoint, "{seen:?}");
        assert!(!seen.iter().any(|seen| matches!(seen.body, Body::Started(_))), "{seen:?}");
    }
    bench.agent.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_farewell_the_newest_state_is_stored_and_the_lease_handed_back_with_its_step() {
    let mut bench = Bench::start(&[SLOW]).await;
    let mut conversation = bench.attach(100_000).await;
    conversation.grant(0..1, &params()).await;
    let mut seen = conversation.until(|body| matches!(body, Body::Progress(_))).await;
    bench.leave.take().unwrap().send(()).unwrap();
    seen.extend(conversation.until(is_final).await);
    match &seen.last().unwrap().body {
        Body::Released(released) => assert_eq!(released.step, last_checkpoint(&seen).step),
        other => panic!("{other:?}"),
    }
    while !matches!(conversation.next().await, Some(Message::Goodbye(_))) {}
    drop(conversation);
    (&mut bench.agent).await.unwrap().unwrap();
    assert_eq!(bench.scratch_files(), Vec::<PathBuf>::new(), "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_or_parameters_that_make_no_sense_fail_the_attempt_in_words() {
    let mut bench = Bench::start(&[]).await;
    let mut conversation = bench.coordinator.accept().await;
    conversation.hello().await;
    let missing = format!("file://{}", bench.folder.path().join("not-there").display());
    conversation.welcome(0, Vec::new(), &missing).await;
    tell(&mut conversation, 10).await;
    conversation.grant(0..1, &params()).await;
    let failure = failed(&conversation.until(is_final).await);
    assert_eq!(failure.kind(), FailureKind::Storage);
    assert!(failure.message.contains("is not on this machine") && failure.message.contains("hint: "));

    drop(conversation);
    let mut conversation = bench.coordinator.accept().await;
    conversation.hello().await;
    conversation.welcome(1, Vec::new(), &bench.store_url()).await;
    tell(&mut conversation, 10).await;
    conversation.grant(1..2, &serde_json::json!([1, 2])).await;
    assert_eq!(failed(&conversation.until(is_final).await).kind(), FailureKind::Internal);
    conversation.grant(2..3, &serde_json::json!({"learning_rate": "fast"})).await;
    assert_eq!(failed(&conversation.until(is_final).await).kind(), FailureKind::Config);
    bench.agent.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_is_tried_again_and_costs_the_attempt_only_the_final_weights() {
    let mut bench = Bench::start(&[]).await;
    // Files where the store wants folders: every write fails, whoever tries.
    let objects = bench.folder.path().join("objects");
    let obstacles: Vec<PathBuf> = (0..256).map(|number| objects.join(format!("{number:02x}"))).collect();
    for obstacle in &obstacles {
        std::fs::write(obstacle, "").unwrap();
    }
    let mut conversation = bench.attach(30).await;
    conversation.grant(0..1, &params()).await;
    let seen = conversation.until(is_final).await;
    let failure = failed(&seen);
    assert_eq!((failure.kind(), failure.step), (FailureKind::Storage, 30));
    assert!(failure.message.starts_with("the checkpoint of step 30 could not be stored: "), "{failure:?}");
    assert!(!seen.iter().any(|seen| matches!(seen.body, Body::Checkpoint(_))), "{seen:?}");
    for obstacle in &obstacles {
        std::fs::remove_file(obstacle).unwrap();
    }
    conversation.ready().await;
    conversation.grant(1..2, &params()).await;
    finished(&conversation.until(is_final).await);
    bench.agent.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_usable_trainer_an_agent_says_so_at_once() {
    let missing = Bench::with(&[], |settings| settings.program = Some("/no/such/trainer".into())).await;
    let error = missing.agent.await.unwrap().unwrap_err().to_string();
    assert!(error.starts_with("there is no trainer program at /no/such/trainer\nhint: "), "{error}");

    let broken = Bench::with(&[], |settings| settings.program = Some("/bin/false".into())).await;
    let error = broken.agent.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("did not become ready: the trainer exited with status 1"), "{error}");

    let babbling = Bench::with(&[], |settings| settings.program = Some("/usr/bin/yes".into())).await;
    let error = babbling.agent.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("it wrote a line that is no message"), "{error}");

    let device = DeviceChoice::Only(DeviceName::new("cuda:3").unwrap());
    let elsewhere = Bench::with(&[], |settings| settings.device = device).await;
    let error = elsewhere.agent.await.unwrap().unwrap_err().to_string();
    assert!(error.starts_with("the trainer has no device cuda:3; it has cpu\nhint: "), "{error}");
}
