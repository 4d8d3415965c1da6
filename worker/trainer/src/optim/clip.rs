//! Clipping of gradients by their global norm (Pascanu, Mikolov & Bengio, 2013).

use tch::{TchError, Tensor};

/// What all gradients must be divided by, so that their common L2 norm is at most `limit`: a scalar of at least
/// 1 on their device. Nothing is waited for on a GPU.
///
/// # Errors
/// What libtorch threw.
pub fn divisor(grads: &[Tensor], limit: f64) -> Result<Tensor, TchError> {
    let norms = grads.iter().map(Tensor::f_norm).collect::<Result<Vec<_>, _>>()?;
    Tensor::f_stack(&norms, 0)?.f_norm()?.f_div_scalar(limit)?.f_clamp_min(1.0)
}
