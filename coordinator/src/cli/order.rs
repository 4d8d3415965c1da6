//! The order of results: by the objective, a metric, a parameter or a column.
//!
//! Pure. What has no value, or NaN, stands last whichever way round.

use super::{results::goal, trial};
use crate::error::{Code, Problem};
use serde_json::Value;
use spotsweep_proto::{catalogue::nearest, metric::Goal};
use spotsweep_wire::v1::{SweepSummary, Trial};
use std::cmp::Ordering;

/// Columns that every trial has.
const COLUMNS: [&str; 6] = ["number", "state", "steps", "attempts", "seconds", "best"];

/// What to order by, and which way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    what: What,
    descending: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    /// By the best value of the objective that a trial ever reported: as `ls`, `show` and `checkpoint` choose.
    Best,
    Column(&'static str),
    Metric(String),
    Param(String),
}

#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Rank {
    Number(f64),
    Text(String),
}

impl Key {
    /// Best first, by the best value of the objective that each ever reported. A sweep without an objective is in order of number.
    #[must_use]
    pub(crate) fn objective(summary: &SweepSummary) -> Self {
        if summary.objective.is_empty() {
            return Self { what: What::Column("number"), descending: false };
        }
        Self { what: What::Best, descending: goal(summary) == Goal::Maximize }
    }

    /// A key as the user wrote it. The objective (its last value) and `best` (the best ever reported) are best first, all else smallest first; a leading `-` turns
    /// that round. `params.x` and `metrics.x` say which is meant where both have the name; alone it is the objective,
    /// else the parameter, as in the table.
    ///
    /// # Errors
    /// If no trial has such a thing.
    pub(crate) fn parse(word: &str, trials: &[Trial], summary: &SweepSummary) -> Result<Self, Problem> {
        let (name, turned) = word.strip_prefix('-').map_or((word, false), |rest| (rest, true));
        let is_metric = |name: &str| {
            summary.objective == name || trials.iter().any(|one| trial::metric(one, name).is_some())
        };
        let is_param = |name: &str| trials.iter().any(|one| trial::params(one).contains_key(name));
        let what = if name == "best" {
            What::Best
        } else if let Some(column) = COLUMNS.into_iter().find(|column| *column == name) {
            What::Column(column)
        } else if is_param(name) && name != summary.objective {
            What::Param(name.to_owned())
        } else if is_metric(name) {
            What::Metric(name.to_owned())
        } else if let Some(metric) = name.strip_prefix("metrics.").filter(|name| is_metric(name)) {
            What::Metric(metric.to_owned())
        } else if let Some(param) = name.strip_prefix("params.").filter(|name| is_param(name)) {
            What::Param(param.to_owned())
        } else {
            return Err(unknown(name, trials));
        };
        let by_objective = what == What::Best || what == What::Metric(summary.objective.clone());
        let natural = by_objective && goal(summary) == Goal::Maximize;
        Ok(Self { what, descending: natural != turned })
    }

    /// The metric that it orders by, if it does.
    #[must_use]
    pub(crate) fn metric(&self) -> Option<&str> {
        match &self.what {
            What::Metric(name) => Some(name),
            What::Best | What::Column(_) | What::Param(_) => None,
        }
    }

    fn value(&self, one: &Trial) -> Option<Rank> {
        #[expect(clippy::cast_precision_loss, reason = "steps are far below 2^53, and it is only an order")]
        let value = match &self.what {
            What::Best => Rank::Number(one.best?),
            What::Column("number") => Rank::Number(one.number.into()),
            What::Column("steps") => Rank::Number(one.steps as f64),
            What::Column("attempts") => Rank::Number(one.attempts.into()),
            What::Column("seconds") => Rank::Number(one.seconds),
            What::Column(_) => Rank::Text(one.state.clone()),
            What::Metric(name) => Rank::Number(trial::metric(one, name)?),
            What::Param(name) => match trial::params(one).remove(name)? {
                Value::Null => return None,
                Value::Number(number) => Rank::Number(number.as_f64()?),
                Value::String(text) => Rank::Text(text),
                other @ (Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
                    Rank::Text(other.to_string())
                }
            },
        };
        match value {
            Rank::Number(x) if x.is_nan() => None,
            other => Some(other),
        }
    }

    /// Which of two comes first, if the key tells.
    #[must_use]
    pub(crate) fn order(&self, a: &Trial, b: &Trial) -> Ordering {
        self.compare(self.value(a).as_ref(), self.value(b).as_ref())
    }

