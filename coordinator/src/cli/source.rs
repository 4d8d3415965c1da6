//! Where answers come from: a coordinator, or a folder on which none runs. All commands ask through [`Source`], so that
//! each is written once.
//!
//! Must not know how answers are shown.

use super::{
    client::{COORDINATOR_VARIABLE, DEFAULT_COORDINATOR},
    error::CliError,
    transport::Transport,
};
use crate::{
    error::{Code, Problem},
    grpc::control::{About, ControlService},
    logs::Logs,
    queries::Queries,
    store::{self, OBJECTS_FOLDER},
};
use futures::{Stream, StreamExt as _, stream::BoxStream};
use spotsweep_proto::{
    catalogue::{OwnCatalogue, nearest},
    limits::GRPC_MESSAGE_BYTES,
};
use spotsweep_wire::v1::{
    AttemptsRequest, AttemptsResponse, ControlRequest, ExplainRequest, ImportRequest, ImportResponse,
    ListCheckpointsRequest, ListCheckpointsResponse, ListModelsRequest, ListSweepsRequest, ListTrialsRequest,
    ListTrialsResponse, ListWorkersRequest, MetricsRequest, MetricsResponse, Point, PutCodeRequest,
    ResultsRequest, ResultsResponse, ShowSweepRequest, ShowSweepResponse, StatusRequest, StatusResponse,
    SubmitRequest, SubmitResponse, SweepSummary, Trial, WatchRequest, WatchResponse, WorkerSummary,
    control_client::ControlClient,
    control_server::{Control as _, ControlServer},
};
use std::{path::Path, sync::Arc, time::Duration};
use tonic::{Request, Response, Status, Streaming, transport::Endpoint};

/// How long a coordinator may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

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

/// Somebody who answers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Source {
    client: ControlClient<Transport>,
    /// What answers for a folder.
    folder: Option<Arc<ControlService>>,
}

/// An answer in pages. One from this process is taken as it is: the millions of points of an export need not become bytes
/// and values again.
pub(crate) enum Pages<T> {
    /// Over the network.
    Sent(Box<Streaming<T>>),
    /// From a folder.
    Made(BoxStream<'static, Result<T, Status>>),
}

impl<T> Pages<T> {
    fn sent(pages: Streaming<T>) -> Self {
        Self::Sent(Box::new(pages))
    }

    /// The next page.
    ///
    /// # Errors
    /// If the source fails.
    pub(crate) async fn message(&mut self) -> Result<Option<T>, Status> {
        match self {
            Self::Sent(pages) => pages.message().await,
            Self::Made(pages) => pages.next().await.transpose(),
        }
    }
}

impl Source {
    /// The coordinator at `url`.
    ///
    /// # Errors
    /// If the URL is none, or nobody answers there.
    pub(crate) async fn connect(url: &str) -> Result<Self, Problem> {
        let wrong = |why: String| {
            Problem::new(Code::BadAddress, format!("{url:?} is no URL of a coordinator{why}"))
                .hint(format!("it looks like {DEFAULT_COORDINATOR}"))
        };
        if !url.starts_with("http://") {
            return Err(wrong(String::new()));
        }
        let endpoint =
            Endpoint::from_shared(url.to_owned()).map_err(|error| wrong(format!(": {}", root(&error))))?;
        let connected = endpoint.connect_timeout(CONNECT).tcp_nodelay(true).connect().await;
        let channel = connected.map_err(|error| {
            Problem::new(Code::Unreachable, format!("no coordinator answers at {url}: {}", root(&error))).hint(format!(
                "start one with `spotsweep serve --dir DIR`, name it with --coordinator or {COORDINATOR_VARIABLE}, or \
                 read its folder with --dir DIR"
            ))
        })?;
        Ok(Self::over(Transport::Remote(channel), None))
    }

    /// A folder on which no coordinator runs. It can be read and nothing else. Also gives what was found damaged.
    ///
    /// # Errors
    /// If it is no such folder, a coordinator runs on it, or it is damaged.
    pub(crate) fn folder(dir: &Path) -> Result<(Self, Vec<String>), Problem> {
        let (engine, history, report) = store::open_read_only(dir)?;
        let objects = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()).join(OBJECTS_FOLDER);
        let queries = Queries::offline(engine, history, &format!("file://{}", objects.display()));
        let about = About { dir: dir.display().to_string(), started_at_us: 0 };
        let service = ControlService::new(queries, None, about).with_logs(Logs::at_rest(dir));
        let service = Arc::new(service);
        let transport = Transport::Folder(ControlServer::from_arc(service.clone()));
        let cut = report.cut.iter().map(ToString::to_string).collect();
        Ok((Self::over(transport, Some(service)), cut))
    }

