//! The coordinator as its clients and agents see it: real gRPC on loopback, a real journal, in this process.

mod agent;
mod place;
mod sweeps;
mod wrong;
