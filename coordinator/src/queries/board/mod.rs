//! The trials of a sweep as rows in memory, to be sorted, filtered and paged without the driver.
//!
//! A board is brought up to date when somebody looks, and not more often than pays: the driver is asked for the brief
//! part of the trials that can still change, a few hundred at a time; the history is read for those that did. What has
//! ended is read once. It must not change anything.

mod row;
mod select;
#[cfg(test)]
mod tests;

pub use row::{Cell, Field, Row};
pub use select::Selection;

use super::{Queries, TRIALS_PER_LOOK};
use crate::{
    error::{Code, Problem},
    store::{AttemptRow, History, ResultRow, StoreError},
};
use spotsweep_engine::{
    Engine, SweepId, TrialRef,
    views::{SweepView, TrialBrief, TrialView},
};
use spotsweep_proto::{
    ids::SweepName,
    metric::{Metrics, Objective},
    spec::SweepSpec,
    value::Assignment,
};
use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// Most trials of a sweep that is shown as a board.
pub const BOARD_TRIALS: u32 = 100_000;
/// Most rows of all boards that are kept; the board that nobody looked at for longest goes first.
const KEPT_ROWS: usize = 200_000;
/// A board is at least as fresh as this, unless bringing it up to date takes long.
const FRESH: Duration = Duration::from_millis(400);
/// Bringing boards up to date takes at most this part of the time: one in so many.
const EFFORT: u32 = 8;
/// So many changed trials are read one by one; more of them, in one go over the whole range.
const ONE_BY_ONE: usize = 64;

/// A sweep's trials at one moment.
#[derive(Debug, Clone)]
pub struct Board {
    sweep: SweepView,
    rows: Vec<Arc<Row>>,
    metrics: BTreeSet<String>,
}

impl Board {
    /// Of these rows, by ascending number.
    #[must_use]
    pub fn new(sweep: SweepView, rows: Vec<Arc<Row>>) -> Self {
        let mut metrics: BTreeSet<String> = BTreeSet::new();
        for row in &rows {
            note_metrics(&mut metrics, row);
        }
        metrics.extend(sweep.spec.objective.iter().map(|objective| objective.name.to_string()));
        Self { sweep, rows, metrics }
    }

    /// The sweep.
    #[must_use]
    pub fn sweep(&self) -> &SweepView {
        &self.sweep
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &SweepName {
        &self.sweep.name
    }

    /// What was submitted.
    #[must_use]
    pub fn spec(&self) -> &SweepSpec {
        &self.sweep.spec
    }

    /// What it optimises.
    #[must_use]
    pub fn objective(&self) -> Option<&Objective> {
        self.sweep.spec.objective.as_ref()
    }

    /// Every trial, by ascending number.
    #[must_use]
    pub fn rows(&self) -> &[Arc<Row>] {
        &self.rows
    }

    /// Names of the metrics that any trial reported, and of the objective.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.metrics.iter().map(String::as_str)
    }

    /// The field of that name.
    ///
    /// # Errors
    /// [`Code::BadRequest`], with the nearest name there is.
    pub fn field(&self, name: &str) -> Result<Field, Problem> {
        let is_parameter =
            |name: &str| self.spec().space.0.iter().any(|parameter| parameter.name.as_str() == name);
        Field::named(name, is_parameter, |name| self.metrics.contains(name)).ok_or_else(|| {
            let parameters = self.spec().space.0.iter().map(|parameter| parameter.name.to_string());
            let known: Vec<String> = Field::fixed()
                .map(str::to_owned)
                .chain(parameters)
                .chain(self.metrics.iter().cloned())
                .collect();
            Problem::new(Code::BadRequest, format!("the sweep {} has no column {name:?}", self.name()))
                .hint(format!("it has: {}", known.join(", ")))
        })
    }

    /// The best objective that trials had reached by the time that they ended, in order of that time: the first, and
    /// each that was better than all before. Trials that run count as ending now, so that the last is the best of all.
    #[must_use]
    pub fn best_so_far(&self) -> Vec<BestSoFar> {
        let Some(objective) = self.objective() else { return Vec::new() };
        let mut ended: Vec<BestSoFar> = self
            .rows
            .iter()
            .filter_map(|row| {
                let best = row.brief.best?;
                let at_us = row.ended_at().map(|at| at.0);
                Some(BestSoFar { at_us, number: row.number, value: best.value })
            })
            .collect();
        ended.sort_by_key(|point| (point.at_us.is_none(), point.at_us, point.number));
        let mut curve: Vec<BestSoFar> = Vec::new();
        for point in ended {
            if curve.last().is_none_or(|best| objective.goal.better(point.value, best.value)) {
                curve.push(point);
            }
        }
        curve
    }
}

