//! A trainer with a model and a data set of its own: sine layers that tell the arms of a spiral apart.

use spotsweep_trainer::{
    DataDescription, Hyperparameters, MadeData, MadeSamples, Model, ModelDescription, Params, Pass, Registry,
    Shape, TrainError,
    init::Fans,
    params::Layout,
    serve,
    tch::{Kind, Tensor, no_grad},
};
use std::process::ExitCode;

type Built = Result<Box<dyn Model>, TrainError>;

const ARMS: u16 = 3;
const TRAIN: u32 = 1200;
const TEST: u32 = 300;

/// Layers of sin(frequency · (Wx + b)) (Sitzmann et al., 2020), dropout, and a linear readout.
struct SineNet {
    layers: Vec<(Tensor, Tensor)>,
    frequency: f64,
    dropout: f64,
    /// Mean of all inputs so far: a buffer, kept in checkpoints like the weights.
    mean: Tensor,
}

impl SineNet {
    fn build(knobs: &Hyperparameters<'_>, shape: Shape, params: &mut Params) -> Built {
        let mut widths = vec![shape.pixels()];
        widths.extend(knobs.integers("widths")?);
        widths.push(shape.classes);
        let mut layer = |(number, pair): (usize, &[i64])| {
            let fans = Fans { fan_in: pair[0], fan_out: pair[1] };
            let name = format!("layer{number}");
            let weight =
                params.weight(&format!("{name}.weight"), &[pair[1], pair[0]], fans, Layout::RowMajor);
            (weight, params.vector(&format!("{name}.bias"), pair[1], 0.0))
        };
        let layers = widths.windows(2).enumerate().map(&mut layer).collect();
        let mean = params.buffer("mean", shape.pixels(), 0.0);
        let (frequency, dropout) = (knobs.number("frequency")?, knobs.number("drop")?);
        Ok(Box::new(Self { layers, frequency, dropout, mean }))
    }
}

impl Model for SineNet {
    fn scores(&self, inputs: &Tensor, pass: Pass) -> Tensor {
        if pass.is_train() {
            let seen = inputs.mean_dim(0_i64, false, Kind::Float);
            let _ = no_grad(|| self.mean.shallow_clone().lerp_(&seen, 0.1));
        }
        let mut x = inputs - &self.mean;
        for (place, (weight, bias)) in self.layers.iter().enumerate() {
            if place > 0 {
                x = (x * self.frequency).sin().dropout(self.dropout, pass.is_train());
            }
            x = x.linear(weight, Some(bias));
        }
        x
    }
}

/// Points on the arms of a spiral, moved a little by a generator of 64 bits (Vigna's SplitMix64).
fn spirals(samples: u32, seed: u64) -> MadeSamples {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f32 / (1 << 24) as f32
    };
    let (mut inputs, mut labels) = (Vec::new(), Vec::new());
    for sample in 0..samples {
        let arm = (sample % u32::from(ARMS)) as u16;
        let (radius, noise) = (uniform(), 0.2 * (uniform() - 0.5));
        let angle = 4.0 * radius + std::f32::consts::TAU * f32::from(arm) / f32::from(ARMS) + noise;
        inputs.extend([radius * angle.cos(), radius * angle.sin()]);
        labels.push(arm);
    }
    MadeSamples { inputs, labels }
}

fn main() -> ExitCode {
    let model = ModelDescription::new("sine_net", "dense layers with sines between them")
        .integers("widths", 4, 512, &[32, 32], "widths of the hidden layers")
        .number("frequency", 0.1..=30.0, 3.0, "how fast the sines turn")
        .number("drop", 0.0..=0.9, 0.1, "share of activations dropped while training");
    let data = DataDescription::new("spirals", "points on three arms of a spiral")
        .shape([1, 1, 2])
        .classes(ARMS)
        .samples(TRAIN, TEST);
    serve(
        Registry::builtin()
            .program("custom-model", env!("CARGO_PKG_VERSION"))
            .model(model, SineNet::build)
            .data_set(data, || Ok(MadeData { train: spirals(TRAIN, 1), test: spirals(TEST, 2) })),
    )
}
