//! Reads one value as the type and range of its row, and says in words what a row allows.

use super::{
    CatalogueError, DATASETS, ModelKind,
    datasets::NO_DATA,
    hyperparameters::{Hyperparameter, Kind, Range},
    listed, nearest,
};
use crate::{catalogue::Dataset, datasets::DataRef, ids::ModelName, module::ModuleRef, value::ParamValue};
use std::fmt;

/// A value that has the type and lies in the range of its row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Typed {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Word(&'static str),
    Widths(Vec<u32>),
    Model(ModelKind),
    /// A model of the kind [`ModelKind::TorchScript`].
    Module(ModuleRef),
    /// A name that none of Spotsweep's models has. Whether any trainer's has it, the sweep knows.
    OwnModel(ModelName),
    /// `None` stands for [`NO_DATA`]. Whether there is such a data set, [`crate::datasets::DataSets`] knows.
    Data(Option<String>),
}

impl Typed {
    /// As a value that is read as the same again.
    pub(super) fn to_value(&self) -> ParamValue {
        match self {
            Self::Null => ParamValue::Null,
            Self::Bool(b) => ParamValue::Bool(*b),
            Self::Int(i) => ParamValue::Int(*i),
            Self::Float(x) => ParamValue::Float(*x),
            Self::Word(word) => ParamValue::Text((*word).to_owned()),
            Self::Widths(widths) => {
                ParamValue::List(widths.iter().map(|&w| ParamValue::Int(w.into())).collect())
            }
            Self::Model(kind) => ParamValue::Text(kind.name().to_owned()),
            Self::Module(module) => ParamValue::Text(module.to_string()),
            Self::OwnModel(name) => ParamValue::Text(name.to_string()),
            Self::Data(name) => ParamValue::Text(name.clone().unwrap_or_else(|| NO_DATA.to_owned())),
        }
    }
}

impl Hyperparameter {
    /// Checks that `value` has the type and lies in the range of this row.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn check(&self, value: &ParamValue) -> Result<(), CatalogueError> {
        self.read(value).map(|_| ())
    }

    pub(super) fn read(&self, value: &ParamValue) -> Result<Typed, CatalogueError> {
        self.kind.read(self.name, value)
    }
}

