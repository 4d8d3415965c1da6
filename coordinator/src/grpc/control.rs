//! The Control service: what clients ask, on top of [`Queries`] and the driver's [`Handle`].

use super::{code, import, logs::Reader, modules, watch};
use crate::{
    data::sets::SetStore,
    driver::Handle,
    error::{Code, Problem, chain},
    logs::Logs,
    objects::Objects,
    orders::{self, refused},
    queries::{
        Queries,
        board::{Boards, Selection},
        messages,
    },
    told::Told,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use spotsweep_engine::{Reply, event::Command};
use spotsweep_proto::{
    datasets::DataSets,
    spec::{self, Own},
};
use spotsweep_wire::v1::{self, control_server::Control};
use std::{pin::Pin, sync::Arc};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Pages of points that are read before they are asked for.
const PAGES_AHEAD: usize = 4;

/// The service. Without a handle it answers for a folder at rest, and changes nothing.
pub struct ControlService {
    queries: Queries,
    boards: Boards,
    handle: Option<Handle>,
    about: Arc<About>,
    data_store: Option<String>,
    objects: Option<Objects>,
    logs: Option<Logs>,
    log_followers: Arc<Semaphore>,
    told: Told,
}

/// Facts about the coordinator.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Its folder.
    pub dir: String,
    /// When it started, microseconds since 1970.
    pub started_at_us: u64,
}

/// Logs that are followed at once.
const LOG_FOLLOWERS: usize = 64;
/// Most trials of one page.
const TRIALS: u32 = 1000;

/// Most attempts of one message: far below its limit even if each failed in as many words as are kept.
const ATTEMPTS: usize = 250;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

impl ControlService {
    /// Answers with `queries`; with `handle`, also does what it is told.
    #[must_use]
    pub fn new(queries: Queries, handle: Option<Handle>, about: About) -> Self {
        let boards = Boards::new(queries.clone());
        Self {
            queries,
            boards,
            handle,
            about: Arc::new(about),
            data_store: None,
            objects: None,
            logs: None,
            log_followers: Arc::new(Semaphore::new(LOG_FOLLOWERS)),
            told: Told::default(),
        }
    }

    /// The same with boards that others look at, too.
    #[must_use]
    pub fn with_boards(self, boards: Boards) -> Self {
        Self { boards, ..self }
    }

    /// The same with the object store at `place` for data sets that sweeps name.
    #[must_use]
    pub fn with_data_store(self, place: Option<String>) -> Self {
        Self { data_store: place, ..self }
    }

    /// The same with the object store into which code goes.
    #[must_use]
    pub fn with_objects(self, objects: Objects) -> Self {
        Self { objects: Some(objects), ..self }
    }

    /// The same with what attempts printed.
    #[must_use]
    pub fn with_logs(self, logs: Logs) -> Self {
        Self { logs: Some(logs), ..self }
    }

    /// The same with what workers tell of their trainers.
    #[must_use]
    pub fn with_told(self, told: Told) -> Self {
        Self { told, ..self }
    }

    /// The added data sets that a sweep file may have.
    async fn data_sets(&self, source: &[u8]) -> Result<DataSets, Problem> {
        let asked = spec::data_asked_for(source);
        let Some(place) = self.data_store.as_deref().filter(|_| !asked.is_empty()) else {
            return Ok(DataSets::stored());
        };
        match SetStore::existing(place) {
            Ok(Some(store)) => store.known(&asked).await,
            Ok(None) => Ok(DataSets::stored()),
            Err(error) => Err(error),
        }
        .map_err(|error| Problem::new(Code::Storage, chain(&error)).hint(error.hint()))
    }

    fn handle(&self) -> Result<&Handle, Problem> {
        let none = || {
            Problem::new(Code::Unreachable, "no coordinator runs on this folder, so it can only be read")
                .hint("start one with `spotsweep serve --dir DIR`")
        };
        self.handle.as_ref().ok_or_else(none)
    }

