//! The guard: a process of the agent's program that outlives the agent by a moment, and kills the programs that a dead
//! agent left. One for each agent, started with its first program, so that a program costs no process more than itself.
//! (A signal at the parent's death, PR_SET_PDEATHSIG, would reach the program alone and not what it started.)

use super::kin::{Family, spawn};
use nix::sys::signal::SigSet;
use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};

/// The first argument with which the agent's program becomes the guard; the second is the agent's folder.
pub const GUARD_ARGUMENT: &str = "--guard-programs-below";
/// Looks in which nothing was found, after which nothing is left: one that was being started may show up late.
const QUIET_LOOKS: u32 = 3;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// The guard gives up on processes that do not end in this time.
const LIMIT: Duration = Duration::from_secs(30);

/// A guard that watches. Dropping it tells it that the agent is gone.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
}

impl Guard {
    /// Starts it for all programs whose folders lie below `folder`.
    pub(crate) fn start(program: &PathBuf, folder: &Path) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        command.arg(GUARD_ARGUMENT).arg(folder).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Ok(Self { child: spawn(&mut command)? })
    }

    /// Whether it still watches.
    pub(crate) fn watches(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

/// Waits until stdin ends, which only the agent's death does, and then kills what is left below `folder`.
pub fn guard_programs(folder: &Path) {
    // It must outlive what is told to its agent. A signal that cannot be kept off ends it like anybody.
    let _kept_off = SigSet::all().thread_block();
    let mut ignored = [0; 64];
    let mut stdin = std::io::stdin().lock();
    while stdin.read(&mut ignored).is_ok_and(|bytes| bytes > 0) {}
    kill_below(folder);
}

/// Kills all programs whose folders lie below `folder`.
pub(crate) fn kill_below(folder: &Path) {
    let family = Family::of(folder);
    let (since, mut quiet) = (Instant::now(), 0);
    while quiet < QUIET_LOOKS && since.elapsed() < LIMIT {
        quiet = if family.kill_everywhere() == 0 { quiet + 1 } else { 0 };
        if quiet < QUIET_LOOKS {
            thread::sleep(PAUSE);
        }
    }
}
