//! The Watch call: what each commit adds to the history, as it becomes durable, and how the sweep stands.
//!
//! A watcher that reads too slowly loses commits, not the coordinator its memory; it is told how many.

use crate::{
    driver::{Handle, WatchItem},
    error::{Code, Problem},
    queries::{Queries, messages},
};
use spotsweep_engine::{
    Engine, SweepId, Time, TrialRef,
    action::{AttemptEnd, Record, TrialState},
    explain::{lost_words, unreadable_words},
};
use spotsweep_proto::{ids::SweepName, last_lines::on_one_line, spec::SweepSpec};
use spotsweep_wire::v1::{self, watch_response::What};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Messages that wait for a watcher.
const QUEUE: usize = 1024;
/// Between two words on how a sweep stands.
const SUMMARY_EVERY: Duration = Duration::from_millis(100);

type Out = mpsc::Sender<Result<v1::WatchResponse, Status>>;

/// Tells of `only`, or of everything, from now on.
///
/// # Errors
/// The coordinator is going down.
pub(super) async fn start(
    queries: Queries,
    handle: &Handle,
    only: Option<SweepId>,
) -> Result<ReceiverStream<Result<v1::WatchResponse, Status>>, Problem> {
    // First listen, then look: what happens in between is told twice rather than never.
    let items = handle.watch().ok_or_else(going_down)?;
    let dirty = match only {
        Some(id) => BTreeSet::from([id]),
        None => queries.ask(|engine| engine.sweeps().map(|sweep| sweep.id).collect()).await?,
    };
    let (out, stream) = mpsc::channel(QUEUE);
    let watcher = Watcher { queries, only, dirty, known: HashMap::new(), out: out.clone() };
    tokio::spawn(async move {
        if let Err(problem) = watcher.run(items).await {
            let _gone = out.send(Err(problem.into())).await;
        }
    });
    Ok(ReceiverStream::new(stream))
}

fn going_down() -> Problem {
    Problem::new(Code::ShuttingDown, "the coordinator is shutting down")
}

/// What does not change of a sweep.
#[derive(Clone)]
struct SweepHead {
    name: SweepName,
    spec: Arc<SweepSpec>,
}

/// What a commit says of a trial before it says the trial's new state.
#[derive(Default)]
struct Before<'a> {
    result: Option<&'a Record>,
    end: Option<(&'a AttemptEnd, u64)>,
}

struct Watcher {
    queries: Queries,
    only: Option<SweepId>,
    /// Sweeps whose summary has changed since it was last sent.
    dirty: BTreeSet<SweepId>,
    known: HashMap<SweepId, SweepHead>,
    out: Out,
}

impl Watcher {
    async fn run(mut self, mut items: broadcast::Receiver<WatchItem>) -> Result<(), Problem> {
        let mut next_summary = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.out.closed() => return Ok(()),
                () = sleep_until(next_summary), if !self.dirty.is_empty() => {
                    if self.summaries().await? {
                        return Ok(());
                    }
                    next_summary = Instant::now() + SUMMARY_EVERY;
                }
                item = items.recv() => match item {
                    Ok(item) => self.item(&item).await?,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        let text = format!("{missed} commits were not shown: this watcher reads too slowly");
                        let notice = v1::Notice { trial: String::new(), at_us: 0, text };
                        self.send(What::Notice(notice)).await;
                        self.dirty.extend(self.known.keys());
                        self.dirty.extend(self.only);
                    }
                    Err(broadcast::error::RecvError::Closed) => {
                        return Err(going_down());
                    }
                }
            }
        }
    }

    /// Sends how the sweeps stand that have changed; true if the only one has ended.
    async fn summaries(&mut self) -> Result<bool, Problem> {
        let dirty = std::mem::take(&mut self.dirty);
        let look = move |engine: &Engine| -> Vec<_> {
            dirty.into_iter().filter_map(|id| engine.sweep(id)).collect()
        };
        let views = self.queries.ask(look).await?;
        let mut ended = false;
        for view in views {
            ended |= self.only == Some(view.id) && view.state.is_final();
            self.send(What::Sweep(messages::sweep(&view))).await;
            self.known.entry(view.id).or_insert(SweepHead { name: view.name, spec: view.spec });
        }
        Ok(ended)
    }

    async fn item(&mut self, item: &WatchItem) -> Result<(), Problem> {
        let mut before = Before::default();
        let mut started = Vec::new();
        for record in item.records.iter() {
            let sweep = sweep_of(record);
            if self.only.is_some_and(|only| only != sweep) {
                continue;
            }
            self.dirty.insert(sweep);
            let head = self.head(sweep).await?;
            let what = match record {
                Record::Point { trial, step, data_epoch, metrics, at } => Some(What::Point(v1::Point {
                    trial: messages::trial_name(&head.name, trial.number),
                    step: *step,
                    data_epoch: *data_epoch,
                    metrics: messages::metrics(metrics.clone()),
                    at_us: at.0,
                })),
                Record::AttemptStarted { trial, attempt, worker, device, step, at, .. } => {
                    before = Before::default();
                    started.push(*trial);
                    // The first is no news: the trial's own line says that it runs.
                    (*attempt > 1).then(|| {
                        let text = format!("attempt {attempt} goes on at step {step} on {worker} ({device})");
                        notice(&head, *trial, *at, text)
                    })
                }
                Record::AttemptEnded { trial, end, step, at, .. } => {
                    before = Before { result: before.result, end: Some((end, *step)) };
                    interruption(end, *step).map(|text| notice(&head, *trial, *at, text))
                }
                Record::Result { .. } => {
                    before.result = Some(record);
                    None
                }
                // It has a lease, perhaps behind others: it is told of when its attempt starts.
                Record::Trial { state: TrialState::Running, .. } => None,
                Record::Trial { trial, state, attempts, .. } => {
                    let row = row(&head, *trial, *state, *attempts, &std::mem::take(&mut before));
                    Some(What::Trial(row))
                }
                // The summary says these.
                Record::Sweep { .. }
                | Record::SweepState { .. }
                | Record::Trials { .. }
                | Record::Discarded { .. } => None,
            };
            if let Some(what) = what {
                self.send(what).await;
            }
        }
        self.running(started).await
    }

    /// Tells of trials whose attempts have started, as far as they still run: where, how far, of how many steps.
    async fn running(&mut self, started: Vec<TrialRef>) -> Result<(), Problem> {
        if started.is_empty() {
            return Ok(());
        }
        let look = move |engine: &Engine| -> Vec<_> {
            let views = started.into_iter().filter_map(|trial| engine.trial(trial));
            views.filter(|view| view.state == TrialState::Running).collect()
        };
        for view in self.queries.ask(look).await? {
            let head = self.head(view.trial.sweep).await?;
            let params = head.spec.assignment(view.trial.number);
            let row = messages::trial(&head.name, &params, &view, messages::Outcome::default());
            self.send(What::Trial(row)).await;
        }
        Ok(())
    }

    /// Name and specification of a sweep.
    async fn head(&mut self, id: SweepId) -> Result<SweepHead, Problem> {
        if let Some(head) = self.known.get(&id) {
            return Ok(head.clone());
        }
        let view = self.queries.ask(move |engine: &Engine| engine.sweep(id)).await?;
        let view = view.ok_or_else(|| Problem::new(Code::NoSuchSweep, "the sweep is gone"))?;
        let head = SweepHead { name: view.name, spec: view.spec };
        self.known.insert(id, head.clone());
        Ok(head)
    }

    async fn send(&self, what: What) {
        // Whether it is gone is seen at the next turn.
        let _gone = self.out.send(Ok(v1::WatchResponse { what: Some(what) })).await;
    }
}

