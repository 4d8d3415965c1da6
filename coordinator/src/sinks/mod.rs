//! Sinks: what sweeps report, carried on to TensorBoard and MLflow while it happens, as their files ask.
//!
//! A sink is a view. It looks at the engine as any client does and reads the history, so intake neither waits for it nor keeps
//! anything for it. What it has delivered it learns from where it delivered to (`export`); what it remembers beside that
//! ([`cursor`]) only spares it questions. One task a sink; each gives up never and waits longer from failure to failure.

mod artifacts;
mod cursor;
mod states;
mod target;

pub use states::SinkStates;

use crate::{
    error::{Code, Problem},
    export::Subject,
    objects::Objects,
    queries::{Queries, TRIALS_PER_LOOK, messages},
};
use cursor::Cursor;
use spotsweep_engine::{
    Engine, SweepId, TrialRef,
    views::{SweepView, TrialBrief},
};
use spotsweep_proto::spec::sinks::Sink;
use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};
use target::Target;
use tokio::{sync::watch, task::JoinSet, time::Instant};

/// The folder of sinks in the coordinator's folder, unless its operator names another.
pub const SINKS_FOLDER: &str = "sinks";
/// The folder of cursors in the coordinator's folder.
const CURSORS_FOLDER: &str = "sink-cursors";
/// How often a sink looks for what is new.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A sink rests so many times as long as it worked, so that sinks take a bounded part of a machine.
const REST: u32 = 3;
/// Trials whose rows are read at once.
const TRIALS_PER_READ: usize = 500;
/// First wait after a failure; it doubles up to [`BACK_OFF_MAX`].
const BACK_OFF: Duration = Duration::from_millis(500);
/// The state of trials that bring artifacts.
const COMPLETED: &str = "completed";
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// Where sinks may write.
#[derive(Debug, Clone)]
pub struct Places {
    /// Below it lies every folder that a sweep file names.
    pub folders: PathBuf,
    /// What they remember.
    cursors: PathBuf,
}

impl Places {
    /// In the coordinator's folder `dir`, with what is written at `folders` if somewhere else.
    #[must_use]
    pub fn new(dir: &Path, folders: Option<&Path>) -> Self {
        let folders = folders.map_or_else(|| dir.join(SINKS_FOLDER), Path::to_owned);
        Self { folders, cursors: dir.join(CURSORS_FOLDER) }
    }
}

/// Serves the sinks of all sweeps, those that come later too. Once `ends` is true, each looks once more and ends.
pub async fn serve(queries: Queries, objects: Objects, places: Places, mut ends: watch::Receiver<bool>) {
    let states = queries.sinks();
    let mut tasks = JoinSet::new();
    let mut seen = 0;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = looks.tick() => false,
            // Its other end dropped means the same.
            _ = ends.wait_for(|ends| *ends) => true,
        };
        while tasks.try_join_next().is_some() {}
        // Sweeps are only ever added, and imported ones have been to their sinks where they ran.
        let look = move |engine: &Engine| {
            let own = engine.sweeps().filter(|sweep| sweep.imported.is_none());
            let new: Vec<SweepView> = own.skip(seen).collect();
            (seen + new.len(), new)
        };
        match queries.ask(look).await {
            Ok((all, new)) => {
                seen = all;
                for sweep in new {
                    for (index, sink) in sweep.spec.sinks.iter().enumerate() {
                        let (sources, states) = ((queries.clone(), objects.clone()), states.clone());
                        let work = Work::new(sources, &places, states, &sweep, index, sink.clone());
                        tasks.spawn(work.run(ends.clone()));
                    }
                }
            }
            Err(problem) if problem.code == Code::ShuttingDown => return,
            // The journal cannot be written just now: nothing new can come either.
            Err(_) => {}
        }
        if last {
            while tasks.join_next().await.is_some() {}
            return;
        }
    }
}

/// One sink of one sweep.
struct Work {
    queries: Queries,
    objects: Objects,
    states: SinkStates,
    key: (SweepId, usize),
    sink: Sink,
    name: String,
    folders: PathBuf,
    cursor: Cursor,
    target: Option<Target>,
    /// How trials looked when all that they had reported was delivered.
    delivered: HashMap<u32, TrialBrief>,
}

impl Work {
    fn new(
        (queries, objects): (Queries, Objects),
        places: &Places,
        states: SinkStates,
        sweep: &SweepView,
        index: usize,
        sink: Sink,
    ) -> Self {
        let file = places.cursors.join(format!("{}-{index}.json", sweep.id.0));
        let identity = format!("{}/{}/{sink}", sweep.spec.digest(), sweep.submitted_at.0);
        Self {
            queries,
            objects,
            states,
            key: (sweep.id, index),
            name: sweep.name.to_string(),
            sink,
            folders: places.folders.clone(),
            cursor: Cursor::read(file, identity),
            target: None,
            delivered: HashMap::new(),
        }
    }

