//! The C interface of `cpp/shim.cpp`. It must match it, line by line.

use libc::c_char;
use torch_sys::C_tensor;

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
}
