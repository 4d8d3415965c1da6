//! What clients are shown: one source of answers for gRPC and for folders on which no coordinator runs.
//!
//! Owns the joining of what the engine knows with what the history knows. It must not change anything.

pub mod board;
pub mod how;
pub mod messages;

use crate::{
    driver::Handle,
    error::{Code, Problem},
    sinks::SinkStates,
    store::History,
};
use messages::Outcome;
use spotsweep_engine::{
    Engine, SweepId, TrialRef,
    views::{SweepView, TrialBrief, TrialView},
};
use spotsweep_proto::ids::{SweepName, TrialId};
use spotsweep_wire::v1;
use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Range,
    sync::Arc,
};

/// Trials in one page of results.
const TRIALS_PER_PAGE: u32 = 500;
/// Points in one page of metrics.
const POINTS_PER_PAGE: usize = 1000;

/// Where the engine is.
#[derive(Clone)]
enum Knower {
    /// In the driver of a coordinator at work.
    Live(Handle),
    /// Here, as the journal of a folder left it.
    Offline(Arc<Engine>),
}

/// Answers questions. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    knower: Knower,
    history: Arc<History>,
    store_url: Arc<str>,
    sinks: SinkStates,
}

/// A sweep, or one of its trials.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The sweep.
    pub sweep: SweepView,
    /// The trial's number, where one was asked for.
    pub number: Option<u32>,
}

/// Trials at which one look at the engine is taken: some ten microseconds of the driver's time.
pub const TRIALS_PER_LOOK: u32 = 500;

impl Queries {
    /// Of a coordinator at work.
    #[must_use]
    pub fn live(handle: Handle, history: Arc<History>, store_url: &str) -> Self {
        Self {
            knower: Knower::Live(handle),
            history,
            store_url: store_url.into(),
            sinks: SinkStates::default(),
        }
    }

    /// Of a folder at rest.
    #[must_use]
    pub fn offline(engine: Engine, history: History, store_url: &str) -> Self {
        let knower = Knower::Offline(Arc::new(engine));
        let (history, sinks) = (Arc::new(history), SinkStates::default());
        Self { knower, history, store_url: store_url.into(), sinks }
    }

    /// What is known of sinks.
    #[must_use]
    pub fn sinks(&self) -> SinkStates {
        self.sinks.clone()
    }

