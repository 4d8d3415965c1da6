//! What an agent says of itself when it connects.

use crate::{
    agent::AgentConfig,
    machine::Machine,
    trainer::{Equipment, FoundDevice},
};
use spotsweep_proto::ids::Incarnation;
use spotsweep_wire::{WORKER_PROTOCOL, v1};

/// The hello, but for the leases that are held.
pub(crate) fn hello(config: &AgentConfig, incarnation: Incarnation, equipment: &Equipment) -> v1::Hello {
    let Machine { host, cpu, cores, memory_bytes, instance_type, zone } = config.machine.clone();
    let device = |device: &FoundDevice| v1::Device {
        name: device.name.to_string(),
        kind: if device.name.as_str().starts_with("cuda") {
            v1::DeviceKind::Cuda.into()
        } else {
            v1::DeviceKind::Cpu.into()
        },
        model: device.model.clone(),
        memory_bytes: device.memory_bytes,
    };
    v1::Hello {
        protocol: WORKER_PROTOCOL,
        name: config.name.to_string(),
        incarnation: incarnation.0.to_be_bytes().to_vec().into(),
        devices: equipment.devices.iter().map(device).collect(),
        machine: Some(v1::Machine {
            host,
            cpu,
            cores,
            memory_bytes,
            libtorch: equipment.libtorch.clone(),
            instance_type,
            zone,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }),
        held: Vec::new(),
        connection: 0,
        programs_only: equipment.programs_only,
        catalogue: equipment.catalogue.to_json().into(),
    }
}
