//! What clients are shown: one source of answers for gRPC and for folders on which no coordinator runs.

pub mod messages;
