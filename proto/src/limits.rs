//! Every limit that both sides of a connection must agree on, named and in one place.
//!
//! Limits that concern one process only live beside the code that they protect.

/// Longest sweep file that is read, in bytes.
pub const SWEEP_FILE_BYTES: usize = 1 << 20;
/// Deepest nesting of a sweep file.
pub const SWEEP_FILE_DEPTH: usize = 32;
/// Most trials that one sweep may hold.
pub const TRIALS_PER_SWEEP: u64 = 10_000_000;
/// Most parameters that one sweep may name, nested ones counted.
pub const PARAMETERS_PER_SWEEP: usize = 256;
/// Most sinks of one sweep.
pub const SINKS_PER_SWEEP: usize = 8;
/// Most values that one parameter may list.
pub const VALUES_PER_PARAMETER: usize = 100_000;
/// Longest name of a sweep, parameter, metric, worker or data set, in bytes.
pub const NAME_BYTES: usize = 128;
/// Most metrics in one report.
pub const METRICS_PER_REPORT: usize = 256;
/// Most different metric names in one trial.
pub const METRICS_PER_TRIAL: usize = 1024;
/// Most steps of one trial. Far above what anybody trains, and far below where a journal or a JSON reader loses digits.
pub const STEPS_PER_TRIAL: u64 = 1_000_000_000_000;
/// Longest line of the trainer protocol, in bytes, without its newline.
pub const LINE_BYTES: usize = 1 << 20;
/// Longest text of a failure that is kept, in bytes.
pub const FAILURE_TEXT_BYTES: usize = 4096;
/// Longest reason of a notice that is kept, in bytes.
pub const NOTICE_REASON_BYTES: usize = 256;
/// Largest gRPC message that either side accepts, in bytes.
pub const GRPC_MESSAGE_BYTES: usize = 8 << 20;
/// Most reports that an agent puts into one batch.
pub const REPORTS_PER_BATCH: usize = 4096;
/// Most leases that an agent may ask for ahead, per device.
pub const CREDITS_PER_DEVICE: u32 = 512;
/// Most devices of one worker.
pub const DEVICES_PER_WORKER: usize = 64;
/// Of what an attempt prints, so many bytes of the beginning are kept.
pub const LOG_HEAD_BYTES: usize = 64 << 10;
/// Of what an attempt prints behind [`LOG_HEAD_BYTES`], so many bytes of the end are kept.
pub const LOG_TAIL_BYTES: usize = 192 << 10;
/// Most bytes of text in one batch of what attempts printed.
pub const LOG_BATCH_BYTES: usize = 64 << 10;
/// Most chunks in one batch of what attempts printed.
pub const LOG_CHUNKS_PER_BATCH: usize = 256;
