//! Optimizers against PyTorch 2.11's own (its plain, unfused form, in f64), over four steps of given gradients.

#![allow(clippy::unwrap_used, reason = "a test: what is not there is a failure")]

use spotsweep_proto::train::OptimizerConfig;
use spotsweep_trainer::{
    optim::{self, Optimizer, clip},
    params::Layout,
};
use tch::{Device, Kind, Tensor};

const START: [f64; 3] = [1.0, -2.0, 3.0];
const GRADIENTS: [[f64; 3]; 4] = [[0.5, -1.0, 2.0], [0.1, 0.3, -0.7], [-0.4, 0.0, 1.5], [0.25, 0.25, 0.25]];
const RATE: f64 = 0.1;

fn tensor(values: &[f64]) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Float)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double)).unwrap()
}

fn near(found: &[f64], wanted: [f64; 3]) {
    assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 2e-6), "{found:?} is not {wanted:?}");
}

#[test]
fn four_steps_end_where_pytorch_s_do() {
    let sgd = |momentum, nesterov, weight_decay| OptimizerConfig::Sgd { momentum, nesterov, weight_decay };
    for (config, wanted) in [
        (sgd(0.0, false, 0.0), [0.955, -1.955, 2.695]),
        (sgd(0.0, false, 0.05), [0.935795507, -1.916492264, 2.638485277]),
        (sgd(0.9, false, 0.05), [0.809290044, -1.676531339, 2.065623014]),
        (sgd(0.9, true, 0.0), [0.821755, -1.74116, 1.96771]),
        (
            OptimizerConfig::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 },
            [0.782230611, -1.8113496, 2.744480445],
        ),
        (
            OptimizerConfig::Adam { beta1: 0.8, beta2: 0.95, epsilon: 1e-4, weight_decay: 0.05 },
            [0.771361492, -1.789573362, 2.731138905],
        ),
        (
            OptimizerConfig::Adamw { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.05 },
            [0.764720507, -1.773733257, 2.687113504],
        ),
    ] {
        let params = [tensor(&START)];
        let mut optimizer = optim::build(config, &params);
        for gradient in GRADIENTS {
            optimizer.step(&params, &[tensor(&gradient)], RATE, None).unwrap();
        }
        near(&values(&params[0]), wanted);
    }
}

#[test]
fn clipped_gradients_end_where_pytorch_s_do_and_small_ones_are_left_alone() {
    let params = [tensor(&START)];
    let config = OptimizerConfig::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
    let mut optimizer = optim::build(config, &params);
    for gradient in GRADIENTS {
        let grads = [tensor(&gradient)];
        let divisor = clip::divisor(&grads, 1.0).unwrap();
        optimizer.step(&params, &grads, RATE, Some(&divisor)).unwrap();
    }
    near(&values(&params[0]), [0.968944469, -2.011356441, 2.86108945]);
    // The norm is that of all gradients together.
    let divisor = clip::divisor(&[tensor(&[3.0]), tensor(&[4.0])], 2.5).unwrap();
    assert_eq!(divisor.double_value(&[]), 2.0);
    assert_eq!(clip::divisor(&[tensor(&[3.0])], 4.0).unwrap().double_value(&[]), 1.0);
}

/// The fused kernels walk memory: a gradient that lies in it differently must not be mixed up.
#[test]
fn the_layout_of_parameters_and_gradients_changes_no_value() {
    let shape = [3_i64, 2, 2, 2];
    let start = Tensor::arange(24, (Kind::Float, Device::Cpu)).view(shape);
    let gradient = start.cos();
    for config in [
        OptimizerConfig::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.1 },
        OptimizerConfig::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.1 },
    ] {
        let mut ends = Vec::new();
        for of_params in [Layout::RowMajor, Layout::ChannelsLast] {
            for of_grads in [Layout::RowMajor, Layout::ChannelsLast] {
                let params = [of_params.of(&start).copy()];
                assert_eq!(params[0].stride() == start.stride(), of_params == Layout::RowMajor);
                let mut optimizer = optim::build(config, &params);
                for _ in 0..3 {
                    optimizer.step(&params, &[of_grads.of(&gradient)], RATE, None).unwrap();
                }
                ends.push(params[0].contiguous());
            }
        }
        assert!(ends.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn restored_moments_go_on_as_if_nothing_had_happened() {
    for config in [
        OptimizerConfig::Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.01 },
        OptimizerConfig::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 },
    ] {
        let steps = |optimizer: &mut Box<dyn Optimizer>, params: &[Tensor], which: &[[f64; 3]]| {
            for gradient in which {
                optimizer.step(params, &[tensor(gradient)], RATE, None).unwrap();
            }
        };
        let whole = [tensor(&START)];
        let mut optimizer = optim::build(config, &whole);
        steps(&mut optimizer, &whole, &GRADIENTS);

        let parts = [tensor(&START)];
        let mut first = optim::build(config, &parts);
        steps(&mut first, &parts, &GRADIENTS[..2]);
        let mut second = optim::build(config, &parts);
        for ((name, saved), (other, fresh)) in first.moments().into_iter().zip(second.moments()) {
            assert_eq!(name, other);
            fresh[0].shallow_clone().copy_(&saved[0]);
        }
        second.resume(2);
        steps(&mut second, &parts, &GRADIENTS[2..]);
        assert_eq!(whole[0], parts[0]);
    }
}
