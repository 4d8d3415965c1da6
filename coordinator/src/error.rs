//! The errors of the coordinator at its edge: the table that all of Spotsweep's programs share.

pub use spotsweep_wire::error::{Code, Problem, chain};
