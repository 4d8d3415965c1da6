//! From a sweep's `train` section and a trial's parameters to the recipe of the trial.

use super::{
    CatalogueError, ModelKind, canonical,
    datasets::NO_DATA,
    hyperparameters::{HYPERPARAMETERS, Hyperparameter},
    listed, nearest,
    own::OwnModel,
    read::{Typed, unknown_model},
};
use crate::{
    datasets::{DataRef, DataSets, manifest::DataFacts, reference::FoundData},
    gang::SHARDS_PER_TRIAL,
    ids::DataName,
    module::ModuleRef,
    spec::TrainSection,
    train::{Activation, Init, Length, ModelConfig, OptimizerConfig, Precision, ScheduleConfig, TrainConfig},
    value::{Assignment, ParamValue},
};

/// Makes the recipe of a trial from the sweep's `train` section and the trial's parameters.
///
/// A parameter overrides the key of the same name in `train`. A parameter that the trial's model, optimizer or
/// schedule does not have is an error when `train` fixes the model, and is ignored when the model is itself a
/// parameter: then another trial of the sweep may have it. (Reading a sweep file refuses parameters that no
/// trial of the sweep has.)
///
/// # Errors
/// The first key that is unknown, of the wrong type, out of range, or at odds with another.
pub fn resolve(train: &TrainSection, params: &Assignment) -> Result<TrainConfig, CatalogueError> {
    resolve_with(train, params, &DataSets::catalogue())
}

/// As [`resolve`], where trials may also train on the data sets in `sets`.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_with(
    train: &TrainSection,
    params: &Assignment,
    sets: &DataSets,
) -> Result<TrainConfig, CatalogueError> {
    let recipe = Recipe::new(train, params)?;
    let dataset = recipe.data(sets)?;
    let config = TrainConfig {
        model: recipe.model_config()?,
        data: match &dataset {
            Some(FoundData { name, .. }) => name.clone(),
            None => data_name(NO_DATA)?,
        },
        length: recipe.length()?,
        batch_size: recipe.u32("batch_size")?,
        optimizer: recipe.optimizer_config()?,
        learning_rate: recipe.f64("learning_rate")?,
        schedule: recipe.schedule_config()?,
        warmup_steps: recipe.u64("warmup_steps")?,
        clip_norm: match recipe.typed("clip_norm")? {
            Typed::Float(x) => Some(x),
            _ => None,
        },
        init: match recipe.word("init")? {
            "he" => Init::He,
            _ => Init::Xavier,
        },
        precision: match recipe.word("precision")? {
            "bf16" => Precision::Bf16,
            _ => Precision::F32,
        },
        validation_fraction: recipe.f64("validation_fraction")?,
        report_every_steps: recipe.u64("report_every_steps")?,
        seed: recipe.given("seed")?.map_or(Ok(train.seed), |row| unsigned(&row))?,
        threads: recipe.given("threads")?.map_or(Ok(train.threads), |row| {
            unsigned(&row).map(|threads| u16::try_from(threads).unwrap_or(u16::MAX))
        })?,
        shards: train.shards,
        exact: train.exact,
    };
    can_be_sharded(&config, recipe.given("batch_size")?.is_some())?;
    if let Some(FoundData { facts: Some(facts), .. }) = dataset {
        fits(&config, &facts)?;
    }
    Ok(config)
}

/// Whether every shard gets an equal part of a batch. The fault lies with the batch size if that was `chosen`.
fn can_be_sharded(config: &TrainConfig, chosen: bool) -> Result<(), CatalogueError> {
    let shards = config.shards;
    if !(1..=SHARDS_PER_TRIAL).contains(&shards) {
        let message = format!("shards is an integer in [1, {SHARDS_PER_TRIAL}], not {shards}");
        return Err(CatalogueError::new("shards", message));
    }
    if shards > 1 && config.model == ModelConfig::Noop {
        return Err(CatalogueError::new("shards", "noop trains on no data, so it has no shards of it"));
    }
    let batch = config.batch_size;
    if !batch.is_multiple_of(shards) {
        let up = batch.next_multiple_of(shards);
        return Err(CatalogueError::new(
            if chosen { "batch_size" } else { "shards" },
            format!("a batch of {batch} cannot be divided evenly over {shards} shards"),
        )
        .hint(format!("batch_size must be a multiple of {shards}, for instance {up}")));
    }
    Ok(())
}

