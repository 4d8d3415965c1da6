//! `spotsweep-trainer`: see the crate `spotsweep_trainer`. An agent starts it; people rarely do.

use spotsweep_trainer::{Registry, serve};
use std::process::ExitCode;

fn main() -> ExitCode {
    serve(Registry::builtin())
}
