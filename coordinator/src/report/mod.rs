//! A sweep on one page for people: what was searched, what came of it, what it went through, how to repeat it.
//!
//! Owns what is told ([`Story`]), gathered from trials as they pass with bounded memory. [`html`] and [`markdown`] say how
//! it looks. Must not ask anybody: `cli/report.rs` does.

use crate::{
    cli::order::Key,
    http::importance::{Level, epsilon_squared},
};
use serde_json::{Map, Value};
use spotsweep_proto::{last_lines::on_one_line, metric::Goal};
use spotsweep_wire::v1::{Point, SweepSummary, Trial, WorkerSummary};
use std::collections::BTreeMap;

pub(crate) mod html;
pub(crate) mod markdown;
mod svg;

/// Trials of the table of the best.
pub(crate) const BEST: usize = 10;
/// Trials whose learning curves are drawn: as many as lines can be told apart.
pub(crate) const CURVES: usize = 5;
/// Points of one drawn line.
const LINE_POINTS: usize = 500;
/// Finished trials from which the importance of parameters is computed; later ones are left out, and that is said.
const IMPORTANCE_TRIALS: usize = 20_000;
/// Devices, workers and values of a parameter that are named.
const NAMED: usize = 12;
/// Longest text in a cell, in characters.
const CELL_CHARS: usize = 160;

/// What is told of a sweep.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    /// The sweep.
    pub(crate) sweep: SweepSummary,
    /// The checked specification as JSON.
    pub(crate) spec: Value,
    /// What each parameter was.
    pub(crate) searched: Vec<Searched>,
    /// The best trials, best first.
    pub(crate) best: Vec<Trial>,
    /// Learning curves of the first of them.
    pub(crate) curves: Vec<(u32, Line)>,
    /// The best value so far, by number of trial.
    pub(crate) so_far: Line,
    /// How much of the objective's variance each parameter explains.
    pub(crate) importance: Vec<(String, f64)>,
    /// Finished trials that were left out of it.
    pub(crate) left_out: u64,
    /// What the trials went through.
    pub(crate) course: Course,
    /// The workers, as far as they are known.
    pub(crate) workers: Vec<WorkerSummary>,
}

/// Sums over all trials.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Course {
    /// Runs of trials under a lease.
    pub(crate) attempts: u64,
    /// Those that failed.
    pub(crate) failures: u64,
    /// Those that were neither the first of their trial nor follow from a failure: after interruptions, pauses and moves.
    pub(crate) resumed: u64,
    /// Trials that were resumed.
    pub(crate) resumed_trials: u64,
    /// Seconds of training.
    pub(crate) seconds: f64,
    /// Steps.
    pub(crate) steps: u64,
    /// Trials by device.
    pub(crate) devices: BTreeMap<String, u64>,
    /// Reasons of failures, with how many trials they ended.
    pub(crate) failed: BTreeMap<String, u64>,
}

/// The values of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Searched {
    /// Its name.
    pub(crate) name: String,
    /// The smallest and largest number.
    pub(crate) range: Option<(f64, f64)>,
    /// Different values, in the order in which they came; at most [`NAMED`] and one.
    values: Vec<Value>,
}

impl Searched {
    /// For people: the values, or from where to where.
    pub(crate) fn told(&self) -> String {
        match self.range {
            Some((low, high)) if self.values.len() > NAMED => {
                format!("{} to {}", number(low), number(high))
            }
            _ if self.values.len() > NAMED => format!("{}, …", listed(&self.values[..NAMED])),
            _ => listed(&self.values),
        }
    }

    /// Whether it had more than one value.
    pub(crate) fn varies(&self) -> bool {
        self.values.len() > 1
    }
}

fn listed(values: &[Value]) -> String {
    values.iter().map(|value| cell(&crate::cli::text::parameter(value))).collect::<Vec<_>>().join(", ")
}

/// A line of a drawing that never holds more than [`LINE_POINTS`] points: when it is full, every second one goes, and from
/// then on only every second one comes in. The last point is always kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    points: Vec<(f64, f64)>,
    last: Option<(f64, f64)>,
    stride: u64,
    seen: u64,
}

