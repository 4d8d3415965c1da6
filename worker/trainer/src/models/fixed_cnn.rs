//! A fixed convolution and trained layers behind it: how far good features take a small classifier (Jarrett,
//! Kavukcuoglu, Ranzato & LeCun, 2009, who compare random, fixed and trained filters).

use super::{
    Model, Pass, Shape, filters,
    layers::{Head, Stack, cast, kind_of},
};
use crate::{
    error::TrainError,
    params::{Layout, Params},
};
use spotsweep_proto::train::Precision;
use tch::{Kind, Tensor};

/// Height and width of the patches over which responses are averaged.
const POOL: i64 = 4;

/// The bank and the layers behind it.
#[derive(Debug)]
pub struct FixedCnn {
    filters: Tensor,
    stack: Stack,
    shape: Shape,
    kind: Kind,
}

impl FixedCnn {
    /// The bank on the parameters' device, and fresh layers behind it.
    ///
    /// # Errors
    /// [`TrainError::Config`] for images of several colours, or smaller than a patch.
    pub fn new(
        head: &Head<'_>,
        shape: Shape,
        precision: Precision,
        params: &mut Params,
    ) -> Result<Self, TrainError> {
        let (height, width) = (shape.height / POOL, shape.width / POOL);
        if shape.channels != 1 || height == 0 || width == 0 {
            return Err(TrainError::Config(format!(
                "fixed_cnn takes grey images of {POOL}x{POOL} or more, not {} channels of {}x{}",
                shape.channels, shape.height, shape.width
            )));
        }
        let kind = kind_of(precision);
        let filters = Layout::ChannelsLast.of(&filters::bank().to_kind(kind).to_device(params.device()));
        let maps = 2 * filters::COUNT as i64;
        let stack = Stack::new(head, maps * height * width, shape.classes, precision, params);
        Ok(Self { filters, stack, shape, kind })
    }

    /// The averages over patches of each filter's positive and negative responses.
    fn features(&self, images: &Tensor) -> Tensor {
        let half = filters::SIZE as i64 / 2;
        let images = images.view([-1, 1, self.shape.height, self.shape.width]);
        let x = Layout::ChannelsLast.of(&cast(&images, self.kind));
        let responses = x.conv2d::<Tensor>(&self.filters, None, [1, 1], [half, half], [1, 1], 1);
        let pool = |x: Tensor| x.avg_pool2d([POOL, POOL], [POOL, POOL], [0, 0], false, true, None);
        let bright = pool(responses.relu());
        let dark = pool((-responses).relu());
        Tensor::cat(&[bright, dark], 1).flatten(1, -1)
    }
}

impl Model for FixedCnn {
    fn scores(&self, images: &Tensor, pass: Pass) -> Tensor {
        let features = tch::no_grad(|| self.features(images));
        self.stack.forward(&features, pass)
    }

    fn draws(&self) -> bool {
        self.stack.draws()
    }
}
