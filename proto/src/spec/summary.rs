//! What a sweep would run, for people to look at before it does.

use super::{
    Method, SweepSpec,
    space::{Domain, Parameter},
};
use crate::{
    catalogue::{self, Hyperparameter, ModelKind, OwnCatalogue},
    limits::VALUES_PER_PARAMETER,
    program,
    train::{Length, TrainConfig},
    value::Assignment,
};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// Trials that a summary shows.
const SHOWN: u32 = 5;
/// Trials that a summary looks at to count models and repetitions.
const COUNTED: u32 = 20_000;

/// What a sweep would run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The sweep's name.
    pub name: String,
    /// `grid` or `random`.
    pub method: &'static str,
    /// How many trials it has.
    pub trials: u32,
    /// How many a grid would have without `run_cap`; `None` for a random search.
    pub grid_trials: Option<u64>,
    /// Its parameters, in the order of the file.
    pub parameters: Vec<ParameterSummary>,
    /// Trials by model, over the first `counted` trials; empty where a program trains.
    pub models: BTreeMap<String, u32>,
    /// Trials over which `models` and `repeated` were counted.
    pub counted: u32,
    /// Trials that train exactly what an earlier one trains, because they differ only in parameters that their
    /// model does not have.
    pub repeated: u32,
    /// The first trials.
    pub first: Vec<TrialSummary>,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ParameterSummary {
    /// Its name.
    pub name: String,
    /// Its distribution.
    pub distribution: &'static str,
    /// How many values a grid of it has; `None` if they cannot be counted.
    pub values: Option<u64>,
    /// Its values in words, cut where they are many.
    pub shown: String,
    /// The models of the sweep that have it.
    pub models: Vec<String>,
}

/// One trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrialSummary {
    /// Its place in the sweep.
    pub number: u32,
    /// Its parameters.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// Its whole recipe, every default filled in; absent where a program trains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe: Option<TrainConfig>,
    /// Its command as far as it is known before it runs; empty where a model of the catalogue trains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

impl SweepSpec {
    /// What the sweep would run.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let trials = self.trials();
        let counted = trials.min(COUNTED);
        let (mut models, mut recipes, mut repeated) = (BTreeMap::new(), HashSet::new(), 0);
        let mut first = Vec::new();
        for number in 0..counted {
            let assignment = self.space.assignment(self.method, number);
            let (canonical, recipe) = if self.program.is_some() {
                (serde_json::to_vec(&assignment.to_json()), None)
            } else {
                let Ok(recipe) = catalogue::resolve(&self.train, &assignment) else { continue };
                *models.entry(recipe.model.name().to_owned()).or_insert(0) += 1;
                // JSON is canonical here: the order of the fields is that of the type.
                (serde_json::to_vec(&recipe), Some(recipe))
            };
            if !recipes.insert(blake3::hash(&canonical.unwrap_or_default())) {
                repeated += 1;
            }
            if number < SHOWN {
                let command = self.program.as_ref().map(|section| program::shown(section, &assignment));
                let params = Assignment::to_json(&assignment);
                first.push(TrialSummary { number, params, recipe, command: command.unwrap_or_default() });
            }
        }
        Summary {
            name: self.name.to_string(),
            method: match self.method {
                Method::Grid => "grid",
                Method::Random { .. } => "random",
            },
            trials,
            grid_trials: match self.method {
                Method::Grid => Some(self.space.grid_trials()),
                Method::Random { .. } => None,
            },
            parameters: self.space.0.iter().map(|p| summary_of(p, models.keys(), &self.train.own)).collect(),
            models,
            counted,
            repeated,
            first,
        }
    }
}

fn summary_of<'a>(
    parameter: &Parameter,
    models: impl Iterator<Item = &'a String>,
    own: &OwnCatalogue,
) -> ParameterSummary {
    let key = catalogue::canonical(&parameter.name);
    let row = Hyperparameter::named(key);
    let has = |model: &str| match ModelKind::named(model) {
        Some(kind) => row.is_some_and(|row| row.models.contains(&kind)),
        None => {
            row.is_some_and(|row| row.models.contains(&ModelKind::Own))
                || own.model(model).is_some_and(|model| model.parameter(key).is_some())
        }
    };
    ParameterSummary {
        name: parameter.name.to_string(),
        distribution: parameter.domain.distribution(),
        values: parameter.domain.grid_size(),
        shown: in_words(&parameter.domain),
        models: models.filter(|model| has(model)).cloned().collect(),
    }
}

fn in_words(domain: &Domain) -> String {
    /// Characters after which a list of values is cut.
    const WIDTH: usize = 60;
    match domain {
        Domain::Constant(value) => value.to_string(),
        Domain::Categorical { values, .. } => {
            let mut text = String::new();
            for (index, value) in values.iter().take(VALUES_PER_PARAMETER).enumerate() {
                if text.len() > WIDTH {
                    return format!("{text}, … ({} values)", values.len());
                }
                text = if index == 0 { value.to_string() } else { format!("{text}, {value}") };
            }
            text
        }
        Domain::IntUniform { min, max } => format!("{min} to {max}"),
        Domain::Uniform { min, max }
        | Domain::LogUniformValues { min, max }
        | Domain::InvLogUniformValues { min, max } => format!("{min} to {max}"),
        Domain::QUniform { min, max, q } | Domain::QLogUniformValues { min, max, q } => {
            format!("{min} to {max} in steps of {}", q.size())
        }
        Domain::Normal { mu, sigma } | Domain::LogNormal { mu, sigma } => format!("mu {mu}, sigma {sigma}"),
        Domain::QNormal { mu, sigma, q } | Domain::QLogNormal { mu, sigma, q } => {
            format!("mu {mu}, sigma {sigma} in steps of {}", q.size())
        }
    }
}

impl TrialSummary {
    /// How long it trains, in words; empty for a program, which alone knows.
    #[must_use]
    pub fn length(&self) -> String {
        let Some(recipe) = &self.recipe else { return String::new() };
        match recipe.length {
            Length::Epochs(epochs) => format!("{epochs} epochs"),
            Length::Steps(steps) => format!("{steps} steps"),
        }
    }
}
