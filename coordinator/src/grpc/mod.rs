//! The services over gRPC: conversions at the edge, and what is served.

pub mod from_worker;
