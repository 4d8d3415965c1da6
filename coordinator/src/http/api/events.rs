//! What happens, as server-sent events: short words on what changed, a few a second at most. Whoever wants to know
//! more asks the other calls; so a busy sweep costs a watcher no more than a quiet one.

use super::{Api, Asked, ErrorBody, Refused, bodies::Sweep};
use crate::{
    driver::WatchItem,
    error::{Code, Problem},
    grpc::watch::{interruption, sweep_of},
};
use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures::Stream;
use serde::{Deserialize, Serialize};
use spotsweep_engine::{Engine, SweepId, action::Record};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast, mpsc},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::{IntoParams, ToSchema};

/// Between two events of one stream.
const EVENTS_EVERY: Duration = Duration::from_millis(400);
/// A comment is sent when nothing else is, so that a broken connection is found.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A stream ends after this; a browser opens the next by itself.
const STREAM_LIMIT: Duration = Duration::from_secs(3600);
/// Most trials that one event names.
const TRIALS_NAMED: usize = 200;
/// Most lines of notices in one event.
const NOTICES: usize = 50;
/// Events that wait for a slow reader before it is let go.
const QUEUE: usize = 16;

/// Of what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Only this sweep.
    sweep: Option<String>,
}

/// The data of an event `changed`.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Changed {
    /// Sweeps that changed, as they stand now.
    sweeps: Vec<Sweep>,
    /// Trials that changed, as SWEEP/NUMBER; the first 200.
    trials: Vec<String>,
    /// How many changed.
    trials_changed: usize,
    /// Attempts that were interrupted, went on, or failed: a line each.
    notices: Vec<NoticeLine>,
    /// Whether something was missed: what is shown should be asked for anew.
    missed: bool,
}

/// A line about an attempt.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NoticeLine {
    /// The trial, as SWEEP/NUMBER.
    trial: String,
    /// When.
    at_us: u64,
    /// What.
    text: String,
}

