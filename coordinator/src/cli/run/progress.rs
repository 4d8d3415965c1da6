//! What is known of a sweep while it runs: how far it is, what is best, what each worker does.
//!
//! Pure: fed with what the coordinator tells and with the time. Must not print.

use crate::cli::{ls, text, trial};
use spotsweep_proto::{last_lines::on_one_line, metric::TIMING_METRICS};
use spotsweep_wire::v1::{Point, SweepSummary, Trial, WatchResponse, watch_response::What};
use std::collections::{BTreeMap, VecDeque};

/// Share of the work that must have been done before the rest is estimated from less than [`WINDOW_S`] seconds.
const ENOUGH: f64 = 0.01;
/// Seconds that must have passed before the rest is estimated.
const ENOUGH_S: f64 = 3.0;
/// Seconds whose pace the estimate goes by: trials of a sweep may differ a hundredfold, and those of the last minute
/// resemble those to come more than the first ones do.
const WINDOW_S: f64 = 60.0;

/// The metric that says how many samples a second a trial trains on.
const RATE: &str = TIMING_METRICS[0];

/// A trial at work.
#[derive(Debug, Clone, PartialEq)]
struct AtWork {
    worker: String,
    params: String,
    step: u64,
    total_steps: Option<u64>,
    /// Passes over the data, once a point has told.
    data_epoch: Option<f64>,
    metrics: Vec<(String, f64)>,
    /// The newest of those of one worker is shown: leases ahead of need wait behind it.
    touched: u64,
}

/// A sweep as it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    summary: SweepSummary,
    at_work: BTreeMap<String, AtWork>,
    varying: Vec<String>,
    touches: u64,
    /// Time and share done, of the last [`WINDOW_S`] seconds, and the last of before.
    pace: VecDeque<(f64, f64)>,
}

impl Progress {
    /// A sweep about to run. `varying` are the parameters that tell its trials apart.
    #[must_use]
    pub(crate) fn new(summary: SweepSummary, varying: Vec<String>) -> Self {
        Self { summary, varying, ..Self::default() }
    }

    /// The sweep as it was told last.
    #[must_use]
    pub(crate) fn summary(&self) -> &SweepSummary {
        &self.summary
    }

