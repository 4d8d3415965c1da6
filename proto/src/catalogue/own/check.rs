//! Whether a told catalogue may be believed: sizes, names, ranges, and that nothing in it takes the place of something that
//! Spotsweep has.

use super::{OwnCatalogue, OwnData, OwnKind, OwnModel, OwnParameter};
use crate::{
    catalogue::{Hyperparameter, ModelKind},
    datasets::reference::{DataRefError, set_name},
    ids::ParameterName,
};
use std::collections::BTreeSet;

/// Longest catalogue that is read, as JSON, in bytes. It travels in a hello, and in part with every trial.
pub const CATALOGUE_BYTES: usize = 64 << 10;
/// Most models of one trainer, besides those that Spotsweep has.
pub const MODELS_PER_CATALOGUE: usize = 32;
/// Most data sets of one trainer, likewise.
pub const DATA_SETS_PER_CATALOGUE: usize = 32;
/// Most hyperparameters that one model adds.
pub const PARAMETERS_PER_MODEL: usize = 64;
/// Most words of a choice.
pub const CHOICES_PER_PARAMETER: usize = 64;
/// Longest sentence about a thing, in bytes.
pub const ABOUT_BYTES: usize = 256;
/// Longest list that a hyperparameter may be.
const LIST_LEN: usize = 64;

