//! The models of the ladder: names and what they are. Their knobs stand in [`super::hyperparameters`].

use crate::module::ModuleRef;
use serde::{Serialize, Serializer};
use std::fmt;

/// Which model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModelKind {
    /// See [`crate::train::ModelConfig::Noop`].
    Noop,
    /// See [`crate::train::ModelConfig::Logistic`].
    Logistic,
    /// See [`crate::train::ModelConfig::Softmax`].
    Softmax,
    /// See [`crate::train::ModelConfig::Mlp`].
    Mlp,
    /// See [`crate::train::ModelConfig::FixedCnn`].
    FixedCnn,
    /// See [`crate::train::ModelConfig::Cnn`].
    Cnn,
    /// See [`crate::train::ModelConfig::TorchScript`].
    TorchScript,
    /// Any model that a trainer of one's own adds: see [`crate::catalogue::own`]. It stands in no list, having no name of its own.
    Own,
}

/// One model of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Model {
    /// Which one.
    pub name: ModelKind,
    /// One line for people.
    pub about: &'static str,
    /// Paper or book that describes it.
    pub source: &'static str,
}

/// All models, from the simplest up.
pub const MODELS: &[Model] = &[
    Model {
        name: ModelKind::Noop,
        about: "trains nothing and finishes its steps at once; measures everything but training",
        source: "",
    },
    Model {
        name: ModelKind::Logistic,
        about: "one sigmoid neuron, y = f(sum w_i x_i + b): one class against the rest",
        source: "Cox, 1958",
    },
    Model {
        name: ModelKind::Softmax,
        about: "multinomial logistic regression: one linear layer and a softmax over all classes",
        source: "Bishop, Pattern Recognition and Machine Learning, 2006, 4.3.4",
    },
    Model {
        name: ModelKind::Mlp,
        about: "multi-layer perceptron: dense hidden layers, then a softmax",
        source: "Rumelhart, Hinton & Williams, 1986",
    },
    Model {
        name: ModelKind::FixedCnn,
        about: "a bank of fixed convolution filters and pooling, then trained dense layers",
        source: "Jarrett, Kavukcuoglu, Ranzato & LeCun, 2009",
    },
    Model {
        name: ModelKind::Cnn,
        about: "two trained 5x5 convolutions with pooling, a dense layer and a softmax",
        source: "LeCun, Bottou, Bengio & Haffner, 1998",
    },
    Model {
        name: ModelKind::TorchScript,
        about: "your own, exported by torch.jit.script: `model: net.pt` names its file",
        source: "",
    },
];

impl ModelKind {
    /// Its name in sweep files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Logistic => "logistic",
            Self::Softmax => "softmax",
            Self::Mlp => "mlp",
            Self::FixedCnn => "fixed_cnn",
            Self::Cnn => "cnn",
            Self::TorchScript => "torchscript",
            Self::Own => "own",
        }
    }

    /// The model called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        MODELS.iter().map(|model| model.name).find(|kind| kind.name() == name)
    }

    /// The model that a sweep file means by `word`: the name of one of the catalogue, or the file of a module.
    #[must_use]
    pub fn meant_by(word: &str) -> Option<Self> {
        if ModuleRef::is_meant_by(word) {
            return Some(Self::TorchScript);
        }
        Self::named(word).filter(|kind| *kind != Self::TorchScript)
    }

    /// The names of all models.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MODELS.iter().map(|model| model.name.name())
    }

    /// Whether no other model can have this name.
    #[must_use]
    pub fn is_taken(name: &str) -> bool {
        let reserved = [Self::Own, Self::TorchScript].map(Self::name);
        Self::named(name).is_some() || reserved.contains(&name) || ModuleRef::is_meant_by(name)
    }

    /// Whether it trains on data.
    #[must_use]
    pub fn needs_data(self) -> bool {
        match self {
            Self::Noop => false,
            Self::Logistic
            | Self::Softmax
            | Self::Mlp
            | Self::FixedCnn
            | Self::Cnn
            | Self::TorchScript
            | Self::Own => true,
        }
    }
}

impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for ModelKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
