//! What a trainer can train: the models and data sets of Spotsweep, and those that a program of one's own adds.
//!
//! A registry is filled once, before [`crate::serve`], and never changes afterwards. It must not know jobs or steps. What is
//! added is described as data, told to the coordinator, and held against what a sweep was checked with before a job begins.
//!
//! ```no_run
//! use spotsweep_trainer::{DataDescription, MadeData, MadeSamples, ModelDescription, Registry, serve};
//! # fn build(_: &spotsweep_trainer::Hyperparameters<'_>, _: spotsweep_trainer::Shape, _: &mut spotsweep_trainer::Params)
//! #     -> Result<Box<dyn spotsweep_trainer::Model>, spotsweep_trainer::TrainError> { unimplemented!() }
//! # fn points(samples: u32) -> MadeSamples { MadeSamples { inputs: vec![0.5; 2 * samples as usize], labels: vec![0; samples as usize] } }
//! let model = ModelDescription::new("ring_net", "tells rings apart")
//!     .integer("width", 1..=256, 32, "neurons of the hidden layer");
//! let data = DataDescription::new("rings", "rings in the plane")
//!     .shape([1, 1, 2])
//!     .classes(2)
//!     .samples(800, 200);
//! let registry = Registry::builtin()
//!     .model(model, build)
//!     .data_set(data, || Ok(MadeData { train: points(800), test: points(200) }));
//! let exit_status = serve(registry); // which is what `main` returns
//! ```

mod description;
mod made;

pub use description::{DataDescription, ModelDescription};
pub use made::{MadeData, MadeSamples};

use crate::{
    data::RawData,
    error::TrainError,
    models::{Model, Shape},
    params::Params,
    seed::{Purpose, seed_torch},
};
use spotsweep_proto::{
    catalogue::{
        OwnCatalogue,
        own::{Knobs, OwnData, OwnError, OwnItem, OwnModel},
    },
    digest::Digest,
    spec::TrainSection,
    train::TrainConfig,
    value::ParamValue,
};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// Makes a model: enters its parameters and buffers into [`Params`] and keeps handles of them.
///
/// It is given hyperparameters within their ranges, and the shape of the data. It is called for every attempt, and again for
/// make-ups of a gang, and must make the same every time: values that it draws come from [`Params`], or from libtorch's
/// generator, which is seeded before.
pub type BuildModel = dyn Fn(&Hyperparameters<'_>, Shape, &mut Params) -> Result<Box<dyn Model>, TrainError>;
/// Makes a data set: the same samples to the bit whenever and wherever it is called.
pub type MakeData = dyn Fn() -> Result<MadeData, TrainError>;

/// What a trainer can train.
pub struct Registry {
    program: String,
    catalogue: OwnCatalogue,
    builders: Vec<Box<BuildModel>>,
    makers: Vec<Box<MakeData>>,
    /// The first thing that is wrong with what was added.
    wrong: Option<OwnError>,
}

impl Registry {
    /// The models and data sets of Spotsweep.
    #[must_use]
    pub fn builtin() -> Self {
        Self {
            program: concat!("spotsweep-trainer ", env!("CARGO_PKG_VERSION")).to_owned(),
            catalogue: OwnCatalogue::default(),
            builders: Vec::new(),
            makers: Vec::new(),
            wrong: None,
        }
    }

    /// The same under the name and version of another program, for people: `custom-model 0.1.0`.
    #[must_use]
    pub fn program(self, name: &str, version: &str) -> Self {
        Self { program: format!("{name} {version}"), ..self }
    }

    /// The same with one more model. What is wrong with its description, [`Registry::check`] says.
    #[must_use]
    pub fn model(
        mut self,
        description: ModelDescription,
        build: impl Fn(&Hyperparameters<'_>, Shape, &mut Params) -> Result<Box<dyn Model>, TrainError> + 'static,
    ) -> Self {
        match description.finish() {
            Ok(model) => {
                self.catalogue.models.push(model);
                self.builders.push(Box::new(build));
            }
            Err(error) => self.wrong = self.wrong.or(Some(error)),
        }
        self
    }

    /// The same with one more data set. What is wrong with its description, [`Registry::check`] says.
    #[must_use]
    pub fn data_set(
        mut self,
        description: DataDescription,
        make: impl Fn() -> Result<MadeData, TrainError> + 'static,
    ) -> Self {
        match description.finish() {
            Ok(data) => {
                self.catalogue.data.push(data);
                self.makers.push(Box::new(make));
            }
            Err(error) => self.wrong = self.wrong.or(Some(error)),
        }
        self
    }

    /// What was added, as it is told to coordinators.
    #[must_use]
    pub fn catalogue(&self) -> &OwnCatalogue {
        &self.catalogue
    }

    /// Name and version of the program.
    #[must_use]
    pub fn program_name(&self) -> &str {
        &self.program
    }

    /// Whether all descriptions can be told. [`crate::serve`] refuses to begin otherwise.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<(), OwnError> {
        match &self.wrong {
            Some(error) => Err(error.clone()),
            None => self.catalogue.check(),
        }
    }

    /// Whether this trainer's model and data set are those with which the sweep was checked.
    ///
    /// # Errors
    /// [`TrainError::Config`] says which is not.
    pub(crate) fn means(&self, section: &TrainSection, config: &TrainConfig) -> Result<(), TrainError> {
        let same = |what: &str, pinned: Option<OwnItem>, here: Option<OwnItem>| match (pinned, here) {
            (None, _) => Ok(()),
            (Some(pinned), Some(here)) if pinned == here => Ok(()),
            (Some(pinned), Some(_)) => Err(TrainError::Config(format!(
                "the {what} {} of this trainer is described otherwise than when the sweep was submitted; give the worker the trainer of then, or submit the sweep again",
                pinned.name
            ))),
            (Some(pinned), None) => {
                Err(TrainError::Config(format!("this trainer has no {what} {}", pinned.name)))
            }
        };
        let model = config.model.name();
        same(
            "model",
            section.own.model(model).map(OwnModel::item),
            self.catalogue.model(model).map(OwnModel::item),
        )?;
        let data = config.data.as_str();
        same(
            "data set",
            section.own.data_set(data).map(OwnData::item),
            self.catalogue.data_set(data).map(OwnData::item),
        )
    }

    /// Builds the model `name`, and checks what came of it.
    pub(crate) fn build(
        &self,
        name: &str,
        knobs: &Knobs,
        shape: Shape,
        params: &mut Params,
    ) -> Result<Box<dyn Model>, TrainError> {
        let place = self.catalogue.models.iter().position(|model| model.name.as_str() == name);
        let build = place.and_then(|place| self.builders.get(place));
        let build = build.ok_or_else(|| TrainError::Config(format!("this trainer has no model {name}")))?;
        // For whoever draws beside `Params`.
        seed_torch(params.seed(), Purpose::OwnInit, 0);
        let model = build(&Hyperparameters { model: name, knobs }, shape, params)?;
        check_params(name, params)?;
        check_scores(name, model.as_ref(), shape, params)?;
        Ok(model)
    }

    /// Makes the data set `name`, if it is one that was added; with a digest of its content.
    pub(crate) fn data(&self, name: &str) -> Result<Option<(RawData, Digest)>, TrainError> {
        let place = self.catalogue.data.iter().position(|data| data.name.as_str() == name);
        let Some((described, make)) =
            place.and_then(|place| Some((self.catalogue.data.get(place)?, self.makers.get(place)?)))
        else {
            return Ok(None);
        };
        made::checked(described, &make()?).map(Some)
    }
}

/// Names by which weights can be kept, and something to train.
fn check_params(name: &str, params: &Params) -> Result<(), TrainError> {
    let mut seen = BTreeSet::new();
    for entry in params.entries() {
        if entry.name.is_empty() || entry.name.chars().any(char::is_control) || !seen.insert(&entry.name) {
            let problem = "is empty, holds control characters, or stands there twice";
            return Err(TrainError::Config(format!(
                "the model {name}: the name {:?} of a parameter or buffer {problem}",
                entry.name
            )));
        }
    }
    if params.trained_values() == 0 {
        return Err(TrainError::Config(format!("the model {name} has no parameter to train")));
    }
    Ok(())
}

/// Scores of the form that loss and accuracy need, found before anything is trained.
fn check_scores(name: &str, model: &dyn Model, shape: Shape, params: &Params) -> Result<(), TrainError> {
    /// Samples that are tried.
    const TRIED: i64 = 2;
    let _no_grad = tch::no_grad_guard();
    let inputs = Tensor::f_zeros([TRIED, shape.pixels()], (Kind::Float, params.device()))?;
    let scores = model.scores(&inputs, crate::models::Pass::Evaluate);
    let (size, kind) = (scores.size(), scores.kind());
    if kind == Kind::Float && (size == [TRIED, shape.classes] || size == [TRIED]) {
        return Ok(());
    }
    Err(TrainError::Config(format!(
        "the model {name} gives scores of shape {size:?} ({kind:?}) for {TRIED} samples of {} classes; wanted are f32 of [{TRIED}, {}] or [{TRIED}]",
        shape.classes, shape.classes
    )))
}

/// The hyperparameters of a trial that a model has described: each is there, with its type and within its range.
#[derive(Debug)]
pub struct Hyperparameters<'a> {
    model: &'a str,
    knobs: &'a Knobs,
}