    fn compare(&self, a: Option<&Rank>, b: Option<&Rank>) -> Ordering {
        match (a, b) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => {
                let order = a.partial_cmp(b).unwrap_or(Ordering::Equal);
                if self.descending { order.reverse() } else { order }
            }
        }
    }
}

fn unknown(name: &str, trials: &[Trial]) -> Problem {
    let mut known: Vec<String> = Vec::new();
    for one in trials {
        let metrics = one.metrics.iter().map(|metric| metric.name.clone());
        for candidate in metrics.chain(trial::params(one).into_iter().map(|(name, _)| name)) {
            if !known.contains(&candidate) {
                known.push(candidate);
            }
        }
    }
    known.extend(COLUMNS.map(str::to_owned));
    let failure = Problem::new(Code::BadRequest, format!("no trial has {name:?} to sort by"));
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => failure.hint(format!("did you mean {near}?")),
        None => failure.hint(format!("there is: {}", known.join(", "))),
    }
}

/// The trials in order of `key` (equals in order of number), at most `top` of them.
#[must_use]
pub(crate) fn arrange(trials: Vec<Trial>, key: Option<&Key>, top: Option<usize>) -> Vec<Trial> {
    let mut rows: Vec<(Option<Rank>, Trial)> =
        trials.into_iter().map(|one| (key.and_then(|key| key.value(&one)), one)).collect();
    if let Some(key) = key {
        rows.sort_by(|(a, one), (b, other)| {
            key.compare(a.as_ref(), b.as_ref()).then(one.number.cmp(&other.number))
        });
    }
    rows.truncate(top.unwrap_or(usize::MAX));
    rows.into_iter().map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{summary, trials};
    use super::*;
    use spotsweep_wire::v1::Metric;

    fn numbers(word: &str) -> Vec<u32> {
        let key = Key::parse(word, &trials(), &summary()).unwrap();
        arrange(trials(), Some(&key), None).iter().map(|one| one.number).collect()
    }

    #[test]
    fn nan_and_nothing_stand_last_whichever_way_round() {
        assert_eq!(numbers("val_accuracy"), [3, 0, 1, 2, 4]);
        assert_eq!(numbers("-val_accuracy"), [1, 0, 3, 2, 4]);
    }

    #[test]
    fn best_first_is_by_the_best_that_was_ever_reported_and_the_objective_by_its_last_value() {
        let mut rows = trials();
        rows[0].best = Some(0.95);
        let order = |key: &Key| arrange(rows.clone(), Some(key), None).first().map(|one| one.number);
        assert_eq!(order(&Key::objective(&summary())), Some(0));
        assert_eq!(order(&Key::parse("best", &rows, &summary()).unwrap()), Some(0));
        assert_eq!(order(&Key::parse("val_accuracy", &rows, &summary()).unwrap()), Some(3));
    }

    #[test]
    fn parameters_and_columns_are_smallest_first_and_minus_turns_that_round() {
        assert_eq!(numbers("learning_rate"), [0, 2, 1, 3, 4]);
        assert_eq!(numbers("-params.learning_rate"), [1, 3, 4, 0, 2]);
        assert_eq!(numbers("-number"), [4, 3, 2, 1, 0]);
        assert_eq!(numbers("model"), [3, 4, 2, 0, 1]);
    }

    #[test]
    fn of_a_parameter_and_a_metric_of_one_name_the_parameter_is_meant() {
        let mut rows = trials();
        for one in &mut rows {
            one.metrics = vec![Metric { name: "learning_rate".to_owned(), value: -f64::from(one.number) }];
        }
        let order = |word: &str| {
            let key = Key::parse(word, &rows, &summary()).unwrap();
            let numbers: Vec<_> =
                arrange(rows.clone(), Some(&key), None).iter().map(|one| one.number).collect();
            (numbers, key.metric().map(str::to_owned))
        };
        assert_eq!(order("learning_rate"), (vec![0, 2, 1, 3, 4], None));
        assert_eq!(order("metrics.learning_rate"), (vec![4, 3, 2, 1, 0], Some("learning_rate".to_owned())));
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let failure = Key::parse("val_acuracy", &trials(), &summary()).unwrap_err();
        assert_eq!(failure.hint, "did you mean val_accuracy?");
        let failure = Key::parse("zzz", &trials(), &summary()).unwrap_err();
        assert!(failure.hint.contains("learning_rate"));
    }

    #[test]
    fn without_an_objective_the_order_is_that_of_numbers() {
        let key = Key::objective(&SweepSummary::default());
        let order: Vec<_> = arrange(trials(), Some(&key), Some(3)).iter().map(|one| one.number).collect();
        assert_eq!(order, [0, 1, 2]);
    }
}
