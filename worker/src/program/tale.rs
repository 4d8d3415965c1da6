//! One attempt as its program tells it: lenient where the line protocol is strict. Turns lines into the messages of
//! [`spotsweep_proto::line`], and what is wrong with them into warnings. Pure.

use super::lines::Line;
use serde_json::{Map, Value};
use spotsweep_proto::{
    ids::{Epoch, MetricName},
    limits::{METRICS_PER_REPORT, METRICS_PER_TRIAL, STEPS_PER_TRIAL},
    line::{FailureKind, FromTrainer},
    metric::Metrics,
};
use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

/// Lines that are no messages, after which an attempt fails.
pub(crate) const GARBAGE_LINES: u32 = 100;
/// Warnings of one attempt that are told; the rest is counted.
pub(crate) const WARNINGS: usize = 20;

/// What follows from a line.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Nothing,
    Say(FromTrainer),
    /// A checkpoint lies in this folder.
    Pack {
        step: u64,
        folder: PathBuf,
        last: bool,
    },
    /// It says how it ends; it is about to exit.
    End(Told),
}

/// How a program says that it ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    Done,
    Stopped,
    Failed { kind: FailureKind, message: String },
}

/// What was heard so far.
#[derive(Debug)]
pub(crate) struct Tale {
    epoch: Epoch,
    first_step: u64,
    started: bool,
    reported: Option<u64>,
    saved: Option<u64>,
    /// Last step heard of.
    step: u64,
    /// The last value of each metric, in the order in which they came.
    latest: Map<String, Value>,
    refused: HashSet<String>,
    garbage: u32,
    /// Values that are not finite.
    not_finite: u64,
    warnings: BTreeMap<String, u64>,
    fresh: Vec<String>,
    untold: u64,
    /// A rank other than the first, whose results and checkpoints are the first's to tell.
    other_rank: Option<u32>,
}

impl Tale {
    pub(crate) fn new(epoch: Epoch, first_step: u64) -> Self {
        Self {
            epoch,
            first_step,
            started: false,
            reported: None,
            saved: None,
            step: first_step,
            latest: Map::new(),
            refused: HashSet::new(),
            garbage: 0,
            not_finite: 0,
            warnings: BTreeMap::new(),
            fresh: Vec::new(),
            untold: 0,
            other_rank: None,
        }
    }

    /// Of this rank of several, which is not the first.
    pub(crate) fn of_rank(self, other_rank: Option<u32>) -> Self {
        Self { other_rank, ..self }
    }

    /// Going on from a checkpoint: what was told before it counts on.
    pub(crate) fn going_on(mut self, told_before: &Metrics) -> Self {
        self.latest = told_before.iter().map(|(name, value)| (name.to_string(), (*value).into())).collect();
        self
    }

    /// The last value of each metric.
    pub(crate) fn so_far(&self) -> Metrics {
        let finite = |(name, value): (&String, &Value)| Some((MetricName::new(name).ok()?, value.as_f64()?));
        self.latest.iter().filter_map(finite).collect()
    }

    /// Whether only its end matters.
    pub(crate) fn is_of_other_rank(&self) -> bool {
        self.other_rank.is_some()
    }

    /// Last step heard of.
    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    /// The last value of each metric.
    pub(crate) fn latest(&self) -> &Map<String, Value> {
        &self.latest
    }

    /// Values of metrics that were left out as they are not finite.
    pub(crate) fn not_finite(&self) -> u64 {
        self.not_finite
    }

