//! The search space: parameters and their distributions, and the trial that stands at each place.
//!
//! Nothing is enumerated in memory: the assignment of trial `n` is computed from `n`.

use super::{Method, draw};
use crate::{
    ids::ParameterName,
    value::{Assignment, ParamValue},
};
use serde::{Deserialize, Serialize};

/// Parameters in the order of the file; nested ones by dotted name, in place.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Space(pub Vec<Parameter>);

/// One parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name.
    pub name: ParameterName,
    /// Where its values come from.
    pub domain: Domain,
}

/// Where values come from. The names and formulas are those of Weights & Biases sweeps; `U` is uniform on
/// (0, 1), `Φ⁻¹` the quantile function of the standard normal distribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// `constant` or `value`.
    Constant(ParamValue),
    /// `categorical` or `values`, with `probabilities` (same length, sum 1) or equally likely.
    Categorical {
        /// The choices, in order.
        values: Vec<ParamValue>,
        /// How likely each is, for `random`.
        probabilities: Option<Vec<f64>>,
    },
    /// Integers of `[min, max]`, equally likely.
    IntUniform {
        /// Least value.
        min: i64,
        /// Greatest value, above `min`.
        max: i64,
    },
    /// min + U·(max − min).
    Uniform {
        /// Lower end.
        min: f64,
        /// Upper end, above `min`.
        max: f64,
    },
    /// exp(ln min + U·(ln max − ln min)).
    LogUniformValues {
        /// Lower end, above 0.
        min: f64,
        /// Upper end, above `min`.
        max: f64,
    },
    /// 1 / exp(ln(1/max) + U·(ln(1/min) − ln(1/max))).
    InvLogUniformValues {
        /// Lower end, above 0.
        min: f64,
        /// Upper end, above `min`.
        max: f64,
    },
    /// `uniform`, rounded to the nearest multiple of `q` in `[min, max]`.
    QUniform {
        /// Lower end.
        min: f64,
        /// Upper end, above `min`.
        max: f64,
        /// The quantum.
        q: Quantum,
    },
    /// `log_uniform_values`, rounded to the nearest multiple of `q` in `[min, max]`.
    QLogUniformValues {
        /// Lower end, above 0.
        min: f64,
        /// Upper end, above `min`.
        max: f64,
        /// The quantum.
        q: Quantum,
    },
    /// mu + sigma·Φ⁻¹(U).
    Normal {
        /// Mean.
        mu: f64,
        /// Standard deviation, above 0.
        sigma: f64,
    },
    /// `normal`, rounded to the nearest multiple of `q`.
    QNormal {
        /// Mean.
        mu: f64,
        /// Standard deviation, above 0.
        sigma: f64,
        /// The quantum.
        q: Quantum,
    },
    /// exp(mu + sigma·Φ⁻¹(U)).
    LogNormal {
        /// Mean of the logarithm.
        mu: f64,
        /// Standard deviation of the logarithm, above 0.
        sigma: f64,
    },
    /// `log_normal`, rounded to the nearest multiple of `q`.
    QLogNormal {
        /// Mean of the logarithm.
        mu: f64,
        /// Standard deviation of the logarithm, above 0.
        sigma: f64,
        /// The quantum.
        q: Quantum,
    },
}

/// The step of a quantised distribution, above 0. An integer quantum gives integers, another one numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantum {
    /// An integer.
    Int(i64),
    /// A number.
    Float(f64),
}

impl Quantum {
    /// As a number.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "quanta beyond 2^53 are of no use; they are refused on reading"
    )]
    pub fn size(self) -> f64 {
        match self {
            Self::Int(q) => q as f64,
            Self::Float(q) => q,
        }
    }

    /// `k` quanta: exact for an integer, else with as many decimals as the quantum is written with, so that 3
    /// quanta of 0.1 are 0.3 and not 0.30000000000000004.
    #[must_use]
    pub fn times(self, k: i64) -> ParamValue {
        match self {
            Self::Int(q) => ParamValue::Int(k.saturating_mul(q)),
            #[expect(
                clippy::cast_precision_loss,
                reason = "the number of quanta is below 2^53, see `multiples`"
            )]
            Self::Float(q) => {
                let product = k as f64 * q;
                let decimals = q.to_string().split_once('.').map_or(0, |(_, decimals)| decimals.len());
                ParamValue::Float(format!("{product:.decimals$}").parse().unwrap_or(product))
            }
        }
    }

    /// The least and the greatest number of quanta in `[min, max]`; `None` if no multiple lies there or their
    /// numbers are beyond what a float holds exactly.
    #[must_use]
    pub fn multiples(self, min: f64, max: f64) -> Option<(i64, i64)> {
        // Half a millionth of a quantum: 0.3 is the third multiple of 0.1 although 0.3 / 0.1 is below 3.
        const SLACK: f64 = 5e-7;
        let (low, high) = ((min / self.size() - SLACK).ceil(), (max / self.size() + SLACK).floor());
        let exact = |k: f64| k.abs() <= 9_007_199_254_740_992.0;
        #[expect(clippy::cast_possible_truncation, reason = "integral and within 2^53")]
        (low <= high && exact(low) && exact(high)).then_some((low as i64, high as i64))
    }
}

