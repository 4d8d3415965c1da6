//! Facts about the machine, for the hello. Empty where unknown; nothing depends on them but people and prices.

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
