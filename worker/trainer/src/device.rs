//! Where this process can train, and what these devices are. It must not decide where a job goes.

use crate::error::TrainError;
use spotsweep_proto::{ids::DeviceName, line::TrainerDevice};
use spotsweep_trainer_shim::{CudaDevice, cuda_devices, load_cuda};
use std::fs;
use tch::{Cuda, Device};

/// Finds the devices: the CPU first, then GPUs. Call it once, before anything else asks libtorch about CUDA.
#[must_use]
pub fn find() -> Vec<TrainerDevice> {
    let mut found = vec![named_device("cpu", cpu_model(), host_memory_bytes())];
    if load_cuda() && Cuda::is_available() {
        let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
        let mut known = cuda_devices().into_iter();
        for number in 0..count {
            let CudaDevice { model, memory_bytes, uuid: _ } = known.next().unwrap_or_default();
            found.push(named_device(&format!("cuda:{number}"), model, memory_bytes));
        }
    }
    found
}

fn named_device(name: &str, model: String, memory_bytes: u64) -> TrainerDevice {
    #[expect(clippy::expect_used, reason = "cpu and cuda:N are device names")]
    let name = DeviceName::new(name).expect("a device name");
    TrainerDevice { name, model, memory_bytes }
}

/// The device that a job names.
///
/// # Errors
/// [`TrainError::Config`] if this process has no such device.
pub fn named(name: &DeviceName) -> Result<Device, TrainError> {
    let text = name.as_str();
    if text == "cpu" {
        return Ok(Device::Cpu);
    }
    let number = text.strip_prefix("cuda:").and_then(|n| n.parse::<usize>().ok());
    match number {
        Some(number) if i64::try_from(number).is_ok_and(|n| n < Cuda::device_count()) => {
            Ok(Device::Cuda(number))
        }
        _ => Err(TrainError::Config(format!("this trainer has no device {text}"))),
    }
}

/// The processor's name, as Linux knows it.
fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map_or_else(String::new, |(_, name)| name.trim().to_owned())
}

/// Memory of this machine or of this process's control group, whichever is less.
fn host_memory_bytes() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let machine = kib.map_or(0, |kib| kib * 1024);
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|t| t.trim().parse().ok());
    group.map_or(machine, |limit: u64| limit.min(machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_refused() {
        assert_eq!(named(&DeviceName::new("cpu").unwrap()).unwrap(), Device::Cpu);
        for text in ["cuda:99", "cuda:", "cuda:x", "tpu"] {
            let error = named(&DeviceName::new(text).unwrap()).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn the_cpu_comes_first_with_its_memory() {
        let first = find().swap_remove(0);
        assert_eq!(first.name.as_str(), "cpu");
        assert!(first.memory_bytes > 1 << 20);
    }
}