/// The sweep of which a record tells.
pub(crate) fn sweep_of(record: &Record) -> SweepId {
    match record {
        Record::Sweep { sweep, .. }
        | Record::SweepState { sweep, .. }
        | Record::Trials { sweep, .. }
        | Record::Discarded { sweep } => *sweep,
        Record::Point { trial, .. }
        | Record::AttemptStarted { trial, .. }
        | Record::AttemptEnded { trial, .. }
        | Record::Trial { trial, .. }
        | Record::Result { trial, .. } => trial.sweep,
    }
}

fn notice(head: &SweepHead, trial: TrialRef, at: Time, text: String) -> What {
    What::Notice(v1::Notice { trial: messages::trial_name(&head.name, trial.number), at_us: at.0, text })
}

fn row(
    head: &SweepHead,
    trial: TrialRef,
    state: TrialState,
    attempts: u32,
    before: &Before<'_>,
) -> v1::Trial {
    let params = head.spec.assignment(trial.number);
    let mut row = v1::Trial {
        sweep: head.name.to_string(),
        trial: messages::trial_name(&head.name, trial.number),
        number: trial.number,
        state: state.as_str().to_owned(),
        params_json: serde_json::Value::Object(params.to_json()).to_string(),
        attempts,
        ..v1::Trial::default()
    };
    if let Some((end, step)) = before.end {
        row.steps = step;
        if let AttemptEnd::Failed { message, .. } = end {
            row.failure.clone_from(message);
        }
    }
    if let Some(Record::Result { steps, metrics, weights_digest, device, seconds, .. }) = before.result {
        row.steps = *steps;
        row.metrics = messages::metrics(metrics.clone());
        row.weights_digest = weights_digest.map(|digest| digest.to_string()).unwrap_or_default();
        row.device = device.to_string();
        row.seconds = *seconds;
    }
    row
}

/// A line about an attempt that ended before its trial did.
pub(crate) fn interruption(end: &AttemptEnd, step: u64) -> Option<String> {
    Some(match end {
        AttemptEnd::Finished | AttemptEnd::Revoked { .. } => return None,
        AttemptEnd::Failed { message, .. } => {
            format!("failed at step {step}: {}", on_one_line(message))
        }
        AttemptEnd::Released => format!("interrupted at step {step}: the worker gave it back"),
        AttemptEnd::WorkerGone => format!("interrupted at step {step}: the worker left"),
        AttemptEnd::Disconnected => format!("interrupted at step {step}: the worker's connection broke"),
        AttemptEnd::Expired => format!("interrupted at step {step}: nothing was heard of the worker"),
        AttemptEnd::Unreadable { step, next_step, message } => {
            unreadable_words(*step, *next_step, message.lines().next())
        }
        AttemptEnd::Noticed { notice, lost_steps } => {
            let how = if notice.kind.is_interruption() { "interrupted" } else { "moved" };
            format!("{how} at step {step} after {notice}; {}", lost_words(*lost_steps))
        }
    })
}