/// Checks what the choices mean for the data set at hand.
///
/// # Errors
/// A class that it does not have, or a batch that it cannot fill.
pub fn fits(config: &TrainConfig, dataset: &DataFacts) -> Result<(), CatalogueError> {
    let name =
        config.data.as_str().parse::<DataRef>().map_or_else(|_| config.data.to_string(), |set| set.short());
    if let ModelConfig::Logistic { positive_class } = config.model
        && positive_class >= dataset.classes
    {
        return Err(CatalogueError::new(
            "positive_class",
            format!("{name} has the classes 0 to {}, not {positive_class}", dataset.classes - 1),
        ));
    }
    let split = dataset.train_samples - dataset.validation_samples(config.validation_fraction);
    if config.batch_size > split {
        return Err(CatalogueError::new(
            "batch_size",
            format!("a batch of {} is more than the {split} training samples of {name}", config.batch_size),
        ));
    }
    Ok(())
}

/// A trial's parameters by the names of the catalogue.
struct Recipe<'a> {
    train: &'a TrainSection,
    model: ModelKind,
    module: Option<ModuleRef>,
    /// The model, where it is one of a trainer's own.
    own: Option<&'a OwnModel>,
    optimizer: &'static str,
    given: Vec<(&'static Hyperparameter, &'a ParamValue)>,
    /// What may be meant for hyperparameters of models of one's own.
    own_given: Vec<(&'a str, &'a ParamValue)>,
}

impl<'a> Recipe<'a> {
    fn new(train: &'a TrainSection, params: &'a Assignment) -> Result<Self, CatalogueError> {
        let mut given: Vec<(&'static Hyperparameter, &'a ParamValue)> = Vec::with_capacity(params.0.len());
        let mut own_given: Vec<(&'a str, &'a ParamValue)> = Vec::new();
        for (name, value) in &params.0 {
            let key = canonical(name);
            let (row, is_own) = (Hyperparameter::named(key), train.own.parameters(key).next().is_some());
            if row.is_none() && !is_own {
                return Err(unknown_key(name.as_str(), None));
            }
            if given.iter().any(|(other, _)| other.name == key)
                || own_given.iter().any(|(other, _)| *other == key)
            {
                return Err(CatalogueError::new(
                    name.as_str(),
                    format!("two parameters stand for {key}; {name} is the second"),
                )
                .hint("a nested parameter stands for its last part"));
            }
            given.extend(row.map(|row| (row, value)));
            own_given.extend(is_own.then_some((key, value)));
        }
        let find = |key: &str| given.iter().find(|(row, _)| row.name == key).copied();
        let model = match (find("model"), &train.model) {
            (Some((row, value)), _) => row.read(value)?,
            (None, Some(name)) => row_named("model")?.read(&ParamValue::Text(name.clone()))?,
            (None, None) => {
                return Err(CatalogueError::new("model", "the sweep does not say which model to train")
                    .hint(format!("add `model` to `train`: one of {}", listed(ModelKind::names()))));
            }
        };
        let (model, module, own) = match model {
            Typed::Model(model) => (model, None, None),
            Typed::Module(module) => (ModelKind::TorchScript, Some(module), None),
            Typed::OwnModel(name) => match train.own.model(name.as_str()) {
                Some(own) => (ModelKind::Own, None, Some(own)),
                None => {
                    return Err(unknown_model(&ParamValue::Text(name.to_string())));
                }
            },
            _ => return Err(mistyped("model")),
        };
        let fixed = find("model").is_none();
        let lacks = |row: &Hyperparameter| {
            !row.models.contains(&model) && own.is_none_or(|own| own.parameter(row.name).is_none())
        };
        if let Some((row, _)) = given.iter().find(|(row, _)| fixed && lacks(row)) {
            return Err(match own {
                Some(own) => unknown_own_key(row.name, own),
                None => unknown_key(row.name, Some(model)),
            });
        }
        let optimizer = match find("optimizer").filter(|(row, _)| row.models.contains(&model)) {
            Some((row, value)) => row.read(value)?,
            None => default_of(row_named("optimizer")?, model, "")?,
        };
        let Typed::Word(optimizer) = optimizer else { return Err(mistyped("optimizer")) };
        Ok(Self { train, model, module, own, optimizer, given, own_given })
    }

