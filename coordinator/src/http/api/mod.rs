//! The JSON API, `/api/v1`: its routes, its errors, and the description of both.
//!
//! One file a kind of call. Every route is registered together with its description, so that none can be without.

mod actions;
mod bodies;
mod checkpoints;
mod curves;
mod events;
mod logs;
mod sweeps;
mod trials;
mod workers;

use crate::{
    driver::Handle,
    error::{Code, Problem},
    logs::Logs,
    objects::Objects,
    queries::{Queries, board::Boards},
};
use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, Query},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use curves::CurveCache;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use tokio::sync::Semaphore;
use utoipa::{OpenApi, ToSchema, openapi::OpenApi as Description};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Streams of events at once.
const EVENT_STREAMS: usize = 32;
/// Calls at once that read much of the history; others wait.
const LARGE_READS: usize = 2;

/// What the calls share. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    queries: Queries,
    boards: Boards,
    handle: Handle,
    objects: Objects,
    logs: Logs,
    curves: Arc<CurveCache>,
    event_streams: Arc<Semaphore>,
    large_reads: Arc<Semaphore>,
    started_at_us: u64,
}

impl Api {
    /// On a coordinator at work, which started then, microseconds since 1970.
    #[must_use]
    pub fn new(
        queries: Queries,
        boards: Boards,
        handle: Handle,
        objects: Objects,
        logs: Logs,
        started_at_us: u64,
    ) -> Self {
        Self {
            queries,
            boards,
            handle,
            objects,
            logs,
            curves: Arc::default(),
            event_streams: Arc::new(Semaphore::new(EVENT_STREAMS)),
            large_reads: Arc::new(Semaphore::new(LARGE_READS)),
            started_at_us,
        }
    }

    /// Waits for the turn to read much.
    async fn large_read(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Problem> {
        self.large_reads.clone().acquire_owned().await.map_err(|error| Problem::internal(&error))
    }
}

/// An error, with the code that gRPC and the exit status have for it too.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
struct ErrorBody {
    /// A stable word, for instance `no_such_sweep`; docs/command-line.md lists them.
    code: String,
    /// What is wrong, for people.
    message: String,
    /// What to do about it; empty where there is nothing to say.
    hint: String,
}

/// The answer that an error is.
pub(super) fn error_response(problem: &Problem) -> Response {
    let status =
        StatusCode::from_u16(problem.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = ErrorBody {
        code: problem.code.as_str().to_owned(),
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    };
    (status, Json(body)).into_response()
}

/// A [`Problem`] as an answer.
struct Refused(Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        error_response(&self.0)
    }
}

/// What a call answers.
type Answer<T> = Result<Json<T>, Refused>;

/// The query of a URL; an unknown or malformed key is an error.
struct Asked<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Query(asked) = Query::<T>::from_request_parts(parts, state).await.map_err(|rejection| {
            Problem::new(Code::BadRequest, rejection.body_text())
                .hint("/api/v1/openapi.json describes what each call takes")
        })?;
        Ok(Self(asked))
    }
}

/// The parts of a path.
struct At<T>(T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for At<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Path(found) = Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::new(Code::BadRequest, rejection.body_text()))?;
        Ok(Self(found))
    }
}

/// A sweep's name, or a trial's, as queries take it. Names are checked there.
fn trial_name(sweep: &str, number: u32) -> String {
    format!("{sweep}/{number}")
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Spotsweep",
    description = "What a coordinator shows and does. Times are microseconds since 1970-01-01 UTC, durations seconds. \
        A number that is missing or not finite is null. Fields are added, never changed: a client ignores those that \
        it does not know. What changes something needs the header X-Spotsweep, with any value."
))]
struct Described;

/// The routes under `/api/v1`, and what describes them.
pub(super) fn routes() -> (Router<Api>, Description) {
    OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(sweeps::status))
        .routes(routes!(sweeps::list))
        .routes(routes!(sweeps::show))
        .routes(routes!(sweeps::importance))
        .routes(routes!(trials::list))
        .routes(routes!(trials::show))
        .routes(routes!(curves::of_sweep))
        .routes(routes!(curves::of_trial))
        .routes(routes!(workers::list))
        .routes(routes!(workers::timeline))
        .routes(routes!(events::follow))
        .routes(routes!(checkpoints::download))
        .routes(routes!(logs::of_attempt))
        .routes(routes!(actions::on_sweep))
        .routes(routes!(actions::on_trial))
        .split_for_parts()
}

/// The description itself.
pub(super) async fn describe(description: Arc<Description>) -> Response {
    match description.to_json() {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => error_response(&Problem::internal(&error)),
    }
}
