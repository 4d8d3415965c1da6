//! The real program over its real pipes: what it says, how it stops, and what it does with nonsense.

#![allow(clippy::unwrap_used, reason = "a test: what is not there is a failure")]

mod common;

use common::{checkpoints, curve, failure, finish, job};
use serde_json::json;
use spotsweep_proto::{
    ids::{DeviceName, Epoch},
    limits::LINE_BYTES,
    line::{FailureKind, FromTrainer, Job, PROTOCOL_VERSION, ToTrainer},
    spec::Every,
};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spotsweep-trainer");

/// A running trainer; killed when it goes out of scope.
struct Trainer {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
}

impl Trainer {
    /// Starts one and reads its first line.
    fn start() -> Self {
        Self::ready(&mut Command::new(PROGRAM))
    }

    fn ready(command: &mut Command) -> Self {
        let mut trainer = Self::spawn(command);
        let FromTrainer::Ready { protocol, libtorch, devices, .. } = trainer.line() else {
            panic!("not ready")
        };
        assert_eq!((protocol, libtorch.as_str()), (PROTOCOL_VERSION, "2.11.0"));
        assert_eq!(devices[0].name.as_str(), "cpu");
        trainer
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = child.stderr.take().unwrap();
        Self { child, stdin, stdout, stderr }
    }

    fn send(&mut self, line: &ToTrainer) {
        self.send_bytes(format!("{}\n", serde_json::to_string(line).unwrap()).as_bytes());
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        // A trainer that has had enough closes its end before we have written all.
        let _ = self.stdin.as_mut().unwrap().write_all(bytes);
    }

    fn run(&mut self, job: &Job) {
        self.send(&ToTrainer::Run(Box::new(job.clone())));
    }

