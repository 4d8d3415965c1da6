//! What answers look like in JSON, and how views become that. Pure.

use crate::queries::board::Cell;
use serde::Serialize;
use spotsweep_engine::{
    action::TrialState,
    views::{Counts, SweepView},
};
use spotsweep_proto::spec::space::{Domain, Parameter};
use utoipa::ToSchema;

/// A sweep and how it stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Sweep {
    /// Its name.
    pub(super) sweep: String,
    /// From its file.
    pub(super) description: String,
    /// `running`, `paused`, `completed` or `cancelled`.
    pub(super) state: String,
    /// How many trials it has.
    pub(super) trials: u32,
    /// How many are final.
    pub(super) ended: u32,
    /// How many are in which state.
    pub(super) counts: StateCounts,
    /// What it optimises.
    pub(super) objective: Option<ObjectiveBody>,
    /// The number of the best trial so far.
    pub(super) best_trial: Option<u32>,
    /// Its value of the objective.
    pub(super) best_value: Option<f64>,
    /// Sweeps of higher priority go first.
    pub(super) priority: i32,
    /// When it was submitted.
    pub(super) submitted_at_us: u64,
    /// When its last trial became final.
    pub(super) ended_at_us: Option<u64>,
    /// Reports that were dropped because they came under an old epoch.
    pub(super) stale_reports: u64,
    /// Where it comes from, if it was imported: then it is read-only, and has no checkpoints.
    pub(super) imported: Option<ImportedBody>,
}

/// Where an imported sweep comes from.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Imported)]
pub(super) struct ImportedBody {
    /// Version of the program that exported it.
    pub(super) program: String,
    /// Version of the export's format.
    pub(super) format: u32,
    /// BLAKE3 of the export, hex.
    pub(super) digest: String,
    /// When it was imported.
    pub(super) at_us: u64,
}

/// Trials by state.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) struct StateCounts {
    pending: u32,
    running: u32,
    paused: u32,
    completed: u32,
    stopped: u32,
    failed: u32,
    diverged: u32,
    cancelled: u32,
}

impl From<&Counts> for StateCounts {
    fn from(counts: &Counts) -> Self {
        Self {
            pending: counts.get(TrialState::Pending),
            running: counts.get(TrialState::Running),
            paused: counts.get(TrialState::Paused),
            completed: counts.get(TrialState::Completed),
            stopped: counts.get(TrialState::Stopped),
            failed: counts.get(TrialState::Failed),
            diverged: counts.get(TrialState::Diverged),
            cancelled: counts.get(TrialState::Cancelled),
        }
    }
}

/// What a sweep optimises.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Objective)]
pub(super) struct ObjectiveBody {
    /// The metric.
    pub(super) metric: String,
    /// `minimize` or `maximize`.
    pub(super) goal: String,
    /// The value at which no new trials are started.
    pub(super) target: Option<f64>,
}

impl From<&SweepView> for Sweep {
    fn from(view: &SweepView) -> Self {
        let objective = view.spec.objective.as_ref().map(|objective| ObjectiveBody {
            metric: objective.name.to_string(),
            goal: crate::queries::messages::goal(objective.goal).to_owned(),
            target: objective.target,
        });
        Self {
            sweep: view.name.to_string(),
            description: view.spec.description.clone(),
            state: view.state.as_str().to_owned(),
            trials: view.trials,
            ended: view.counts.ended(),
            counts: StateCounts::from(&view.counts),
            objective,
            best_trial: view.best.map(|(number, _)| number),
            best_value: view.best.map(|(_, best)| best.value),
            priority: view.spec.priority,
            submitted_at_us: view.submitted_at.0,
            ended_at_us: view.ended_at.map(|at| at.0),
            stale_reports: view.stale_reports,
            imported: view.imported.as_ref().map(|from| ImportedBody {
                program: from.program.clone(),
                format: from.format,
                digest: from.digest.to_string(),
                at_us: from.at.0,
            }),
        }
    }
}

/// A hyperparameter of a sweep.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ParameterBody {
    /// Its name; nested ones are joined by dots.
    pub(super) name: String,
    /// Its distribution, as in sweep files.
    pub(super) distribution: &'static str,
    /// Whether trials differ in it.
    pub(super) varies: bool,
    /// `category`, `linear` or `log`: the axis on which its values lie evenly.
    pub(super) scale: &'static str,
    /// The choices of a category, as cells of a table have them.
    pub(super) values: Vec<CellBody>,
}

/// Most choices that are listed of a category.
const CHOICES: usize = 200;

impl From<&Parameter> for ParameterBody {
    fn from(parameter: &Parameter) -> Self {
        let (scale, values) = match &parameter.domain {
            Domain::Constant(value) => ("category", vec![Cell::from(value).into()]),
            Domain::Categorical { values, probabilities: _ } => {
                ("category", values.iter().take(CHOICES).map(|value| Cell::from(value).into()).collect())
            }
            Domain::IntUniform { .. }
            | Domain::Uniform { .. }
            | Domain::QUniform { .. }
            | Domain::Normal { .. }
            | Domain::QNormal { .. } => ("linear", Vec::new()),
            Domain::LogUniformValues { .. }
            | Domain::InvLogUniformValues { .. }
            | Domain::QLogUniformValues { .. }
            | Domain::LogNormal { .. }
            | Domain::QLogNormal { .. } => ("log", Vec::new()),
        };
        Self {
            name: parameter.name.to_string(),
            distribution: parameter.domain.distribution(),
            varies: parameter.domain.grid_size() != Some(1),
            scale,
            values,
        }
    }
}

/// A cell of a table: nothing, a truth value, a number or text.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Cell)]
pub(super) enum CellBody {
    /// There is no value, or none that is finite.
    Missing(Option<()>),
    /// Yes or no.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
}

impl From<Cell> for CellBody {
    fn from(cell: Cell) -> Self {
        match cell {
            Cell::Float(float) if float.is_finite() => Self::Float(float),
            Cell::Missing | Cell::Float(_) => Self::Missing(None),
            Cell::Bool(yes) => Self::Bool(yes),
            Cell::Int(int) => Self::Int(int),
            Cell::Text(text) => Self::Text(text),
        }
    }
}

/// What is finite, for JSON.
pub(super) fn finite(value: f64) -> Option<f64> {
    Some(value).filter(|value| value.is_finite())
}