impl Default for Line {
    fn default() -> Self {
        Self { points: Vec::new(), last: None, stride: 1, seen: 0 }
    }
}

impl Line {
    /// Takes a point; what is not finite cannot be drawn.
    pub(crate) fn push(&mut self, x: f64, y: f64) {
        if !x.is_finite() || !y.is_finite() {
            return;
        }
        self.last = Some((x, y));
        if self.seen.is_multiple_of(self.stride) {
            if self.points.len() >= LINE_POINTS {
                let mut index = 0;
                self.points.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.stride *= 2;
            }
            if self.seen.is_multiple_of(self.stride) {
                self.points.push((x, y));
            }
        }
        self.seen += 1;
    }

    /// The points that are drawn.
    pub(crate) fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        let missing = self.last.filter(|last| self.points.last() != Some(last));
        self.points.iter().copied().chain(missing)
    }
}

/// Takes trials in order of number and makes a [`Story`] of them.
pub(crate) struct Gatherer {
    story: Story,
    goal: Goal,
    /// Best first, as `results` and `ls` have it: by the best value that a trial ever reported.
    by: Key,
    levels: Vec<(Map<String, Value>, f64)>,
    best_so_far: Option<f64>,
}

impl Gatherer {
    /// For a sweep.
    pub(crate) fn new(sweep: SweepSummary, spec_json: &str) -> Self {
        let goal = crate::cli::results::goal(&sweep);
        let by = Key::objective(&sweep);
        let story = Story {
            sweep,
            spec: serde_json::from_str(spec_json).unwrap_or_default(),
            searched: Vec::new(),
            best: Vec::new(),
            curves: Vec::new(),
            so_far: Line::default(),
            importance: Vec::new(),
            left_out: 0,
            course: Course::default(),
            workers: Vec::new(),
        };
        Self { story, goal, by, levels: Vec::new(), best_so_far: None }
    }

    /// The next trial.
    pub(crate) fn trial(&mut self, trial: Trial) {
        let params = crate::export::params(&trial);
        for (name, value) in &params {
            self.searched(name, value);
        }
        let course = &mut self.story.course;
        let (attempts, failures) = (u64::from(trial.attempts), u64::from(trial.failures));
        // Each failure but one that ended the trial is followed by an attempt of its own.
        let retried = failures.saturating_sub(u64::from(trial.state == "failed"));
        let resumed = attempts.saturating_sub(retried).saturating_sub(1);
        course.attempts += attempts;
        course.failures += failures;
        course.resumed += resumed;
        course.resumed_trials += u64::from(resumed > 0);
        course.seconds += trial.seconds;
        course.steps += trial.steps;
        count(&mut course.devices, &trial.device);
        count(&mut course.failed, &on_one_line(&trial.failure));
        match self.objective(&trial) {
            Some(value) if self.levels.len() < IMPORTANCE_TRIALS => self.levels.push((params, value)),
            Some(_) => self.story.left_out += 1,
            None => {}
        }
        let Some(value) = trial.best else { return };
        if self.best_so_far.is_none_or(|best| self.goal.better(value, best)) {
            self.best_so_far = Some(value);
        }
        self.story.so_far.push(f64::from(trial.number), self.best_so_far.unwrap_or(value));
        let by = &self.by;
        let best = &mut self.story.best;
        let place = best.partition_point(|other| by.order(other, &trial).is_le());
        if place < BEST {
            best.insert(place, trial);
            best.truncate(BEST);
        }
    }

    /// The objective of a trial that has ended with one.
    fn objective(&self, trial: &Trial) -> Option<f64> {
        let ended = trial.state == "completed";
        let value = crate::cli::trial::metric(trial, &self.story.sweep.objective)?;
        (ended && value.is_finite()).then_some(value)
    }

    fn searched(&mut self, name: &str, value: &Value) {
        let all = &mut self.story.searched;
        let place = all.iter().position(|known| known.name == name).unwrap_or_else(|| {
            all.push(Searched { name: name.to_owned(), range: None, values: Vec::new() });
            all.len() - 1
        });
        let one = &mut all[place];
        if let Some(x) = value.as_f64() {
            one.range = Some(one.range.map_or((x, x), |(low, high)| (low.min(x), high.max(x))));
        }
        if one.values.len() <= NAMED && !one.values.contains(value) {
            one.values.push(value.clone());
        }
    }

