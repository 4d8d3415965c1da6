//! Every hyperparameter: type, range, default, source, and what it applies to. A table, no decisions.

use super::models::ModelKind::{self, Cnn, FixedCnn, Logistic, Mlp, Noop, Own, Softmax, TorchScript};
use crate::{limits::STEPS_PER_TRIAL, value::ParamValue};

/// One row of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hyperparameter {
    /// Its name in sweep files.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// What it is when the sweep does not say.
    pub default: DefaultValue,
    /// The models that have it.
    pub models: &'static [ModelKind],
    /// The choice of another hyperparameter without which it means nothing.
    pub only_with: Option<OnlyWith>,
    /// One line for people; the unit, where there is one.
    pub about: &'static str,
    /// Paper or manual that defines it, or empty.
    pub source: &'static str,
}

/// `momentum` is there only with `optimizer: sgd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnlyWith {
    /// The other hyperparameter.
    pub key: &'static str,
    /// The choices of it that have this one.
    pub choices: &'static [&'static str],
}

/// Type and range of a hyperparameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// An integer in `[min, max]`; an integral float is taken for one.
    Int {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// A number in a range.
    Float(Range),
    /// A number in a range, or `null` for none.
    FloatOrNull(Range),
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of `min_len..=max_len` integers in `[1, max]`; one integer is a list of one.
    Widths {
        /// Shortest list.
        min_len: usize,
        /// Longest list.
        max_len: usize,
        /// Greatest width.
        max: i64,
    },
    /// The name of a model.
    Model,
    /// The name of a data set.
    Data,
}

/// An interval of real numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Lower end.
    pub min: f64,
    /// Upper end.
    pub max: f64,
    /// Whether `min` itself is outside.
    pub above_min: bool,
    /// Whether `max` itself is outside.
    pub below_max: bool,
}

/// A default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DefaultValue {
    /// There is none: the sweep must say.
    Required,
    /// The same for all.
    Always(Literal),
    /// By model; the last pair's value is that of the models that are not listed.
    ByModel(&'static [(ModelKind, Literal)], Literal),
    /// By optimizer.
    ByOptimizer(&'static [(&'static str, Literal)], Literal),
}