fn note_metrics(metrics: &mut BTreeSet<String>, row: &Row) {
    for (name, _) in &row.metrics {
        if !metrics.contains(name.as_str()) {
            metrics.insert(name.to_string());
        }
    }
}

/// A step of the best-so-far curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BestSoFar {
    /// When the trial's last attempt ended; `None` while it runs.
    pub at_us: Option<u64>,
    /// The trial.
    pub number: u32,
    /// Its best value.
    pub value: f64,
}

/// The boards that somebody looked at lately. Cheap to clone.
#[derive(Clone)]
pub struct Boards {
    queries: Queries,
    kept: Arc<std::sync::Mutex<HashMap<SweepId, Kept>>>,
}

struct Kept {
    looked_at: Instant,
    rows: usize,
    slot: Arc<Mutex<Slot>>,
}

#[derive(Default)]
struct Slot {
    board: Option<Arc<Board>>,
    stale_at: Option<Instant>,
}

impl Boards {
    /// None yet.
    #[must_use]
    pub fn new(queries: Queries) -> Self {
        Self { queries, kept: Arc::default() }
    }

    /// The board of a sweep, at most about a second old.
    ///
    /// # Errors
    /// No such sweep, one of more than [`BOARD_TRIALS`] trials, or as [`Queries::ask`].
    pub async fn of(&self, name: &str) -> Result<Arc<Board>, Problem> {
        let sweep = self.queries.find(name).await?;
        if sweep.number.is_some() {
            return Err(Problem::new(Code::BadRequest, format!("{name} is a trial; a sweep is wanted")));
        }
        self.of_sweep(sweep.sweep).await
    }

