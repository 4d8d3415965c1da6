//! The catalogue: every model, hyperparameter and data set that a sweep may name, as data, and the one way from
//! a trial's parameters to a [`TrainConfig`].
//!
//! The coordinator checks sweeps with it before anything runs, the trainer makes its recipe with it, and
//! `spotsweep models` prints it: one table, one meaning. It must not know libtorch, files or the sweep file's
//! syntax.

use crate::ids::ParameterName;

mod config;
pub mod datasets;
pub mod hyperparameters;
pub mod models;
pub mod own;
mod read;
pub mod rows;

pub use config::{fits, resolve, resolve_with};
pub(crate) use config::{unknown_key, unknown_own_key};
pub use datasets::{DATASETS, Dataset};
pub use hyperparameters::{HYPERPARAMETERS, Hyperparameter};
pub use models::{MODELS, ModelKind};
pub use own::OwnCatalogue;
pub(crate) use read::other_file;

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

impl CatalogueError {
    /// An error about `key`, without a hint.
    #[must_use]
    pub fn new(key: &str, message: impl Into<String>) -> Self {
        Self { key: key.to_owned(), message: message.into(), hint: None }
    }

    /// The same error with advice.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// The hyperparameter that a parameter's name stands for.
///
/// A flat name stands for itself. A nested one stands for its last part (`optimizer.learning_rate` is
/// `learning_rate`), and a last part `name` for the part before it (`optimizer.name` is `optimizer`).
#[must_use]
pub fn canonical(name: &ParameterName) -> &str {
    let mut parts = name.as_str().rsplit('.');
    let last = parts.next().unwrap_or_default();
    match (last, parts.next()) {
        ("name", Some(group)) => group,
        _ => last,
    }
}

/// The candidate that is nearest to `word`, if one is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long words are no typing errors, and comparing them would take time.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    let meant = SYNONYMS.iter().find(|(_, others)| others.contains(&word.as_str())).map(|(name, _)| *name);
    let score = |candidate: &str| {
        let plain = candidate.replace('-', "_");
        let edits = strsim::osa_distance(&word, &plain);
        // One slip of the finger in a short word, two in a longer one. Jaro-Winkler also knows a common
        // beginning, as in `learn_rate`; below 0.8 its suggestions are guesses.
        let slips = word.len() > 1 && edits <= if word.len() < 6 { 1 } else { 2 };
        let alike = strsim::jaro_winkler(&word, &plain);
        if meant == Some(candidate) {
            2.0
        } else if slips {
            1.0 + alike
        } else {
            alike
        }
    };
    candidates
        .into_iter()
        .map(|candidate| (score(candidate), candidate))
        .filter(|(score, _)| *score >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// What other programs and people call things.
const SYNONYMS: &[(&str, &[&str])] = &[
    ("learning_rate", &["lr", "eta", "step_size"]),
    ("batch_size", &["bs", "batch", "minibatch", "mini_batch_size"]),
    ("weight_decay", &["wd", "l2", "decay"]),
    ("optimizer", &["opt", "optim", "optimiser"]),
    ("schedule", &["scheduler", "lr_schedule", "lr_scheduler"]),
    ("warmup_steps", &["warmup"]),
    ("clip_norm", &["clip", "grad_clip", "max_grad_norm", "gradient_clipping"]),
    ("epsilon", &["eps"]),
    ("hidden", &["layers", "units", "width", "widths", "hidden_size", "hidden_sizes", "hidden_layers"]),
    ("channels", &["filters", "kernels"]),
    ("batch_norm", &["bn", "batchnorm"]),
    ("validation_fraction", &["val_split", "validation_split"]),
    ("epochs", &["epoch", "num_epochs", "n_epochs", "max_epochs"]),
    ("steps", &["iterations", "iters", "max_steps", "num_steps"]),
    ("precision", &["dtype", "amp"]),
    ("init", &["initializer", "initialization"]),
    ("model", &["net", "network", "arch", "architecture"]),
    ("data", &["dataset"]),
    ("threads", &["num_threads", "cpus", "workers"]),
    ("seed", &["random_seed", "random_state"]),
    ("run_cap", &["max_trials", "num_trials", "n_trials", "num_samples", "count"]),
    ("metric", &["objective"]),
    ("parameters", &["params", "hyperparameters", "space"]),
];

/// `` `a`, `b`, `c` ``, for lists of what is valid.
#[must_use]
pub fn listed<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    items.into_iter().collect::<Vec<_>>().join(", ")
}