    async fn control(&self, request: v1::ControlRequest, command: Command) -> Answer<v1::ControlResponse> {
        let trials = orders::carry_out(&self.queries, self.handle()?, &request.target, command).await?;
        Ok(Response::new(v1::ControlResponse { trials }))
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    type WatchStream = Answers<v1::WatchResponse>;
    type ResultsStream = Answers<v1::ResultsResponse>;
    type AttemptsStream = Answers<v1::AttemptsResponse>;
    type MetricsStream = Answers<v1::MetricsResponse>;
    type ReadLogStream = Answers<v1::ReadLogResponse>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Answer<v1::SubmitResponse> {
        let v1::SubmitRequest { source, file_name, token, code, modules } = request.into_inner();
        let token: [u8; 16] =
            token.as_ref().try_into().map_err(|_| Problem::new(Code::BadRequest, "a token has 16 bytes"))?;
        let handle = self.handle()?;
        let mut sets = self.data_sets(&source).await?;
        let told = self.told.all();
        sets.add_names(told.data.iter().map(|set| set.name.to_string()));
        let asks = spec::code_asked_for(&source).is_some();
        let parsed = tokio::task::spawn_blocking(move || {
            spec::parse_with(&source, &file_name, &sets, Own::Told(&told))
        })
        .await;
        let spec = parsed.map_err(|error| Problem::internal(&error))?;
        let mut spec = spec.map_err(|wrong| Problem::new(Code::BadSweepFile, wrong.to_string()))?;
        let code = code.map(|code| code::read(&code)).transpose()?;
        let _held = match &self.objects {
            Some(objects) => Some(objects.hold_code().await),
            None => None,
        };
        code::attach(&mut spec, asks, code, self.objects.as_ref()).await?;
        modules::attach(&mut spec, modules, self.objects.as_ref()).await?;
        let trials = u64::from(spec.trials());
        match handle.submit(u128::from_be_bytes(token), spec).await?.map_err(|refusal| refused(&refusal))? {
            Reply::Submitted { name, new, .. } => {
                Ok(Response::new(v1::SubmitResponse { sweep: name.to_string(), trials, new }))
            }
            Reply::Done { .. } | Reply::Importing { .. } => {
                Err(Problem::new(Code::Internal, "an answer to another question").into())
            }
        }
    }

    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Answer<v1::ListModelsResponse> {
        Ok(Response::new(v1::ListModelsResponse { catalogue: self.told.all().to_json().into() }))
    }

    async fn put_code(&self, request: Request<Streaming<v1::PutCodeRequest>>) -> Answer<v1::PutCodeResponse> {
        self.handle()?;
        let objects = self.objects.as_ref();
        let objects =
            objects.ok_or_else(|| Problem::new(Code::Internal, "no object store to put code into"))?;
        Ok(Response::new(v1::PutCodeResponse { new: code::take_in(objects, request.into_inner()).await? }))
    }

    async fn list_sweeps(&self, _: Request<v1::ListSweepsRequest>) -> Answer<v1::ListSweepsResponse> {
        Ok(Response::new(v1::ListSweepsResponse { sweeps: self.queries.sweeps().await? }))
    }

    async fn show_sweep(&self, request: Request<v1::ShowSweepRequest>) -> Answer<v1::ShowSweepResponse> {
        Ok(Response::new(self.queries.show(&request.into_inner().target).await?))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        let wanted = request.into_inner().sweep;
        let only = match wanted.as_str() {
            "" => None,
            name => Some(self.queries.find(name).await?.sweep.id),
        };
        let told = watch::start(self.queries.clone(), self.handle()?, only).await?;
        Ok(Response::new(Box::pin(told)))
    }

    async fn results(&self, request: Request<v1::ResultsRequest>) -> Answer<Self::ResultsStream> {
        let sweep = self.queries.find(&request.into_inner().sweep).await?.sweep;
        let queries = self.queries.clone();
        let pages = stream::iter(Queries::pages(&sweep)).then(move |range| {
            let (queries, sweep) = (queries.clone(), sweep.clone());
            async move { Ok(v1::ResultsResponse { trials: queries.trials(&sweep, range).await? }) }
        });
        Ok(Response::new(Box::pin(pages.map_err(|problem: Problem| Status::from(problem)))))
    }

    async fn list_trials(&self, request: Request<v1::ListTrialsRequest>) -> Answer<v1::ListTrialsResponse> {
        let asked = request.into_inner();
        if asked.limit > TRIALS {
            return Err(Problem::new(Code::TooLarge, format!("a page has at most {TRIALS} trials")).into());
        }
        let board = self.boards.of(&asked.sweep).await?;
        let made = tokio::task::spawn_blocking(move || -> Result<_, Problem> {
            let rows = Selection::parse(&board, &asked.filter, &asked.sort)?
                .with_search(&asked.search)?
                .apply(&board);
            let page = rows.iter().skip(asked.offset as usize).take(asked.limit as usize);
            Ok(v1::ListTrialsResponse {
                trials: page.map(|row| messages::board_row(board.name(), row)).collect(),
                total: rows.len() as u64,
                varying: board.spec().space.varying().map(ToString::to_string).collect(),
            })
        });
        Ok(Response::new(made.await.map_err(|error| Problem::internal(&error))??))
    }

    async fn metrics(&self, request: Request<v1::MetricsRequest>) -> Answer<Self::MetricsStream> {
        let v1::MetricsRequest { trial: name, first_step } = request.into_inner();
        let (_, trial) = self.queries.find_trial(&name).await?;
        let queries = self.queries.clone();
        // Read ahead of who reads the answer.
        let (pages, answer) = mpsc::channel(PAGES_AHEAD);
        tokio::spawn(async move {
            let mut next = Some(first_step);
            while let Some(first_step) = next {
                let page = queries.points(&name, trial, first_step).await;
                next = page.as_ref().ok().and_then(|(_, next)| *next);
                let page = page.map(|(points, _)| v1::MetricsResponse { points }).map_err(Status::from);
                if pages.send(page).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answer))))
    }