    /// As [`Self::of`], for a sweep that was just looked up.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub async fn of_sweep(&self, sweep: SweepView) -> Result<Arc<Board>, Problem> {
        if sweep.trials > BOARD_TRIALS {
            let message = format!(
                "{} has {} trials; sweeps of up to {BOARD_TRIALS} can be sorted and drawn",
                sweep.name, sweep.trials
            );
            return Err(Problem::new(Code::TooLarge, message)
                .hint(format!("`spotsweep results {}` prints all of them", sweep.name)));
        }
        let slot = self.slot(sweep.id);
        // Who comes while the board is brought up to date waits for that instead of doing it again.
        let mut slot = slot.lock().await;
        if let (Some(board), Some(stale_at)) = (&slot.board, slot.stale_at)
            && Instant::now() < stale_at
        {
            return Ok(board.clone());
        }
        let started = Instant::now();
        let id = sweep.id;
        let board = Arc::new(self.refresh(slot.board.as_deref(), sweep).await?);
        slot.stale_at = Some(Instant::now() + FRESH.max(started.elapsed() * EFFORT));
        slot.board = Some(board.clone());
        self.note_size(id, board.rows.len());
        Ok(board)
    }

    /// One trial: its row, read for it alone, and what the engine knows of it.
    ///
    /// # Errors
    /// As [`Queries::find_trial`].
    pub async fn row(&self, name: &str) -> Result<(Row, TrialView), Problem> {
        let (sweep, trial) = self.queries.find_trial(name).await?;
        let look = move |engine: &Engine| Some((engine.trial(trial)?, engine.trial_brief(trial)?));
        let missing = || Problem::new(Code::NoSuchTrial, format!("there is no trial {name}"));
        let (view, brief) = self.queries.ask_with_history(look).await?.ok_or_else(missing)?;
        let begun = [trial.number];
        let mut found = self.queries.read(move |history| past(history, trial.sweep, &begun)).await?;
        let past = found.remove(&trial.number).unwrap_or_default();
        Ok((past.into_row(trial.number, brief, sweep.spec.assignment(trial.number)), view))
    }

    fn slot(&self, id: SweepId) -> Arc<Mutex<Slot>> {
        let mut kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entry = kept.entry(id).or_insert_with(|| Kept {
            looked_at: Instant::now(),
            rows: 0,
            slot: Arc::default(),
        });
        entry.looked_at = Instant::now();
        entry.slot.clone()
    }

    /// Lets go of the boards that nobody looked at for longest, when there are too many rows.
    fn note_size(&self, id: SweepId, rows: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(entry) = kept.get_mut(&id) {
            entry.rows = rows;
        }
        while kept.values().map(|entry| entry.rows).sum::<usize>() > KEPT_ROWS {
            let others = kept.iter().filter(|(other, _)| **other != id);
            let Some(oldest) = others.min_by_key(|(_, entry)| entry.looked_at).map(|(id, _)| *id) else {
                break;
            };
            kept.remove(&oldest);
        }
    }

    async fn refresh(&self, old: Option<&Board>, sweep: SweepView) -> Result<Board, Problem> {
        let known = |number: u32| old.and_then(|board| board.rows.get(number as usize));
        let mut changed: Vec<(u32, TrialBrief)> = Vec::new();
        let mut from = 0;
        while from < sweep.trials {
            let until = (from + TRIALS_PER_LOOK).min(sweep.trials);
            let open: Vec<u32> = (from..until)
                .filter(|number| known(*number).is_none_or(|row| !row.brief.state.is_final()))
                .collect();
            from = until;
            if open.is_empty() {
                continue;
            }
            let briefs = self.queries.briefs(sweep.id, open).await?;
            changed.extend(
                briefs.into_iter().filter(|(n, brief)| known(*n).is_none_or(|row| row.brief != *brief)),
            );
        }
        if let Some(old) = old
            && changed.is_empty()
        {
            return Ok(Board { sweep, rows: old.rows.clone(), metrics: old.metrics.clone() });
        }
        let id = sweep.id;
        let begun: Vec<u32> =
            changed.iter().filter(|(_, brief)| brief.epoch.0 > 0).map(|(number, _)| *number).collect();
        // The history catches up once, not once a look.
        self.queries.ask_with_history(|_| ()).await?;
        let mut found = self.queries.read(move |history| past(history, id, &begun)).await?;
        let mut rows: Vec<Option<Arc<Row>>> =
            (0..sweep.trials).map(|number| known(number).cloned()).collect();
        for (number, brief) in changed {
            let past = found.remove(&number).unwrap_or_default();
            let params = match known(number) {
                Some(row) => row.params.clone(),
                None => sweep.spec.assignment(number),
            };
            let row = past.into_row(number, brief, params);
            if let Some(place) = rows.get_mut(number as usize) {
                *place = Some(Arc::new(row));
            }
        }
        Ok(Board::new(sweep, rows.into_iter().flatten().collect()))
    }
}

/// What the history knows of a trial.
#[derive(Debug, Default)]
struct Past {
    attempts: Vec<AttemptRow>,
    result: Option<ResultRow>,
    newest: Metrics,
}

impl Past {
    fn into_row(self, number: u32, brief: TrialBrief, params: Assignment) -> Row {
        let (metrics, weights_digest, device) = match self.result {
            Some(result) => (result.metrics, result.weights_digest, Some(result.device)),
            None => (self.newest, None, None),
        };
        Row { number, brief, params, metrics, weights_digest, device, attempts: self.attempts }
    }
}

fn past(history: &History, sweep: SweepId, begun: &[u32]) -> Result<HashMap<u32, Past>, StoreError> {
    let mut found: HashMap<u32, Past> = HashMap::with_capacity(begun.len());
    let one_by_one = begun.len() <= ONE_BY_ONE;
    let (Some(first), Some(last)) = (begun.first(), begun.last()) else { return Ok(found) };
    let ranges: Vec<Range<u32>> = if one_by_one {
        begun.iter().map(|number| *number..number + 1).collect()
    } else {
        std::iter::once(*first..last + 1).collect()
    };
    for range in ranges {
        for (number, attempt) in history.attempts_of(sweep, range.clone())? {
            found.entry(number).or_default().attempts.push(attempt);
        }
        for (number, result) in history.results(sweep, range)? {
            found.entry(number).or_default().result = Some(result);
        }
    }
    for number in begun {
        let past = found.entry(*number).or_default();
        if past.result.is_none() {
            past.newest = history.newest_metrics(TrialRef { sweep, number: *number })?;
        }
    }
    Ok(found)
}