    /// Whether no trial will change any more.
    #[must_use]
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.summary.state.as_str(), "completed" | "cancelled")
    }

    /// Takes in the sweep's state.
    pub(crate) fn sweep(&mut self, summary: SweepSummary) {
        if summary.sweep == self.summary.sweep {
            self.summary = summary;
        }
    }

    /// Takes in what happened. Gives a line where it is worth one.
    pub(crate) fn event(&mut self, event: WatchResponse) -> Option<String> {
        match event.what? {
            What::Sweep(summary) => {
                self.sweep(summary);
                None
            }
            What::Trial(one) => self.trial(&one),
            What::Point(point) => {
                self.point(point);
                None
            }
            What::Notice(notice) => {
                Some(format!("{}: {}", text::harmless(&notice.trial), text::harmless(&notice.text)))
            }
        }
    }

    fn trial(&mut self, one: &Trial) -> Option<String> {
        if one.sweep != self.summary.sweep {
            return None;
        }
        if one.state != "running" {
            self.at_work.remove(&one.trial);
            let failed = matches!(one.state.as_str(), "failed" | "diverged");
            let why = if one.failure.is_empty() {
                String::new()
            } else {
                format!(": {}", text::harmless(&on_one_line(&one.failure)))
            };
            return failed.then(|| format!("{} {} at step {}{why}", one.trial, one.state, one.steps));
        }
        self.touches += 1;
        let params =
            trial::params_line(&trial::params(one), |name| self.varying.iter().any(|known| known == name));
        let metrics = one.metrics.iter().map(|metric| (metric.name.clone(), metric.value)).collect();
        self.at_work.insert(
            one.trial.clone(),
            AtWork {
                worker: one.worker.clone(),
                params,
                step: one.steps,
                total_steps: one.total_steps,
                data_epoch: None,
                metrics,
                touched: self.touches,
            },
        );
        None
    }

    fn point(&mut self, point: Point) {
        let Some(one) = self.at_work.get_mut(&point.trial) else { return };
        self.touches += 1;
        one.touched = self.touches;
        one.step = one.step.max(point.step);
        one.data_epoch = Some(point.data_epoch);
        for metric in point.metrics {
            match one.metrics.iter_mut().find(|(name, _)| *name == metric.name) {
                Some((_, value)) => *value = metric.value,
                None => one.metrics.push((metric.name, metric.value)),
            }
        }
    }

    /// Share of the work that is done, in [0, 1]; trials at work count by their steps.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share that is shown")]
    pub(crate) fn share(&self) -> f64 {
        if self.summary.trials == 0 {
            return 1.0;
        }
        let steps = |one: &AtWork| match one.total_steps {
            Some(total) if total > 0 => (one.step as f64 / total as f64).min(1.0),
            Some(_) | None => 0.0,
        };
        let started: f64 = self.at_work.values().map(steps).sum();
        ((ls::ended(&self.summary) as f64 + started) / self.summary.trials as f64).clamp(0.0, 1.0)
    }

    /// Seconds that the rest will take, by the pace of this run up to `now_s`.
    pub(crate) fn left_s(&mut self, now_s: f64) -> Option<f64> {
        let share = self.share();
        self.pace.push_back((now_s, share));
        while self.pace.get(1).is_some_and(|(at_s, _)| *at_s <= now_s - WINDOW_S) {
            self.pace.pop_front();
        }
        let (first_s, first_share) = *self.pace.front()?;
        let (done, took_s) = (share - first_share, now_s - first_s);
        let enough = done >= ENOUGH && took_s >= ENOUGH_S || done > 0.0 && took_s >= WINDOW_S;
        enough.then(|| took_s / done * (1.0 - share))
    }

    /// `12/15 trials, 2 running, 1 failed; about 40s left; best val_accuracy 0.9123 (ladder/7)`. What narrow terminals
    /// may cut off comes last.
    #[must_use]
    pub(crate) fn headline(&self, left_s: Option<f64>) -> String {
        let mut line = format!(
            "{}/{} trials",
            text::grouped(ls::ended(&self.summary)),
            text::grouped(self.summary.trials)
        );
        for state in ["running", "paused", "failed", "diverged"] {
            let count = ls::count(&self.summary, state);
            if count > 0 {
                line += &format!(", {} {state}", text::grouped(count));
            }
        }
        if let Some(left_s) = left_s {
            line += &format!("; about {} left", text::duration(left_s));
        }
        if let (Some(best), Some(value)) = (&self.summary.best_trial, self.summary.best_value) {
            line += &format!(
                "; best {} {} ({})",
                text::harmless(&self.summary.objective),
                text::metric(value),
                text::harmless(best)
            );
        }
        line
    }

    /// One line for each worker that trains: its name and what it does.
    #[must_use]
    pub(crate) fn workers(&self) -> Vec<(String, String)> {
        let mut newest: BTreeMap<&str, (&String, &AtWork)> = BTreeMap::new();
        for (name, one) in &self.at_work {
            let shown = newest.entry(&one.worker).or_insert((name, one));
            if one.touched > shown.1.touched {
                *shown = (name, one);
            }
        }
        newest
            .into_iter()
            .map(|(worker, (name, one))| (text::harmless(worker).into_owned(), line(name, one)))
            .collect()
    }
}

