//! A user's own program as a trainer: what a sweep file says of it, and what program and agent say to each other. No IO.
//!
//! The agent starts the program once for each attempt, in a process group and a working folder of its own. What it prints
//! is its own affair; to the agent it speaks through two named pipes whose paths stand in its environment. Both carry the
//! messages of [`crate::line`], one JSON object a line, in which `epoch` may be left out: a program has one job in its life.

use crate::digest::Digest;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

mod command;
mod params;

pub use command::{
    COMMAND_BYTES, CommandError, DEFAULT_COMMAND, ENV, INTERPRETER, MACROS, Surroundings, args_json,
    check_part, command, shown,
};
pub use params::nested;

/// Environment variables that a program finds.
pub mod variable {
    /// Path of the named pipe into which the program writes lines for the agent. Absent outside of Spotsweep.
    pub const TO_AGENT: &str = "SPOTSWEEP_TO_AGENT";
    /// Path of the named pipe from which the program reads lines of the agent, if it cares to.
    pub const FROM_AGENT: &str = "SPOTSWEEP_FROM_AGENT";
    /// Path of a JSON file with the whole job, a `ProgramJob`.
    pub const JOB: &str = "SPOTSWEEP_JOB";
    /// Path of a JSON file with the parameters alone, nested as in the sweep file.
    pub const PARAMS: &str = "SPOTSWEEP_PARAMS";
    /// Path at which a file appears once the program shall checkpoint and end: SIGTERM says the same.
    pub const STOP: &str = "SPOTSWEEP_STOP";
    /// Path of a folder with the checkpoint to resume from; absent at the start of a trial.
    pub const RESUME: &str = "SPOTSWEEP_RESUME";
    /// Path of an empty folder in which to write checkpoints, each a folder of its own.
    pub const CHECKPOINTS: &str = "SPOTSWEEP_CHECKPOINTS";
    /// The trial, `sweep/number`.
    pub const TRIAL: &str = "SPOTSWEEP_TRIAL";
    /// The lease's epoch, which stands in the environment of all that the program starts, so that nothing is left behind.
    pub const ATTEMPT: &str = "SPOTSWEEP_ATTEMPT";

    // Where several workers train one trial, each rank finds these besides, as `torchrun` sets them
    // (PyTorch, "torchrun (Elastic Launch)", Environment Variables).

    /// Address at which the other ranks reach rank 0.
    pub const MASTER_ADDR: &str = "MASTER_ADDR";
    /// Port that was free at that address a moment ago, on which rank 0 listens.
    pub const MASTER_PORT: &str = "MASTER_PORT";
    /// This rank, from 0.
    pub const RANK: &str = "RANK";
    /// How many ranks there are.
    pub const WORLD_SIZE: &str = "WORLD_SIZE";
    /// This rank among those of its agent and device, which it has for itself: 0.
    pub const LOCAL_RANK: &str = "LOCAL_RANK";
    /// How many those are: 1.
    pub const LOCAL_WORLD_SIZE: &str = "LOCAL_WORLD_SIZE";
    /// Number of this rank's agent among those of the trial: its rank.
    pub const GROUP_RANK: &str = "GROUP_RANK";
}

/// Whether the agent sets a variable of this name where several workers train one trial.
#[must_use]
pub fn is_of_ranks(name: &str) -> bool {
    use variable::{GROUP_RANK, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE};
    [MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, GROUP_RANK].contains(&name)
}

/// Seconds from SIGTERM to SIGKILL where the sweep says nothing and no notice leaves less.
pub const GRACE_S: f64 = 30.0;
/// Most arguments of a command.
pub const COMMAND_PARTS: usize = 1024;
/// Longest argument of a command, in bytes.
pub const COMMAND_PART_BYTES: usize = 64 << 10;
/// Largest packed code folder, in bytes.
pub const CODE_BYTES: u64 = 256 << 20;
/// Most files in a packed code folder.
pub const CODE_FILES: usize = 20_000;
/// Largest piece of an archive in one message, in bytes.
pub const CODE_PIECE_BYTES: usize = 4 << 20;
/// Bytes of a program's output that are kept where the sweep says nothing.
pub const OUTPUT_BYTES: u64 = 16 << 20;