    /// What the trial says about `key`, if its model has it.
    fn given(&self, key: &str) -> Result<Option<Typed>, CatalogueError> {
        match self.given.iter().find(|(row, _)| row.name == key && row.models.contains(&self.model)) {
            Some((row, value)) => row.read(value).map(Some),
            None => Ok(None),
        }
    }

    /// What the trial says about `key`, or its default.
    fn typed(&self, key: &'static str) -> Result<Typed, CatalogueError> {
        match self.given(key)? {
            Some(typed) => Ok(typed),
            None => default_of(row_named(key)?, self.model, self.optimizer),
        }
    }

    fn f64(&self, key: &'static str) -> Result<f64, CatalogueError> {
        match self.typed(key)? {
            Typed::Float(x) => Ok(x),
            _ => Err(mistyped(key)),
        }
    }

    fn u64(&self, key: &'static str) -> Result<u64, CatalogueError> {
        unsigned(&self.typed(key)?)
    }

    fn u32(&self, key: &'static str) -> Result<u32, CatalogueError> {
        u32::try_from(self.u64(key)?).map_err(|_| mistyped(key))
    }

    fn bool(&self, key: &'static str) -> Result<bool, CatalogueError> {
        match self.typed(key)? {
            Typed::Bool(b) => Ok(b),
            _ => Err(mistyped(key)),
        }
    }

