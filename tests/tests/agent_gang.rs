//! Agents as ranks of a gang, beside a scripted coordinator: real agents and trainers, kill -9, notices, waiting.

use spotsweep_tests::{
    binaries,
    fake_coordinator::{Conversation, FakeCoordinator, Seen},
    fake_gang::FakeGang,
};
use spotsweep_wire::v1::{self, report::Body};
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// Steps of the trial.
const STEPS: u64 = 300;
/// A step takes this long, in microseconds, so that what happens finds it at work.
const STEP_US: &str = "10000";

/// Agents on this machine, and the coordinator that they know.
struct Bench {
    folder: TempDir,
    coordinator: FakeCoordinator,
    agents: Vec<Child>,
}

impl Bench {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("objects")).unwrap();
        Self { folder, coordinator: FakeCoordinator::start().await, agents: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One more agent; gives its stream, attached and told of the sweep.
    async fn agent(&mut self, arguments: &[&str]) -> Conversation {
        let index = self.agents.len();
        let log = std::fs::File::create(self.path(&format!("log-{index}"))).unwrap();
        let child = Command::new(binaries::worker())
            .args(["--coordinator", &self.coordinator.url(), "--device", "cpu", "--notices", "off"])
            .arg("--notice-file")
            .arg(self.path(&format!("notice-{index}")))
            .arg("--trainer")
            .arg(env!("CARGO_BIN_EXE_stub-trainer"))
            .arg("--dir")
            .arg(self.path(&format!("scratch-{index}")))
            .args(arguments)
            .env("SPOTSWEEP_STUB_STEP_US", STEP_US)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agents.push(child);
        let mut conversation = self.coordinator.accept().await;
        conversation.hello().await;
        let store = format!("file://{}", self.path("objects").display());
        conversation.welcome(0, Vec::new(), &store).await;
        let train = serde_json::json!({
            "model": "softmax", "data": "fashion-mnist", "length": {"steps": STEPS}, "seed": 3, "threads": 1,
        });
        conversation.tell_of_sweep(train, 20).await;
        conversation
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for agent in &mut self.agents {
            let _ended = agent.kill();
            let _status = agent.wait();
        }
    }
}

fn params() -> serde_json::Value {
    serde_json::json!({"learning_rate": 0.1})
}

fn finished(reports: &[Seen]) -> Option<v1::Finished> {
    reports.iter().find_map(|seen| match &seen.body {
        Body::Finished(finished) => Some(finished.clone()),
        _ => None,
    })
}

fn released(reports: &[Seen]) -> Option<u64> {
    reports.iter().find_map(|seen| match &seen.body {
        Body::Released(released) => Some(released.step),
        _ => None,
    })
}

fn failed(reports: &[Seen]) -> Option<v1::Failed> {
    reports.iter().find_map(|seen| match &seen.body {
        Body::Failed(failed) => Some(failed.clone()),
        _ => None,
    })
}

/// Metrics by step.
fn curve(reports: &[Seen]) -> Vec<(u64, Vec<f64>)> {
    let points = reports.iter().filter_map(|seen| match &seen.body {
        Body::Progress(progress) => Some((progress.step, progress.values.clone())),
        _ => None,
    });
    points.collect()
}

/// How the trial ends, and its points, without a gang.
async fn alone() -> (v1::Finished, Vec<(u64, Vec<f64>)>) {
    let mut bench = Bench::start().await;
    let mut conversation = bench.agent(&[]).await;
    conversation.grant(0..1, &params()).await;
    let seen = conversation.until(|body| matches!(body, Body::Finished(_))).await;
    (finished(&seen).unwrap(), curve(&seen))
}

/// The trial ended as `expected` on seat `seat`.
fn ended_the_same(gang: &FakeGang, seat: usize, expected: &v1::Finished) {
    let end = finished(&gang.seats[seat].reports).unwrap();
    assert_eq!((end.step, &end.weights_digest), (expected.step, &expected.weights_digest));
    assert_eq!(end.values, expected.values);
}