/// Largest compiled expression of [`MetricsFrom::Stdout`], in bytes.
const PATTERN_COMPILED_BYTES: usize = 1 << 20;

/// Compiles the expression of [`MetricsFrom::Stdout`]: what was accepted in a sweep file is accepted by every worker.
///
/// # Errors
/// It is none, or too large when compiled.
pub fn compile_pattern(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(PATTERN_COMPILED_BYTES).build()
}

/// What a sweep trains if not a model of the catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgramSection {
    /// The script or executable, relative to the code folder (else to the agent's working folder): `${program}`.
    pub program: Option<String>,
    /// The command with its macros; never empty.
    pub command: Vec<String>,
    /// Parameters that hold others, by their full names: what a dot in a parameter's name separates.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// The packed code folder, once it lies in the object store.
    pub code: Option<Code>,
    /// How metrics come to the agent.
    pub metrics: MetricsFrom,
    /// Modules that stand in front of the program's own libraries.
    pub compat: Option<Compat>,
    /// Environment variables of the program, besides the agent's own.
    pub environment: BTreeMap<String, String>,
    /// Limits of one attempt.
    pub limits: ProgramLimits,
}

impl ProgramSection {
    /// A command, and all else as a sweep file has it that says nothing more.
    #[must_use]
    pub fn of_command(command: Vec<String>) -> Self {
        Self {
            program: None,
            command,
            groups: BTreeSet::new(),
            code: None,
            metrics: MetricsFrom::Reports,
            compat: None,
            environment: BTreeMap::new(),
            limits: ProgramLimits::default(),
        }
    }
}

/// A packed code folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// BLAKE3 of the archive.
    pub digest: Digest,
    /// Length of the archive in bytes.
    pub bytes: u64,
}

impl Code {
    /// Path of the archive below the root of the object store. Beside the objects of checkpoints and not among them, so that
    /// deleting a checkpoint can never take code along, whatever the program put into it.
    #[must_use]
    pub fn path(&self) -> String {
        Self::path_of(&self.digest)
    }

    /// As [`Self::path`], for what is known by its digest alone.
    #[must_use]
    pub fn path_of(digest: &Digest) -> String {
        format!("code/{}", crate::checkpoint::object_path(digest))
    }
}

/// Where a program's metrics come from, besides the reports that it writes into [`variable::TO_AGENT`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum MetricsFrom {
    /// From nowhere else.
    Reports,
    /// From the lines that it prints.
    Stdout {
        /// A regular expression with a group `step`, and a group for each metric or the groups `name` and `value`.
        pattern: String,
    },
    /// From the event files of TensorBoard.
    Tensorboard {
        /// The folder, relative to the working folder.
        dir: String,
    },
}

/// Modules that stand in front of a program's own libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    /// A small `wandb` of our own.
    Wandb,
}

/// Limits of one attempt of a program.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ProgramLimits {
    /// Memory of all its processes together, in bytes.
    pub memory_bytes: Option<u64>,
    /// Files that it leaves in its working folder, in bytes.
    pub disk_bytes: Option<u64>,
    /// Output that is kept, in bytes: its beginning and its end.
    pub output_bytes: u64,
    /// Time of one attempt, in seconds.
    pub time_s: Option<f64>,
    /// From SIGTERM to SIGKILL, in seconds.
    pub grace_s: f64,
}

impl Default for ProgramLimits {
    fn default() -> Self {
        Self {
            memory_bytes: None,
            disk_bytes: None,
            output_bytes: OUTPUT_BYTES,
            time_s: None,
            grace_s: GRACE_S,
        }
    }
}
