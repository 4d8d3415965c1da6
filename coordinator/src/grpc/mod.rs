//! The services over gRPC: conversions at the edge, and what is served.

pub mod control;
pub mod from_worker;
pub mod to_worker;
mod watch;
pub mod worker;
