//! What the end-to-end tests share: real processes, started, killed and cleaned up.
//!
//! Owns finding and building the binaries, a coordinator and its agents as child processes that end with the
//! test, and waiting on conditions. It must not know how any of them works inside: tests see what users see.

pub mod binaries;
#[cfg(feature = "browser")]
pub mod browser;
pub mod chaos;
pub mod cluster;
pub mod fake_coordinator;
pub mod fake_gang;
pub mod fake_metadata;
pub mod fake_mlflow;
pub mod network;
pub mod outcome;
pub mod proxy;
pub mod small_disk;
pub mod stub;
pub mod terminal;
pub mod wait;

pub use cluster::{Cluster, Trainer};
pub use outcome::Outcome;
pub use small_disk::SmallDisk;