impl Kind {
    /// Reads the value of the hyperparameter `name`.
    pub(super) fn read(&self, name: &str, value: &ParamValue) -> Result<Typed, CatalogueError> {
        let mismatch = || refused(name, self, value, None);
        match *self {
            Kind::Int { min, max } => match integer(value) {
                Some(i) if (min..=max).contains(&i) => Ok(Typed::Int(i)),
                Some(_) | None => Err(mismatch()),
            },
            Kind::Float(range) => match value.as_f64() {
                Some(x) if range.contains(x) => Ok(Typed::Float(x)),
                Some(_) | None => Err(text_that_looks_like_a_number(value, mismatch())),
            },
            Kind::FloatOrNull(range) => match (value, value.as_f64()) {
                (ParamValue::Null, _) => Ok(Typed::Null),
                (_, Some(x)) if range.contains(x) => Ok(Typed::Float(x)),
                _ => Err(text_that_looks_like_a_number(value, mismatch())),
            },
            Kind::Bool => match value {
                ParamValue::Bool(b) => Ok(Typed::Bool(*b)),
                ParamValue::Text(text) => Err(match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "true" => mismatch().hint("write true"),
                    "no" | "off" | "false" => mismatch().hint("write false"),
                    _ => mismatch(),
                }),
                ParamValue::Null | ParamValue::Int(_) | ParamValue::Float(_) | ParamValue::List(_) => {
                    Err(mismatch())
                }
            },
            Kind::Choice(words) => choose(value, words.iter().copied())
                .map(Typed::Word)
                .map_err(|near| refused(name, self, value, near)),
            Kind::Widths { min_len, max_len, max } => {
                let items = match value {
                    ParamValue::List(items) => items.iter().map(integer).collect::<Option<Vec<_>>>(),
                    one => integer(one).map(|i| vec![i]),
                };
                let widths =
                    items.filter(|items| (min_len..=max_len).contains(&items.len())).and_then(|items| {
                        items
                            .into_iter()
                            .filter(|i| (1..=max).contains(i))
                            .map(|i| u32::try_from(i).ok())
                            .collect::<Option<Vec<u32>>>()
                    });
                let given = match value {
                    ParamValue::List(items) => items.len(),
                    _ => 1,
                };
                widths.filter(|widths| widths.len() == given).map(Typed::Widths).ok_or_else(mismatch)
            }
            Kind::Model => match value {
                ParamValue::Text(text) if ModuleRef::is_meant_by(text) => match text.parse() {
                    Ok(module) => Ok(Typed::Module(module)),
                    Err(error) => Err(CatalogueError::new("model", format!("{}: {error}", shown(value)))),
                },
                ParamValue::Text(text) if text == ModelKind::TorchScript.name() => {
                    Err(CatalogueError::new("model", "a TorchScript module is named by its file")
                        .hint("for instance `model: net.pt`, a file beside the sweep file"))
                }
                ParamValue::Text(text) if let Some(kind) = ModelKind::named(text) => Ok(Typed::Model(kind)),
                ParamValue::Text(text)
                    if let Ok(own) = ModelName::new(text)
                        && !ModelKind::is_taken(text) =>
                {
                    Ok(Typed::OwnModel(own))
                }
                _ => Err(unknown_model(value)),
            },
            Kind::Data => match value {
                ParamValue::Text(text) if text == NO_DATA => Ok(Typed::Data(None)),
                ParamValue::Text(text)
                    if Dataset::named(text).is_some() || text.parse::<DataRef>().is_ok() =>
                {
                    Ok(Typed::Data(Some(text.clone())))
                }
                ParamValue::Null
                | ParamValue::Text(_)
                | ParamValue::Bool(_)
                | ParamValue::Int(_)
                | ParamValue::Float(_)
                | ParamValue::List(_) => Err(unknown("data set", value, DATASETS.iter().map(|d| d.name))),
            },
        }
    }
}

/// The value as it is shown in messages: short, and without control characters.
fn shown(value: &ParamValue) -> String {
    let text = match value {
        ParamValue::Text(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    if text.chars().count() <= 60 {
        text
    } else {
        format!("{}…", text.chars().take(59).collect::<String>())
    }
}

/// An integer, or a float that is one: `q_uniform` yields 128.0.
fn integer(value: &ParamValue) -> Option<i64> {
    match value {
        ParamValue::Int(i) => Some(*i),
        // 2^53: up to there every integral float stands for exactly one integer.
        #[expect(clippy::cast_possible_truncation, reason = "integral and below 2^53")]
        ParamValue::Float(x) if x.fract() == 0.0 && x.abs() <= 9_007_199_254_740_992.0 => Some(*x as i64),
        ParamValue::Float(_)
        | ParamValue::Null
        | ParamValue::Bool(_)
        | ParamValue::Text(_)
        | ParamValue::List(_) => None,
    }
}

fn choose<'a>(
    value: &ParamValue,
    words: impl IntoIterator<Item = &'a str>,
) -> Result<&'a str, Option<&'a str>> {
    let ParamValue::Text(text) = value else { return Err(None) };
    let words: Vec<_> = words.into_iter().collect();
    match words.iter().find(|word| *word == text) {
        Some(word) => Ok(word),
        None => Err(nearest(text, words)),
    }
}

/// `value` is not what the hyperparameter `name` takes; perhaps `near` was meant.
pub(super) fn refused(
    name: &str,
    takes: &impl fmt::Display,
    value: &ParamValue,
    near: Option<&str>,
) -> CatalogueError {
    let error = CatalogueError::new(name, format!("{name} is {takes}, not {}", shown(value)));
    match near {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    }
}

/// The word of `valid` that is nearest to `value`, where it is none of them.
pub(super) fn one_of<'a>(value: &ParamValue, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    choose(value, valid).err().flatten()
}