    fn word(&self, key: &'static str) -> Result<&'static str, CatalogueError> {
        match self.typed(key)? {
            Typed::Word(word) => Ok(word),
            _ => Err(mistyped(key)),
        }
    }

    fn widths(&self, key: &'static str) -> Result<Vec<u32>, CatalogueError> {
        match self.typed(key)? {
            Typed::Widths(widths) => Ok(widths),
            _ => Err(mistyped(key)),
        }
    }

    fn data(&self, sets: &DataSets) -> Result<Option<FoundData>, CatalogueError> {
        if !self.model.needs_data() {
            return Ok(None);
        }
        let typed = match (self.given("data")?, &self.train.data) {
            (Some(typed), _) => typed,
            (None, Some(name)) => row_named("data")?.read(&ParamValue::Text(name.to_string()))?,
            (None, None) => Typed::Data(None),
        };
        match typed {
            Typed::Data(Some(name)) => match self.train.own.data_set(&name) {
                Some(own) => Ok(Some(FoundData { name: own.name.clone(), facts: Some(own.facts()) })),
                None => sets.find(&name),
            },
            _ => Err(CatalogueError::new(
                "data",
                format!(
                    "{} trains on data, and the sweep names none",
                    self.own.map_or(self.model.name(), |own| own.name.as_str())
                ),
            )
            .hint(format!(
                "add `data` to `train`: one of {}",
                listed(super::DATASETS.iter().map(|dataset| dataset.name))
            ))),
        }
    }

    fn length(&self) -> Result<Length, CatalogueError> {
        let length = match (self.given("epochs")?, self.given("steps")?) {
            (Some(_), Some(_)) => {
                return Err(CatalogueError::new("steps", "a trial has either epochs or steps, not both"));
            }
            (Some(epochs), None) => epochs_of(&epochs)?,
            (None, Some(steps)) => Length::Steps(unsigned(&steps)?),
            (None, None) => match self.train.length {
                Some(length) => length,
                None => epochs_of(&default_of(row_named("epochs")?, self.model, self.optimizer)?)?,
            },
        };
        Ok(match (self.model, length) {
            (ModelKind::Noop, Length::Epochs(epochs)) => Length::Steps(u64::from(epochs)),
            (_, length) => length,
        })
    }

    fn model_config(&self) -> Result<ModelConfig, CatalogueError> {
        Ok(match self.model {
            ModelKind::Noop => ModelConfig::Noop,
            ModelKind::Logistic => ModelConfig::Logistic {
                positive_class: u16::try_from(self.u64("positive_class")?)
                    .map_err(|_| mistyped("positive_class"))?,
            },
            ModelKind::Softmax => ModelConfig::Softmax,
            ModelKind::Mlp => ModelConfig::Mlp {
                hidden: self.widths("hidden")?,
                activation: self.activation()?,
                dropout: self.f64("dropout")?,
            },
            ModelKind::FixedCnn => ModelConfig::FixedCnn {
                hidden: self.widths("hidden")?,
                activation: self.activation()?,
                dropout: self.f64("dropout")?,
            },
            ModelKind::Cnn => ModelConfig::Cnn {
                channels: self.widths("channels")?.try_into().map_err(|_| mistyped("channels"))?,
                dense: self.u32("dense")?,
                activation: self.activation()?,
                dropout: self.f64("dropout")?,
                batch_norm: self.bool("batch_norm")?,
            },
            ModelKind::TorchScript => {
                ModelConfig::TorchScript { module: self.module.clone().ok_or_else(|| mistyped("model"))? }
            }
            ModelKind::Own => {
                let own = self.own.ok_or_else(|| mistyped("model"))?;
                let given =
                    |key: &str| self.own_given.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
                ModelConfig::Own { name: own.name.clone(), version: own.version, knobs: own.knobs(given)? }
            }
        })
    }

    fn activation(&self) -> Result<Activation, CatalogueError> {
        Ok(match self.word("activation")? {
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            "gelu" => Activation::Gelu,
            _ => Activation::Relu,
        })
    }

    fn optimizer_config(&self) -> Result<OptimizerConfig, CatalogueError> {
        let weight_decay = self.f64("weight_decay")?;
        if self.optimizer == "sgd" {
            let (momentum, nesterov) = (self.f64("momentum")?, self.bool("nesterov")?);
            if nesterov && momentum <= 0.0 {
                return Err(CatalogueError::new(
                    "nesterov",
                    "nesterov is a form of momentum, and momentum is 0",
                )
                .hint("set momentum above 0, or nesterov to false"));
            }
            return Ok(OptimizerConfig::Sgd { momentum, nesterov, weight_decay });
        }
        let (beta1, beta2, epsilon) = (self.f64("beta1")?, self.f64("beta2")?, self.f64("epsilon")?);
        Ok(if self.optimizer == "adam" {
            OptimizerConfig::Adam { beta1, beta2, epsilon, weight_decay }
        } else {
            OptimizerConfig::Adamw { beta1, beta2, epsilon, weight_decay }
        })
    }

    fn schedule_config(&self) -> Result<ScheduleConfig, CatalogueError> {
        Ok(match self.word("schedule")? {
            "step" => ScheduleConfig::Step {
                every_epochs: self.u32("step_every_epochs")?,
                gamma: self.f64("step_gamma")?,
            },
            "cosine" => ScheduleConfig::Cosine { final_fraction: self.f64("cosine_final_fraction")? },
            _ => ScheduleConfig::Constant,
        })
    }
}

/// Why `key` is no parameter of `model`, or of any model.
pub(crate) fn unknown_key(key: &str, model: Option<ModelKind>) -> CatalogueError {
    let valid: Vec<_> = match model {
        Some(model) => Hyperparameter::of(model).map(|row| row.name).collect(),
        None => HYPERPARAMETERS.iter().map(|row| row.name).collect(),
    };
    let error = match (model, Hyperparameter::named(key)) {
        (Some(ModelKind::TorchScript), Some(row)) => {
            return CatalogueError::new(
                key,
                format!("a TorchScript module has no parameter {key}: {}", fixed_by_export(row.name)),
            )
            .hint(
                "export a module for each choice and list the files: `model: {values: [small.pt, large.pt]}`",
            );
        }
        (Some(model), Some(row)) => CatalogueError::new(
            key,
            format!(
                "{model} has no parameter {key}; {} has",
                listed(row.models.iter().filter(|model| **model != ModelKind::Own).map(|m| m.name()))
            ),
        ),
        (Some(model), None) => CatalogueError::new(key, format!("{model} has no parameter {key}")),
        (None, _) => CatalogueError::new(key, format!("no model has a parameter {key}")),
    };
    let last = key.rsplit('.').next().unwrap_or(key);
    match nearest(last, valid).filter(|near| *near != last) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint(match model {
            Some(model) => format!("`spotsweep models {model}` lists what it has"),
            None => "`spotsweep models MODEL` lists what a model has".to_owned(),
        }),
    }
}

