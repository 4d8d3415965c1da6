//! The program `spotsweep-worker` as its users and its system treat it: signals, its parent's death, kill -9, a
//! wrong command line.

use spotsweep_tests::{
    binaries,
    cluster::children_of,
    fake_coordinator::{Conversation, FakeCoordinator},
    wait,
};
use spotsweep_wire::v1::{self, NoticeSource, from_worker::Message, report::Body};
use std::{
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
};
use tempfile::TempDir;

struct Agent {
    folder: TempDir,
    coordinator: FakeCoordinator,
    child: Child,
}

impl Agent {
    async fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("objects")).unwrap();
        let coordinator = FakeCoordinator::start().await;
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(binaries::worker())
            .args(["--coordinator", &coordinator.url(), "--device", "cpu", "--log-format", "json"])
            .arg("--trainer")
            .arg(env!("CARGO_BIN_EXE_stub-trainer"))
            .arg("--dir")
            .arg(folder.path().join("scratch"))
            .args(arguments)
            .env("SPOTSWEEP_STUB_STEP_US", "3000")
            .stdin(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { folder, coordinator, child }
    }

    /// Gives it a lease and waits until it trains.
    async fn busy(&mut self) -> Conversation {
        let mut conversation = self.coordinator.accept().await;
        conversation.hello().await;
        let store = format!("file://{}", self.folder.path().join("objects").display());
        conversation.welcome(0, Vec::new(), &store).await;
        let train = serde_json::json!({"model": "softmax", "data": "fashion-mnist", "length": {"steps": 1_000_000}, "seed": 3, "threads": 1});
        conversation.tell_of_sweep(train, 100).await;
        conversation.grant(0..1, &serde_json::json!({})).await;
        conversation.until(|body| matches!(body, Body::Progress(_))).await;
        conversation
    }

    fn trainer(&self) -> i32 {
        children_of(self.child.id())[0]
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        wait::until("the agent ends", || self.child.try_wait().unwrap())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn trainer_is_gone(pid: i32) {
    wait::until("the trainer is gone", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sigterm_it_hands_over_says_goodbye_and_exits_with_zero() {
    let mut agent = Agent::start(&[]).await;
    let mut conversation = agent.busy().await;
    let trainer = agent.trainer();
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    let seen = conversation.until(|body| matches!(body, Body::Released(_))).await;
    assert!(seen.iter().any(|seen| matches!(seen.body, Body::Checkpoint(_))), "{seen:?}");
    let told: Vec<NoticeSource> = conversation.notices.iter().map(v1::Noticed::source).collect();
    assert_eq!(told, [NoticeSource::Signal], "before all is handed over");
    while !matches!(conversation.next().await, Some(Message::Goodbye(_))) {}
    drop(conversation);
    assert_eq!(agent.ended().code(), Some(0), "{}", agent.log());
    trainer_is_gone(trainer);
    for line in agent.log().lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("the log is JSON, line by line");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let mut agent = Agent::start(&[]).await;
    // Nobody acknowledges, so leaving in order takes its time.
    let conversation = agent.busy().await;
    let trainer = agent.trainer();
    agent.signal(nix::sys::signal::Signal::SIGINT);
    wait::until("the first signal is heard", || agent.log().contains("leaving").then_some(()));
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(agent.ended().code(), Some(128 + 15), "{}", agent.log());
    trainer_is_gone(trainer);
    drop(conversation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_trainer_does_not_outlive_kill_nine() {
    let mut agent = Agent::start(&[]).await;
    let _conversation = agent.busy().await;
    let trainer = agent.trainer();
    agent.child.kill().unwrap();
    trainer_is_gone(trainer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_its_parent_and_coordinator_gone_it_leaves() {
    let mut agent = Agent::start(&["--exit-with-parent"]).await;
    let conversation = agent.busy().await;
    let trainer = agent.trainer();
    drop(conversation);
    agent.coordinator = FakeCoordinator::start().await;
    drop(agent.child.stdin.take());
    assert_eq!(agent.ended().code(), Some(0), "{}", agent.log());
    trainer_is_gone(trainer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_coordinator_it_leaves_when_the_grace_time_is_up_and_says_so() {
    let mut agent = Agent::start(&["--grace-s", "0.5"]).await;
    let conversation = agent.busy().await;
    drop(conversation);
    agent.coordinator = FakeCoordinator::start().await;
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(agent.ended().code(), Some(1), "{}", agent.log());
    assert!(agent.log().contains("error: the grace time was up before"), "{}", agent.log());
}

fn run(arguments: &[&str]) -> Output {
    Command::new(binaries::worker()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_wrong_command_line_is_refused_in_words() {
    let cases: [(&[&str], i32, &str); 7] = [
        (&["--device", "gpu 0"], 2, "error: \"gpu 0\" is no device: "),
        (&["--name", "../x"], 2, "error: \"../x\" is no name for a worker: "),
        (&["--coordinator", "not a url"], 2, "error: \"not a url\" is not the URL of a coordinator"),
        (&["--log", "spotsweep=loud"], 2, "error: \"spotsweep=loud\" is no log filter"),
        (&["--grace-s", "-1"], 2, "error: "),
        (&["--unheard-of"], 2, "error: "),
        (&["--trainer", "/no/such"], 8, "error: there is no trainer program at /no/such"),
    ];
    for (arguments, code, text) in cases {
        let output = run(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(text), "{arguments:?}: {error}");
    }
}