pub(super) fn unknown<'a>(
    what: &str,
    value: &ParamValue,
    valid: impl Iterator<Item = &'a str>,
) -> CatalogueError {
    let valid: Vec<_> = valid.collect();
    let near = match value {
        ParamValue::Text(text) => nearest(text, valid.iter().copied()),
        _ => None,
    };
    let key = if what == "model" { "model" } else { "data" };
    let error = CatalogueError::new(key, format!("there is no {what} {}", shown(value)));
    match near {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint(format!("one of {}", listed(valid))),
    }
}

/// As [`unknown`], where a module is not named by its kind, and a file that is no module gets a word of its own.
pub(super) fn unknown_model(value: &ParamValue) -> CatalogueError {
    let names = || ModelKind::names().filter(|name| *name != ModelKind::TorchScript.name());
    let error = unknown("model", value, names());
    match value {
        ParamValue::Text(text) if let Some(hint) = other_file(text) => error.hint(hint),
        _ => error,
    }
}

/// What to do instead, if `name` is a file of a model that is no TorchScript.
pub(crate) fn other_file(name: &str) -> Option<&'static str> {
    OTHER_FILES.iter().any(|end| name.ends_with(end)).then_some(
        "a model of your own is a TorchScript module, saved by `torch.jit.script(model).save(\"net.pt\")`",
    )
}

/// What other files of models, which are no TorchScript, end in.
const OTHER_FILES: &[&str] = &[".pth", ".ckpt", ".pt2", ".onnx", ".safetensors", ".py"];

/// YAML 1.2 reads `1e-3` as a number, but people also write `1e-3f`, `0,1` or quoted numbers.
fn text_that_looks_like_a_number(value: &ParamValue, error: CatalogueError) -> CatalogueError {
    match value {
        ParamValue::Text(text) if text.trim().parse::<f64>().is_ok() => {
            error.hint("write the number without quotes")
        }
        ParamValue::Text(text) if text.len() <= 64 && text.replace(',', ".").parse::<f64>().is_ok() => {
            error.hint("write a decimal point, not a comma")
        }
        _ => error,
    }
}

/// `in (0, 10]`.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = (if self.above_min { '(' } else { '[' }, if self.below_max { ')' } else { ']' });
        write!(f, "in {open}{}, {}{close}", number(self.min), number(self.max))
    }
}

fn number(x: f64) -> String {
    if x != 0.0 && (x.abs() >= 1e6 || x.abs() < 1e-3) { format!("{x:e}") } else { x.to_string() }
}

/// `sgd, adam or adamw`.
pub(super) fn either(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", listed(rest.iter().copied())),
        Some(_) | None => listed(words.iter().copied()),
    }
}

/// `an integer in [1, 65536]`, `sgd, adam or adamw`, …
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int { min, max: i64::MAX } => write!(f, "an integer of at least {min}"),
            Self::Int { min, max } => write!(f, "an integer in [{min}, {max}]"),
            Self::Float(range) => write!(f, "a number {range}"),
            Self::FloatOrNull(range) => write!(f, "a number {range} or null"),
            Self::Bool => f.write_str("true or false"),
            Self::Choice(words) => f.write_str(&either(words)),
            Self::Widths { min_len, max_len, max } if min_len == max_len => {
                write!(f, "a list of {min_len} integers in [1, {max}]")
            }
            Self::Widths { max_len, max, .. } => {
                write!(f, "an integer in [1, {max}] or a list of at most {max_len} of them")
            }
            Self::Model => f.write_str("a model, or a file net.pt"),
            Self::Data => f.write_str("the name of a data set"),
        }
    }
}
