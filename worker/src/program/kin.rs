//! Who belongs to a program: finding and ending all that it started, whatever it forked. Knows nothing of jobs.
//!
//! The agent's process is a *child subreaper* (prctl(2), PR_SET_CHILD_SUBREAPER): a process whose parent ends becomes the
//! agent's child, however often it forked and whatever session it made. So once a program's own process has ended, all that
//! it left behind hangs below the agent, and is told from the agent's other children by its environment, in which the job's
//! folder stands. What cannot be found is what another service started for it (a container engine, systemd-run, at); and,
//! while other programs run beside it, what also wiped its environment: that is found once the agent has no program.

use nix::{
    errno::Errno,
    sys::{
        prctl::set_child_subreaper,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};

/// Variables that mark a process as a program's begin so.
const PREFIX: &[u8] = b"SPOTSWEEP_";
/// Bytes of an environment that are looked at: the kernel's own limit for one string is 128 KiB.
const ENVIRONMENT_BYTES: u64 = 4 << 20;
/// Processes of one program that are looked at, and its deepest descent.
const FAMILY: usize = 65_536;
/// Longest time for ending what a program left: killed processes end as soon as the kernel lets them.
const END_LIMIT: Duration = Duration::from_secs(20);
/// First wait between two looks; doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_micros(200);
/// Longest wait between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Whether this process is the reaper of all that its children start, and has no child but by [`spawn`].
static REAPER: AtomicBool = AtomicBool::new(false);
/// Children that the agent itself started and has not waited for.
static KNOWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
/// Programs that run.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Makes this process the one to which orphans of its programs fall. For a process that starts no children but the agent's.
pub fn become_reaper() {
    match set_child_subreaper(true) {
        Ok(()) => REAPER.store(true, Ordering::SeqCst),
        Err(error) => {
            tracing::warn!(%error, "processes that programs leave behind are found by their environment alone")
        }
    }
}

fn known() -> MutexGuard<'static, BTreeSet<i32>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child of the agent's own.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    // Held across the spawn, so that nobody takes the child for an orphan.
    let mut known = known();
    let child = command.spawn()?;
    known.extend(child.id().and_then(|id| i32::try_from(id).ok()));
    Ok(child)
}

/// The child has been waited for: its number may become another's.
pub(crate) fn forget(pid: Option<Pid>) {
    if let Some(pid) = pid {
        known().remove(&pid.as_raw());
    }
}

/// A program that runs, as far as counting them goes.
#[derive(Debug)]
pub(crate) struct Running(());

impl Running {
    pub(crate) fn one() -> Self {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The processes of one job, or of a whole agent: those that have its folder in their environment.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    folder: PathBuf,
}

impl Family {
    pub(crate) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// All of them, `main` and what descends from it among them.
    pub(crate) fn members(&self, main: Option<Pid>) -> Vec<Pid> {
        let mut found: BTreeSet<i32> = main.into_iter().flat_map(|main| descent(main.as_raw())).collect();
        found.extend(self.left(false).iter().map(|pid| pid.as_raw()));
        found.into_iter().map(Pid::from_raw).collect()
    }