    /// The trials whose curves are wanted, best first.
    pub(crate) fn wanted(&self) -> Vec<Trial> {
        self.story.best.iter().take(CURVES).cloned().collect()
    }

    /// A point of the curve of the trial `number`.
    pub(crate) fn point(&mut self, number: u32, point: &Point) {
        let objective = &self.story.sweep.objective;
        let Some(metric) = point.metrics.iter().find(|metric| metric.name == *objective) else { return };
        let curves = &mut self.story.curves;
        if curves.last().is_none_or(|(last, _)| *last != number) {
            curves.push((number, Line::default()));
        }
        if let Some((_, line)) = curves.last_mut() {
            #[expect(clippy::cast_precision_loss, reason = "drawn, not computed with")]
            line.push(point.step as f64, metric.value);
        }
    }

    /// All trials and curves are in.
    pub(crate) fn end(mut self, workers: Vec<WorkerSummary>) -> Story {
        let values: Vec<f64> = self.levels.iter().map(|(_, value)| *value).collect();
        for searched in self.story.searched.iter().filter(|searched| searched.varies()) {
            let level = |params: &Map<String, Value>| match params.get(&searched.name) {
                Some(Value::String(text)) => Level::Text(text.clone()),
                Some(value) => value.as_f64().map_or_else(|| Level::Text(value.to_string()), Level::Number),
                None => Level::Text(String::new()),
            };
            let levels: Vec<Level> = self.levels.iter().map(|(params, _)| level(params)).collect();
            if let Some(share) = epsilon_squared(&levels, &values) {
                self.story.importance.push((searched.name.clone(), share));
            }
        }
        self.story.importance.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        self.story.workers = workers;
        self.story
    }
}

/// Counts `name`; with [`NAMED`] of them, further ones are counted together.
fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    if name.is_empty() {
        return;
    }
    let name = cell(name);
    let name = if counts.len() < NAMED || counts.contains_key(&name) { name } else { "others".to_owned() };
    *counts.entry(name).or_default() += 1;
}

/// Text of strangers for a cell: on one line, without what turns or hides text, and not endless.
pub(crate) fn cell(text: &str) -> String {
    // Cut first: a megabyte need not be looked at for a line.
    let cut: String = text.chars().take(CELL_CHARS).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{more}", crate::cli::text::harmless(&cut))
}

/// A number of a range or an axis.
pub(crate) fn number(x: f64) -> String {
    serde_json::Number::from_f64(x)
        .map_or_else(String::new, |number| crate::cli::text::parameter(&Value::Number(number)))
}

/// A share as per cent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// The facts of the course, in the order in which they are told.
pub(crate) fn course(story: &Story) -> Vec<(&'static str, String)> {
    use crate::cli::text::{count, duration, grouped};
    let (sweep, course) = (&story.sweep, &story.course);
    let states: Vec<String> = {
        let mut counts: Vec<(&String, &u64)> = sweep.counts.iter().filter(|(_, count)| **count > 0).collect();
        counts.sort();
        counts.into_iter().map(|(state, count)| format!("{} {}", grouped(*count), cell(state))).collect()
    };
    let mut facts = vec![
        ("trials", format!("{}: {}", grouped(sweep.trials), states.join(", "))),
        ("submitted", crate::cli::text::utc(sweep.submitted_at_us)),
        ("ended", sweep.ended_at_us.map_or_else(|| "not yet".to_owned(), crate::cli::text::utc)),
        ("training", format!("{} in {}", duration(course.seconds), count(course.steps, "step"))),
        ("attempts", grouped(course.attempts)),
        (
            "gone on elsewhere or later",
            match course.resumed {
                0 => "never: no interruption, pause or move".to_owned(),
                some => format!("{}, in {}", count(some, "time"), count(course.resumed_trials, "trial")),
            },
        ),
        ("failures", grouped(course.failures)),
    ];
    if sweep.stale_reports > 0 {
        facts.push(("late reports dropped", grouped(sweep.stale_reports)));
    }
    let named = |counts: &BTreeMap<String, u64>| {
        counts
            .iter()
            .map(|(name, some)| format!("{name} ({})", count(*some, "trial")))
            .collect::<Vec<_>>()
            .join(", ")
    };
    if !course.devices.is_empty() {
        facts.push(("devices", named(&course.devices)));
    }
    if !course.failed.is_empty() {
        facts.push(("why trials failed", named(&course.failed)));
    }
    for worker in story.workers.iter().take(NAMED) {
        let machine = worker.machine.clone().unwrap_or_default();
        let version = |what: &str, version: &str| {
            if version.is_empty() { String::new() } else { format!("{what} {version}") }
        };
        let parts = [
            worker.name.clone(),
            version("spotsweep", &machine.version),
            version("libtorch", &machine.libtorch),
            machine.cpu,
            machine.instance_type,
            machine.zone,
        ];
        facts.push((
            "worker",
            parts
                .iter()
                .filter(|part| !part.is_empty())
                .map(|part| cell(part))
                .collect::<Vec<_>>()
                .join(", "),
        ));
    }
    facts.push(("program", format!("spotsweep {}", env!("CARGO_PKG_VERSION"))));
    facts.push(("specification", sweep.spec_digest.clone()));
    facts
}

