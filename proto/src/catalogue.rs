//! The catalogue of models and hyperparameters.

use crate::{spec::TrainSection, train::TrainConfig, value::Assignment};

/// Why a recipe cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct CatalogueError {
    /// The parameter or key that is wrong.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Makes the recipe of a trial from the sweep's `train` section and the trial's parameters.
///
/// # Errors
/// The first key that is unknown, of the wrong type or out of range.
pub fn resolve(_train: &TrainSection, _params: &Assignment) -> Result<TrainConfig, CatalogueError> {
    Err(CatalogueError { key: String::new(), message: String::from("not yet"), hint: None })
}
