//! The agent: takes leases from a coordinator, has trainers do the work, and reports.
//!
//! Owns the session with the coordinator (leases held, numbered reports, reconnects), the supervision of one
//! trainer process per device, the way of checkpoints between a trainer's files and the object store, notices that
//! the machine will be taken, and what is known about the machine. It must not know libtorch (that is the trainer's) nor decide who trains what
//! (that is the engine's).
//!
//! [`Agent::new`]`(config, trainers).`[`run`](Agent::run)`(shutdown)` is a whole agent. It is one task, so that
//! hundreds run in one process; with [`NoopTrainers`] they do everything but train.

mod address;
mod agent;
mod attempt;
mod attempt_log;
mod backoff;
mod checkpoints;
mod data;
mod errors;
mod gang;
mod hello;
mod interval;
mod link;
mod machine;
mod module;
mod notice;
mod pace;
mod program;
mod python;
mod reports;
mod scratch;
mod session;
mod speed;
mod trainer;
mod warned;
mod wire;

pub use address::GangAddress;
pub use agent::{Agent, AgentConfig, AgentError, Drain};
pub use attempt::{Attempt, CheckpointRef, LeaseKey, Progress, ReportBody, Sweep, SweepNumber, TrialRef};
pub use attempt_log::AttemptLog;
pub use data::{DATA_CACHE_BYTES, DataFolders};
pub use gang::{GangNews, GangPlace, StoreQuestion};
pub use machine::Machine;
pub use notice::{NoticeChoice, NoticeError, NoticeSettings, Notices};
pub use program::{GUARD_ARGUMENT, become_reaper, guard_programs};
pub use trainer::{
    Equipment, FoundDevice, HowToStop, Trainer, TrainerError, TrainerEvent, Trainers,
    noop::NoopTrainers,
    process::{DeviceChoice, GangSettings, ProcessSettings, ProcessTrainers},
};
