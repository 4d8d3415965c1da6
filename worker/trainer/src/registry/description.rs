//! How a program describes what it adds. A description can be built without looking at errors: the first one is kept, and
//! told where the registry is checked.

use spotsweep_proto::{
    catalogue::own::{OwnData, OwnError, OwnKind, OwnModel, OwnParameter},
    ids::{DataName, ModelName, ParameterName},
    value::ParamValue,
};
use std::ops::RangeInclusive;

/// A model: its name, a sentence, and the hyperparameters that it has besides those of training (`learning_rate`,
/// `batch_size`, `optimizer`, …), each with type, range, default and a sentence.
#[derive(Debug)]
pub struct ModelDescription(Result<OwnModel, OwnError>);

fn refused(what: &str, name: &str, why: impl ToString) -> OwnError {
    OwnError::Name { what: what.to_owned(), name: name.to_owned(), why: why.to_string() }
}

impl ModelDescription {
    /// A model without hyperparameters of its own. Names are made of letters, digits, `_` and `-`.
    #[must_use]
    pub fn new(name: &str, about: &str) -> Self {
        let named = ModelName::new(name).map_err(|error| refused("the model", name, error));
        Self(named.map(|name| OwnModel { name, about: about.to_owned(), version: 1, parameters: Vec::new() }))
    }

    /// Another version: say a higher one whenever equal hyperparameters begin to compute something else, so that trials of
    /// the two are never mixed.
    #[must_use]
    pub fn version(self, version: u32) -> Self {
        Self(self.0.map(|model| OwnModel { version, ..model }))
    }

    fn parameter(self, name: &str, kind: OwnKind, default: ParamValue, about: &str) -> Self {
        Self(self.0.and_then(|mut model| {
            let name =
                ParameterName::new(name).map_err(|error| refused("the hyperparameter", name, error))?;
            model.parameters.push(OwnParameter { name, about: about.to_owned(), kind, default });
            Ok(model)
        }))
    }

    /// With an integer in a range.
    #[must_use]
    pub fn integer(self, name: &str, range: RangeInclusive<i64>, default: i64, about: &str) -> Self {
        let kind = OwnKind::Integer { min: *range.start(), max: *range.end() };
        self.parameter(name, kind, ParamValue::Int(default), about)
    }

    /// With a number in a range, whose ends are finite.
    #[must_use]
    pub fn number(self, name: &str, range: RangeInclusive<f64>, default: f64, about: &str) -> Self {
        let kind = OwnKind::Number { min: *range.start(), max: *range.end() };
        self.parameter(name, kind, ParamValue::Float(default), about)
    }

    /// With a truth value.
    #[must_use]
    pub fn boolean(self, name: &str, default: bool, about: &str) -> Self {
        self.parameter(name, OwnKind::Boolean, ParamValue::Bool(default), about)
    }

    /// With one of some words.
    #[must_use]
    pub fn choice(self, name: &str, choices: &[&str], default: &str, about: &str) -> Self {
        let kind = OwnKind::Choice { choices: choices.iter().map(|&word| word.to_owned()).collect() };
        self.parameter(name, kind, ParamValue::Text(default.to_owned()), about)
    }

    /// With a list of at most `max_len` integers in `[1, max]`.
    #[must_use]
    pub fn integers(self, name: &str, max_len: usize, max: i64, default: &[i64], about: &str) -> Self {
        let default = default.iter().map(|&i| ParamValue::Int(i)).collect();
        self.parameter(name, OwnKind::Integers { max_len, max }, ParamValue::List(default), about)
    }

    pub(super) fn finish(self) -> Result<OwnModel, OwnError> {
        self.0
    }
}

/// A data set: its name, a sentence, the shape of its samples and how many there are.
#[derive(Debug)]
pub struct DataDescription(Result<OwnData, OwnError>);

impl DataDescription {
    /// A data set of single values in two classes, until more is said of it.
    #[must_use]
    pub fn new(name: &str, about: &str) -> Self {
        let named = DataName::new(name).map_err(|error| refused("the data set", name, error));
        Self(named.map(|name| OwnData {
            name,
            about: about.to_owned(),
            version: 1,
            shape: [1, 1, 1],
            classes: 2,
            train_samples: 0,
            test_samples: 0,
        }))
    }

    /// Another version: say a higher one whenever other samples come.
    #[must_use]
    pub fn version(self, version: u32) -> Self {
        Self(self.0.map(|data| OwnData { version, ..data }))
    }

    /// Channels, height and width of a sample; `[1, 1, n]` for n plain values.
    #[must_use]
    pub fn shape(self, shape: [u32; 3]) -> Self {
        Self(self.0.map(|data| OwnData { shape, ..data }))
    }

    /// Labels are `0..classes`.
    #[must_use]
    pub fn classes(self, classes: u16) -> Self {
        Self(self.0.map(|data| OwnData { classes, ..data }))
    }

    /// How many samples there are to train on, validation split included, and to test on.
    #[must_use]
    pub fn samples(self, train: u32, test: u32) -> Self {
        Self(self.0.map(|data| OwnData { train_samples: train, test_samples: test, ..data }))
    }

    pub(super) fn finish(self) -> Result<OwnData, OwnError> {
        self.0
    }
}