/// Follows what happens, as server-sent events named `changed`, whose data is JSON of [`Changed`]. The first comes at
/// once. At most 32 streams at a time; each ends after an hour at the latest.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    params(EventsQuery),
    responses(
        (status = 200, body = Changed, content_type = "text/event-stream"),
        (status = "default", body = ErrorBody)
    )
)]
pub(super) async fn follow(
    State(api): State<Api>,
    Asked(asked): Asked<EventsQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    let place = api.event_streams.clone().try_acquire_owned().map_err(|_| {
        Problem::new(Code::TooManyWatchers, format!("{} follow the events already", super::EVENT_STREAMS))
            .hint("close some pages")
    })?;
    let only = match &asked.sweep {
        Some(name) => Some(api.queries.find(name).await?.sweep.id),
        None => None,
    };
    let items = api
        .handle
        .watch()
        .ok_or_else(|| Problem::new(Code::ShuttingDown, "the coordinator is shutting down"))?;
    let (out, events) = mpsc::channel(QUEUE);
    let follower = Follower { api, only, place, waiting: Waiting::default() };
    tokio::spawn(follower.run(items, out));
    Ok(Sse::new(ReceiverStream::new(events)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// What changed since the last event.
#[derive(Default)]
struct Waiting {
    trials: BTreeMap<SweepId, BTreeSet<u32>>,
    count: usize,
    notices: Vec<(SweepId, u32, u64, String)>,
    missed: bool,
}

struct Follower {
    api: Api,
    only: Option<SweepId>,
    waiting: Waiting,
    /// Held as long as the stream lives.
    place: OwnedSemaphorePermit,
}

impl Follower {
    async fn run(
        mut self,
        mut items: broadcast::Receiver<WatchItem>,
        out: mpsc::Sender<Result<Event, Infallible>>,
    ) {
        let end = Instant::now() + STREAM_LIMIT;
        let mut next = Instant::now();
        // The first event tells how everything stands.
        let mut dirty = true;
        self.waiting.missed = true;
        loop {
            tokio::select! {
                biased;
                () = out.closed() => break,
                () = tokio::time::sleep_until(end) => break,
                () = tokio::time::sleep_until(next), if dirty => {
                    // The journal is stalled or the coordinator ends: the reader sees the end and tries again.
                    let Ok(changed) = self.take().await else { break };
                    let Ok(event) = Event::default().event("changed").json_data(&changed) else { break };
                    // A reader whose queue is full has not read for several seconds: it starts anew.
                    if out.try_send(Ok(event)).is_err() {
                        break;
                    }
                    dirty = false;
                    next = Instant::now() + EVENTS_EVERY;
                }
                item = items.recv() => match item {
                    Ok(item) => dirty |= self.note(&item),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.waiting.missed = true;
                        dirty = true;
                    }
                    Err(broadcast::error::RecvError::Closed) => break,
                }
            }
        }
        drop(self.place);
    }

    fn note(&mut self, item: &WatchItem) -> bool {
        let only = self.only;
        let meant = |sweep: SweepId| only.is_none_or(|only| only == sweep);
        let mut any = false;
        for trial in item.gist().trials.iter().filter(|trial| meant(trial.sweep)) {
            any = true;
            let numbers = self.waiting.trials.entry(trial.sweep).or_default();
            if self.waiting.count < TRIALS_NAMED * 8 && numbers.insert(trial.number) {
                self.waiting.count += 1;
            }
        }
        for record in item.others().filter(|record| meant(sweep_of(record))) {
            any = true;
            let line = match record {
                Record::AttemptStarted { trial, attempt, worker, device, step, at, .. } => {
                    let text = format!("attempt {attempt} goes on at step {step} on {worker} ({device})");
                    (*attempt > 1).then_some((*trial, *at, text))
                }
                Record::AttemptEnded { trial, end, step, at, .. } => {
                    interruption(end, *step).map(|text| (*trial, *at, text))
                }
                Record::Sweep { sweep, .. }
                | Record::SweepState { sweep, .. }
                | Record::Trials { sweep, .. }
                | Record::Discarded { sweep, .. } => {
                    self.waiting.trials.entry(*sweep).or_default();
                    None
                }
                Record::Point { .. } | Record::Trial { .. } | Record::Result { .. } => None,
            };
            if let Some((trial, at, text)) = line
                && self.waiting.notices.len() < NOTICES
            {
                self.waiting.notices.push((trial.sweep, trial.number, at.0, text));
            }
        }
        any
    }

    async fn take(&mut self) -> Result<Changed, Problem> {
        let Waiting { trials, count, notices, missed } = std::mem::take(&mut self.waiting);
        let (only, ids) = (self.only, trials.keys().copied().collect::<Vec<_>>());
        let look = move |engine: &Engine| -> Vec<_> {
            match (missed, only) {
                (true, None) => engine.sweeps().collect(),
                (true, Some(id)) => engine.sweep(id).into_iter().collect(),
                (false, _) => ids.into_iter().filter_map(|id| engine.sweep(id)).collect(),
            }
        };
        let views = self.api.queries.ask(look).await?;
        let names: BTreeMap<SweepId, String> =
            views.iter().map(|view| (view.id, view.name.to_string())).collect();
        let name = |id: SweepId| names.get(&id).cloned().unwrap_or_default();
        let named = trials
            .iter()
            .flat_map(|(id, numbers)| numbers.iter().map(|number| super::trial_name(&name(*id), *number)));
        let lines = notices.into_iter().map(|(id, number, at_us, text)| NoticeLine {
            trial: super::trial_name(&name(id), number),
            at_us,
            text,
        });
        Ok(Changed {
            trials: named.take(TRIALS_NAMED).collect(),
            trials_changed: count,
            notices: lines.collect(),
            sweeps: views.iter().map(Sweep::from).collect(),
            missed,
        })
    }
}