    /// Kills what is left once the program's own process is gone, until nothing is; gives how many would not end.
    pub(crate) async fn end(&self) -> usize {
        let since = Instant::now();
        let mut pause = PAUSE;
        loop {
            let left = self.kill_left();
            if left == 0 || since.elapsed() > END_LIMIT {
                return left;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One look: kills whatever is left; gives how many that were.
    pub(crate) fn kill_left(&self) -> usize {
        let left = self.left(true);
        for pid in &left {
            for member in descent(pid.as_raw()) {
                // An error means that it is gone.
                let _gone = kill(Pid::from_raw(member), Signal::SIGKILL);
            }
            reap(*pid);
        }
        left.len()
    }

    /// Tops of what the program left; `ending` takes also those whose origin nobody can tell, if they can only be its.
    fn left(&self, ending: bool) -> Vec<Pid> {
        if !REAPER.load(Ordering::SeqCst) {
            return self.everywhere();
        }
        let alone = ending && RUNNING.load(Ordering::SeqCst) <= 1;
        let known = known();
        let mut left = Vec::new();
        for child in children(own_pid()).into_iter().filter(|child| !known.contains(child)) {
            match self.owns(child) {
                Owner::This => left.push(Pid::from_raw(child)),
                Owner::Nobody if alone => left.push(Pid::from_raw(child)),
                Owner::Nobody | Owner::Another => {}
                Owner::Dead => reap(Pid::from_raw(child)),
            }
        }
        left
    }

    /// Those on the whole machine that have the folder in their environment.
    fn everywhere(&self) -> Vec<Pid> {
        let own = own_pid();
        processes().filter(|pid| *pid != own && self.owns(*pid) == Owner::This).map(Pid::from_raw).collect()
    }

    /// Kills those on the whole machine that have the folder in their environment, for an agent that died.
    pub(crate) fn kill_everywhere(&self) -> usize {
        let found = self.everywhere();
        for pid in &found {
            let _gone = kill(*pid, Signal::SIGKILL);
        }
        found.len()
    }

    fn owns(&self, pid: i32) -> Owner {
        let file = fs::File::open(format!("/proc/{pid}/environ"));
        let mut environment = Vec::new();
        match file.and_then(|file| file.take(ENVIRONMENT_BYTES).read_to_end(&mut environment)) {
            Ok(0) if is_zombie(pid) => return Owner::Dead,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Owner::Dead,
            // Also one that runs as somebody else.
            Ok(_) | Err(_) => {}
        }
        let folder = self.folder.as_os_str().as_encoded_bytes();
        let mut marked = false;
        for entry in environment.split(|byte| *byte == 0).filter(|entry| entry.starts_with(PREFIX)) {
            marked |= entry.starts_with(b"SPOTSWEEP_ATTEMPT=");
            let value = entry.iter().position(|byte| *byte == b'=').map_or(&[][..], |at| &entry[at + 1..]);
            if value.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/")) {
                return Owner::This;
            }
        }
        if marked { Owner::Another } else { Owner::Nobody }
    }
}

/// To whom a process belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    This,
    Another,
    /// Its environment names no program.
    Nobody,
    Dead,
}

/// Takes the end of an orphan, if it has ended.
fn reap(pid: Pid) {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        // Not the agent's child, or not ended: seen again with the next look.
        Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => {}
        Ok(_) | Err(_) => {}
    }
}

fn own_pid() -> i32 {
    Pid::this().as_raw()
}

fn is_zombie(pid: i32) -> bool {
    stat(pid).is_none_or(|(state, _)| matches!(state, b'Z' | b'X'))
}

/// State and parent of a process. Its name, which may hold anything, ends at the last parenthesis (proc(5)).
fn stat(pid: i32) -> Option<(u8, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.bytes().next()?, fields.next()?.parse().ok()?))
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Children of a process, living or not. The kernel lists them by thread, where it is built to.
fn children(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        match fs::read_to_string(task.path().join("children")) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            Err(_) if !Path::new("/proc/self/task").join(own_pid().to_string()).join("children").exists() => {
                return processes()
                    .filter(|child| stat(*child).is_some_and(|(_, parent)| parent == pid))
                    .collect();
            }
            // The thread has ended.
            Err(_) => {}
        }
    }
    found
}

/// A process and all that descends from it.
fn descent(top: i32) -> Vec<i32> {
    let mut found = vec![top];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        found.extend(children(pid));
        if found.len() > FAMILY {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_has_the_folder_in_its_environment_is_found_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let start = |value: PathBuf| {
            let mut command = Command::new("sleep");
            command.arg("600").env("SPOTSWEEP_TO_AGENT", value).stdin(Stdio::null());
            command.spawn().unwrap()
        };
        let mut mine = start(folder.path().join("to-agent"));
        let mut others = start(folder.path().with_extension("other").join("to-agent"));
        let family = Family::of(folder.path());
        assert_eq!(family.everywhere(), [Pid::from_raw(mine.id().cast_signed())]);
        assert_eq!(family.kill_everywhere(), 1);
        mine.wait().unwrap();
        assert_eq!(family.kill_everywhere(), 0);
        assert!(others.try_wait().unwrap().is_none());
        others.kill().unwrap();
        others.wait().unwrap();
    }

    #[test]
    fn the_descent_of_a_process_is_found() {
        let mut top = Command::new("sh").args(["-c", "sleep 600 & sleep 600 & wait"]).spawn().unwrap();
        let pid = top.id().cast_signed();
        let all = loop {
            let all = descent(pid);
            if all.len() == 3 {
                break all;
            }
            std::thread::yield_now();
        };
        for pid in all {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        top.wait().unwrap();
        assert!(children(own_pid()).iter().all(|child| *child != pid));
    }
}
