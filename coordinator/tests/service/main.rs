//! The coordinator as its clients and agents see it: real gRPC on loopback, a real journal, in this process.

mod agent;
mod arbitrary;
mod bystander;
mod hostile;
mod place;
mod raw;
mod sweeps;
mod wrong;
