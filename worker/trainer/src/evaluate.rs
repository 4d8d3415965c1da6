//! Loss and accuracy of a model on samples that it does not train on.

use crate::{
    data::{DataSet, Samples},
    error::TrainError,
    meter::Tally,
    models::{Model, Pass},
};
use tch::{Device, Reduction, Tensor};

/// Samples evaluated together on a CPU: activations of a few MiB stay in its caches. The number can change the
/// last bits of a loss, so it is fixed for a kind of device.
const BATCH_ON_CPU: i64 = 256;
/// On a GPU, which wants more at once.
const BATCH_ON_GPU: i64 = 2048;

/// Which samples of a part.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// Those in a row from a place.
    From {
        /// The first.
        start: i64,
        /// How many.
        count: i64,
    },
    /// Those at these places (i64, on the device).
    At(&'a Tensor),
}

/// Evaluates `model`.
///
/// # Errors
/// What libtorch threw.
pub fn evaluate(
    model: &dyn Model,
    data: &DataSet,
    part: &Samples,
    which: Which<'_>,
    device: Device,
) -> Result<Tally, TrainError> {
    let count = match which {
        Which::From { count, .. } => count,
        Which::At(places) => places.numel() as i64,
    };
    let batch_size = if device.is_cuda() { BATCH_ON_GPU } else { BATCH_ON_CPU };
    let _no_grad = tch::no_grad_guard();
    let mut outcomes = Vec::new();
    let mut start = 0;
    while start < count {
        let size = batch_size.min(count - start);
        let (images, labels) = match which {
            Which::From { start: first, .. } => data.slice(part, first + start, size),
            Which::At(places) => data.batch(part, &places.f_narrow(0, start, size)?),
        };
        let scores = model.scores(&images, Pass::Evaluate);
        outcomes.push((size, model.loss(&scores, &labels, Reduction::Mean), model.correct(&scores, &labels)));
        start += size;
    }
    let mut tally = Tally::default();
    for (size, loss, correct) in outcomes {
        tally.loss_sum += loss.f_double_value(&[])? * size as f64;
        tally.correct += correct.f_int64_value(&[])?.unsigned_abs();
        tally.samples += size.unsigned_abs();
    }
    Ok(tally)
}
