//! Where answers come from: a coordinator over gRPC. All commands ask through [`Source`], so that each is written once.
//!
//! Must not print, nor know how answers are shown.

use super::{
    client::{COORDINATOR_VARIABLE, DEFAULT_COORDINATOR, Place},
    error::CliError,
    offline::{self, Folder},
};
use crate::error::{Code, Problem};
use spotsweep_proto::{catalogue::nearest, limits::GRPC_MESSAGE_BYTES};
use spotsweep_wire::v1::{
    ControlRequest, ExplainRequest, ListCheckpointsRequest, ListCheckpointsResponse, ListSweepsRequest,
    ListWorkersRequest, MetricsRequest, Point, ResultsRequest, ShowSweepRequest, ShowSweepResponse,
    StatusRequest, StatusResponse, SubmitRequest, SubmitResponse, SweepSummary, Trial, WatchRequest,
    WatchResponse, WorkerSummary, control_client::ControlClient,
};
use std::time::Duration;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// How long a coordinator may take to accept a connection.
const CONNECT_S: u64 = 5;

/// Somebody who answers.
#[derive(Debug)]
pub(crate) enum Source {
    /// A coordinator at work.
    Remote(Remote),
}

/// What can be done to a sweep or trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Stop with a checkpoint, until resumed.
    Pause,
    /// Undo a pause.
    Resume,
    /// Stop for good.
    Cancel,
}

/// A connection to a coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    client: ControlClient<Channel>,
}

impl Remote {
    /// Connects.
    ///
    /// # Errors
    /// If the URL is none, or nobody answers there.
    pub(crate) async fn connect(url: &str) -> Result<Self, Problem> {
        let wrong = |error: tonic::transport::Error| {
            Problem::new(Code::BadRequest, format!("{url:?} is no URL of a coordinator: {}", root(&error)))
                .hint(format!("it looks like {DEFAULT_COORDINATOR}"))
        };
        if !url.starts_with("http://") {
            return Err(Problem::new(Code::BadRequest, format!("{url:?} is no URL of a coordinator"))
                .hint(format!("it starts with http://, for instance {DEFAULT_COORDINATOR}")));
        }
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(wrong)?
            .connect_timeout(Duration::from_secs(CONNECT_S))
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|error| {
            Problem::new(Code::Unreachable, format!("no coordinator answers at {url}: {}", root(&error))).hint(
                format!(
                    "start one with `spotsweep serve --dir DIR`, name it with --coordinator or {COORDINATOR_VARIABLE}, \
                     or read its folder with --dir DIR"
                ),
            )
        })?;
        Ok(Self::over(channel))
    }

    /// Over a connection that is there.
    fn over(channel: Channel) -> Self {
        Self { client: ControlClient::new(channel).max_decoding_message_size(GRPC_MESSAGE_BYTES) }
    }

    /// The coordinator at `place`.
    ///
    /// # Errors
    /// If nobody answers there.
    pub(crate) async fn open(place: Place) -> Result<Self, Problem> {
        match Source::open(place).await? {
            Source::Remote(remote) => Ok(remote),
        }
    }

    /// Hands in a sweep. The same token submits once, so a lost answer does no harm.
    ///
    /// # Errors
    /// If the file is wrong, or the coordinator does not answer.
    pub(crate) async fn submit(&mut self, request: SubmitRequest) -> Result<SubmitResponse, Problem> {
        Ok(self.client.submit(request).await?.into_inner())
    }

    /// What happens to a sweep (empty: to all) from now on.
    ///
    /// # Errors
    /// If there is no such sweep, or the coordinator does not answer.
    pub(crate) async fn watch(&mut self, sweep: &str) -> Result<Streaming<WatchResponse>, Problem> {
        Ok(self.client.watch(WatchRequest { sweep: sweep.to_owned() }).await?.into_inner())
    }

    /// Pauses, resumes or cancels; gives the number of trials that it changed.
    ///
    /// # Errors
    /// If there is no such sweep or trial, or it has ended.
    pub(crate) async fn change(&mut self, change: Change, target: &str) -> Result<u64, Problem> {
        let request = ControlRequest { target: target.to_owned() };
        let response = match change {
            Change::Pause => self.client.pause(request).await,
            Change::Resume => self.client.resume(request).await,
            Change::Cancel => self.client.cancel(request).await,
        };
        Ok(response?.into_inner().trials)
    }
}