/// A gang of two at work.
async fn at_work(bench: &mut Bench, arguments: &[&str]) -> FakeGang {
    let mut gang = FakeGang::of_shards(4);
    for _ in 0..2 {
        gang.join(bench.agent(arguments).await);
    }
    gang.make_up(&[0, 1], &[0, 1], &[], &params()).await;
    gang.until(|gang| gang.seats.iter().all(|seat| seat.has_formed(1) && seat.step() >= 10)).await;
    gang
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_that_loses_its_first_rank_to_kill_9_goes_on_from_memory_and_ends_with_the_same_bits() {
    let (expected, points) = alone().await;
    let mut bench = Bench::start().await;
    let mut gang = at_work(&mut bench, &["--gang-timeout-s", "1"]).await;
    bench.agents[0].kill().unwrap();
    gang.until(|gang| gang.seats[0].gone && gang.seats[1].has_broken(1)).await;
    let broken = gang.seats[1].news.last().unwrap().clone();
    assert!(broken.step >= 10 && broken.broken.is_some(), "{broken:?}");
    gang.make_up(&[1], &[], &[], &params()).await;
    gang.until(|gang| finished(&gang.seats[1].reports).is_some()).await;
    let formed = gang.seats[1].news.last().unwrap();
    assert_eq!((formed.generation, formed.step), (2, broken.step), "no step is lost");
    ended_the_same(&gang, 1, &expected);
    assert_eq!(curve(&gang.seats[1].reports), points, "every point once, from the rank that saw them all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rank_that_joins_a_gang_at_work_takes_the_state_of_the_others_and_one_that_leaves_costs_nothing() {
    let (expected, points) = alone().await;
    let mut bench = Bench::start().await;
    let mut gang = at_work(&mut bench, &[]).await;
    let third = gang.join(bench.agent(&[]).await);
    gang.make_up(&[0, 1, third], &[third], &[], &params()).await;
    gang.until(|gang| gang.seats.iter().all(|seat| seat.has_formed(2))).await;
    let step = gang.seats[third].news[0].step;
    assert!(step >= 10, "it begins where the others are: {step}");
    gang.make_up(&[third, 1], &[], &[0], &params()).await;
    gang.until(|gang| released(&gang.seats[0].reports).is_some()).await;
    assert!(released(&gang.seats[0].reports).unwrap() >= step);
    gang.until(|gang| finished(&gang.seats[third].reports).is_some()).await;
    ended_the_same(&gang, third, &expected);
    // Its last report comes over a connection of its own.
    gang.until(|gang| curve(&gang.seats[1].reports).len() >= points.len()).await;
    assert_eq!(curve(&gang.seats[1].reports), points);
    assert_eq!(failed(&gang.seats[0].reports), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_rank_that_waits_for_a_make_up_nor_one_that_holds_its_state_at_the_end_is_taken_to_hang() {
    let mut bench = Bench::start().await;
    // The others' heartbeats measure the time: far longer than the limit on silence.
    let mut gang = at_work(&mut bench, &["--gang-timeout-s", "0.3", "--trainer-timeout-s", "1"]).await;
    let patience = |gang: &FakeGang| gang.seats[1].conversation.heartbeats + 15;
    bench.agents[0].kill().unwrap();
    gang.until(|gang| gang.seats[1].has_broken(1)).await;
    let then = patience(&gang);
    gang.until(|gang| gang.seats[1].conversation.heartbeats >= then).await;
    assert_eq!(failed(&gang.seats[1].reports), None);
    let heir = gang.join(bench.agent(&[]).await);
    gang.make_up(&[heir, 1], &[heir], &[], &params()).await;
    gang.until(|gang| finished(&gang.seats[heir].reports).is_some()).await;
    let then = patience(&gang);
    gang.until(|gang| gang.seats[1].conversation.heartbeats >= then).await;
    assert_eq!((failed(&gang.seats[1].reports), released(&gang.seats[1].reports)), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_notice_a_rank_leaves_when_its_gang_lets_it_go_and_is_not_stopped_before() {
    let (expected, points) = alone().await;
    let mut bench = Bench::start().await;
    let mut gang = at_work(&mut bench, &[]).await;
    std::fs::write(bench.path("notice-0"), r#"{"in_s": 60}"#).unwrap();
    gang.until(|gang| !gang.seats[0].conversation.notices.is_empty()).await;
    let noticed_at = gang.seats[0].step();
    gang.until(|gang| gang.seats[0].step() > noticed_at).await;
    assert_eq!(released(&gang.seats[0].reports), None, "it trains on until it is let go");
    gang.make_up(&[1], &[], &[0], &params()).await;
    gang.until(|gang| gang.seats[0].gone && finished(&gang.seats[1].reports).is_some()).await;
    assert!(released(&gang.seats[0].reports).is_some());
    assert_eq!(bench.agents[0].wait().unwrap().code(), Some(0));
    ended_the_same(&gang, 1, &expected);
    assert_eq!(curve(&gang.seats[1].reports), points);
}