    fn line(&mut self) -> FromTrainer {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// All lines up to one that `wanted` picks, that one included.
    fn lines_until(&mut self, wanted: impl Fn(&FromTrainer) -> bool) -> Vec<FromTrainer> {
        let mut lines = Vec::new();
        loop {
            lines.push(self.line());
            if wanted(&lines[lines.len() - 1]) {
                return lines;
            }
        }
    }

    /// All lines up to the end of the job.
    fn lines_to_end(&mut self) -> Vec<FromTrainer> {
        self.lines_until(|line| match line {
            FromTrainer::Done { .. } | FromTrainer::Stopped { .. } | FromTrainer::Failed { .. } => true,
            FromTrainer::Ready { .. }
            | FromTrainer::Started { .. }
            | FromTrainer::Report { .. }
            | FromTrainer::Checkpoint { .. }
            | FromTrainer::GangFormed { .. }
            | FromTrainer::GangBroken { .. }
            | FromTrainer::Store { .. } => false,
        })
    }

    /// Waits for its end: exit status, the rest of stdout, and stderr.
    fn ended(mut self) -> (ExitStatus, String, String) {
        let (mut rest, mut complaints) = (String::new(), String::new());
        self.stdout.read_to_string(&mut rest).unwrap();
        self.stderr.read_to_string(&mut complaints).unwrap();
        (self.child.wait().unwrap(), rest, complaints)
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_report(line: &FromTrainer) -> bool {
    matches!(line, FromTrainer::Report { .. })
}

#[test]
fn two_jobs_in_a_row_end_as_each_alone_would() {
    let folder = tempfile::tempdir().unwrap();
    let first = job(&json!({"model": "mlp", "hidden": [16], "dropout": 0.5}), 20, folder.path());
    let mut second = job(&json!({"model": "softmax"}), 20, folder.path());
    second.epoch = Epoch(9);
    let mut trainer = Trainer::start();
    let mut ends = Vec::new();
    for job in [&first, &second, &first] {
        trainer.run(job);
        let lines = trainer.lines_to_end();
        let total_steps = Some(20);
        assert_eq!(lines[0], FromTrainer::Started { epoch: job.epoch, step: 0, total_steps });
        assert!(checkpoints(&lines).pop().unwrap().1, "the last checkpoint comes before `done`");
        ends.push((curve(&lines), finish(&lines)));
    }
    assert_eq!(ends[0], ends[2]);
    assert_ne!(ends[0].1.weights_digest, ends[1].1.weights_digest);
    for name in ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"] {
        assert!(ends[1].1.metrics[name].is_f64(), "{name}");
    }
    trainer.send(&ToTrainer::Exit);
    let (status, rest, _) = trainer.ended();
    assert_eq!((status.code(), rest.as_str()), (Some(0), ""));
}

#[test]
fn a_stop_acts_at_the_end_of_the_step_and_leaves_the_trainer_idle() {
    let folder = tempfile::tempdir().unwrap();
    let endless = job(&json!({"model": "mlp"}), 1_000_000, folder.path());
    let mut trainer = Trainer::start();
    trainer.run(&endless);
    trainer.lines_until(is_report);
    // Of another epoch: not meant.
    trainer.send(&ToTrainer::Stop { epoch: Epoch(77), checkpoint: true });
    trainer.lines_until(is_report);
    trainer.send(&ToTrainer::Checkpoint { epoch: endless.epoch });
    trainer.lines_until(|line| matches!(line, FromTrainer::Checkpoint { last: false, .. }));
    trainer.send(&ToTrainer::Stop { epoch: endless.epoch, checkpoint: true });
    let lines = trainer.lines_to_end();
    let (files, last) = checkpoints(&lines).pop().unwrap();
    assert_eq!(lines.last(), Some(&FromTrainer::Stopped { epoch: endless.epoch, step: files.step }));
    assert!(!last);
    // A stop that comes too late is for nobody.
    trainer.send(&ToTrainer::Stop { epoch: endless.epoch, checkpoint: true });
    trainer.run(&job(&json!({"model": "softmax"}), 3, folder.path()));
    assert_eq!(finish(&trainer.lines_to_end()).step, 3);
}

#[test]
fn killed_with_minus_nine_and_resumed_equals_uninterrupted() {
    let recipe = json!({"model": "mlp", "hidden": [32], "dropout": 0.4, "optimizer": "adam"});
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::start();
    let whole = job(&recipe, 400, folder.path());
    trainer.run(&whole);
    let whole = trainer.lines_to_end();

    let mut parts = Vec::new();
    let mut next = job(&recipe, 400, folder.path());
    for attempt in 0..3 {
        let scratch = folder.path().join(attempt.to_string());
        fs::create_dir(&scratch).unwrap();
        next.scratch_dir = scratch;
        next.epoch = Epoch(10 + attempt);
        next.checkpoint.every = Every::Steps(7);
        let mut trainer = Trainer::start();
        trainer.run(&next);
        for _ in 0..=attempt {
            let lines = trainer.lines_until(|line| matches!(line, FromTrainer::Checkpoint { .. }));
            next.resume = Some(checkpoints(&lines).pop().unwrap().0);
            parts.extend(lines);
        }
        trainer.child.kill().unwrap();
    }
    let mut trainer = Trainer::start();
    trainer.run(&next);
    parts.extend(trainer.lines_to_end());

    // What came behind the last checkpoint before a kill came again, and was the same.
    let mut seen = std::collections::BTreeMap::new();
    for (step, metrics) in curve(&parts) {
        assert_eq!(*seen.entry(step).or_insert_with(|| metrics.clone()), metrics, "step {step}");
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), curve(&whole));
    assert_eq!(finish(&parts), finish(&whole));
}

#[test]
fn the_end_of_stdin_is_the_end_of_the_trainer_even_in_mid_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::start();
    trainer.run(&job(&json!({"model": "mlp", "hidden": [512]}), 1_000_000, folder.path()));
    trainer.lines_until(is_report);
    drop(trainer.stdin.take());
    let (status, _, _) = trainer.ended();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn nonsense_and_oversized_lines_end_the_trainer_with_a_word_on_stderr() {
    let oversized = vec![b'x'; LINE_BYTES + 2];
    for (bytes, part) in [
        (&b"hello\n"[..], "no message of the protocol"),
        (b"{\"type\":\"run\"}\n", "missing field"),
        (b"\x00\xff\n", "no message of the protocol"),
        (&oversized, "more than 1048576 bytes"),
    ] {
        let mut trainer = Trainer::start();
        trainer.send_bytes(bytes);
        let (status, rest, complaints) = trainer.ended();
        assert_eq!((status.code(), rest.as_str()), (Some(2), ""));
        assert!(complaints.contains(part), "{complaints}");
    }
}

#[test]
fn a_job_that_cannot_be_done_is_refused_and_the_next_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let good = job(&json!({"model": "softmax"}), 2, folder.path());
    let with = |change: &dyn Fn(&mut Job)| {
        let mut job = good.clone();
        change(&mut job);
        job
    };
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let cases = [
        (with(&|job| job.train = json!(7)), FailureKind::Config, "train"),
        (
            with(&|job| drop(job.params.insert("learning_rat".into(), json!(1)))),
            FailureKind::Config,
            "learning_rat",
        ),
        (with(&|job| job.device = DeviceName::new("cuda:9").unwrap()), FailureKind::Config, "cuda:9"),
        (with(&|job| job.train["data"] = json!("mnist")), FailureKind::Config, "names no folder"),
        (
            with(&|job| {
                job.train["data"] = json!("mnist");
                job.data_dir = Some(empty.clone());
            }),
            FailureKind::Data,
            "train-images-idx3-ubyte: not found",
        ),
        (with(&|job| job.scratch_dir = empty.join("gone")), FailureKind::Storage, "cannot write"),
    ];
    let mut trainer = Trainer::start();
    for (job, kind, part) in cases {
        trainer.run(&job);
        let (_, reason, message) = failure(&trainer.lines_to_end());
        assert_eq!(reason, kind, "{message}");
        assert!(message.contains(part), "{message}");
        trainer.run(&good);
        assert_eq!(finish(&trainer.lines_to_end()).step, 2);
    }
}