impl Hyperparameters<'_> {
    fn get<T>(
        &self,
        name: &str,
        what: &str,
        read: impl Fn(&ParamValue) -> Option<T>,
    ) -> Result<T, TrainError> {
        self.knobs.get(name).and_then(read).ok_or_else(|| {
            TrainError::Config(format!(
                "the description of {} has no hyperparameter {name} that is {what}",
                self.model
            ))
        })
    }

    /// An integer.
    ///
    /// # Errors
    /// [`TrainError::Config`] if the description has none of that name.
    pub fn integer(&self, name: &str) -> Result<i64, TrainError> {
        self.get(name, "an integer", |value| match value {
            ParamValue::Int(i) => Some(*i),
            _ => None,
        })
    }

    /// A number.
    ///
    /// # Errors
    /// As [`Hyperparameters::integer`].
    pub fn number(&self, name: &str) -> Result<f64, TrainError> {
        self.get(name, "a number", |value| match value {
            ParamValue::Float(x) => Some(*x),
            _ => None,
        })
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// As [`Hyperparameters::integer`].
    pub fn boolean(&self, name: &str) -> Result<bool, TrainError> {
        self.get(name, "true or false", |value| match value {
            ParamValue::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// The word that was chosen.
    ///
    /// # Errors
    /// As [`Hyperparameters::integer`].
    pub fn choice(&self, name: &str) -> Result<String, TrainError> {
        self.get(name, "a choice", |value| match value {
            ParamValue::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// A list of integers.
    ///
    /// # Errors
    /// As [`Hyperparameters::integer`].
    pub fn integers(&self, name: &str) -> Result<Vec<i64>, TrainError> {
        self.get(name, "a list of integers", |value| match value {
            ParamValue::List(items) => items
                .iter()
                .map(|item| match item {
                    ParamValue::Int(i) => Some(*i),
                    _ => None,
                })
                .collect(),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
