//! What a trial costs the engine, from its lease to its result: time, memory, snapshot, restore.
//!
//! `cargo bench -p spotsweep-engine`; sizes as arguments (`-- 1000 1000000`). No journal, no network.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(missing_docs, reason = "a program")]

use spotsweep_engine::{
    Action, Config, Engine, Event, RequestId, SessionId, Time, TrialRef,
    event::{CheckpointRef, Device, DeviceKind, Hello, Machine, Report, ReportBatch, ReportBody},
};
use spotsweep_proto::{
    digest::Digest,
    ids::{DeviceName, Epoch, Incarnation, MetricName, SweepName, WorkerName},
    metric::{Goal, Objective},
    spec::{
        CheckpointPolicy, DeviceRequest, Every, Method, Resources, RetryPolicy, SweepSpec, TrainSection,
        Workers, space::Space,
    },
};
use std::{collections::VecDeque, time::Instant};

const WORKERS: u64 = 200;
/// Leases that a worker holds at a time.
const DEPTH: u32 = 8;

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| unreachable!("{text} is a name"))
}

fn spec(trials: u32) -> SweepSpec {
    let objective = Objective { name: name::<MetricName>("acc"), goal: Goal::Maximize, target: None };
    SweepSpec {
        name: name::<SweepName>("bench"),
        description: String::new(),
        method: Method::Random { seed: 1 },
        objective: Some(objective),
        space: Space::default(),
        run_cap: Some(trials),
        train: TrainSection {
            model: None,
            data: None,
            length: None,
            seed: 0,
            threads: 1,
            shards: 1,
            exact: true,
            own: Default::default(),
        },
        resources: Resources { device: DeviceRequest::Any, memory_bytes: None, workers: Workers::default() },
        checkpoint: CheckpointPolicy { every: Every::Steps(10), keep_last: 1 },
        retry: RetryPolicy { max_failures: 3, backoff_s: 10.0 },
        priority: 0,
        program: None,
        sinks: Vec::new(),
    }
}

fn hello(worker: u64) -> Hello {
    let device = Device {
        name: name::<DeviceName>("cpu"),
        kind: DeviceKind::Cpu,
        model: "a CPU".to_owned(),
        memory_bytes: (8 << 30) + worker % 7,
    };
    Hello {
        name: name::<WorkerName>(&format!("worker-{worker}")),
        incarnation: Incarnation(u128::from(worker)),
        devices: vec![device],
        machine: Machine::default(),
        held: Vec::new(),
        programs_only: false,
        knows: Vec::new(),
    }
}

fn bodies(trial: TrialRef, checkpoints: bool) -> Vec<ReportBody> {
    let digest = |part: u8| {
        let mut bytes = [part; 32];
        bytes[..4].copy_from_slice(&trial.number.to_le_bytes());
        Digest(bytes)
    };
    let mut bodies = vec![
        ReportBody::Started { step: 0, total_steps: Some(10) },
        ReportBody::Progress { step: 10, data_epoch: 1.0, metrics: vec![(0, 0.5), (1, 0.7)] },
    ];
    if checkpoints {
        let parts = vec![digest(1), digest(2)];
        let reference = CheckpointRef { step: 10, manifest: digest(0), parts, bytes: 1000, last: true };
        bodies.push(ReportBody::Checkpoint(reference));
    }
    let weights_digest = Some(digest(1));
    bodies.push(ReportBody::Finished {
        step: 10,
        metrics: vec![(0, 0.5), (1, 0.7)],
        weights_digest,
        seconds: 0.1,
    });
    bodies
}

/// Resident memory of this process, in bytes; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn run(trials: u32, checkpoints: bool) {
    let before = resident_bytes();
    let mut engine = Engine::new(Config::default());
    let mut actions = Vec::new();
    let mut grants: VecDeque<(SessionId, TrialRef, Epoch)> = VecDeque::new();
    let names = vec![name::<MetricName>("loss"), name::<MetricName>("acc")];
    let mut next_seq = vec![1; WORKERS as usize + 1];
    let mut now = Time(0);
    let mut steps = 0u64;
    let mut worst_us = 0.0f64;
    let mut in_steps = std::time::Duration::ZERO;
    let mut step = |engine: &mut Engine, event, grants: &mut VecDeque<_>| {
        now = Time(now.0 + 1);
        actions.clear();
        let begin = Instant::now();
        engine.step(now, event, &mut actions);
        let took = begin.elapsed();
        in_steps += took;
        worst_us = worst_us.max(took.as_secs_f64() * 1e6);
        steps += 1;
        for action in &actions {
            if let Action::Grant { session, grant, .. } = action {
                grants.push_back((*session, grant.trial, grant.epoch));
            }
        }
    };
    let request = RequestId(1);
    step(&mut engine, Event::Submit { request, token: 1, spec: Box::new(spec(trials)) }, &mut grants);
    for worker in 1..=WORKERS {
        let session = SessionId(worker);
        step(&mut engine, Event::Joined { session, hello: Box::new(hello(worker)) }, &mut grants);
        step(&mut engine, Event::Ready { session, device: 0, credits: DEPTH }, &mut grants);
    }
    let mut reports_count = 0;
    while let Some((session, trial, epoch)) = grants.pop_front() {
        let reports: Vec<Report> =
            bodies(trial, checkpoints).into_iter().map(|body| Report { trial, epoch, body }).collect();
        let seq = &mut next_seq[session.0 as usize];
        let batch = ReportBatch { first_seq: *seq, metric_names: names.clone(), reports };
        *seq += batch.reports.len() as u64;
        reports_count += batch.reports.len();
        step(&mut engine, Event::Reports { session, batch }, &mut grants);
        step(&mut engine, Event::Ready { session, device: 0, credits: 1 }, &mut grants);
    }
    let ended = engine.sweeps().next().map(|sweep| sweep.counts.completed);
    assert_eq!(ended, Some(trials), "every trial ends");
    let memory = resident_bytes().saturating_sub(before);
    let begin = Instant::now();
    let snapshot = engine.snapshot();
    let snapshot_ms = begin.elapsed().as_secs_f64() * 1e3;
    drop(engine);
    let begin = Instant::now();
    let restored = Engine::restore(&snapshot).map(|engine| engine.totals().reports);
    let restore_ms = begin.elapsed().as_secs_f64() * 1e3;
    assert_eq!(restored.ok(), Some(reports_count as u64));
    let per = |total: f64| total / f64::from(trials);
    let step_s = in_steps.as_secs_f64();
    println!(
        "{trials:>9} {:>5} {:>9.2} {:>10.2} {:>11.0} {:>11.0} {:>9.0} {:>9.0} {:>10.1} {:>10.1}",
        if checkpoints { "yes" } else { "no" },
        per(step_s * 1e6),
        step_s * 1e6 / steps as f64,
        reports_count as f64 / step_s,
        worst_us,
        per(memory as f64),
        per(snapshot.len() as f64),
        snapshot_ms,
        restore_ms,
    );
}

fn main() {
    let sizes: Vec<u32> = std::env::args().filter_map(|text| text.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![1_000, 10_000, 100_000, 1_000_000] } else { sizes };
    println!(
        "{:>9} {:>5} {:>9} {:>10} {:>11} {:>11} {:>9} {:>9} {:>10} {:>10}",
        "trials",
        "ckpt",
        "us/trial",
        "us/event",
        "reports/s",
        "worst us",
        "B/trial",
        "snap B",
        "snap ms",
        "load ms"
    );
    for trials in sizes {
        for checkpoints in [false, true] {
            run(trials, checkpoints);
        }
    }
}
