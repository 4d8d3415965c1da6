//! Devices of a machine as far as they are found without libtorch, for an agent that has no trainer.

use super::FoundDevice;
use crate::machine::memory_bytes;
use spotsweep_proto::{ids::DeviceName, limits::DEVICES_PER_WORKER};
use std::{process::Stdio, time::Duration};
use tokio::{process::Command, time::timeout};

/// The driver's own tool answers within seconds, or not at all.
const LIMIT: Duration = Duration::from_secs(20);
/// What is asked of it (nvidia-smi manual, `--query-gpu`).
const QUERY: [&str; 2] = ["--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"];

/// The CPU, and the GPUs of NVIDIA that the driver's `nvidia-smi` lists.
pub(crate) async fn found() -> Vec<FoundDevice> {
    let mut command = Command::new("nvidia-smi");
    command.args(QUERY).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let listed = match timeout(LIMIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        // No driver, no GPUs.
        _ => String::new(),
    };
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut devices: Vec<FoundDevice> = cpu(&memory).into_iter().collect();
    devices.extend(listed.lines().filter_map(gpu).take(DEVICES_PER_WORKER - 1));
    devices
}

fn cpu(meminfo: &str) -> Option<FoundDevice> {
    let memory_bytes = memory_bytes(meminfo);
    Some(FoundDevice { name: DeviceName::new("cpu").ok()?, model: String::new(), memory_bytes })
}

/// A line such as `0, NVIDIA H200, 143771`; memory in MiB.
fn gpu(line: &str) -> Option<FoundDevice> {
    let mut fields = line.split(',').map(str::trim);
    let (index, model, mebibytes) = (fields.next()?, fields.next()?, fields.next()?);
    let index: u16 = index.parse().ok()?;
    let name = DeviceName::new(&format!("cuda:{index}")).ok()?;
    Some(FoundDevice {
        name,
        model: model.to_owned(),
        memory_bytes: mebibytes.parse::<u64>().unwrap_or(0) << 20,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_from_what_the_system_says() {
        let found = gpu("1, NVIDIA H200, 143771").unwrap();
        assert_eq!((found.name.as_str(), found.model.as_str()), ("cuda:1", "NVIDIA H200"));
        assert_eq!(found.memory_bytes, 143_771 << 20);
        assert_eq!(gpu("0, GPU, [N/A]").unwrap().memory_bytes, 0);
        assert!(gpu("No devices were found").is_none() && gpu("").is_none());
        assert_eq!(cpu("MemTotal:  16 kB\n").unwrap().memory_bytes, 16 << 10);
    }
}
