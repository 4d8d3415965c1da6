//! The pure core of the coordinator: all decisions, and nothing else.
//!
//! `Engine::step(at, event)` takes what happened and says what to do about it. There is no clock (time comes in
//! on the event), no IO, no thread, no randomness of its own, and every iteration order is defined, so the same
//! events always give the same actions: a restart replays them, and a simulator drives them in virtual time.
//! The caller journals an event before it performs any action that came of it.

pub mod action;
pub mod check;
pub mod config;
mod connection;
mod control;
mod engine;
pub mod event;
pub mod explain;
mod gang;
pub mod import;
mod interruptions;
mod lease;
mod notices;
mod placement;
mod queries;
pub mod refs;
mod reports;
mod retention;
mod spec_json;
mod state;
mod sweep;
pub mod time;
mod trial;
pub mod views;
mod worker;

#[cfg(test)]
mod tests;

pub use action::{Action, Refusal, Reply};
pub use check::Violation;
pub use config::Config;
pub use engine::{Engine, RestoreError};
pub use event::Event;
pub use explain::Explanation;
pub use refs::{RequestId, SessionId, SweepId, TrialRef, WorkerId};
pub use time::Time;
pub use views::{SweepState, SweepView, TrialView, WorkerView};