/// The innermost cause, which says what the outer ones only frame.
fn root(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

impl Source {
    /// Whoever answers at `place`.
    ///
    /// # Errors
    /// If nobody does.
    pub(crate) async fn open(place: Place) -> Result<Self, Problem> {
        match place {
            Place::Named(url) => Ok(Self::Remote(Remote::connect(&url).await?)),
            Place::Default => Ok(Self::Remote(Remote::connect(DEFAULT_COORDINATOR).await?)),
            Place::Dir(dir) => match offline::open(&dir).await? {
                Folder::Live(url) => Ok(Self::Remote(Remote::connect(&url).await?)),
                Folder::Offline(channel) => Ok(Self::Remote(Remote::over(channel))),
            },
        }
    }

    /// The coordinator, for what a folder alone cannot do.
    ///
    /// # Errors
    /// If no coordinator is at work.
    pub(crate) fn into_remote(self) -> Result<Remote, Problem> {
        match self {
            Self::Remote(remote) => Ok(remote),
        }
    }

    /// All sweeps, oldest first.
    ///
    /// # Errors
    /// If the source fails.
    pub(crate) async fn sweeps(&mut self) -> Result<Vec<SweepSummary>, Problem> {
        match self {
            Self::Remote(remote) => {
                Ok(remote.client.list_sweeps(ListSweepsRequest {}).await?.into_inner().sweeps)
            }
        }
    }

    /// A sweep, or a trial and its sweep.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) async fn show(&mut self, target: &str) -> Result<ShowSweepResponse, Problem> {
        let answer = match self {
            Self::Remote(remote) => {
                let request = ShowSweepRequest { target: target.to_owned() };
                remote
                    .client
                    .show_sweep(request)
                    .await
                    .map(tonic::Response::into_inner)
                    .map_err(Problem::from)
            }
        };
        self.with_suggestion(target, answer).await
    }

    /// Gives every trial of a sweep to `each`, in order of number.
    ///
    /// # Errors
    /// If there is no such sweep, or `each` fails.
    pub(crate) async fn results(
        &mut self,
        sweep: &str,
        each: &mut dyn FnMut(Trial) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let pages = match self {
            Self::Remote(remote) => {
                let request = ResultsRequest { sweep: sweep.to_owned() };
                remote.client.results(request).await.map(tonic::Response::into_inner).map_err(Problem::from)
            }
        };
        let mut pages = self.with_suggestion(sweep, pages).await?;
        while let Some(page) = pages.message().await? {
            page.trials.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    }

    /// Gives every point of a trial to `each`, in order of steps.
    ///
    /// # Errors
    /// If there is no such trial, or `each` fails.
    pub(crate) async fn metrics(
        &mut self,
        trial: &str,
        each: &mut dyn FnMut(Point) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let pages = match self {
            Self::Remote(remote) => {
                let request = MetricsRequest { trial: trial.to_owned() };
                remote.client.metrics(request).await.map(tonic::Response::into_inner).map_err(Problem::from)
            }
        };
        let mut pages = self.with_suggestion(trial, pages).await?;
        while let Some(page) = pages.message().await? {
            page.points.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    }

    /// Why something is as it is, in lines.
    ///
    /// # Errors
    /// If there is no such sweep or trial.
    pub(crate) async fn explain(&mut self, target: &str) -> Result<Vec<String>, Problem> {
        let answer = match self {
            Self::Remote(remote) => {
                let request = ExplainRequest { target: target.to_owned() };
                remote.client.explain(request).await.map(|r| r.into_inner().lines).map_err(Problem::from)
            }
        };
        self.with_suggestion(target, answer).await
    }

    /// All workers that are connected or were lately.
    ///
    /// # Errors
    /// If the source fails.
    pub(crate) async fn workers(&mut self) -> Result<Vec<WorkerSummary>, Problem> {
        match self {
            Self::Remote(remote) => {
                Ok(remote.client.list_workers(ListWorkersRequest {}).await?.into_inner().workers)
            }
        }
    }

    /// The checkpoints of a trial that are kept.
    ///
    /// # Errors
    /// If there is no such trial.
    pub(crate) async fn checkpoints(&mut self, trial: &str) -> Result<ListCheckpointsResponse, Problem> {
        let answer = match self {
            Self::Remote(remote) => {
                let request = ListCheckpointsRequest { trial: trial.to_owned() };
                remote
                    .client
                    .list_checkpoints(request)
                    .await
                    .map(tonic::Response::into_inner)
                    .map_err(Problem::from)
            }
        };
        self.with_suggestion(trial, answer).await
    }

    /// The coordinator itself.
    ///
    /// # Errors
    /// If the source fails.
    pub(crate) async fn status(&mut self) -> Result<StatusResponse, Problem> {
        match self {
            Self::Remote(remote) => Ok(remote.client.status(StatusRequest {}).await?.into_inner()),
        }
    }

    /// The sweep that was named, else the only one there is.
    ///
    /// # Errors
    /// If none was named and there is not exactly one.
    pub(crate) async fn sweep_or_only(&mut self, named: Option<String>) -> Result<String, Problem> {
        if let Some(sweep) = named {
            return Ok(sweep);
        }
        let sweeps = self.sweeps().await?;
        match sweeps.as_slice() {
            [] => Err(Problem::new(Code::NoSuchSweep, "there is no sweep yet")
                .hint("hand one in with `spotsweep submit FILE`")),
            [only] => Ok(only.sweep.clone()),
            several => {
                Err(Problem::new(Code::BadRequest, format!("there are {} sweeps: name one", several.len()))
                    .hint(names(several)))
            }
        }
    }

    /// Adds the names of the sweeps that there are to an answer that there is no such sweep.
    async fn with_suggestion<T>(&mut self, target: &str, answer: Result<T, Problem>) -> Result<T, Problem> {
        let failure = match answer {
            Err(failure) if failure.code == Code::NoSuchSweep && failure.hint.is_empty() => failure,
            other => return other,
        };
        let sweeps = self.sweeps().await.unwrap_or_default();
        let wanted = target.split('/').next().unwrap_or_default();
        let hint = match nearest(wanted, sweeps.iter().map(|sweep| sweep.sweep.as_str())) {
            Some(near) => format!("did you mean {near}?"),
            None if sweeps.is_empty() => {
                "there is no sweep yet; hand one in with `spotsweep submit FILE`".to_owned()
            }
            None => names(&sweeps),
        };
        Err(failure.hint(hint))
    }
}

/// The newest sweeps by name, for hints.
fn names(sweeps: &[SweepSummary]) -> String {
    const SHOWN: usize = 8;
    let newest: Vec<&str> = sweeps.iter().rev().take(SHOWN).map(|sweep| sweep.sweep.as_str()).collect();
    match sweeps.len().saturating_sub(SHOWN) {
        0 => format!("there is: {}", newest.join(", ")),
        more => format!("the newest are: {}, and {more} more (`spotsweep ls`)", newest.join(", ")),
    }
}