    async fn read_log(&self, request: Request<v1::ReadLogRequest>) -> Answer<Self::ReadLogStream> {
        let v1::ReadLogRequest { trial, attempt, follow } = request.into_inner();
        let logs = self.logs.as_ref().ok_or_else(|| Problem::new(Code::Internal, "no logs are kept"))?;
        let reader = Reader::open(&self.queries, logs, &trial, attempt).await?;
        let place = self.log_followers.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{LOG_FOLLOWERS} logs are followed already");
            Problem::new(Code::TooManyWatchers, message).hint("try again without --follow, or later")
        });
        let place = if follow { Some(place?) } else { None };
        let answers = ReceiverStream::new(reader.stream(follow)).map(move |answer| {
            // Taken as long as somebody reads.
            let _taken = &place;
            answer
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn attempts(&self, request: Request<v1::AttemptsRequest>) -> Answer<Self::AttemptsStream> {
        let sweep = self.queries.find(&request.into_inner().sweep).await?.sweep;
        let queries = self.queries.clone();
        let pages = stream::iter(Queries::pages(&sweep)).then(move |range| {
            let (queries, id) = (queries.clone(), sweep.id);
            async move { queries.attempts(id, range).await.map_err(Status::from) }
        });
        let chunk = |attempts: &[v1::Attempt]| Ok(v1::AttemptsResponse { attempts: attempts.to_vec() });
        let chunks = pages.map_ok(move |attempts| {
            stream::iter(attempts.chunks(ATTEMPTS).map(chunk).collect::<Vec<Result<_, Status>>>())
        });
        Ok(Response::new(Box::pin(chunks.try_flatten())))
    }

    async fn import(&self, request: Request<Streaming<v1::ImportRequest>>) -> Answer<v1::ImportResponse> {
        Ok(Response::new(import::take_in(self.handle()?, request.into_inner()).await?))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        Ok(Response::new(v1::ExplainResponse {
            lines: self.queries.explain(&request.into_inner().target).await?,
        }))
    }

    async fn cancel(&self, request: Request<v1::ControlRequest>) -> Answer<v1::ControlResponse> {
        self.control(request.into_inner(), Command::Cancel).await
    }

    async fn pause(&self, request: Request<v1::ControlRequest>) -> Answer<v1::ControlResponse> {
        self.control(request.into_inner(), Command::Pause).await
    }

    async fn resume(&self, request: Request<v1::ControlRequest>) -> Answer<v1::ControlResponse> {
        self.control(request.into_inner(), Command::Resume).await
    }

    async fn list_workers(&self, _: Request<v1::ListWorkersRequest>) -> Answer<v1::ListWorkersResponse> {
        Ok(Response::new(v1::ListWorkersResponse { workers: self.queries.workers().await? }))
    }

    async fn list_checkpoints(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Answer<v1::ListCheckpointsResponse> {
        Ok(Response::new(self.queries.checkpoints(&request.into_inner().trial).await?))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let look = |engine: &spotsweep_engine::Engine| {
            let (sweeps, trials) =
                engine.sweeps().fold((0, 0), |(n, t), view| (n + 1, t + u64::from(view.trials)));
            (sweeps, trials, engine.workers().count() as u64, engine.totals().stale_reports)
        };
        let (sweeps, trials, workers, stale_reports) = self.queries.ask(look).await?;
        Ok(Response::new(v1::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            dir: self.about.dir.clone(),
            journal_seq: self.handle.as_ref().map_or(0, |handle| handle.store_state().history_seq),
            sweeps,
            trials,
            workers,
            stale_reports,
            started_at_us: self.about.started_at_us,
        }))
    }
}
