//! Misbehaviour on order: `SPOTSWEEP_STUB_FAULT=TRIAL:FAULT@STEP[,…]`, for instance `2:crash@37,5:hang@10`.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Map;
use spotsweep_proto::{
    ids::Epoch,
    line::{CheckpointFiles, FromTrainer},
};
use std::io::Write;

/// What to do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Exit with status 3 and last words on stderr.
    Crash,
    /// Exit with status 0, as if all were done.
    Leave,
    /// Exit with status 1.
    Exit,
    /// Be killed by SIGKILL.
    Kill,
    /// Be killed by a signal.
    Abort,
    /// Do nothing more, for ever.
    Hang,
    /// A line that is no message.
    Garbage,
    /// A line without an end.
    Spew,
    /// Half a message, and the end.
    CutLine,
    /// A line that is no UTF-8.
    NoUtf8,
    /// A message whose fields have other types.
    WrongTypes,
    /// A message in the middle that only a beginning may have.
    StartAgain,
    /// A step that was there before.
    StepBack,
    /// A message about another job.
    OtherEpoch,
    /// A checkpoint that is not the job's own.
    OtherFolder,
    /// Write to stderr for ever.
    Noise,
    /// Write 8 MiB to stderr and go on.
    Chatter,
    /// Report a loss that is not a number.
    Diverge,
    /// Report that memory is out.
    OutOfMemory,
}

impl Fault {
    fn named(name: &str) -> Self {
        match name {
            "crash" => Self::Crash,
            "leave" => Self::Leave,
            "exit" => Self::Exit,
            "kill" => Self::Kill,
            "cut-line" => Self::CutLine,
            "no-utf8" => Self::NoUtf8,
            "wrong-types" => Self::WrongTypes,
            "start-again" => Self::StartAgain,
            "step-back" => Self::StepBack,
            "other-epoch" => Self::OtherEpoch,
            "other-folder" => Self::OtherFolder,
            "noise" => Self::Noise,
            "chatter" => Self::Chatter,
            "abort" => Self::Abort,
            "hang" => Self::Hang,
            "garbage" => Self::Garbage,
            "spew" => Self::Spew,
            "diverge" => Self::Diverge,
            "oom" => Self::OutOfMemory,
            other => panic!("no such fault: {other}"),
        }
    }

    /// Does it in the middle of the job of `epoch`, where it is something that a process does.
    pub fn act(self, epoch: Epoch) {
        let mut stdout = std::io::stdout().lock();
        let report = |epoch, step| {
            super::say(&FromTrainer::Report { epoch, step, data_epoch: 0.0, metrics: Map::new() });
        };
        match self {
            Self::Crash => {
                eprintln!("stub-trainer: last words\u{1b}[31m before the crash");
                std::process::exit(3);
            }
            Self::Leave => std::process::exit(0),
            Self::Exit => std::process::exit(1),
            Self::Kill => drop(kill(Pid::this(), Signal::SIGKILL)),
            Self::Abort => std::process::abort(),
            Self::Hang => loop {
                std::thread::park();
            },
            Self::Garbage => drop(writeln!(stdout, "Epoch 1: loss=0.3 \u{1b}[2J")),
            Self::Spew => forever(stdout, b'x'),
            Self::CutLine => {
                let _gone = stdout.write_all(br#"{"type":"done","epoch":1,"#).and_then(|()| stdout.flush());
                std::process::exit(0);
            }
            Self::NoUtf8 => drop(stdout.write_all(b"{\"type\":\"stopped\",\"\xff\xfe\":1}\n")),
            Self::WrongTypes => {
                drop(writeln!(stdout, r#"{{"type":"report","epoch":"one","step":[],"metrics":3}}"#))
            }
            Self::StartAgain => super::say(&FromTrainer::Started { epoch, step: 0, total_steps: None }),
            Self::StepBack => report(epoch, 1),
            Self::OtherEpoch => report(Epoch(epoch.0 + 1), 1_000),
            Self::OtherFolder => {
                let files = CheckpointFiles::new(1_000, "/etc/passwd", "/etc/group");
                super::say(&FromTrainer::Checkpoint { epoch, files, last: true, held_up_s: None });
            }
            Self::Noise => forever(std::io::stderr().lock(), b'!'),
            Self::Chatter => {
                let mut stderr = std::io::stderr().lock();
                for _ in 0..1 << 10 {
                    let _gone = stderr.write_all(&[b'!'; 1 << 13]).and_then(|()| stderr.write_all(b"\n"));
                }
            }
            Self::Diverge | Self::OutOfMemory => {}
        }
    }
}

fn forever(mut to: impl Write, byte: u8) {
    let chunk = vec![byte; 1 << 16];
    while to.write_all(&chunk).is_ok() {}
}

/// The faults of one trial.
#[derive(Debug)]
pub struct Faults(Vec<(u64, Fault)>);

impl Faults {
    /// Those ordered for trial `number`.
    pub fn from_environment(number: u32) -> Self {
        let orders = std::env::var("SPOTSWEEP_STUB_FAULT").unwrap_or_default();
        let faults = orders.split(',').filter(|order| !order.is_empty()).filter_map(|order| {
            let (trial, rest) = order.split_once(':').expect("TRIAL:FAULT@STEP");
            let (fault, step) = rest.split_once('@').expect("TRIAL:FAULT@STEP");
            let wanted = trial.parse::<u32>().expect("a number") == number;
            wanted.then(|| (step.parse().expect("a number"), Fault::named(fault)))
        });
        Self(faults.collect())
    }

    /// The one at `step`.
    pub fn at(&self, step: u64) -> Option<Fault> {
        self.0.iter().find(|(at, _)| *at == step).map(|(_, fault)| *fault)
    }
}