impl Domain {
    /// The values that it lists; none of a distribution over numbers.
    #[must_use]
    pub fn listed(&self) -> &[ParamValue] {
        if let Self::Constant(value) = self {
            std::slice::from_ref(value)
        } else if let Self::Categorical { values, .. } = self {
            values
        } else {
            &[]
        }
    }

    /// As [`Domain::listed`], to be changed.
    pub(super) fn listed_mut(&mut self) -> &mut [ParamValue] {
        if let Self::Constant(value) = self {
            std::slice::from_mut(value)
        } else if let Self::Categorical { values, .. } = self {
            values
        } else {
            &mut []
        }
    }

    /// How many values it has in a grid; `None` if a grid of it makes no sense.
    #[must_use]
    pub fn grid_size(&self) -> Option<u64> {
        match self {
            Self::Constant(_) => Some(1),
            Self::Categorical { values, probabilities: _ } => u64::try_from(values.len()).ok(),
            Self::IntUniform { min, max } => Some(max.abs_diff(*min).saturating_add(1)),
            Self::QUniform { min, max, q } => {
                let (low, high) = q.multiples(*min, *max)?;
                u64::try_from(high - low + 1).ok()
            }
            Self::Uniform { .. }
            | Self::LogUniformValues { .. }
            | Self::InvLogUniformValues { .. }
            | Self::QLogUniformValues { .. }
            | Self::Normal { .. }
            | Self::QNormal { .. }
            | Self::LogNormal { .. }
            | Self::QLogNormal { .. } => None,
        }
    }

    /// The value at `index` of a grid, from 0, below [`Domain::grid_size`].
    fn grid_value(&self, index: u64) -> ParamValue {
        match self {
            Self::Constant(value) => value.clone(),
            Self::Categorical { values, probabilities: _ } => {
                usize::try_from(index).ok().and_then(|i| values.get(i)).cloned().unwrap_or(ParamValue::Null)
            }
            Self::IntUniform { min, .. } => ParamValue::Int(min.saturating_add_unsigned(index)),
            Self::QUniform { min, max, q } => match q.multiples(*min, *max) {
                Some((low, _)) => q.times(low.saturating_add_unsigned(index)),
                None => ParamValue::Null,
            },
            Self::Uniform { .. }
            | Self::LogUniformValues { .. }
            | Self::InvLogUniformValues { .. }
            | Self::QLogUniformValues { .. }
            | Self::Normal { .. }
            | Self::QNormal { .. }
            | Self::LogNormal { .. }
            | Self::QLogNormal { .. } => ParamValue::Null,
        }
    }

    /// The name of the distribution in sweep files.
    #[must_use]
    pub fn distribution(&self) -> &'static str {
        match self {
            Self::Constant(_) => "constant",
            Self::Categorical { .. } => "categorical",
            Self::IntUniform { .. } => "int_uniform",
            Self::Uniform { .. } => "uniform",
            Self::LogUniformValues { .. } => "log_uniform_values",
            Self::InvLogUniformValues { .. } => "inv_log_uniform_values",
            Self::QUniform { .. } => "q_uniform",
            Self::QLogUniformValues { .. } => "q_log_uniform_values",
            Self::Normal { .. } => "normal",
            Self::QNormal { .. } => "q_normal",
            Self::LogNormal { .. } => "log_normal",
            Self::QLogNormal { .. } => "q_log_normal",
        }
    }
}

impl Space {
    /// The parameters that tell trials apart, in order.
    pub fn varying(&self) -> impl Iterator<Item = &ParameterName> {
        let varies = |parameter: &&Parameter| parameter.domain.grid_size() != Some(1);
        self.0.iter().filter(varies).map(|parameter| &parameter.name)
    }

    /// How many trials the grid has, saturating; 1 without parameters. Distributions without a grid count once.
    #[must_use]
    pub fn grid_trials(&self) -> u64 {
        self.0.iter().map(|p| p.domain.grid_size().unwrap_or(1)).fold(1, u64::saturating_mul)
    }

    /// How many trials there are under `method`, at most `cap`.
    #[must_use]
    pub fn trials(&self, method: Method, cap: Option<u32>) -> u32 {
        let all = match method {
            Method::Grid => u32::try_from(self.grid_trials()).unwrap_or(u32::MAX),
            // Reading a sweep file refuses a random search without a cap.
            Method::Random { .. } => cap.unwrap_or(0),
        };
        all.min(cap.unwrap_or(u32::MAX))
    }

    /// The parameters of trial `number`.
    ///
    /// In a grid the first parameter of the file changes slowest and the last one fastest. In a random search
    /// each value depends on the seed, the parameter's name and `number` alone.
    #[must_use]
    pub fn assignment(&self, method: Method, number: u32) -> Assignment {
        let value = |p: &Parameter, value| (p.name.clone(), value);
        match method {
            Method::Grid => {
                let mut rest = u64::from(number);
                let mut pairs: Vec<_> = self
                    .0
                    .iter()
                    .rev()
                    .map(|p| {
                        let size = p.domain.grid_size().unwrap_or(1).max(1);
                        let index = rest % size;
                        rest /= size;
                        value(p, p.domain.grid_value(index))
                    })
                    .collect();
                pairs.reverse();
                Assignment(pairs)
            }
            Method::Random { seed } => {
                let draws = self
                    .0
                    .iter()
                    .map(|p| value(p, draw::value(&p.domain, draw::word(seed, &p.name, number))));
                Assignment(draws.collect())
            }
        }
    }
}
