//! One trial as tables show it, and its fields by name. Pure.

use crate::store::AttemptRow;
use spotsweep_engine::{Time, views::TrialBrief};
use spotsweep_proto::{
    digest::Digest,
    ids::DeviceName,
    metric::Metrics,
    value::{Assignment, ParamValue},
};
use std::cmp::Ordering;

/// A trial: what the engine and the history know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its place in the sweep, from 0.
    pub number: u32,
    /// What the engine knows.
    pub brief: TrialBrief,
    /// Its hyperparameters.
    pub params: Assignment,
    /// Final metrics, or the newest of each while it has none.
    pub metrics: Metrics,
    /// Of the final weights.
    pub weights_digest: Option<Digest>,
    /// Where it finished, if it did.
    pub device: Option<DeviceName>,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptRow>,
}

impl Row {
    /// When its last attempt ended, if none runs.
    #[must_use]
    pub fn ended_at(&self) -> Option<Time> {
        let (_, _, at) = self.attempts.last()?.ended.as_ref()?;
        Some(*at)
    }

    /// When its first attempt began.
    #[must_use]
    pub fn started_at(&self) -> Option<Time> {
        self.attempts.iter().find_map(|attempt| attempt.started.as_ref().map(|(.., at)| *at))
    }

    /// The value of a metric.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| *value)
    }

    /// Where it runs or last ran.
    #[must_use]
    pub fn worker(&self) -> Option<&str> {
        let (_, worker, ..) = self.attempts.last()?.started.as_ref()?;
        Some(worker.as_str())
    }

    /// On what it runs or last ran.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        let last = self.attempts.last().and_then(|attempt| attempt.started.as_ref());
        self.device.as_ref().or(last.map(|(_, _, device, ..)| device)).map(DeviceName::as_str)
    }
}

/// A field of a row. Where a parameter and a metric have one name, the bare name is the parameter, as everywhere on
/// the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// Its number.
    Number,
    /// Its state.
    State,
    /// Last step.
    Steps,
    /// Steps at the end.
    TotalSteps,
    /// Attempts that started.
    Attempts,
    /// Attempts that failed.
    Failures,
    /// Attempts that were interrupted.
    Interruptions,
    /// Seconds of training.
    Seconds,
    /// Best value of the objective that it ever reported.
    Best,
    /// Where it runs or last ran.
    Worker,
    /// On what.
    Device,
    /// When its first attempt began, microseconds since 1970.
    StartedAt,
    /// When its last attempt ended, microseconds since 1970.
    EndedAt,
    /// Digest of its final weights.
    WeightsDigest,
    /// A hyperparameter.
    Parameter(String),
    /// A metric.
    Metric(String),
}

/// The fields that every trial has, by name.
const FIXED: [(&str, Field); 14] = [
    ("number", Field::Number),
    ("state", Field::State),
    ("steps", Field::Steps),
    ("total_steps", Field::TotalSteps),
    ("attempts", Field::Attempts),
    ("failures", Field::Failures),
    ("interruptions", Field::Interruptions),
    ("seconds", Field::Seconds),
    ("best", Field::Best),
    ("worker", Field::Worker),
    ("device", Field::Device),
    ("started_at_us", Field::StartedAt),
    ("ended_at_us", Field::EndedAt),
    ("weights_digest", Field::WeightsDigest),
];

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// There is none.
    Missing,
    /// Yes or no.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Another number; it may be NaN or infinite.
    Float(f64),
    /// Text.
    Text(String),
}

impl Field {
    /// The field of that name; `is_parameter` and `is_metric` know the sweep's names.
    #[must_use]
    pub fn named(
        name: &str,
        is_parameter: impl Fn(&str) -> bool,
        is_metric: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        if let Some((_, field)) = FIXED.iter().find(|(known, _)| *known == name) {
            return Some(field.clone());
        }
        if is_parameter(name) {
            return Some(Self::Parameter(name.to_owned()));
        }
        if let Some(parameter) = name.strip_prefix("params.").filter(|name| is_parameter(name)) {
            return Some(Self::Parameter(parameter.to_owned()));
        }
        let metric = name.strip_prefix("metrics.").unwrap_or(name);
        is_metric(metric).then(|| Self::Metric(metric.to_owned()))
    }

    /// Names of the fields that every trial has.
    pub fn fixed() -> impl Iterator<Item = &'static str> {
        FIXED.iter().map(|(name, _)| *name)
    }

    /// Its value in a row.
    #[must_use]
    pub fn of(&self, row: &Row) -> Cell {
        let TrialBrief { state, attempts, failures, interruptions, step, total_steps, best, seconds, .. } =
            row.brief;
        let int = |value: u64| Cell::Int(i64::try_from(value).unwrap_or(i64::MAX));
        let text = |value: Option<&str>| value.map_or(Cell::Missing, |text| Cell::Text(text.to_owned()));
        let time = |value: Option<Time>| value.map_or(Cell::Missing, |Time(us)| int(us));
        match self {
            Self::Number => int(row.number.into()),
            Self::State => Cell::Text(state.as_str().to_owned()),
            Self::Steps => int(step),
            Self::TotalSteps => total_steps.map_or(Cell::Missing, int),
            Self::Attempts => int(attempts.into()),
            Self::Failures => int(failures.into()),
            Self::Interruptions => int(interruptions.into()),
            Self::Seconds => Cell::Float(seconds),
            Self::Best => best.map_or(Cell::Missing, |best| Cell::Float(best.value)),
            Self::Worker => text(row.worker()),
            Self::Device => text(row.device()),
            Self::StartedAt => time(row.started_at()),
            Self::EndedAt => time(row.ended_at()),
            Self::WeightsDigest => {
                row.weights_digest.map_or(Cell::Missing, |digest| Cell::Text(digest.to_string()))
            }
            Self::Parameter(name) => row.params.get(name).map_or(Cell::Missing, Cell::from),
            Self::Metric(name) => row.metric(name).map_or(Cell::Missing, Cell::Float),
        }
    }
}

impl From<&ParamValue> for Cell {
    fn from(value: &ParamValue) -> Self {
        match value {
            ParamValue::Null => Self::Missing,
            ParamValue::Bool(yes) => Self::Bool(*yes),
            ParamValue::Int(int) => Self::Int(*int),
            ParamValue::Float(float) => Self::Float(*float),
            ParamValue::Text(text) => Self::Text(text.clone()),
            ParamValue::List(_) => Self::Text(value.to_string()),
        }
    }
}

impl Cell {
    /// As a number, where it is one.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "for order and plots")]
            Self::Int(int) => Some(*int as f64),
            Self::Float(float) => Some(*float),
            Self::Missing | Self::Bool(_) | Self::Text(_) => None,
        }
    }

    /// Whether there is nothing to compare: no value, or NaN.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Missing => true,
            Self::Float(float) => float.is_nan(),
            Self::Bool(_) | Self::Int(_) | Self::Text(_) => false,
        }
    }

    /// Order among values that are not missing: numbers before truth values before text.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        match (self.as_f64(), other.as_f64()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => match (self, other) {
                (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
                (Self::Text(a), Self::Text(b)) => a.cmp(b),
                (Self::Bool(_), _) => Ordering::Less,
                (_, Self::Bool(_)) => Ordering::Greater,
                (Self::Missing | Self::Int(_) | Self::Float(_) | Self::Text(_), _) => Ordering::Equal,
            },
        }
    }

    /// As people and filters write it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Missing => String::new(),
            Self::Bool(yes) => yes.to_string(),
            Self::Int(int) => int.to_string(),
            Self::Float(float) => float.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}