#[test]
fn running_out_of_memory_fails_the_job_and_not_the_trainer() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    // Room for libtorch and small models; the job's second layer alone is 16 GiB.
    shell.args(["-c", "ulimit -v 6000000 && exec \"$0\"", PROGRAM]);
    let mut trainer = Trainer::ready(&mut shell);
    trainer.run(&job(&json!({"model": "mlp", "hidden": [65536, 65536]}), 2, folder.path()));
    let (_, reason, message) = failure(&trainer.lines_to_end());
    assert_eq!(reason, FailureKind::OutOfMemory, "{message}");
    trainer.run(&job(&json!({"model": "softmax"}), 2, folder.path()));
    assert_eq!(finish(&trainer.lines_to_end()).step, 2);
}

#[test]
fn a_loss_that_is_no_number_ends_the_attempt_as_diverged_and_names_the_step() {
    let folder = tempfile::tempdir().unwrap();
    // Weights decay by more than themselves: they change their sign and grow ninefold with every step.
    let hot = json!({"model": "mlp", "optimizer": "sgd", "learning_rate": 10.0, "weight_decay": 1.0});
    let mut trainer = Trainer::start();
    let mut seen = Vec::new();
    for (report_every, checkpoint_every) in [(1, 1_000_000), (1000, 1_000_000), (1000, 3)] {
        let mut job = job(&hot, 5000, folder.path());
        job.params.insert("report_every_steps".into(), json!(report_every));
        job.checkpoint.every = Every::Steps(checkpoint_every);
        trainer.run(&job);
        let lines = trainer.lines_to_end();
        let (_, reason, message) = failure(&lines);
        assert_eq!(reason, FailureKind::Diverged);
        if report_every == 1 {
            let last = curve(&lines).pop().unwrap().0;
            assert!(message.ends_with(&format!("at step {}", last + 1)), "{message}, last report {last}");
        }
        seen.push(message);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
}

#[test]
fn noop_finishes_at_once_and_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let mut noop = job(&json!({"model": "noop"}), 30, folder.path());
    noop.params = serde_json::from_value(json!({"model": "noop", "report_every_steps": 10})).unwrap();
    noop.train["data"] = json!(null);
    let mut trainer = Trainer::start();
    trainer.run(&noop);
    let lines = trainer.lines_to_end();
    assert_eq!(curve(&lines).into_iter().map(|(step, _)| step).collect::<Vec<_>>(), [10, 20, 30]);
    assert_eq!(finish(&lines).step, 30);
    noop.train["length"] = json!({"steps": 1_000_000_000_u64});
    trainer.run(&noop);
    trainer.lines_until(is_report);
    trainer.send(&ToTrainer::Stop { epoch: noop.epoch, checkpoint: false });
    assert!(matches!(trainer.lines_to_end().last(), Some(FromTrainer::Stopped { .. })));
}
