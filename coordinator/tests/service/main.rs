//! The coordinator as its clients and agents see it: real gRPC on loopback, a real journal, in this process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: what is not there is a failure")]

mod agent;
mod arbitrary;
mod bystander;
mod code;
mod hostile;
mod http;
mod logs;
mod modules;
mod place;
mod raw;
mod rendezvous;
mod schema;
mod sweeps;
mod wrong;
