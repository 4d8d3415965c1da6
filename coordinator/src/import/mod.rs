//! Exports as JSON on their way back: what is refused, and why, by file and line.
//!
//! Reads bytes and gives parts for the engine ([`reader::Reader`]), the same for the command line, which looks through an
//! export before it sends it, and for the coordinator, which believes nobody. Must not do IO or know where bytes come from.

mod head;
mod lines;
mod reader;
#[cfg(test)]
mod tests;

pub(crate) use head::{Head, MANIFEST_BYTES};
pub(crate) use reader::Reader;

use crate::error::{Code, Problem};

/// The hint for what was altered or cut off.
const AGAIN: &str =
    "export the sweep again with `spotsweep export SWEEP --as json --to DIR`; an edited export is not taken";

/// What is wrong with a file of an export, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {what}", if *line > 0 { format!(", line {line}") } else { String::new() })]
pub(crate) struct Damage {
    /// The file.
    pub(crate) file: &'static str,
    /// The line, from 1; 0 for the whole file.
    pub(crate) line: u64,
    /// What is wrong.
    pub(crate) what: String,
}

impl From<Damage> for Problem {
    fn from(damage: Damage) -> Self {
        Self::new(Code::Damaged, damage.to_string()).hint(AGAIN)
    }
}
