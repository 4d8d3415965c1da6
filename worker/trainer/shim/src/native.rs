//! The C interface of `cpp/shim.cpp`, `cpp/collectives.cpp` and `cpp/torchscript.cpp`. It must match them, line by line.

use libc::{c_char, c_int, c_void};
use torch_sys::C_tensor;

/// A process group, as C++ has it.
#[repr(C)]
pub(crate) struct CGroup {
    _opaque: [u8; 0],
}

/// All-reduces beside a backward pass, as C++ has them.
#[repr(C)]
pub(crate) struct COverlap {
    _opaque: [u8; 0],
}

/// An operation under way, as C++ has it.
#[repr(C)]
pub(crate) struct CWork {
    _opaque: [u8; 0],
}

/// A TorchScript module, as C++ has it.
#[repr(C)]
pub(crate) struct CScript {
    _opaque: [u8; 0],
}

/// Takes a tensor of a module: context, name, the tensor (given away), whether it is a parameter, whether it is repeated,
/// whether it shares memory.
pub(crate) type EachTensor =
    unsafe extern "C" fn(*mut c_void, *const c_char, *mut C_tensor, bool, bool, bool);
/// Takes a fault of a module: context, kind, names.
pub(crate) type EachFault = unsafe extern "C" fn(*mut c_void, c_int, *const c_char);

/// Keeps a value in a rendezvous store: context, key, value. Gives null, or an error's text as from strdup.
pub(crate) type Tell =
    unsafe extern "C" fn(*mut c_void, *const c_char, usize, *const u8, usize) -> *mut c_char;
/// Waits for a value of a rendezvous store, which it gives as from malloc.
pub(crate) type Ask =
    unsafe extern "C" fn(*mut c_void, *const c_char, usize, *mut *mut u8, *mut usize) -> *mut c_char;

unsafe extern "C" {
    pub(crate) fn spotsweep_fused_sgd(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        momenta: *const *const C_tensor,
        count: usize,
        has_momentum: bool,
        lr: f64,
        momentum: f64,
        weight_decay: f64,
        nesterov: bool,
        first: bool,
        divide_by: *const C_tensor,
    ) -> *mut c_char;

    pub(crate) fn spotsweep_fused_adam(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        firsts: *const *const C_tensor,
        seconds: *const *const C_tensor,
        count: usize,
        step: *const C_tensor,
        lr: f64,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        weight_decay: f64,
        decoupled: bool,
        divide_by: *const C_tensor,
    ) -> *mut c_char;

    pub(crate) fn spotsweep_make_repeatable() -> *mut c_char;

    pub(crate) fn spotsweep_torch_version() -> *const c_char;

    pub(crate) fn spotsweep_script_load(
        bytes: *const c_char,
        size: usize,
        device: c_int,
        out: *mut *mut CScript,
    ) -> *mut c_char;

    pub(crate) fn spotsweep_script_free(script: *mut CScript);

    pub(crate) fn spotsweep_script_tensors(
        script: *mut CScript,
        context: *mut c_void,
        each: EachTensor,
    ) -> *mut c_char;

    pub(crate) fn spotsweep_script_faults(
        script: *mut CScript,
        context: *mut c_void,
        each: EachFault,
    ) -> *mut c_char;

    pub(crate) fn spotsweep_script_forward(
        script: *mut CScript,
        input: *const C_tensor,
        training: bool,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;

    pub(crate) fn spotsweep_gloo_connect(
        context: *mut c_void,
        tell: Tell,
        ask: Ask,
        rank: c_int,
        size: c_int,
        address: *const c_char,
        timeout_ms: i64,
        out: *mut *mut CGroup,
    ) -> *mut c_char;

    pub(crate) fn spotsweep_group_free(group: *mut CGroup, abort_first: bool);

    pub(crate) fn spotsweep_group_all_reduce(
        group: *mut CGroup,
        tensor: *const C_tensor,
        out: *mut *mut CWork,
    ) -> *mut c_char;

    pub(crate) fn spotsweep_group_all_to_all(
        group: *mut CGroup,
        output: *const C_tensor,
        input: *const C_tensor,
        output_counts: *const i64,
        input_counts: *const i64,
        ranks: usize,
        out: *mut *mut CWork,
    ) -> *mut c_char;

    pub(crate) fn spotsweep_group_all_gather(
        group: *mut CGroup,
        output: *const C_tensor,
        input: *const C_tensor,
        out: *mut *mut CWork,
    ) -> *mut c_char;

    pub(crate) fn spotsweep_group_broadcast(
        group: *mut CGroup,
        tensor: *const C_tensor,
        source: c_int,
        out: *mut *mut CWork,
    ) -> *mut c_char;

    pub(crate) fn spotsweep_overlap_new(
        group: *mut CGroup,
        row: *const C_tensor,
        views: *const *const C_tensor,
        params: *const *const C_tensor,
        bucket_of: *const usize,
        count: usize,
        starts: *const i64,
        buckets: usize,
        out: *mut *mut COverlap,
    ) -> *mut c_char;

    pub(crate) fn spotsweep_overlap_wait(overlap: *mut COverlap, timeout_ms: i64) -> *mut c_char;

    pub(crate) fn spotsweep_overlap_free(overlap: *mut COverlap);

    pub(crate) fn spotsweep_work_wait(work: *mut CWork, timeout_ms: i64) -> *mut c_char;

    pub(crate) fn spotsweep_work_free(work: *mut CWork);
}