    fn over(transport: Transport, folder: Option<Arc<ControlService>>) -> Self {
        let client = ControlClient::new(transport).max_decoding_message_size(GRPC_MESSAGE_BYTES);
        Self { client, folder }
    }

    /// Hands in a sweep. The same token submits once, so a lost answer does no harm.
    ///
    /// # Errors
    /// If the file is wrong, or nobody takes it.
    pub(crate) async fn submit(&mut self, request: SubmitRequest) -> Result<SubmitResponse, Problem> {
        Ok(self.client.submit(request).await?.into_inner())
    }

    /// What trainers of workers have told.
    ///
    /// # Errors
    /// If nobody answers, or with what cannot be read.
    pub(crate) async fn models(&mut self) -> Result<OwnCatalogue, Problem> {
        let answer = self.client.list_models(ListModelsRequest {}).await?.into_inner();
        if answer.catalogue.is_empty() {
            return Ok(OwnCatalogue::default());
        }
        // Of many workers together it may be larger than one trainer's may be.
        serde_json::from_slice(&answer.catalogue).map_err(|error| Problem::internal(&error))
    }

    /// Hands in code, piece by piece.
    ///
    /// # Errors
    /// If it is not what it says, or nobody takes it.
    pub(crate) async fn put_code(
        &mut self,
        pieces: impl Iterator<Item = PutCodeRequest> + Send + 'static,
    ) -> Result<(), Problem> {
        self.client.put_code(futures::stream::iter(pieces)).await?;
        Ok(())
    }

    /// What happens to a sweep (empty: to all) from now on.
    ///
    /// # Errors
    /// If there is no such sweep, or no coordinator at work.
    pub(crate) async fn watch(&mut self, sweep: &str) -> Result<Streaming<WatchResponse>, Problem> {
        let answer = self.client.watch(WatchRequest { sweep: sweep.to_owned() }).await;
        self.told(sweep, answer).await
    }

    /// Pauses, resumes or cancels; gives the number of trials that it changed.
    ///
    /// # Errors
    /// If there is no such sweep or trial, it has ended, or no coordinator is at work.
    pub(crate) async fn change(&mut self, change: Change, target: &str) -> Result<u64, Problem> {
        let request = ControlRequest { target: target.to_owned() };
        let answer = match change {
            Change::Pause => self.client.pause(request).await,
            Change::Resume => self.client.resume(request).await,
            Change::Cancel => self.client.cancel(request).await,
        };
        Ok(self.told(target, answer).await?.trials)
    }

    /// All sweeps, oldest first.
    ///
    /// # Errors
    /// If the source fails.
    pub(crate) async fn sweeps(&mut self) -> Result<Vec<SweepSummary>, Problem> {
        Ok(self.client.list_sweeps(ListSweepsRequest {}).await?.into_inner().sweeps)
    }