    async fn run(mut self, mut ends: watch::Receiver<bool>) {
        let mut wait = BACK_OFF;
        let mut failures = 0;
        loop {
            let started = Instant::now();
            // Its other end dropped means the same.
            let last = *ends.borrow() || ends.has_changed().is_err();
            let rest = match self.pass().await {
                Ok(over) => {
                    if failures > 0 {
                        tracing::info!(sweep = self.name, sink = %self.sink, "the sink takes what it is given again");
                    }
                    (wait, failures) = (BACK_OFF, 0);
                    self.states.works(self.key);
                    if over {
                        return;
                    }
                    LOOK_EVERY.max(started.elapsed() * REST)
                }
                Err(problem) if problem.code == Code::ShuttingDown => return,
                Err(problem) => {
                    // What is kept in memory may be ahead of what has arrived: it is asked for anew.
                    self.target = None;
                    failures += 1;
                    tracing::warn!(sweep = self.name, sink = %self.sink, failures, "a sink fails: {}", problem.message);
                    self.states.fails(self.key, &self.sink, failures, &problem);
                    let rest = wait;
                    wait = (wait * 2).min(BACK_OFF_MAX);
                    rest
                }
            };
            if last {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                _ = ends.wait_for(|ends| *ends) => {}
            }
        }
    }

    /// Delivers what is new; true once nothing can come any more.
    async fn pass(&mut self) -> Result<bool, Problem> {
        let id = self.key.0;
        let found = self.queries.ask(move |engine| Some((engine.sweep(id)?, engine.opened(id)?))).await?;
        let (sweep, opened) = found.ok_or_else(|| Problem::new(Code::Internal, "a sweep is gone"))?;
        // Those that wait for their first lease have nothing to tell, and may be millions.
        let until = if sweep.state.is_final() { sweep.trials } else { opened };
        let looks = self.cursor.gaps(until).into_iter().flat_map(|gap| {
            let starts = gap.clone().step_by(TRIALS_PER_LOOK as usize);
            starts.map(move |from| from..(from + TRIALS_PER_LOOK).min(gap.end))
        });
        let mut changed: Vec<(u32, TrialBrief)> = Vec::new();
        for open in looks.collect::<Vec<_>>() {
            // One that waits for its first attempt has nothing to tell.
            let tells = |(_, brief): &(u32, TrialBrief)| brief.attempts > 0 || brief.state.is_final();
            let briefs = self.queries.briefs(id, open.collect()).await?.into_iter().filter(tells);
            changed.extend(briefs.filter(|(n, brief)| self.delivered.get(n) != Some(brief)));
            if changed.len() >= TRIALS_PER_READ {
                self.deliver(&sweep, std::mem::take(&mut changed)).await?;
            }
        }
        self.deliver(&sweep, changed).await?;
        // The state was looked up before the trials were.
        Ok(sweep.state.is_final() && self.cursor.count() >= sweep.trials)
    }

    async fn deliver(&mut self, sweep: &SweepView, changed: Vec<(u32, TrialBrief)>) -> Result<(), Problem> {
        if changed.is_empty() {
            return Ok(());
        }
        let mut target = match self.target.take() {
            Some(target) => target,
            None => {
                let spec_json =
                    serde_json::to_string(&*sweep.spec).map_err(|error| Problem::internal(&error))?;
                let subject = Subject { sweep: messages::sweep(sweep), spec_json };
                Target::begin(&self.sink, &self.folders, subject).await?
            }
        };
        let ranges = ranges(changed.iter().map(|(number, _)| *number));
        // From here on the history holds all that these rows tell.
        let rows = self.queries.trials_in(sweep, ranges).await?;
        let briefs: HashMap<u32, TrialBrief> = changed.into_iter().collect();
        for row in rows {
            let trial = TrialRef { sweep: sweep.id, number: row.number };
            let mut first = target.open(&row).await?;
            loop {
                let (points, next) = self.queries.points_at_hand(&row.trial, trial, first).await?;
                target.points(points).await?;
                match next {
                    Some(next) => first = next,
                    None => break,
                }
            }
            let ended = messages::is_final(&row.state);
            if let (Sink::Mlflow { artifacts: true, .. }, Some(rest)) = (&self.sink, target.server())
                && row.state == COMPLETED
            {
                let spec_json =
                    serde_json::to_string(&*sweep.spec).map_err(|error| Problem::internal(&error))?;
                artifacts::bring(rest, (&self.queries, &self.objects), trial, &spec_json).await?;
            }
            target.close(ended).await?;
            if ended {
                self.delivered.remove(&row.number);
                self.cursor.add(row.number);
            } else if let Some(brief) = briefs.get(&row.number) {
                self.delivered.insert(row.number, *brief);
            }
        }
        self.cursor.write();
        self.target = Some(target);
        Ok(())
    }
}

/// Numbers that follow each other, as ranges.
fn ranges(numbers: impl Iterator<Item = u32>) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(last) if last.end == number => last.end += 1,
            Some(_) | None => ranges.push(number..number + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_read_together() {
        assert_eq!(ranges([0, 1, 2, 5, 7, 8].into_iter()), [0..3, 5..6, 7..9]);
        assert!(ranges(std::iter::empty()).is_empty());
    }
}