/// The source of the figures of importance.
pub(crate) const IMPORTANCE_SOURCE: &str = "Share of the objective's variance over completed trials that groups of one \
     parameter's values explain alone, corrected for chance: ε² of a one-way analysis of variance (T. L. Kelley, An \
     Unbiased Correlation Ratio Measure, PNAS 21, 1935). Effects of several parameters together count for none.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures;

    /// The story of the small sweep of all tests, with a hostile trial among the best.
    pub(super) fn story() -> Story {
        let mut gatherer = Gatherer::new(fixtures::summary(), "{\"name\":\"ladder\"}");
        let hostile = "<script>alert(1)</script>|`x`\u{202e}\u{1b}[31m\n# heading";
        for (index, mut trial) in fixtures::trials().into_iter().enumerate() {
            if index == 3 {
                trial.params_json = serde_json::json!({"model": hostile, "learning_rate": 0.1}).to_string();
                trial.device = hostile.to_owned();
                trial.attempts = 3;
            }
            if index == 2 {
                trial.failure = "x".repeat(1 << 20);
            }
            gatherer.trial(trial);
        }
        for trial in gatherer.wanted() {
            for point in crate::export::testing::points(trial.number) {
                gatherer.point(trial.number, &point);
            }
        }
        gatherer.end(Vec::new())
    }

    #[test]
    fn a_line_never_grows_beyond_its_limit_and_keeps_its_ends() {
        let mut line = Line::default();
        for x in 0..100_003 {
            line.push(f64::from(x), 1.0);
        }
        line.push(f64::NAN, 1.0);
        let points: Vec<_> = line.points().collect();
        assert!(points.len() <= LINE_POINTS + 1 && points.len() > LINE_POINTS / 2, "{}", points.len());
        assert_eq!((points[0].0, points[points.len() - 1].0), (0.0, 100_002.0));
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn the_best_are_those_of_results_in_their_order() {
        let story = story();
        let best: Vec<_> = story.best.iter().map(|trial| trial.number).collect();
        assert_eq!(best, [3, 0, 1], "a trial that runs counts with what it has reached");
        let key = Key::objective(&story.sweep);
        let results = crate::cli::order::arrange(fixtures::trials(), Some(&key), Some(best.len()));
        assert_eq!(best, results.iter().map(|trial| trial.number).collect::<Vec<_>>());
        assert_eq!(story.course.resumed, 2 + 1, "three attempts; and three of which one failed");
        assert_eq!(story.so_far.points().collect::<Vec<_>>(), [(0.0, 0.8502), (1.0, 0.8502), (3.0, 0.9123)]);
        assert_eq!(story.curves.len(), 2);
    }

    #[test]
    fn a_megabyte_of_text_is_a_cell() {
        assert_eq!(cell(&"ä".repeat(1 << 20)).chars().count(), CELL_CHARS + 1);
        assert_eq!(cell("\u{202e}x"), "\\u{202e}x");
    }
}
