//! What a trainer of one's own adds to the catalogue, as data: models with their hyperparameters, and data sets.
//!
//! A trainer tells it once, in its first line; the agent passes it on in its hello; the coordinator checks sweeps against
//! it and pins what a sweep uses in the sweep itself ([`crate::spec::TrainSection::own`]), so that what a trial means
//! never changes afterwards. What comes from outside is believed after [`OwnCatalogue::check`], never before. It must not
//! know how a model computes: that is the trainer's.

mod check;
mod knobs;

pub use check::{
    ABOUT_BYTES, CATALOGUE_BYTES, CHOICES_PER_PARAMETER, DATA_SETS_PER_CATALOGUE, MODELS_PER_CATALOGUE,
    OwnError, PARAMETERS_PER_MODEL,
};
pub use knobs::Knobs;

use super::{
    CatalogueError,
    hyperparameters::{Kind, Range},
    read::{either, one_of, refused},
};
use crate::{
    datasets::manifest::DataFacts,
    digest::Digest,
    ids::{DataName, ModelName, ParameterName},
    value::ParamValue,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Models and data sets of one trainer, besides those that Spotsweep has. Checked where it was read by [`OwnCatalogue::read`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnCatalogue {
    /// Models, in the order in which people meet them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<OwnModel>,
    /// Data sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<OwnData>,
}

/// A model: what a sweep may say about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnModel {
    /// Its name in sweep files; none of Spotsweep's own models has it.
    pub name: ModelName,
    /// One line for people.
    #[serde(default)]
    pub about: String,
    /// Grows whenever equal hyperparameters begin to compute something else: trials of another version are not mixed.
    #[serde(default = "first_version")]
    pub version: u32,
    /// Hyperparameters of its own. Those of training (`learning_rate`, `batch_size`, `optimizer`, …) it has besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<OwnParameter>,
}

/// A hyperparameter of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnParameter {
    /// Its name in sweep files.
    pub name: ParameterName,
    /// One line for people; the unit, where there is one.
    #[serde(default)]
    pub about: String,
    /// Type and range.
    #[serde(flatten)]
    pub kind: OwnKind,
    /// What it is when a sweep does not say.
    #[serde(with = "knobs::value")]
    pub default: ParamValue,
}

/// Type and range of a hyperparameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OwnKind {
    /// An integer in `[min, max]`.
    Integer {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// A number in `[min, max]`.
    Number {
        /// Least value; finite.
        min: f64,
        /// Greatest value; finite.
        max: f64,
    },
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Choice {
        /// The words, each a name.
        choices: Vec<String>,
    },
    /// A list of at most `max_len` integers in `[1, max]`, for instance widths of layers; one integer is a list of one.
    Integers {
        /// Longest list.
        max_len: usize,
        /// Greatest value.
        max: i64,
    },
}

/// A data set that the trainer makes or reads by itself: samples of one shape, each with a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnData {
    /// Its name in sweep files.
    pub name: DataName,
    /// One line for people.
    #[serde(default)]
    pub about: String,
    /// Grows whenever other samples come.
    #[serde(default = "first_version")]
    pub version: u32,
    /// Channels, height, width of a sample.
    pub shape: [u32; 3],
    /// Labels are `0..classes`.
    pub classes: u16,
    /// Samples to train on, validation split included.
    pub train_samples: u32,
    /// Samples to test on.
    pub test_samples: u32,
}

fn first_version() -> u32 {
    1
}

/// One model or data set by what it means: two trainers that tell equal ones can stand in for each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OwnItem {
    /// Which kind of thing.
    pub kind: OwnItemKind,
    /// Its name.
    pub name: String,
    /// Digest of its description, sentences for people left out.
    pub digest: Digest,
}

/// What a catalogue lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OwnItemKind {
    /// A model.
    Model,
    /// A data set.
    Data,
}

impl fmt::Display for OwnItemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Data => "data set",
        })
    }
}