    /// Warnings that were not told yet.
    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.fresh)
    }

    /// How many warnings were not told, and values left out.
    pub(crate) fn untold(&self) -> u64 {
        self.untold
    }

    /// Warns; the same words once.
    pub(crate) fn warn(&mut self, what: String) {
        if let Some(count) = self.warnings.get_mut(&what) {
            *count += 1;
        } else if self.warnings.len() < WARNINGS {
            self.fresh.push(what.clone());
            self.warnings.insert(what, 1);
        } else {
            self.untold += 1;
        }
    }

    /// A line was no message; an error once there were too many.
    pub(crate) fn garbage(&mut self, what: &str) -> Result<(), String> {
        self.warn(format!(
            "a line that it wrote into SPOTSWEEP_TO_AGENT is no message and is left out: {what}"
        ));
        self.garbage += 1;
        if self.garbage < GARBAGE_LINES {
            return Ok(());
        }
        Err(format!(
            "it wrote {GARBAGE_LINES} lines into SPOTSWEEP_TO_AGENT that are no messages, last {what}"
        ))
    }

    /// What it must have said before anything else.
    pub(crate) fn start(&mut self, total_steps: Option<u64>) -> Option<FromTrainer> {
        // Told again where it is known later how many steps there are.
        let first = !std::mem::replace(&mut self.started, true);
        (first || total_steps.is_some()).then_some(FromTrainer::Started {
            epoch: self.epoch,
            step: self.first_step,
            total_steps,
        })
    }

    pub(crate) fn hear(&mut self, line: Line) -> Result<Heard, String> {
        let tells = matches!(line, Line::Report { .. } | Line::Checkpoint { .. });
        if let Some(rank) = self.other_rank.filter(|_| tells) {
            self.warn(format!(
                "rank {rank} reports or saves, and only rank 0's reports and checkpoints count: they are left out"
            ));
            return Ok(Heard::Nothing);
        }
        Ok(match line {
            Line::Started { step, total_steps } => {
                step.as_ref().map(step_of).transpose()?;
                let total_steps =
                    total_steps.as_ref().filter(|total| !total.is_null()).map(step_of).transpose()?;
                self.start(total_steps).map_or(Heard::Nothing, Heard::Say)
            }
            Line::Report { step, data_epoch, metrics } => {
                let step = step_of(&step)?;
                self.report(step, data_epoch, &metrics).map_or(Heard::Nothing, Heard::Say)
            }
            Line::Checkpoint { step, dir, last } => {
                let step = step_of(&step)?;
                if step < self.saved.unwrap_or(self.first_step) {
                    let before = self.saved.unwrap_or(self.first_step);
                    self.warn(format!(
                        "a checkpoint of step {step} is left out: there is one of step {before}"
                    ));
                    return Ok(Heard::Nothing);
                }
                self.saved = Some(step);
                self.step = self.step.max(step);
                Heard::Pack { step, folder: dir, last }
            }
            Line::Done { step, metrics } => {
                self.reach(step.as_ref())?;
                self.finite(&metrics);
                Heard::End(Told::Done)
            }
            Line::Stopped { step } => {
                self.reach(step.as_ref())?;
                Heard::End(Told::Stopped)
            }
            Line::Failed { reason, message } => {
                let kind = reason.unwrap_or(FailureKind::Internal);
                let message = message.unwrap_or_else(|| "the program says that it failed".to_owned());
                Heard::End(Told::Failed { kind, message })
            }
        })
    }

    /// Metrics at a step; nothing if that is not behind the step of the last report.
    pub(crate) fn report(
        &mut self,
        step: u64,
        data_epoch: Option<f64>,
        metrics: &Map<String, Value>,
    ) -> Option<FromTrainer> {
        let least = self.reported.map_or(self.first_step, |reported| reported + 1);
        if step < least {
            self.warn("a report of a step that is not behind the last one is left out".to_owned());
            return None;
        }
        self.reported = Some(step);
        self.step = self.step.max(step);
        let metrics = self.finite(metrics);
        let data_epoch = data_epoch.unwrap_or(0.0);
        Some(FromTrainer::Report { epoch: self.epoch, step, data_epoch, metrics })
    }

    /// The metrics that can be reported.
    fn finite(&mut self, metrics: &Map<String, Value>) -> Map<String, Value> {
        let mut kept = Map::new();
        for (name, value) in metrics {
            if kept.len() >= METRICS_PER_REPORT {
                let more = metrics.len();
                self.warn(format!(
                    "a report has {more} metrics; those beyond {METRICS_PER_REPORT} are left out"
                ));
                break;
            }
            let number = match number(value) {
                Number::Finite(number) => number,
                Number::NotFinite => {
                    self.not_finite += 1;
                    continue;
                }
                Number::None => {
                    self.refuse(name, "is no number");
                    continue;
                }
            };
            if !self.latest.contains_key(name) {
                if MetricName::new(name).is_err() {
                    self.refuse(name, "has a name that is not acceptable");
                    continue;
                }
                if self.latest.len() >= METRICS_PER_TRIAL {
                    self.warn(format!(
                        "there are more than {METRICS_PER_TRIAL} metrics; others are left out"
                    ));
                    continue;
                }
            }
            kept.insert(name.clone(), number.into());
            self.latest.insert(name.clone(), number.into());
        }
        kept
    }

    fn refuse(&mut self, name: &str, why: &str) {
        // A set with a limit: what is behind it is counted among the warnings all the same.
        if self.refused.len() < WARNINGS && self.refused.insert(name.chars().take(64).collect()) {
            let name: String = name.chars().take(64).collect();
            self.warn(format!("the metric {name:?} {why} and is left out"));
        } else if !self.refused.contains(name) {
            self.untold += 1;
        }
    }

    fn reach(&mut self, step: Option<&Value>) -> Result<(), String> {
        if let Some(step) = step.filter(|step| !step.is_null()) {
            self.step = self.step.max(step_of(step)?);
        }
        Ok(())
    }
}

enum Number {
    Finite(f64),
    NotFinite,
    None,
}

fn number(value: &Value) -> Number {
    match value {
        Value::Number(number) => match number.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Number::Finite(number),
            None => Number::NotFinite,
        },
        Value::Null => Number::NotFinite,
        Value::Bool(yes) => Number::Finite(f64::from(u8::from(*yes))),
        Value::String(text) => {
            let bare = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
            if ["nan", "inf", "infinity"].contains(&bare.as_str()) { Number::NotFinite } else { Number::None }
        }
        Value::Array(_) | Value::Object(_) => Number::None,
    }
}

