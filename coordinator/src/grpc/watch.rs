//! What a watcher is told: points, notices, and the sweep as it changes, until it ends.

use crate::{
    driver::{Handle, WatchItem},
    queries::{Queries, messages},
};
use futures::{Stream, StreamExt as _};
use spotsweep_engine::{
    SweepId, Time, TrialRef,
    action::{AttemptEnd, Record},
};
use spotsweep_wire::v1::{self, watch_response::What};
use std::{
    collections::{BTreeSet, HashMap},
    pin::Pin,
};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Messages that wait for one watcher; while they wait, commits queue up behind, and at last some are missed.
const QUEUE: usize = 256;
/// Trials of one commit that are told one by one; more are told by the sweep's counts alone.
const TRIALS_PER_COMMIT: usize = 32;

type Told = mpsc::Sender<Result<v1::WatchResponse, Status>>;

/// Tells of `only`, or of everything, from now on.
pub(super) fn start(
    queries: Queries,
    handle: &Handle,
    only: Option<SweepId>,
) -> Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>> {
    let items = handle.watch();
    let (told, stream) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut watcher = Watcher { queries, only, told, names: HashMap::new() };
        // None: the watcher has gone, the sweep has ended, or the coordinator ends.
        let _over = watcher.follow(items).await;
    });
    ReceiverStream::new(stream).boxed()
}

struct Watcher {
    queries: Queries,
    only: Option<SweepId>,
    told: Told,
    names: HashMap<SweepId, String>,
}

impl Watcher {
    async fn follow(&mut self, mut items: broadcast::Receiver<WatchItem>) -> Option<()> {
        let known =
            self.queries.ask(|engine| engine.sweeps().map(|view| view.id).collect::<Vec<_>>()).await.ok()?;
        for sweep in known {
            self.sweep(sweep).await?;
        }
        loop {
            match items.recv().await {
                Ok(item) => self.item(&item).await?,
                Err(RecvError::Lagged(missed)) => {
                    self.notice(String::new(), Time(0), format!("{missed} commits were missed")).await?;
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    async fn say(&self, what: What) -> Option<()> {
        self.told.send(Ok(v1::WatchResponse { what: Some(what) })).await.ok()
    }

    async fn notice(&self, trial: String, at: Time, text: String) -> Option<()> {
        self.say(What::Notice(v1::Notice { trial, at_us: at.0, text })).await
    }

    /// The sweep as it stands; ends the watch if it was the one that was asked for and has ended.
    async fn sweep(&mut self, id: SweepId) -> Option<()> {
        if self.only.is_some_and(|only| only != id) {
            return Some(());
        }
        let summary = self.queries.sweep(id).await.ok()??;
        self.names.insert(id, summary.sweep.clone());
        let over = summary.ended_at_us.is_some() && self.only == Some(id);
        self.say(What::Sweep(summary)).await?;
        (!over).then_some(())
    }

    fn name(&self, trial: TrialRef) -> String {
        match self.names.get(&trial.sweep) {
            Some(name) => format!("{name}/{}", trial.number),
            None => trial.to_string(),
        }
    }

    async fn item(&mut self, item: &WatchItem) -> Option<()> {
        let (mut sweeps, mut trials) = (BTreeSet::new(), BTreeSet::new());
        for record in item.records.iter() {
            let sweep = match record {
                Record::Sweep { sweep, .. }
                | Record::SweepState { sweep, .. }
                | Record::Trials { sweep, .. } => *sweep,
                Record::Point { trial, .. }
                | Record::AttemptStarted { trial, .. }
                | Record::AttemptEnded { trial, .. }
                | Record::Trial { trial, .. }
                | Record::Result { trial, .. } => trial.sweep,
            };
            if self.only.is_some_and(|only| only != sweep) {
                continue;
            }
            match record {
                Record::Point { trial, step, data_epoch, metrics, at } => {
                    let metrics = messages::metrics(metrics.clone());
                    let (trial, at_us) = (self.name(*trial), at.0);
                    let (step, data_epoch) = (*step, *data_epoch);
                    self.say(What::Point(v1::Point { trial, step, data_epoch, metrics, at_us })).await?;
                }
                Record::AttemptStarted { trial, attempt, worker, device, step, at, .. } if *attempt > 1 => {
                    let text = format!("attempt {attempt} goes on at step {step} on {worker} ({device})");
                    self.notice(self.name(*trial), *at, text).await?;
                }
                Record::AttemptEnded { trial, end, step, at, .. } => {
                    if let Some(text) = interruption(end, *step) {
                        self.notice(self.name(*trial), *at, text).await?;
                    }
                }
                Record::Trial { trial, .. } => {
                    trials.insert(*trial);
                    sweeps.insert(sweep);
                }
                Record::Sweep { .. } | Record::SweepState { .. } | Record::Trials { .. } => {
                    sweeps.insert(sweep);
                }
                Record::AttemptStarted { .. } | Record::Result { .. } => {}
            }
        }
        if trials.len() <= TRIALS_PER_COMMIT {
            for trial in trials {
                if let Some(row) =
                    self.queries.show(&self.name(trial)).await.ok().and_then(|shown| shown.trial)
                {
                    self.say(What::Trial(row)).await?;
                }
            }
        }
        for sweep in sweeps {
            self.sweep(sweep).await?;
        }
        Some(())
    }
}

/// A line about an attempt that ended before its trial did.
fn interruption(end: &AttemptEnd, step: u64) -> Option<String> {
    Some(match end {
        AttemptEnd::Finished | AttemptEnd::Revoked { .. } => return None,
        AttemptEnd::Failed { message, .. } => {
            format!("failed at step {step}: {}", message.lines().next().unwrap_or_default())
        }
        AttemptEnd::Released => format!("interrupted at step {step}: the worker gave it back"),
        AttemptEnd::WorkerGone => format!("interrupted at step {step}: the worker left"),
        AttemptEnd::Disconnected => format!("interrupted at step {step}: the worker's connection broke"),
        AttemptEnd::Expired => format!("interrupted at step {step}: nothing was heard of the worker"),
    })
}
