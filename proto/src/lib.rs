//! The contract: what coordinator, agent and trainer share.
//!
//! Owns the words of the domain (ids, values, units), the sweep specification and its validation, the search
//! space, the catalogue of models, and the line protocol between agent and trainer. It must not do IO, know
//! gRPC (that is `spotsweep-wire`), or depend on tokio or libtorch: the pure engine and the trainer both
//! stand on it.

pub mod catalogue;
pub mod checkpoint;
pub mod datasets;
pub mod digest;
pub mod event_file;
pub mod gang;
pub mod ids;
pub mod last_lines;
pub mod limits;
pub mod line;
pub mod metric;
pub mod module;
pub mod notice;
pub mod program;
pub mod spec;
pub mod train;
pub mod value;
