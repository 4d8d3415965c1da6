//! The search space: parameters and their distributions, and the trial that stands at each place.
//!
//! Nothing is enumerated in memory: the assignment of trial `n` is computed from `n`.

use super::Method;
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

/// Where values come from. The names and formulas are those of Weights & Biases sweeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
}

impl Space {
    /// How many trials there are under `method`, at most `cap`.
    #[must_use]
    pub fn trials(&self, _method: Method, cap: Option<u32>) -> u32 {
        cap.unwrap_or(1)
    }

    /// The parameters of trial `number`.
    #[must_use]
    pub fn assignment(&self, _method: Method, _number: u32) -> Assignment {
        Assignment::default()
    }
}
