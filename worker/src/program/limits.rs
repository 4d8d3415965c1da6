//! What a program may take of its machine, looked at from time to time: memory of all its processes together, and the disk
//! below its folder. Between two looks it may take more; what it takes elsewhere is not seen.

use super::kin::Family;
use crate::attempt::Failure;
use nix::unistd::Pid;
use spotsweep_proto::{line::FailureKind, program::ProgramLimits};
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::{sync::oneshot, task::JoinHandle};

/// Between two looks at memory.
const MEMORY_EVERY: Duration = Duration::from_millis(200);
/// Between two looks at the disk.
const DISK_EVERY: Duration = Duration::from_millis(500);
/// A look at the disk is followed by a wait of so many times what it took.
const DISK_SHARE: u32 = 20;
/// Files that are looked at.
const FILES: usize = 1_000_000;

/// Looks after the limits of one attempt.
#[derive(Debug)]
pub(crate) struct Limits {
    passed: Option<oneshot::Receiver<Failure>>,
    task: Option<JoinHandle<()>>,
}

impl Limits {
    pub(crate) fn watch(limits: &ProgramLimits, main: Pid, family: Family, folders: Vec<PathBuf>) -> Self {
        if limits.memory_bytes.is_none() && limits.disk_bytes.is_none() {
            return Self { passed: None, task: None };
        }
        let (sender, passed) = oneshot::channel();
        let limits = *limits;
        let task = tokio::spawn(async move {
            let (mut next_disk, start) = (Instant::now(), Instant::now());
            loop {
                let (family, folders) = (family.clone(), folders.clone());
                let look_at_disk = Instant::now() >= next_disk;
                let look = tokio::task::spawn_blocking(move || {
                    look(&limits, main, &family, look_at_disk.then_some(&folders[..]))
                });
                let Ok((passed, took)) = look.await else { return };
                if let Some(passed) = passed {
                    tracing::info!(kind = ?passed.kind, after_s = start.elapsed().as_secs_f64(), "a program passed a limit");
                    // Nobody wants to know any more.
                    let _gone = sender.send(passed);
                    return;
                }
                if let Some(took) = took {
                    next_disk = Instant::now() + DISK_EVERY.max(took * DISK_SHARE);
                }
                tokio::time::sleep(MEMORY_EVERY).await;
            }
        });
        Self { passed: Some(passed), task: Some(task) }
    }

    /// The limit that was passed; waits for ever if none is.
    pub(crate) async fn passed(&mut self) -> Failure {
        if let Some(passed) = &mut self.passed {
            let passed = passed.await;
            self.passed = None;
            if let Ok(passed) = passed {
                return passed;
            }
        }
        std::future::pending().await
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn look(
    limits: &ProgramLimits,
    main: Pid,
    family: &Family,
    folders: Option<&[PathBuf]>,
) -> (Option<Failure>, Option<Duration>) {
    if let Some(limit) = limits.memory_bytes {
        let members = family.members(Some(main));
        let taken = || members.iter().map(|pid| resident_bytes(*pid)).sum::<u64>();
        // Pages that several processes share count once, which costs more to find out.
        if taken() > limit && members.iter().map(|pid| proportional_bytes(*pid)).sum::<u64>() > limit {
            let message = format!("its processes take more memory than limits.memory allows, {limit} bytes");
            return (Some(Failure { kind: FailureKind::OutOfMemory, message }), None);
        }
    }
    let (Some(limit), Some(folders)) = (limits.disk_bytes, folders) else { return (None, None) };
    let since = Instant::now();
    let taken = folders.iter().map(|folder| disk_bytes(folder)).sum::<u64>();
    let passed = (taken > limit).then(|| Failure {
        kind: FailureKind::Storage,
        message: format!("its files take more of the disk than limits.disk allows, {limit} bytes"),
    });
    (passed, Some(since.elapsed()))
}

/// Memory of a process, shared pages included, in bytes; 0 if it is gone.
fn resident_bytes(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kilobytes(&text, "VmRSS:").unwrap_or(0)
}

/// The same, each shared page counting in part to each process that shares it.
fn proportional_bytes(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    kilobytes(&text, "Pss:").unwrap_or_else(|| resident_bytes(pid))
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.split_ascii_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// Blocks below a folder, in bytes.
fn disk_bytes(folder: &Path) -> u64 {
    let (mut bytes, mut files, mut folders) = (0, 0, vec![folder.to_owned()]);
    while let Some(within) = folders.pop() {
        for entry in fs::read_dir(within).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.path().symlink_metadata() else { continue };
            bytes += metadata.blocks() * 512;
            files += 1;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            if files > FILES {
                return bytes;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_disk_are_measured() {
        assert!(resident_bytes(Pid::this()) > 1 << 20);
        assert!(proportional_bytes(Pid::this()) > 1 << 18);
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(folder.path().join("deep/file"), vec![1; 100_000]).unwrap();
        assert!((100_000..200_000).contains(&disk_bytes(folder.path())));
        assert_eq!(disk_bytes(&folder.path().join("absent")), 0);
    }
}