/// Trial, step, epoch, metrics, rate. What narrow terminals may cut off comes last: the parameters.
fn line(name: &str, one: &AtWork) -> String {
    let step = match one.total_steps {
        Some(total) => format!("step {}/{total}", one.step),
        None => format!("step {}", one.step),
    };
    let epoch = one.data_epoch.map(|epoch| format!("epoch {epoch:.1}")).unwrap_or_default();
    // The two newest say enough in one line.
    let metrics = one.metrics.iter().filter(|(name, _)| name.ends_with("loss") || name.ends_with("accuracy"));
    let metrics: Vec<String> = metrics
        .take(2)
        .map(|(name, value)| format!("{} {}", text::harmless(name), text::metric(*value)))
        .collect();
    let rate = one.metrics.iter().find(|(name, value)| name == RATE && value.is_finite() && *value >= 0.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least 0, and it saturates"
    )]
    let rate = rate.map(|(_, value)| format!("{}/s", text::grouped(*value as u64))).unwrap_or_default();
    [text::harmless(name).as_ref(), &step, &epoch, &metrics.join(" "), &rate, &one.params]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixtures::{summary, trials};
    use spotsweep_wire::v1::{Metric, Notice};

    fn event(what: What) -> WatchResponse {
        WatchResponse { what: Some(what) }
    }

    fn started() -> Progress {
        let mut progress = Progress::new(summary(), vec!["model".to_owned(), "learning_rate".to_owned()]);
        assert_eq!(progress.event(event(What::Trial(trials().swap_remove(1)))), None);
        progress
    }

    #[test]
    fn trials_at_work_count_by_their_steps() {
        let mut progress = started();
        assert!((progress.share() - (3.0 + 400.0 / 1266.0) / 5.0).abs() < 1e-9);
        let metrics = vec![Metric { name: "train_loss".to_owned(), value: 0.4 }];
        let point = Point { trial: "ladder/1".to_owned(), step: 633, data_epoch: 1.5, metrics, at_us: 0 };
        progress.event(event(What::Point(point)));
        assert!((progress.share() - 0.7).abs() < 1e-9);
        assert_eq!(
            progress.workers(),
            [(
                "local-1".to_owned(),
                "ladder/1  step 633/1266  epoch 1.5  train_loss 0.4000 val_loss 0.6500  51,234/s  model=softmax \
                 learning_rate=0.1"
                    .to_owned()
            )]
        );
        assert_eq!(
            progress.headline(None),
            "3/5 trials, 1 running, 1 diverged; best val_accuracy 0.9123 (ladder/3)"
        );
        assert_eq!(
            progress.headline(Some(75.0)),
            "3/5 trials, 1 running, 1 diverged; about 1m15s left; best val_accuracy 0.9123 (ladder/3)"
        );
    }

    #[test]
    fn the_rest_is_estimated_from_what_this_run_did() {
        let mut progress = started();
        assert_eq!(progress.left_s(100.0), None);
        let mut more = summary();
        more.counts.insert("completed".to_owned(), 3);
        more.counts.insert("pending".to_owned(), 0);
        progress.sweep(more);
        let left = progress.left_s(110.0).unwrap();
        // A fifth took 10 s; 1 - (4 + 0.316)/5 of the work is left.
        assert!((left - 50.0 * (1.0 - (4.0 + 400.0 / 1266.0) / 5.0)).abs() < 1e-6, "{left}");
        for now_s in 111..=200 {
            progress.left_s(f64::from(now_s));
        }
        assert_eq!(progress.left_s(201.0), None, "what went on long ago says nothing of now");
    }

    #[test]
    fn failures_and_notices_are_worth_a_line() {
        let mut progress = started();
        let diverged = progress.event(event(What::Trial(trials().swap_remove(2)))).unwrap();
        assert_eq!(diverged, "ladder/2 diverged at step 17: the loss became NaN at step 17");
        let notice = Notice {
            trial: "ladder/1".to_owned(),
            at_us: 0,
            text: "attempt 1 was interrupted\u{7}".to_owned(),
        };
        assert_eq!(
            progress.event(event(What::Notice(notice))).unwrap(),
            "ladder/1: attempt 1 was interrupted\\u{7}"
        );
        let mut done = trials().swap_remove(1);
        done.state = "completed".to_owned();
        assert_eq!(progress.event(event(What::Trial(done))), None);
        assert!(progress.workers().is_empty());
    }

    #[test]
    fn a_sweep_without_trials_is_done() {
        assert!((Progress::new(SweepSummary::default(), Vec::new()).share() - 1.0).abs() < f64::EPSILON);
    }
}