    /// Looks at the engine; the history is at least as new when the answer comes.
    ///
    /// # Errors
    /// The journal is stalled, or the coordinator ends.
    pub async fn ask<R: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> R + Send + 'static,
    ) -> Result<R, Problem> {
        match &self.knower {
            Knower::Live(handle) => Ok(handle.query(look).await?.0),
            Knower::Offline(engine) => Ok(look(engine)),
        }
    }

    /// How these trials stand, as far as there are such; at most [`TRIALS_PER_LOOK`], which is one look at the engine.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn briefs(&self, sweep: SweepId, numbers: Vec<u32>) -> Result<Vec<(u32, TrialBrief)>, Problem> {
        let look = move |engine: &Engine| -> Vec<(u32, TrialBrief)> {
            let brief = |number| Some((number, engine.trial_brief(TrialRef { sweep, number })?));
            numbers.into_iter().filter_map(brief).collect()
        };
        self.ask(look).await
    }

    async fn ask_with_history<R: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> R + Send + 'static,
    ) -> Result<R, Problem> {
        match &self.knower {
            Knower::Live(handle) => {
                let (found, seq) = handle.query(look).await?;
                handle.history_at_least(seq).await?;
                Ok(found)
            }
            Knower::Offline(engine) => Ok(look(engine)),
        }
    }

    /// Reads the history, on a thread that may wait for the disk.
    ///
    /// # Errors
    /// The history cannot be read.
    pub async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&History) -> Result<R, crate::store::StoreError> + Send + 'static,
    ) -> Result<R, Problem> {
        let history = self.history.clone();
        let read = tokio::task::spawn_blocking(move || read(&history)).await;
        Ok(read.map_err(|error| Problem::internal(&error))??)
    }

    /// The sweep or trial that `target` names (`fashion-ladder`, `fashion-ladder/7`).
    ///
    /// # Errors
    /// A name that is none, or that nothing has.
    pub async fn find(&self, target: &str) -> Result<Found, Problem> {
        let bad = |error: String| Problem::new(Code::BadRequest, error);
        let (name, number) = if target.contains('/') {
            let trial: TrialId = target.parse().map_err(|error| bad(format!("{error}")))?;
            (trial.sweep, Some(trial.number))
        } else {
            (SweepName::new(target).map_err(|error| bad(error.to_string()))?, None)
        };
        let wanted = name.clone();
        let sweep = self.ask(move |engine| engine.sweep_by_name(&wanted)).await?;
        let missing = || Problem::new(Code::NoSuchSweep, format!("there is no sweep {name}"));
        let sweep = sweep.ok_or_else(missing)?;
        if let Some(number) = number.filter(|number| *number >= sweep.trials) {
            let message = format!("{name} has no trial {number}; it has {}, counted from 0", sweep.trials);
            return Err(Problem::new(Code::NoSuchTrial, message));
        }
        Ok(Found { sweep, number })
    }

    /// As [`Self::find`], for what only a trial has.
    ///
    /// # Errors
    /// As [`Self::find`], or the target is a whole sweep.
    pub async fn find_trial(&self, target: &str) -> Result<(SweepView, TrialRef), Problem> {
        let Found { sweep, number } = self.find(target).await?;
        let whole = || {
            let hint = format!("write {target}/NUMBER, for instance {target}/0");
            Problem::new(Code::BadRequest, format!("{target} is a sweep; a trial is wanted")).hint(hint)
        };
        let trial = TrialRef { sweep: sweep.id, number: number.ok_or_else(whole)? };
        Ok((sweep, trial))
    }

    /// All sweeps, oldest first.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn sweeps(&self) -> Result<Vec<v1::SweepSummary>, Problem> {
        let sinks = self.sinks.clone();
        let summary = move |view: SweepView| v1::SweepSummary {
            sink_problems: sinks.problems(view.id),
            ..messages::sweep(&view)
        };
        self.ask(|engine| engine.sweeps().map(summary).collect()).await
    }

    /// One sweep, by number.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn sweep(&self, id: SweepId) -> Result<Option<v1::SweepSummary>, Problem> {
        self.ask(move |engine| engine.sweep(id).map(|view| messages::sweep(&view))).await
    }

    /// A sweep, and the trial where one was named.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub async fn show(&self, target: &str) -> Result<v1::ShowSweepResponse, Problem> {
        let Found { sweep, number } = self.find(target).await?;
        let trial = match number {
            Some(number) => self.trials(&sweep, number..number + 1).await?.pop(),
            None => None,
        };
        let spec_json = serde_json::to_string(&*sweep.spec).map_err(|error| Problem::internal(&error))?;
        let sink_problems = self.sinks.problems(sweep.id);
        let summary = v1::SweepSummary { sink_problems, ..messages::sweep(&sweep) };
        Ok(v1::ShowSweepResponse { sweep: Some(summary), trial, spec_json })
    }

    /// The pages into which the results of a sweep fall, in order.
    #[must_use]
    pub fn pages(sweep: &SweepView) -> Vec<Range<u32>> {
        let starts = (0..sweep.trials).step_by(TRIALS_PER_PAGE as usize);
        starts.map(|start| start..(start + TRIALS_PER_PAGE).min(sweep.trials)).collect()
    }

    /// One row a trial, whatever its state.
    ///
    /// # Errors
    /// As [`Self::ask`], or the history cannot be read.
    pub async fn trials(&self, sweep: &SweepView, range: Range<u32>) -> Result<Vec<v1::Trial>, Problem> {
        self.trials_in(sweep, vec![range]).await
    }

    /// As [`Self::trials`], for the numbers in all these ranges.
    ///
    /// # Errors
    /// As [`Self::trials`].
    pub async fn trials_in(
        &self,
        sweep: &SweepView,
        ranges: Vec<Range<u32>>,
    ) -> Result<Vec<v1::Trial>, Problem> {
        let id = sweep.id;
        let numbers = ranges.clone().into_iter().flatten();
        let look = move |engine: &Engine| -> Vec<TrialView> {
            numbers.filter_map(|number| engine.trial(TrialRef { sweep: id, number })).collect()
        };
        let views = self.ask_with_history(look).await?;
        let unfinished: Vec<TrialRef> =
            views.iter().filter(|view| view.attempts > 0).map(|view| view.trial).collect();
        let mut outcomes = self.read(move |history| outcomes(history, id, ranges, &unfinished)).await?;
        let row = |view: &TrialView| {
            let params = sweep.spec.space.assignment(sweep.spec.method, view.trial.number);
            let outcome = outcomes.remove(&view.trial.number).unwrap_or_default();
            messages::trial(&sweep.name, &params, view, outcome)
        };
        Ok(views.iter().map(row).collect())
    }

    /// Attempts of the trials in `range`, by number and epoch, as far as their beginning is known.
    ///
    /// # Errors
    /// As [`Self::trials`].
    pub async fn attempts(&self, sweep: SweepId, range: Range<u32>) -> Result<Vec<v1::Attempt>, Problem> {
        self.ask_with_history(|_| ()).await?;
        let rows = self.read(move |history| history.attempts_of(sweep, range)).await?;
        let attempts = rows.iter().map(|(number, row)| messages::attempt(*number, row));
        attempts
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()
            .map_err(|error| Problem::internal(&error))
    }

    /// Points of a trial from `first_step` on, and where the next page begins.
    ///
    /// # Errors
    /// As [`Self::trials`].
    pub async fn points(
        &self,
        name: &str,
        trial: TrialRef,
        first_step: u64,
    ) -> Result<(Vec<v1::Point>, Option<u64>), Problem> {
        self.ask_with_history(|_| ()).await?;
        self.points_at_hand(name, trial, first_step).await
    }

    /// As [`Self::points`], of what the history holds already.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn points_at_hand(
        &self,
        name: &str,
        trial: TrialRef,
        first_step: u64,
    ) -> Result<(Vec<v1::Point>, Option<u64>), Problem> {
        let name = name.to_owned();
        self.read(move |history| {
            let rows = history.points(trial, first_step, POINTS_PER_PAGE)?;
            let next = match rows.last() {
                Some(last) if rows.len() >= POINTS_PER_PAGE => Some(last.step + 1),
                Some(_) | None => None,
            };
            let point = |row: crate::store::PointRow| v1::Point {
                trial: name.clone(),
                step: row.step,
                data_epoch: row.data_epoch,
                metrics: messages::metrics(row.metrics),
                at_us: row.at.0,
            };
            Ok((rows.into_iter().map(point).collect(), next))
        })
        .await
    }

    /// Why a trial, or each kind of waiting trial of a sweep, is as it is.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub async fn explain(&self, target: &str) -> Result<Vec<String>, Problem> {
        let Found { sweep, number } = self.find(target).await?;
        let id = sweep.id;
        let explained = self.ask(move |engine| {
            // Of a whole sweep, the first trial that waits speaks for the others.
            let number = number.or_else(|| {
                (0..sweep.trials).find(|number| {
                    engine
                        .trial(TrialRef { sweep: id, number: *number })
                        .is_some_and(|view| !view.state.is_final())
                })
            });
            let explanation =
                number.and_then(|number| engine.explain(TrialRef { sweep: id, number }, engine.now()));
            explanation.map(|explanation| explanation.to_string())
        });
        let text = match explained.await? {
            Some(text) => text,
            None => format!("{target}: every trial has ended"),
        };
        Ok(text.lines().map(str::to_owned).chain(self.sinks.problems(id)).collect())
    }

    /// All workers that are not forgotten.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn workers(&self) -> Result<Vec<v1::WorkerSummary>, Problem> {
        self.ask(|engine| {
            let names: HashMap<SweepId, SweepName> =
                engine.sweeps().map(|sweep| (sweep.id, sweep.name)).collect();
            let name_of = |trial: TrialRef| match names.get(&trial.sweep) {
                Some(name) => messages::trial_name(name, trial.number),
                None => trial.to_string(),
            };
            engine.workers().map(|view| messages::worker(&view, name_of)).collect()
        })
        .await
    }

    /// The checkpoints of a trial that are kept.
    ///
    /// # Errors
    /// As [`Self::find_trial`].
    pub async fn checkpoints(&self, target: &str) -> Result<v1::ListCheckpointsResponse, Problem> {
        let (sweep, trial) = self.find_trial(target).await?;
        if let Some(problem) = no_checkpoints(&sweep) {
            return Err(problem);
        }
        let view = self.ask(move |engine| engine.trial(trial)).await?;
        let kept = view.map(|view| view.checkpoints).unwrap_or_default();
        Ok(v1::ListCheckpointsResponse {
            checkpoints: kept.iter().map(messages::checkpoint).collect(),
            store_url: self.store_url.to_string(),
        })
    }
}

