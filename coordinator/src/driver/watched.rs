//! What one commit adds to the history, for those who watch. Must not know who they are.

use spotsweep_engine::{TrialRef, action::Record};
use std::sync::{Arc, OnceLock};

/// One commit.
#[derive(Debug, Clone)]
pub struct WatchItem {
    /// Its number.
    pub seq: u64,
    /// Its records.
    pub records: Arc<Vec<Record>>,
    gist: Arc<OnceLock<Gist>>,
}

/// What a commit is about, for those who do not look at every point. Points are nearly all that there is, thousands a commit.
#[derive(Debug)]
pub struct Gist {
    /// The trials that it tells something of, each once, in ascending order.
    pub trials: Vec<TrialRef>,
    /// The places of the records that are no points.
    pub others: Vec<usize>,
}

impl WatchItem {
    pub(super) fn new(seq: u64, records: Arc<Vec<Record>>) -> Self {
        Self { seq, records, gist: Arc::default() }
    }

    /// Made once, by whoever asks first, for all.
    #[must_use]
    pub fn gist(&self) -> &Gist {
        self.gist.get_or_init(|| Gist::of(&self.records))
    }

    /// The records that are no points.
    pub fn others(&self) -> impl Iterator<Item = &Record> {
        self.gist().others.iter().filter_map(|place| self.records.get(*place))
    }
}

impl Gist {
    fn of(records: &[Record]) -> Self {
        let mut gist = Self { trials: Vec::new(), others: Vec::new() };
        for (place, record) in records.iter().enumerate() {
            let trial = match record {
                Record::Point { trial, .. } => Some(*trial),
                Record::AttemptStarted { trial, .. }
                | Record::AttemptEnded { trial, .. }
                | Record::Trial { trial, .. }
                | Record::Result { trial, .. } => {
                    gist.others.push(place);
                    Some(*trial)
                }
                Record::Sweep { .. }
                | Record::SweepState { .. }
                | Record::Trials { .. }
                | Record::Discarded { .. } => {
                    gist.others.push(place);
                    None
                }
            };
            // What a worker reports of a trial comes in a row.
            if trial.is_some() && gist.trials.last() != trial.as_ref() {
                gist.trials.extend(trial);
            }
        }
        gist.trials.sort_unstable();
        gist.trials.dedup();
        gist
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spotsweep_engine::{SweepId, Time, action::TrialState};

    #[test]
    fn each_trial_is_named_once_and_nothing_but_points_is_left_out() {
        let trial = |number| TrialRef { sweep: SweepId(1), number };
        let point = |number, step| Record::Point {
            trial: trial(number),
            step,
            data_epoch: 0.0,
            metrics: Vec::new(),
            at: Time(1),
        };
        let mut records = vec![point(3, 1), point(3, 2), point(1, 1), point(3, 3)];
        let state = TrialState::Pending;
        records.push(Record::Trials { sweep: SweepId(1), from: 0, until: 2, state, at: Time(2) });
        let item = WatchItem::new(7, Arc::new(records));
        assert_eq!(item.gist().trials, [trial(1), trial(3)]);
        assert_eq!(item.others().count(), 1);
    }
}
