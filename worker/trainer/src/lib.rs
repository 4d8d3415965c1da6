//! The trainer: trains one trial at a time with libtorch, as an agent tells it over the line protocol.
//!
//! As a program it is `spotsweep-trainer`. As a library it makes trainers with models and data sets of one's own: describe
//! them, add them to a [`Registry`], and call [`serve`]. See [`registry`] and the example `examples/custom-model`.
//!
//! Owns the models of the ladder, optimizers, the data pipeline, checkpoints of one trial and the training
//! loop. It must not talk gRPC, know leases, sweeps or stores, or decide what is trained: a job says it all.
//!
//! Its promise is that a trial that was interrupted ends with the same bits as one that was not. Three rules
//! carry it: everything random is a function of the seed and of a counter (see [`seed`]), never of a generator
//! that runs on; everything else that a step depends on is in the checkpoint (see [`checkpoint`]); and nothing
//! depends on the clock, except what is written down as a timing. For a trial that several trainers train together (see
//! [`gang`]) there is a fourth: nothing depends on which of them carries what.

pub mod checkpoint;
pub mod contribution;
pub mod data;
pub mod device;
pub mod error;
pub mod evaluate;
pub mod gang;
pub mod init;
pub mod job;
pub mod meter;
pub mod models;
pub mod network;
pub mod noop;
pub mod optim;
pub mod params;
pub mod registry;
pub mod schedule;
pub mod seed;
pub mod serve;
pub mod session;
pub mod shards;

pub use error::TrainError;
pub use models::{Model, Pass, Shape};
pub use params::Params;
pub use registry::{DataDescription, Hyperparameters, MadeData, MadeSamples, ModelDescription, Registry};
pub use serve::serve;
/// The bindings of libtorch: a model of one's own uses these, so that the two versions cannot differ.
pub use tch;
