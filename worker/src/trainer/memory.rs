//! Whether a trainer died because memory ran out, from what the system and its own words say.

use std::{fs, path::PathBuf};

/// Words by which programs say that they got no memory, in lower case.
const SAYINGS: [&str; 5] = [
    "out of memory",
    "std::bad_alloc",
    "cannot allocate memory",
    "can't allocate memory",
    "memory allocation of",
];

/// The kernel's count of processes killed in this control group because its memory ran out, as it was when a
/// trainer started.
#[derive(Debug)]
pub(crate) struct OomWatch {
    file: Option<PathBuf>,
    kills: u64,
}

impl OomWatch {
    pub(crate) fn start() -> Self {
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let file = events_file(&membership).filter(|path| path.exists());
        let kills = file.as_ref().map_or(0, read_kills);
        Self { file, kills }
    }

    /// Whether the kernel has killed since.
    pub(crate) fn killed(&self) -> bool {
        self.file.as_ref().is_some_and(|file| read_kills(file) > self.kills)
    }
}

fn read_kills(file: &PathBuf) -> u64 {
    parse_kills(&fs::read_to_string(file).unwrap_or_default())
}

/// `memory.events` of control groups version 2 and `memory.oom_control` of version 1 both have a line
/// `oom_kill N` (kernel documentation, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).
fn parse_kills(text: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("oom_kill "));
    lines.next().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// The file for the groups listed in `/proc/self/cgroup`.
fn events_file(membership: &str) -> Option<PathBuf> {
    let below = |path: &str| path.trim_start_matches('/').to_owned();
    membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let root = PathBuf::from("/sys/fs/cgroup");
        if controllers.is_empty() {
            return Some(root.join(below(path)).join("memory.events"));
        }
        let memory = controllers.split(',').any(|controller| controller == "memory");
        memory.then(|| root.join("memory").join(below(path)).join("memory.oom_control"))
    })
}

/// Whether a program's last words say that it got no memory.
pub(crate) fn says_out_of_memory(words: &str) -> bool {
    let words = words.to_lowercase();
    SAYINGS.iter().any(|saying| words.contains(saying))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_found_in_both_versions_of_control_groups() {
        let v2 = events_file("0::/system.slice/worker.service\n").unwrap();
        assert_eq!(v2.to_str().unwrap(), "/sys/fs/cgroup/system.slice/worker.service/memory.events");
        let v1 = events_file("5:cpu,cpuacct:/a\n4:memory:/b/c\n").unwrap();
        assert_eq!(v1.to_str().unwrap(), "/sys/fs/cgroup/memory/b/c/memory.oom_control");
        assert_eq!(events_file(""), None);
        assert_eq!(parse_kills("low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\n"), 3);
        assert_eq!(parse_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), 1);
        assert_eq!(parse_kills("nonsense"), 0);
    }

    #[test]
    fn the_words_of_common_allocators_are_understood() {
        for words in [
            "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB",
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes",
            "memory allocation of 800 bytes failed",
        ] {
            assert!(says_out_of_memory(words), "{words}");
        }
        assert!(!says_out_of_memory("segmentation fault"));
    }
}