/// A constant of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Literal {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number.
    Float(f64),
    /// A word.
    Word(&'static str),
    /// A list of integers.
    Ints(&'static [i64]),
}

impl Literal {
    /// As a value.
    #[must_use]
    pub fn to_value(self) -> ParamValue {
        match self {
            Self::Null => ParamValue::Null,
            Self::Bool(b) => ParamValue::Bool(b),
            Self::Int(i) => ParamValue::Int(i),
            Self::Float(f) => ParamValue::Float(f),
            Self::Word(w) => ParamValue::Text(w.to_owned()),
            Self::Ints(items) => ParamValue::List(items.iter().map(|i| ParamValue::Int(*i)).collect()),
        }
    }
}

/// The optimizers.
pub const OPTIMIZERS: &[&str] = &["sgd", "adam", "adamw"];
/// The schedules.
pub const SCHEDULES: &[&str] = &["constant", "step", "cosine"];

const ALL: &[ModelKind] = &[Noop, Logistic, Softmax, Mlp, FixedCnn, Cnn, TorchScript, Own];
const TRAINED: &[ModelKind] = &[Logistic, Softmax, Mlp, FixedCnn, Cnn, TorchScript, Own];
/// Those whose insides are the catalogue's to choose, and whose arithmetic is known here.
const BUILT_IN: &[ModelKind] = &[Logistic, Softmax, Mlp, FixedCnn, Cnn];
const DEEP: &[ModelKind] = &[Mlp, FixedCnn, Cnn];
const DENSE: &[ModelKind] = &[Mlp, FixedCnn];

const SGD: Option<OnlyWith> = Some(OnlyWith { key: "optimizer", choices: &["sgd"] });
const ADAMS: Option<OnlyWith> = Some(OnlyWith { key: "optimizer", choices: &["adam", "adamw"] });
const STEP: Option<OnlyWith> = Some(OnlyWith { key: "schedule", choices: &["step"] });
const COSINE: Option<OnlyWith> = Some(OnlyWith { key: "schedule", choices: &["cosine"] });

const fn closed(min: f64, max: f64) -> Range {
    Range { min, max, above_min: false, below_max: false }
}
const fn above(min: f64, max: f64) -> Range {
    Range { min, max, above_min: true, below_max: false }
}
const fn below(min: f64, max: f64) -> Range {
    Range { min, max, above_min: false, below_max: true }
}

const fn row(
    name: &'static str,
    models: &'static [ModelKind],
    kind: Kind,
    default: DefaultValue,
    about: &'static str,
    source: &'static str,
) -> Hyperparameter {
    Hyperparameter { name, kind, default, models, only_with: None, about, source }
}

const fn with(only_with: Option<OnlyWith>, row: Hyperparameter) -> Hyperparameter {
    Hyperparameter { only_with, ..row }
}

/// All hyperparameters, in the order in which people meet them.
#[rustfmt::skip]
pub const HYPERPARAMETERS: &[Hyperparameter] = &[
    row("model", ALL, Kind::Model, DefaultValue::Required,
        "what is trained", ""),
    row("data", TRAINED, Kind::Data, DefaultValue::Required,
        "the data set; noop needs none", ""),
    row("epochs", ALL, Kind::Int { min: 1, max: 100_000 }, DefaultValue::Always(Literal::Int(5)),
        "passes over the training split; not together with steps; noop counts one step an epoch", ""),
    row("steps", ALL, Kind::Int { min: 1, max: STEPS_PER_TRIAL as i64 }, DefaultValue::Always(Literal::Null),
        "optimizer steps, instead of epochs", ""),
    row("seed", ALL, Kind::Int { min: 0, max: i64::MAX }, DefaultValue::Always(Literal::Int(0)),
        "seed of initial weights, split, order of samples and dropout", ""),
    row("threads", ALL, Kind::Int { min: 1, max: 1024 }, DefaultValue::Always(Literal::Int(1)),
        "libtorch's threads on a CPU; the count changes the bits", ""),
    row("batch_size", TRAINED, Kind::Int { min: 1, max: 65_536 }, DefaultValue::Always(Literal::Int(64)),
        "samples a step", "Masters & Luschi, 2018"),
    row("optimizer", TRAINED, Kind::Choice(OPTIMIZERS), DefaultValue::Always(Literal::Word("sgd")),
        "how weights follow the gradient", ""),
    row("learning_rate", TRAINED, Kind::Float(above(0.0, 10.0)),
        DefaultValue::ByOptimizer(&[("sgd", Literal::Float(0.1))], Literal::Float(0.001)),
        "peak learning rate, before the schedule", "Bengio, 2012; Kingma & Ba, 2015"),
    with(SGD, row("momentum", TRAINED, Kind::Float(below(0.0, 1.0)), DefaultValue::Always(Literal::Float(0.0)),
        "decay of the velocity; with 0.9 learning rates are a tenth of those without", "Sutskever, Martens, Dahl & Hinton, 2013")),
    with(SGD, row("nesterov", TRAINED, Kind::Bool, DefaultValue::Always(Literal::Bool(false)),
        "Nesterov's form of momentum", "Sutskever, Martens, Dahl & Hinton, 2013")),
    with(ADAMS, row("beta1", TRAINED, Kind::Float(below(0.0, 1.0)), DefaultValue::Always(Literal::Float(0.9)),
        "decay of the first moment", "Kingma & Ba, 2015")),
    with(ADAMS, row("beta2", TRAINED, Kind::Float(below(0.0, 1.0)), DefaultValue::Always(Literal::Float(0.999)),
        "decay of the second moment", "Kingma & Ba, 2015")),
    with(ADAMS, row("epsilon", TRAINED, Kind::Float(above(0.0, 1.0)), DefaultValue::Always(Literal::Float(1e-8)),
        "added to the denominator", "Kingma & Ba, 2015")),
    row("weight_decay", TRAINED, Kind::Float(closed(0.0, 1.0)),
        DefaultValue::ByOptimizer(&[("adamw", Literal::Float(0.01))], Literal::Float(0.0)),
        "sgd, adam: L2 penalty added to the gradient; adamw: decoupled decay",
        "Krogh & Hertz, 1992; Loshchilov & Hutter, 2019"),
    row("schedule", TRAINED, Kind::Choice(SCHEDULES), DefaultValue::Always(Literal::Word("constant")),
        "how the learning rate changes after the warm-up", ""),
    with(STEP, row("step_every_epochs", TRAINED, Kind::Int { min: 1, max: 100_000 },
        DefaultValue::Always(Literal::Int(2)),
        "epochs between two drops", "He, Zhang, Ren & Sun, 2016")),
    with(STEP, row("step_gamma", TRAINED, Kind::Float(above(0.0, 1.0)), DefaultValue::Always(Literal::Float(0.5)),
        "factor of a drop", "He, Zhang, Ren & Sun, 2016")),
    with(COSINE, row("cosine_final_fraction", TRAINED, Kind::Float(closed(0.0, 1.0)),
        DefaultValue::Always(Literal::Float(0.0)),
        "what is left of the peak at the last step", "Loshchilov & Hutter, 2017")),
    row("warmup_steps", TRAINED, Kind::Int { min: 0, max: 1_000_000_000_000 }, DefaultValue::Always(Literal::Int(0)),
        "steps over which the learning rate rises from 0", "Goyal et al., 2017"),
    row("clip_norm", TRAINED, Kind::FloatOrNull(above(0.0, 1e9)), DefaultValue::Always(Literal::Null),
        "largest L2 norm of all gradients together; null for no limit", "Pascanu, Mikolov & Bengio, 2013"),
    row("init", BUILT_IN, Kind::Choice(&["xavier", "he"]),
        DefaultValue::ByModel(&[(Logistic, Literal::Word("xavier")), (Softmax, Literal::Word("xavier"))],
            Literal::Word("he")),
        "how weights are drawn; biases start at 0", "Glorot & Bengio, 2010; He et al., 2015"),
    row("precision", BUILT_IN, Kind::Choice(&["f32", "bf16"]), DefaultValue::Always(Literal::Word("f32")),
        "arithmetic of matrix products and convolutions", "Kalamkar et al., 2019"),
    row("validation_fraction", TRAINED, Kind::Float(closed(0.0, 0.5)), DefaultValue::Always(Literal::Float(0.1)),
        "share of the training set held out for validation", ""),
    row("report_every_steps", ALL, Kind::Int { min: 0, max: 1_000_000_000_000 },
        DefaultValue::ByModel(&[(Noop, Literal::Int(0))], Literal::Int(100)),
        "steps between two reports of the training loss; 0 for the end of each epoch only", ""),
    row("positive_class", &[Logistic], Kind::Int { min: 0, max: 65_535 }, DefaultValue::Always(Literal::Int(0)),
        "the class that counts as positive; all others are negative", ""),
    row("hidden", DENSE, Kind::Widths { min_len: 0, max_len: 16, max: 65_536 },
        DefaultValue::ByModel(&[(FixedCnn, Literal::Ints(&[256]))], Literal::Ints(&[256, 128])),
        "widths of the dense hidden layers; [] for none", "Rumelhart, Hinton & Williams, 1986"),
    row("channels", &[Cnn], Kind::Widths { min_len: 2, max_len: 2, max: 4096 },
        DefaultValue::Always(Literal::Ints(&[32, 64])),
        "filters of the two convolutions", "LeCun, Bottou, Bengio & Haffner, 1998"),
    row("dense", &[Cnn], Kind::Int { min: 1, max: 65_536 }, DefaultValue::Always(Literal::Int(256)),
        "width of the dense layer", "LeCun, Bottou, Bengio & Haffner, 1998"),
    row("batch_norm", &[Cnn], Kind::Bool, DefaultValue::Always(Literal::Bool(false)),
        "batch normalisation behind each convolution", "Ioffe & Szegedy, 2015"),
    row("activation", DEEP, Kind::Choice(&["relu", "tanh", "sigmoid", "gelu"]),
        DefaultValue::Always(Literal::Word("relu")),
        "between the layers", "Nair & Hinton, 2010; Hendrycks & Gimpel, 2016"),
    row("dropout", DEEP, Kind::Float(below(0.0, 1.0)),
        DefaultValue::ByModel(&[(Cnn, Literal::Float(0.5))], Literal::Float(0.1)),
        "share of activations dropped behind each dense hidden layer while training",
        "Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, 2014"),
];

impl Hyperparameter {
    /// The row called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        HYPERPARAMETERS.iter().find(|row| row.name == name)
    }

    /// The rows that `model` has.
    pub fn of(model: ModelKind) -> impl Iterator<Item = &'static Self> {
        HYPERPARAMETERS.iter().filter(move |row| row.models.contains(&model))
    }

    /// The default for a model and an optimizer, where there is one.
    #[must_use]
    pub fn default_for(&self, model: ModelKind, optimizer: &str) -> Option<Literal> {
        match self.default {
            DefaultValue::Required => None,
            DefaultValue::Always(literal) => Some(literal),
            DefaultValue::ByModel(by, others) => {
                Some(by.iter().find(|(kind, _)| *kind == model).map_or(others, |(_, literal)| *literal))
            }
            DefaultValue::ByOptimizer(by, others) => {
                Some(by.iter().find(|(name, _)| *name == optimizer).map_or(others, |(_, literal)| *literal))
            }
        }
    }
}

impl Range {
    /// Whether `x` lies in it. NaN does not.
    #[must_use]
    pub fn contains(&self, x: f64) -> bool {
        (if self.above_min { x > self.min } else { x >= self.min })
            && (if self.below_max { x < self.max } else { x <= self.max })
    }
}