/// A step: a whole number, also one that is written as a float.
fn step_of(value: &Value) -> Result<u64, String> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole and within the limit"
    )]
    let whole = |step: f64| {
        (step >= 0.0 && step.fract() == 0.0 && step <= STEPS_PER_TRIAL as f64).then_some(step as u64)
    };
    let step = value.as_u64().or_else(|| value.as_f64().and_then(whole));
    step.filter(|step| *step <= STEPS_PER_TRIAL)
        .ok_or_else(|| format!("{} is no step: 0 to {STEPS_PER_TRIAL}", excerpt(value)))
}

fn excerpt(value: &Value) -> String {
    value.to_string().chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::lines::read;
    use serde_json::json;

    fn hear(tale: &mut Tale, line: &Value) -> Heard {
        tale.hear(read(line.to_string().as_bytes()).unwrap()).unwrap()
    }

    fn reported(heard: Heard) -> (u64, Value) {
        let Heard::Say(FromTrainer::Report { step, metrics, .. }) = heard else { panic!("{heard:?}") };
        (step, Value::Object(metrics))
    }

    #[test]
    fn steps_that_do_not_grow_are_left_out_with_one_warning() {
        let mut tale = Tale::new(Epoch(1), 10);
        let report = |step| json!({"type": "report", "step": step, "metrics": {"loss": 1}});
        assert_eq!(hear(&mut tale, &report(9)), Heard::Nothing);
        assert_eq!(reported(hear(&mut tale, &report(12))).0, 12);
        assert_eq!(hear(&mut tale, &report(12)), Heard::Nothing);
        assert_eq!(hear(&mut tale, &report(11)), Heard::Nothing);
        assert_eq!(tale.take_warnings().len(), 1);
        assert_eq!(reported(hear(&mut tale, &json!({"type": "report", "step": 13.0}))).0, 13);
        assert_eq!(tale.step(), 13);
    }

    #[test]
    fn values_that_are_no_numbers_are_left_out_and_warned_of_or_counted() {
        let mut tale = Tale::new(Epoch(1), 0);
        let metrics =
            json!({"a": 1, "b": null, "c": "-inf", "d": "good", "e": {"f": 1}, "g": true, "h i": 2});
        let said = hear(&mut tale, &json!({"type": "report", "step": 1, "metrics": metrics}));
        assert_eq!(reported(said).1, json!({"a": 1.0, "g": 1.0}));
        assert_eq!(tale.not_finite(), 2);
        let warnings = tale.take_warnings().join("\n");
        for name in ["\"d\"", "\"e\"", "\"h i\""] {
            assert!(warnings.contains(name), "{warnings}");
        }
        hear(&mut tale, &json!({"type": "report", "step": 2, "metrics": {"d": "again"}}));
        assert_eq!(tale.take_warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_million_metrics_leave_bounded_traces() {
        let mut tale = Tale::new(Epoch(1), 0);
        for step in 0..100_u64 {
            let metrics: Map<String, Value> =
                (0..10_000).map(|i| (format!("m{}", step * 10_000 + i), json!(1))).collect();
            let said = tale.report(step, None, &metrics).unwrap();
            let FromTrainer::Report { metrics, .. } = said else { panic!() };
            assert!(metrics.len() <= METRICS_PER_REPORT);
        }
        assert_eq!(tale.latest().len(), METRICS_PER_TRIAL);
        assert!(tale.take_warnings().len() <= WARNINGS);
    }

    #[test]
    fn of_ranks_other_than_the_first_only_the_end_counts() {
        let mut tale = Tale::new(Epoch(1), 0).of_rank(Some(2));
        for step in 1..9 {
            let report = json!({"type": "report", "step": step, "metrics": {"loss": 1}});
            assert_eq!(hear(&mut tale, &report), Heard::Nothing);
            let saved = json!({"type": "checkpoint", "step": step, "dir": "a"});
            assert_eq!(hear(&mut tale, &saved), Heard::Nothing);
        }
        let warnings = tale.take_warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("rank 2"), "{warnings:?}");
        assert_eq!(hear(&mut tale, &json!({"type": "done"})), Heard::End(Told::Done));
        assert!(tale.is_of_other_rank() && !Tale::new(Epoch(1), 0).of_rank(None).is_of_other_rank());
    }

    #[test]
    fn garbage_is_forgiven_up_to_a_limit() {
        let mut tale = Tale::new(Epoch(1), 0);
        for number in 1..GARBAGE_LINES {
            tale.garbage(&format!("line {number}")).unwrap();
        }
        assert_eq!(tale.take_warnings().len(), WARNINGS);
        assert!(tale.garbage("the last").unwrap_err().contains("100 lines"));
        for step in [json!(-1), json!(0.5), json!("x"), json!(1e13), json!(null)] {
            let line = json!({"type": "report", "step": step}).to_string();
            assert!(tale.hear(read(line.as_bytes()).unwrap()).is_err(), "{line}");
        }
    }
}
