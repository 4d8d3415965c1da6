//! Spot machines: a sweep among machines that come and go as a trace says, under the real engine.
//!
//! Agents are coarse here: a few events an attempt, however many steps it has, so that ten thousand of them and a
//! million trials fit into minutes. Promises are checked by [`crate::run`], not here.

mod changes;
mod figures;
mod fit;
mod market;
mod replay;
mod trace;
mod work;

pub use figures::Figures;
pub use fit::ReplayError;
pub use market::Market;
pub use replay::{HORIZON_S, replay};
pub use trace::{TRACE_BYTES, Trace, TraceError};
pub use work::{Duration, Plan};
