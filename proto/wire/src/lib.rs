//! The wire: `spotsweep.v1` as generated from `proto/spotsweep/v1`, and its limits.
//!
//! Wire types stop at the adapter: whoever receives one turns it into a domain type at once, which validates it.
//! This crate must not decide anything.

pub mod error;

/// Generated messages, clients and servers of `spotsweep.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("spotsweep.v1");
}

/// Version of the worker protocol; coordinator and agent must agree.
pub const WORKER_PROTOCOL: u32 = 1;