/// Why a sweep keeps no checkpoints at all, where it was imported.
#[must_use]
pub fn no_checkpoints(sweep: &SweepView) -> Option<Problem> {
    sweep.imported.as_ref()?;
    let message = format!("{} was imported, and checkpoints do not travel with an export", sweep.name);
    let hint = "ask the coordinator on which it ran, or its folder with --dir DIR";
    Some(Problem::new(Code::NoCheckpoint, message).hint(hint))
}

/// What the history knows of the trials in `ranges`: final rows, and the newest metrics of those without.
fn outcomes(
    history: &History,
    sweep: SweepId,
    ranges: Vec<Range<u32>>,
    begun: &[TrialRef],
) -> Result<HashMap<u32, Outcome>, crate::store::StoreError> {
    let mut outcomes = HashMap::new();
    for range in ranges {
        for (number, row) in history.results(sweep, range)? {
            let device = Some(row.device.to_string());
            let (metrics, weights_digest) = (row.metrics, row.weights_digest);
            outcomes.insert(number, Outcome { metrics, weights_digest, device });
        }
    }
    for trial in begun {
        if let Entry::Vacant(place) = outcomes.entry(trial.number) {
            let metrics = history.newest_metrics(*trial)?;
            place.insert(Outcome { metrics, ..Outcome::default() });
        }
    }
    Ok(outcomes)
}
