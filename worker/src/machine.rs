//! Facts about the machine, for the hello. Empty where unknown; nothing depends on them but people and prices.

use std::fs;

pub(crate) mod cloud;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod http;
pub(crate) mod imds;

/// What an agent says of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// Host name.
    pub host: String,
    /// CPU model.
    pub cpu: String,
    /// Usable cores.
    pub cores: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The cloud's name for this kind of machine, for instance `g4dn.xlarge`.
    pub instance_type: String,
    /// The cloud's zone, for instance `us-east-1a`.
    pub zone: String,
}

impl Machine {
    /// Looks around. Takes two seconds at most, and only on a cloud's machine any time at all: its metadata service
    /// is asked only where the firmware names the cloud.
    pub async fn detect() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let place = match cloud::Cloud::here() {
            Some(cloud) => cloud.place().await,
            None => cloud::Place::default(),
        };
        Self {
            host: read("/proc/sys/kernel/hostname").trim().to_owned(),
            cpu: cpu_model(&read("/proc/cpuinfo")),
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            memory_bytes: memory_bytes(&read("/proc/meminfo")),
            instance_type: place.instance_type,
            zone: place.zone,
        }
    }
}

/// The CPU's name in `/proc/cpuinfo`; ARM processors have none there.
fn cpu_model(cpuinfo: &str) -> String {
    let field = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    };
    cpuinfo.lines().find_map(field).unwrap_or_default()
}

/// Memory in `/proc/meminfo`, which counts in KiB.
pub(crate) fn memory_bytes(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_tables_are_read() {
        let cpuinfo = "processor\t: 0\nvendor_id\t: X\nmodel name\t: AMD EPYC 9R14\nflags\t: a: b\n";
        assert_eq!(cpu_model(cpuinfo), "AMD EPYC 9R14");
        assert_eq!(cpu_model("processor : 0\n"), "");
        assert_eq!(memory_bytes("MemTotal:       16384 kB\nMemFree: 3 kB\n"), 16 << 20);
        assert_eq!(memory_bytes("nonsense"), 0);
    }
}