    /// A sweep, or a trial and its sweep.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) async fn show(&mut self, target: &str) -> Result<ShowSweepResponse, Problem> {
        let answer = self.client.show_sweep(ShowSweepRequest { target: target.to_owned() }).await;
        self.told(target, answer).await
    }

    /// A sweep's summary.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) async fn summary(&mut self, sweep: &str) -> Result<SweepSummary, Problem> {
        let nothing = || Problem::new(Code::Internal, "the coordinator shows a sweep without a summary");
        self.show(sweep).await?.sweep.ok_or_else(nothing)
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
        let mut pages = self.result_pages(sweep).await?;
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
        let mut pages = self.metric_pages(trial, 0).await?;
        while let Some(page) = pages.message().await? {
            page.points.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    }

    /// Every trial of a sweep in order of number, page by page: for who asks more while it reads.
    ///
    /// # Errors
    /// If there is no such sweep.
    pub(crate) async fn result_pages(&mut self, sweep: &str) -> Result<Pages<ResultsResponse>, Problem> {
        let request = ResultsRequest { sweep: sweep.to_owned() };
        let answer = match self.folder.clone() {
            Some(folder) => folder.results(Request::new(request)).await.map(|made| made.map(Pages::Made)),
            None => self.client.results(request).await.map(|sent| sent.map(Pages::sent)),
        };
        self.told(sweep, answer).await
    }

    /// Every attempt of a sweep in order of trial and epoch, page by page.
    ///
    /// # Errors
    /// If there is no such sweep.
    pub(crate) async fn attempt_pages(
        &mut self,
        sweep: &str,
    ) -> Result<Streaming<AttemptsResponse>, Problem> {
        let answer = self.client.attempts(AttemptsRequest { sweep: sweep.to_owned() }).await;
        self.told(sweep, answer).await
    }

    /// Hands in an export: its beginning, then its files piece by piece.
    ///
    /// # Errors
    /// If it is not what it says, or nobody takes it.
    pub(crate) async fn import(
        &mut self,
        messages: impl Stream<Item = ImportRequest> + Send + 'static,
    ) -> Result<ImportResponse, Problem> {
        Ok(self.client.import(messages).await?.into_inner())
    }

    /// A page of a sweep's trials.
    ///
    /// # Errors
    /// If there is no such sweep or column, or the filter is none.
    pub(crate) async fn trials(&mut self, request: ListTrialsRequest) -> Result<ListTrialsResponse, Problem> {
        let sweep = request.sweep.clone();
        let answer = self.client.list_trials(request).await;
        self.told(&sweep, answer).await
    }

    /// The points of a trial from `first_step` on in order of steps, page by page.
    ///
    /// # Errors
    /// If there is no such trial.
    pub(crate) async fn metric_pages(
        &mut self,
        trial: &str,
        first_step: u64,
    ) -> Result<Pages<MetricsResponse>, Problem> {
        let request = MetricsRequest { trial: trial.to_owned(), first_step };
        let answer = match self.folder.clone() {
            Some(folder) => folder.metrics(Request::new(request)).await.map(|made| made.map(Pages::Made)),
            None => self.client.metrics(request).await.map(|sent| sent.map(Pages::sent)),
        };
        self.told(trial, answer).await
    }

    /// What attempt `attempt` of a trial printed, 0: its newest; with `follow` what it prints from now on, too.
    ///
    /// # Errors
    /// If there is no such trial or attempt.
    pub(crate) async fn log(
        &mut self,
        trial: &str,
        attempt: u32,
        follow: bool,
    ) -> Result<Streaming<spotsweep_wire::v1::ReadLogResponse>, Problem> {
        let request = spotsweep_wire::v1::ReadLogRequest { trial: trial.to_owned(), attempt, follow };
        let answer = self.client.read_log(request).await;
        self.told(trial, answer).await
    }

    /// Why something is as it is, in lines.
    ///
    /// # Errors
    /// If there is no such sweep or trial.
    pub(crate) async fn explain(&mut self, target: &str) -> Result<Vec<String>, Problem> {
        let answer = self.client.explain(ExplainRequest { target: target.to_owned() }).await;
        Ok(self.told(target, answer).await?.lines)
    }

    /// All workers that are connected or were lately.
    ///
    /// # Errors
    /// If the source fails.
    pub(crate) async fn workers(&mut self) -> Result<Vec<WorkerSummary>, Problem> {
        Ok(self.client.list_workers(ListWorkersRequest {}).await?.into_inner().workers)
    }

    /// The checkpoints of a trial that are kept.
    ///
    /// # Errors
    /// If there is no such trial.
    pub(crate) async fn checkpoints(&mut self, trial: &str) -> Result<ListCheckpointsResponse, Problem> {
        let answer = self.client.list_checkpoints(ListCheckpointsRequest { trial: trial.to_owned() }).await;
        self.told(trial, answer).await
    }

    /// The coordinator itself.
    ///
    /// # Errors
    /// If the source fails.
    pub(crate) async fn status(&mut self) -> Result<StatusResponse, Problem> {
        Ok(self.client.status(StatusRequest {}).await?.into_inner())
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
                let message = format!("there are {} sweeps: name one", several.len());
                Err(Problem::new(Code::BadRequest, message).hint(names(several)))
            }
        }
    }

    /// An answer, or the error with what else could have been meant.
    async fn told<T>(&mut self, target: &str, answer: Result<Response<T>, Status>) -> Result<T, Problem> {
        let problem = match answer {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => Problem::from(status),
        };
        if problem.code != Code::NoSuchSweep || !problem.hint.is_empty() {
            return Err(problem);
        }
        let sweeps = self.sweeps().await.unwrap_or_default();
        let wanted = target.split('/').next().unwrap_or_default();
        Err(match nearest(wanted, sweeps.iter().map(|sweep| sweep.sweep.as_str())) {
            Some(near) => problem.hint(format!("did you mean {near}?")),
            None if sweeps.is_empty() => {
                problem.hint("there is none yet; hand one in with `spotsweep submit FILE`")
            }
            None => problem.hint(names(&sweeps)),
        })
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

/// The newest sweeps by name, for hints.
fn names(sweeps: &[SweepSummary]) -> String {
    const SHOWN: usize = 8;
    let newest: Vec<&str> = sweeps.iter().rev().take(SHOWN).map(|sweep| sweep.sweep.as_str()).collect();
    match sweeps.len().saturating_sub(SHOWN) {
        0 => format!("there is: {}", newest.join(", ")),
        more => format!("the newest are: {}, and {more} more (`spotsweep ls`)", newest.join(", ")),
    }
}
