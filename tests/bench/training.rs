//! Training steps a second beside the same models in Python's torch, and what checkpoints cost.

use crate::{Scale, figures::Figures};

/// Runs the trainer's own benchmark, where it and Python's torch are at hand.
pub(crate) fn beside_python(_scale: Scale, _figures: &mut Figures) -> anyhow::Result<()> {
    Ok(())
}