impl OwnCatalogue {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.models.is_empty() && self.data.is_empty()
    }

    /// The model called `name`.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&OwnModel> {
        self.models.iter().find(|model| model.name.as_str() == name)
    }

    /// The data set called `name`.
    #[must_use]
    pub fn data_set(&self, name: &str) -> Option<&OwnData> {
        self.data.iter().find(|data| data.name.as_str() == name)
    }

    /// Hyperparameters called `name`, of all models.
    pub fn parameters<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a OwnParameter> {
        self.models.iter().filter_map(move |model| model.parameter(name))
    }

    /// What is in it, by meaning, in order.
    #[must_use]
    pub fn items(&self) -> Vec<OwnItem> {
        let mut items: Vec<OwnItem> =
            self.models.iter().map(OwnModel::item).chain(self.data.iter().map(OwnData::item)).collect();
        items.sort_unstable();
        items
    }
}

impl OwnModel {
    /// Its hyperparameter called `name`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&OwnParameter> {
        self.parameters.iter().find(|parameter| parameter.name.as_str() == name)
    }

    /// The model by what it means.
    #[must_use]
    pub fn item(&self) -> OwnItem {
        let mut bare = self.clone();
        bare.about.clear();
        bare.parameters.iter_mut().for_each(|parameter| parameter.about.clear());
        OwnItem { kind: OwnItemKind::Model, name: self.name.to_string(), digest: digest(&bare) }
    }

    /// All its hyperparameters: what `given` says, else the defaults.
    ///
    /// # Errors
    /// The first that has a wrong type or is out of range.
    pub fn knobs<'a>(&self, given: impl Fn(&str) -> Option<&'a ParamValue>) -> Result<Knobs, CatalogueError> {
        let knob = |parameter: &OwnParameter| {
            let value = given(parameter.name.as_str()).unwrap_or(&parameter.default);
            Ok((parameter.name.clone(), parameter.read(value)?))
        };
        self.parameters.iter().map(knob).collect()
    }
}

impl OwnData {
    /// The data set by what it means.
    #[must_use]
    pub fn item(&self) -> OwnItem {
        let bare = Self { about: String::new(), ..self.clone() };
        OwnItem { kind: OwnItemKind::Data, name: self.name.to_string(), digest: digest(&bare) }
    }

    /// What a model needs to know of it.
    #[must_use]
    pub fn facts(&self) -> DataFacts {
        let Self { shape, classes, train_samples, test_samples, .. } = *self;
        DataFacts { shape, classes, train_samples, test_samples }
    }
}

impl OwnParameter {
    /// The value with the type of this hyperparameter: an integer for a number is that number.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn read(&self, value: &ParamValue) -> Result<ParamValue, CatalogueError> {
        let name = self.name.as_str();
        match &self.kind {
            OwnKind::Choice { choices } => match value {
                ParamValue::Text(text) if choices.contains(text) => Ok(value.clone()),
                _ => Err(refused(name, &self.kind, value, one_of(value, choices.iter().map(String::as_str)))),
            },
            kind => match kind.built_in() {
                Some(kind) => kind.read(name, value).map(|typed| typed.to_value()),
                None => Err(refused(name, kind, value, None)),
            },
        }
    }
}

impl OwnKind {
    /// The catalogue's own kind that is the same; a choice has words that are not known in advance.
    #[must_use]
    pub fn built_in(&self) -> Option<Kind> {
        Some(match *self {
            Self::Integer { min, max } => Kind::Int { min, max },
            Self::Number { min, max } => Kind::Float(Range { min, max, above_min: false, below_max: false }),
            Self::Boolean => Kind::Bool,
            Self::Integers { max_len, max } => Kind::Widths { min_len: 0, max_len, max },
            Self::Choice { .. } => return None,
        })
    }
}

/// `an integer in [1, 1024]`, `relu or tanh`, …
impl fmt::Display for OwnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.built_in(), self) {
            (Some(kind), _) => kind.fmt(f),
            (None, Self::Choice { choices }) => {
                f.write_str(&either(choices.iter().map(String::as_str).collect::<Vec<_>>().as_slice()))
            }
            (None, _) => Ok(()),
        }
    }
}

fn digest(of: &impl Serialize) -> Digest {
    #[expect(clippy::expect_used, reason = "structs of texts and finite numbers have a JSON form")]
    let bytes = serde_json::to_vec(of).expect("a description as JSON");
    Digest::of(&bytes)
}

#[cfg(test)]
mod tests;
