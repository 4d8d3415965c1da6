//! Everything that the trainer needs `unsafe` for: loading CUDA, ending the process at once, and what libtorch
//! offers only to C++ (fused optimizer kernels, switches for repeatable arithmetic, collective operations, TorchScript).
//!
//! Each function is safe to call. It must not hold state or decide anything: policy lives in the trainer.

mod collectives;
mod cuda;
mod loader;
mod native;
mod nccl;
mod script;

pub use collectives::{Buckets, Group, Member, Overlap, Rendezvous, Work};
pub use cuda::{CudaDevice, cuda_devices};
pub use nccl::{Nccl, NcclError, interface_of, set_up_nccl};
pub use script::{Script, ScriptFault, ScriptTensor};

use libc::{c_char, c_int};
use loader::Library;
use std::{ffi::CStr, fs::File, io, os::fd::AsFd};
use tch::Tensor;

/// libtorch threw; this is what it said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TorchError(pub String);

/// Loads libtorch's CUDA half, if it is there, and says whether it was.
///
/// Call it before any question about CUDA: libtorch remembers the first answer for the life of the process.
/// Without the library this takes less than a millisecond.
#[must_use]
pub fn load_cuda() -> bool {
    // Its constructors register kernels.
    Library::open(c"libtorch_cuda.so", libc::RTLD_GLOBAL).is_some()
}

/// Ends the process now, in the midst of whatever other threads do: no destructors, no exit handlers.
///
/// `std::process::exit` would run libtorch's static destructors beside a thread that still trains.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(c_int::from(status)) }
}

/// Takes stdout for the caller alone: whatever else in this process writes to descriptor 1 from now on (C++ code,
/// verbose libraries) lands on stderr.
///
/// # Errors
/// When the process has no stdout or stderr, or no descriptor is left.
pub fn claim_stdout() -> io::Result<File> {
    let own = io::stdout().as_fd().try_clone_to_owned()?;
    // SAFETY: both descriptors are open; what 1 referred to lives on in `own`.
    if unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(File::from(own))
}

/// Tells the allocator to keep what is freed and to reuse it. Tensors of a step are as large as those of the step
/// before; by default glibc gives blocks of such size back to the kernel and takes page faults for each new one.
pub fn keep_freed_memory() {
    // SAFETY: mallopt takes any pair of numbers; the constants are glibc's. Blocks up to its own maximum (32 MiB on
    // 64-bit machines, DEFAULT_MMAP_THRESHOLD_MAX) come from the heap, whose top is not given back.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, c_int::MAX);
    }
}

/// Asks libtorch for the same bits every time: deterministic algorithms, no search for the fastest one, and no
/// TensorFloat-32.
///
/// # Errors
/// What libtorch threw.
pub fn make_repeatable() -> Result<(), TorchError> {
    // SAFETY: no arguments; the callee catches every exception.
    taken(unsafe { native::spotsweep_make_repeatable() })
}

/// Version of the libtorch for which this was built.
#[must_use]
pub fn torch_version() -> &'static str {
    // SAFETY: the callee gives a constant of its own that is a C string.
    unsafe { CStr::from_ptr(native::spotsweep_torch_version()) }.to_str().unwrap_or_default()
}

/// Constants of one step of stochastic gradient descent.
#[derive(Debug, Clone, Copy)]
pub struct SgdStep {
    /// Learning rate.
    pub learning_rate: f64,
    /// Momentum, in [0, 1).
    pub momentum: f64,
    /// L2 penalty added to the gradient.
    pub weight_decay: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Whether this is the first step, at which the momentum becomes the gradient.
    pub first: bool,
}

/// Changes `params` in place by one step of stochastic gradient descent, in one pass over memory.
///
/// `momenta` is empty if there is no momentum. All gradients are divided by `divide_by` first.
///
/// # Errors
/// What libtorch threw, for instance about shapes that do not match.
pub fn fused_sgd(
    params: &[Tensor],
    grads: &[Tensor],
    momenta: &[Tensor],
    step: SgdStep,
    divide_by: Option<&Tensor>,
) -> Result<(), TorchError> {
    same_count(&[params.len(), grads.len()])?;
    if !momenta.is_empty() {
        same_count(&[params.len(), momenta.len()])?;
    }
    let (p, g, m) = (handles(params), handles(grads), handles(momenta));
    // SAFETY: every list holds `params.len()` (or, for momenta, possibly no) valid tensors that live until the
    // call returns; the callee copies handles only and catches every exception.
    taken(unsafe {
        native::spotsweep_fused_sgd(
            p.as_ptr(),
            g.as_ptr(),
            m.as_ptr(),
            params.len(),
            !momenta.is_empty(),
            step.learning_rate,
            step.momentum,
            step.weight_decay,
            step.nesterov,
            step.first,
            handle(divide_by),
        )
    })
}

/// Constants of one step of Adam.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Whether the decay is decoupled from the gradient (AdamW).
    pub decoupled: bool,
}

/// Changes `params` and both moments in place by one step of Adam or AdamW, in one pass over memory.
///
/// `count` is an f32 scalar on the same device that holds the number of this step, from 1. All gradients are
/// divided by `divide_by` first.
///
/// # Errors
/// What libtorch threw, for instance about shapes that do not match.
pub fn fused_adam(
    params: &[Tensor],
    grads: &[Tensor],
    firsts: &[Tensor],
    seconds: &[Tensor],
    count: &Tensor,
    step: AdamStep,
    divide_by: Option<&Tensor>,
) -> Result<(), TorchError> {
    same_count(&[params.len(), grads.len(), firsts.len(), seconds.len()])?;
    let (p, g, m, v) = (handles(params), handles(grads), handles(firsts), handles(seconds));
    // SAFETY: as in `fused_sgd`; `count` is a valid tensor.
    taken(unsafe {
        native::spotsweep_fused_adam(
            p.as_ptr(),
            g.as_ptr(),
            m.as_ptr(),
            v.as_ptr(),
            params.len(),
            handle(Some(count)),
            step.learning_rate,
            step.beta1,
            step.beta2,
            step.epsilon,
            step.weight_decay,
            step.decoupled,
            handle(divide_by),
        )
    })
}

fn same_count(counts: &[usize]) -> Result<(), TorchError> {
    if counts.windows(2).all(|pair| pair[0] == pair[1]) {
        Ok(())
    } else {
        Err(TorchError(format!("lists of different lengths: {counts:?}")))
    }
}

fn handles(tensors: &[Tensor]) -> Vec<*const torch_sys::C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

fn handle(tensor: Option<&Tensor>) -> *const torch_sys::C_tensor {
    tensor.map_or(std::ptr::null(), Tensor::as_ptr)
}

/// Turns the text that the C++ side allocated into an error, and frees it.
fn taken(error: *mut c_char) -> Result<(), TorchError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the callee made it with strdup and gave it away: it is a C string and ours to free, once.
    let text = unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        libc::free(error.cast());
        text
    };
    Err(TorchError(text))
}
