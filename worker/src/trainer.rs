//! What the agent needs of whatever trains: one [`Trainer`] per device, given by [`Trainers`].
//!
//! The agent's one task calls these without waiting; a trainer does its work elsewhere and is polled for what
//! happened. While reports cannot be delivered and the agent's buffer is full, it stops polling: the trainer
//! then has to hold its events back.

use crate::{
    attempt::{Attempt, LeaseKey, ReportBody},
    gang::{GangNews, GangPlace, StoreQuestion},
};
use futures::future::BoxFuture;
use spotsweep_proto::{catalogue::OwnCatalogue, gang::StoreValue, ids::DeviceName};
use std::{
    path::PathBuf,
    task::{Context, Poll},
};
use tokio::time::Instant;

mod ahead;
mod carrier;
mod child;
mod course;
mod devices;
mod memory;
pub(crate) mod noop;
mod pipe;
pub(crate) mod process;
mod rank;
pub(crate) mod retries;
mod runner;
mod stderr;
mod supply;
mod uploads;
mod watch;

pub(crate) use carrier::Carrier;
pub(crate) use child::Death;
pub(crate) use course::{Course, End};
pub(crate) use memory::OomWatch;
pub(crate) use pipe::PipeError;
pub(crate) use process::{GangSettings, ProcessSettings, RunnerCommand};
pub(crate) use rank::Gang;
pub(crate) use stderr::{LastLines, failure_text};

/// What can train here, and with what.
#[derive(Debug, Clone, Default)]
pub struct Equipment {
    /// Version of libtorch, or empty.
    pub libtorch: String,
    /// The devices that shall be used; not empty.
    pub devices: Vec<FoundDevice>,
    /// There is no trainer: programs of users are carried out and nothing else.
    pub programs_only: bool,
    /// Models and data sets that the trainer has besides those of Spotsweep.
    pub catalogue: OwnCatalogue,
    /// A folder of the agent's own for what memory has no room for, where there is one; it goes with the trainers.
    pub scratch: Option<PathBuf>,
}

/// A device to train on.
#[derive(Debug, Clone)]
pub struct FoundDevice {
    /// `cpu`, `cuda:0`, …
    pub name: DeviceName,
    /// For instance `NVIDIA H200`.
    pub model: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// Finds devices and gives a trainer for each.
pub trait Trainers: Send {
    /// Finds the devices; called once, first.
    fn find(&mut self) -> BoxFuture<'_, Result<Equipment, TrainerError>>;

    /// The trainer of a device that was found; called once for each.
    fn open(&mut self, device: &FoundDevice) -> Box<dyn Trainer>;
}

/// Trains on one device, one attempt at a time.
pub trait Trainer: Send {
    /// Begin. The device is idle: every attempt before has ended with its final report or
    /// [`TrainerEvent::Dropped`].
    fn start(&mut self, attempt: Attempt);

    /// This attempt comes next, while another one trains: what it needs may be fetched meanwhile.
    fn prepare(&mut self, _attempt: &Attempt) {}

    /// Stop the attempt under `lease`; nothing happens if it has ended already (the two may cross). A later
    /// [`HowToStop::Discard`] overrules an earlier order to checkpoint, and an earlier deadline a later one.
    fn stop(&mut self, lease: LeaseKey, how: HowToStop);

    /// The gang of the attempt under `lease` has a new make-up; nothing happens if the attempt has ended. A place without
    /// a rank makes it leave behind the next step and report [`ReportBody::Released`].
    fn regang(&mut self, lease: LeaseKey, place: GangPlace);

    /// The answer to the question `id` of the attempt under `lease`; `None`: nothing will ever be set.
    fn answer(&mut self, lease: LeaseKey, id: u64, value: Option<StoreValue>);

    /// What happened next.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<TrainerEvent>;

    /// Ends the trainer, whatever it does.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// How an attempt is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HowToStop {
    /// Write and store a checkpoint, then report [`ReportBody::Released`].
    Checkpoint,
    /// The same, with all done by then: what surely cannot be stored in time is left out, and the attempt goes back
    /// with the newest checkpoint that is stored.
    CheckpointBy(Instant),
    /// Keep nothing and report nothing; [`TrainerEvent::Dropped`] ends it.
    Discard,
}

/// What a trainer says.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainerEvent {
    /// Something to report. A final body ends the attempt; the device is idle.
    Report(LeaseKey, ReportBody),
    /// The attempt was stopped with [`HowToStop::Discard`]; the device is idle.
    Dropped(LeaseKey),
    /// How the make-up of the attempt's gang stands.
    Gang(LeaseKey, GangNews),
    /// A question to the rendezvous store of the attempt's gang.
    Ask(LeaseKey, StoreQuestion),
    /// Whether leases make sense now: false while the trainer cannot be started. True at first.
    Available(bool),
}

/// Why there is no trainer.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    /// The program is not there.
    #[error("there is no trainer program at {path}\nhint: {hint}")]
    Missing {
        /// Where it was looked for.
        path: String,
        /// What to do.
        hint: String,
    },
    /// The agent has no trainer, and was given a model of the catalogue to train.
    #[error(
        "this agent has no trainer: it carries out programs alone\nhint: start it without `--trainer none`"
    )]
    None,
    /// The program did not become ready.
    #[error("the trainer {program} did not become ready: {reason}")]
    NotReady {
        /// The program.
        program: String,
        /// What it did instead.
        reason: String,
    },
    /// The device that was asked for is not there.
    #[error(
        "the trainer has no device {wanted}; it has {found}\nhint: choose one of these with --device, or auto"
    )]
    NoDevice {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// The scratch folder is not usable.
    #[error("the folder {path} cannot be used\nhint: give another one with --dir")]
    Scratch {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