/// Why a hyperparameter of the built-in models is none of a module.
fn fixed_by_export(name: &str) -> &'static str {
    match name {
        "init" => "its initial weights are those in the file",
        "precision" => "it computes in the types in which it was exported",
        _ => "its architecture was fixed when it was exported",
    }
}

/// Why `key` is no parameter of a model of one's own.
pub(crate) fn unknown_own_key(key: &str, model: &OwnModel) -> CatalogueError {
    let error = CatalogueError::new(key, format!("{} has no parameter {key}", model.name));
    let own = model.parameters.iter().map(|parameter| parameter.name.as_str());
    let last = key.rsplit('.').next().unwrap_or(key);
    match nearest(last, own.clone().chain(Hyperparameter::of(ModelKind::Own).map(|row| row.name))) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None if model.parameters.is_empty() => error.hint("it has those of training and no others"),
        None => error.hint(format!("besides those of training it has {}", listed(own))),
    }
}

fn row_named(key: &'static str) -> Result<&'static Hyperparameter, CatalogueError> {
    Hyperparameter::named(key).ok_or_else(|| mistyped(key))
}

fn default_of(
    row: &'static Hyperparameter,
    model: ModelKind,
    optimizer: &str,
) -> Result<Typed, CatalogueError> {
    match row.default_for(model, optimizer) {
        Some(literal) => row.read(&literal.to_value()),
        None => Err(CatalogueError::new(row.name, format!("the sweep does not say what {} is", row.name))),
    }
}

fn epochs_of(typed: &Typed) -> Result<Length, CatalogueError> {
    u32::try_from(unsigned(typed)?).map(Length::Epochs).map_err(|_| mistyped("epochs"))
}

fn unsigned(typed: &Typed) -> Result<u64, CatalogueError> {
    match typed {
        Typed::Int(i) => u64::try_from(*i).map_err(|_| mistyped("an integer")),
        _ => Err(mistyped("an integer")),
    }
}

fn data_name(name: &str) -> Result<DataName, CatalogueError> {
    DataName::new(name).map_err(|error| CatalogueError::new("data", error.to_string()))
}

/// The table contradicts this file: a fault of the program, found by the test that resolves every default.
fn mistyped(key: &str) -> CatalogueError {
    CatalogueError::new(key, format!("the catalogue's own row for {key} is wrong"))
}

#[cfg(test)]
mod tests;