/// Why a catalogue is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnError {
    /// More JSON than is read.
    #[error("a trainer's catalogue has at most {CATALOGUE_BYTES} bytes, this one has {bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is no such JSON, or a name in it is none.
    #[error("the catalogue cannot be read: {0}")]
    Form(String),
    /// More of something than is kept.
    #[error("a catalogue has at most {limit} {what}, this one has {found}")]
    TooMany {
        /// Of what.
        what: String,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A name stands there twice.
    #[error("the catalogue has two {what} called {name}")]
    Twice {
        /// Of which kind.
        what: String,
        /// The name.
        name: String,
    },
    /// The name has a meaning already.
    #[error("{what} {name} would take the place of one that Spotsweep has; give it another name")]
    Shadows {
        /// What it is.
        what: String,
        /// Its name.
        name: String,
    },
    /// A name that this kind of thing cannot have.
    #[error("{what} {name:?}: {why}")]
    Name {
        /// What it is.
        what: String,
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// A sentence that is too long, or would do something to a terminal.
    #[error("the sentence about {of} {why}")]
    About {
        /// About what.
        of: String,
        /// What is wrong with it.
        why: String,
    },
    /// A range without values, a default outside of it, or a shape without samples.
    #[error("{of}: {why}")]
    Range {
        /// Of what.
        of: String,
        /// What is wrong.
        why: String,
    },
}

impl OwnCatalogue {
    /// Reads what a trainer told.
    ///
    /// # Errors
    /// [`OwnError`]: it is too large, no such JSON, or something in it is not to be believed.
    pub fn read(json: &[u8]) -> Result<Self, OwnError> {
        if json.len() > CATALOGUE_BYTES {
            return Err(OwnError::TooLarge { bytes: json.len() });
        }
        let catalogue: Self =
            serde_json::from_slice(json).map_err(|error| OwnError::Form(error.to_string()))?;
        catalogue.check()?;
        Ok(catalogue)
    }

    /// The JSON that [`OwnCatalogue::read`] reads; empty where there is nothing to tell.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        // Texts and finite numbers always have a JSON form; one that is not finite is refused on reading.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Checks everything that the types do not.
    ///
    /// # Errors
    /// As [`OwnCatalogue::read`].
    pub fn check(&self) -> Result<(), OwnError> {
        at_most("models", self.models.len(), MODELS_PER_CATALOGUE)?;
        at_most("data sets", self.data.len(), DATA_SETS_PER_CATALOGUE)?;
        once("models", self.models.iter().map(|model| model.name.as_str()))?;
        once("data sets", self.data.iter().map(|data| data.name.as_str()))?;
        self.models.iter().try_for_each(check_model)?;
        self.data.iter().try_for_each(check_data)?;
        let bytes = self.to_json().len();
        if bytes > CATALOGUE_BYTES { Err(OwnError::TooLarge { bytes }) } else { Ok(()) }
    }
}

fn check_model(model: &OwnModel) -> Result<(), OwnError> {
    let name = model.name.as_str();
    if ModelKind::is_taken(name) {
        return Err(OwnError::Shadows { what: "the model".to_owned(), name: name.to_owned() });
    }
    about(&format!("the model {name}"), &model.about)?;
    at_most(&format!("hyperparameters of {name}"), model.parameters.len(), PARAMETERS_PER_MODEL)?;
    once(
        &format!("hyperparameters of {name}"),
        model.parameters.iter().map(|parameter| parameter.name.as_str()),
    )?;
    model.parameters.iter().try_for_each(|parameter| check_parameter(name, parameter))
}

fn check_parameter(model: &str, parameter: &OwnParameter) -> Result<(), OwnError> {
    let name = parameter.name.as_str();
    let of = format!("{name} of {model}");
    // A dot makes groups, of which the last part counts; `name` stands for its group.
    if name.contains(['.', '/']) || name == "name" {
        let why = "a hyperparameter's name has no '.' and no '/', and is not `name`".to_owned();
        return Err(OwnError::Name { what: "the hyperparameter".to_owned(), name: name.to_owned(), why });
    }
    if Hyperparameter::of(ModelKind::Own).any(|row| row.name == name) {
        return Err(OwnError::Shadows {
            what: format!("the hyperparameter of {model}"),
            name: name.to_owned(),
        });
    }
    about(&of, &parameter.about)?;
    let range = |why: String| Err(OwnError::Range { of: of.clone(), why });
    match &parameter.kind {
        OwnKind::Integer { min, max } if min > max => {
            return range(format!("there is no integer in [{min}, {max}]"));
        }
        OwnKind::Number { min, max } if !(min.is_finite() && max.is_finite() && min <= max) => {
            return range(format!("there is no number in [{min}, {max}], or no end to it"));
        }
        OwnKind::Integers { max_len, max }
            if *max_len > LIST_LEN || *max < 1 || *max > i64::from(u32::MAX) =>
        {
            return range(format!("a list has at most {LIST_LEN} integers of at most {}", u32::MAX));
        }
        OwnKind::Choice { choices } => {
            if choices.is_empty() {
                return range("there is nothing to choose from".to_owned());
            }
            at_most(&format!("choices of {of}"), choices.len(), CHOICES_PER_PARAMETER)?;
            once(&format!("choices of {of}"), choices.iter().map(String::as_str))?;
            for choice in choices {
                // The same rule as for names, so that no message needs escapes.
                ParameterName::new(choice).map_err(|error| OwnError::Name {
                    what: format!("a choice of {of}"),
                    name: choice.chars().take(ABOUT_BYTES).collect(),
                    why: error.to_string(),
                })?;
            }
        }
        OwnKind::Integer { .. } | OwnKind::Number { .. } | OwnKind::Integers { .. } | OwnKind::Boolean => {}
    }
    match parameter.read(&parameter.default) {
        Ok(_) => Ok(()),
        Err(error) => range(format!("its default is wrong: {}", error.message)),
    }
}

fn check_data(data: &OwnData) -> Result<(), OwnError> {
    let name = data.name.as_str();
    set_name(name).map_err(|error| match error {
        DataRefError::Taken(_) => {
            OwnError::Shadows { what: "the data set".to_owned(), name: name.to_owned() }
        }
        DataRefError::Name(why) => {
            OwnError::Name { what: "the data set".to_owned(), name: name.to_owned(), why }
        }
        DataRefError::Digest => {
            OwnError::Name { what: "the data set".to_owned(), name: name.to_owned(), why: error.to_string() }
        }
    })?;
    about(&format!("the data set {name}"), &data.about)?;
    let elements = data.shape.iter().try_fold(1_u32, |all, &side| all.checked_mul(side)).unwrap_or(0);
    if elements == 0 || data.classes == 0 || data.train_samples == 0 || data.test_samples == 0 {
        let why = "shape, classes, train_samples and test_samples are all above 0, and a sample has below 2^32 values";
        return Err(OwnError::Range { of: format!("the data set {name}"), why: why.to_owned() });
    }
    Ok(())
}

fn at_most(what: &str, found: usize, limit: usize) -> Result<(), OwnError> {
    if found > limit { Err(OwnError::TooMany { what: what.to_owned(), found, limit }) } else { Ok(()) }
}

fn once<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), OwnError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            let name = name.chars().take(ABOUT_BYTES).collect();
            return Err(OwnError::Twice { what: what.to_owned(), name });
        }
    }
    Ok(())
}

fn about(of: &str, text: &str) -> Result<(), OwnError> {
    let wrong = |why: String| Err(OwnError::About { of: of.to_owned(), why });
    if text.len() > ABOUT_BYTES {
        return wrong(format!("has {} bytes; at most {ABOUT_BYTES} are taken", text.len()));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(found) => wrong(format!("holds the control character {found:?}")),
        None => Ok(()),
    }
}
