//! The coordinator: everything around the pure engine.
//!
//! `driver` is the one loop (receive, journal, step, perform), `store` the journal and the history, `grpc` the
//! services, `http` the web page and its API, `cli` the command line, `export` what other programs read, `import` the way back, `sinks` the same while a sweep runs, `report` a sweep on a page, `logs` what attempts printed, `data` the data sets on this machine, `queries` what clients are shown, `objects` the checkpoints' store, `server` all of it together.
//! Decisions belong to `spotsweep-engine`, never here.

pub mod cli;
pub mod data;
pub mod driver;
pub mod error;
mod export;
pub mod grpc;
pub mod http;
mod import;
pub mod logs;
pub mod objects;
pub mod orders;
pub mod queries;
mod report;
pub mod server;
pub mod sinks;
pub mod store;
pub mod told;

pub use error::{Code, Problem};
