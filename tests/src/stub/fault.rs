//! Misbehaviour on order: `SPOTSWEEP_STUB_FAULT=TRIAL:FAULT@STEP[,…]`, for instance `2:crash@37,5:hang@10`.

use std::io::Write as _;

/// What to do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Exit with status 3 and last words on stderr.
    Crash,
    /// Be killed by a signal.
    Abort,
    /// Do nothing more, for ever.
    Hang,
    /// A line that is no message.
    Garbage,
    /// A line without an end.
    Spew,
    /// Report a loss that is not a number.
    Diverge,
    /// Report that memory is out.
    OutOfMemory,
}

impl Fault {
    fn named(name: &str) -> Self {
        match name {
            "crash" => Self::Crash,
            "abort" => Self::Abort,
            "hang" => Self::Hang,
            "garbage" => Self::Garbage,
            "spew" => Self::Spew,
            "diverge" => Self::Diverge,
            "oom" => Self::OutOfMemory,
            other => panic!("no such fault: {other}"),
        }
    }

    /// Does it, where it is something that a process does.
    pub fn act(self) {
        let mut stdout = std::io::stdout().lock();
        match self {
            Self::Crash => {
                eprintln!("stub-trainer: last words\u{1b}[31m before the crash");
                std::process::exit(3);
            }
            Self::Abort => std::process::abort(),
            Self::Hang => loop {
                std::thread::park();
            },
            Self::Garbage => drop(writeln!(stdout, "Epoch 1: loss=0.3 \u{1b}[2J")),
            Self::Spew => {
                let chunk = [b'x'; 1 << 16];
                while stdout.write_all(&chunk).is_ok() {}
            }
            Self::Diverge | Self::OutOfMemory => {}
        }
    }
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
