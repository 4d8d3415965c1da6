//! A storm: agents modelled step by step among disasters, and the promises checked after every step. For tests.

mod agent;
mod coordinator;
mod faults;
mod gang;
mod ledger;
mod mistake;
mod network;
mod oracle;
mod program;
mod seat;
mod store;
mod training;
mod what;
mod world;

pub use mistake::Mistake;
pub(crate) use world::World;
