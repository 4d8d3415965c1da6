//! Questions to a tracking server: MLflow's REST interface over HTTP.
//!
//! Owns time limits, sizes, and what is worth asking again. Must not know what is asked. Plain HTTP alone: a server that wants
//! TLS is reached through a tunnel or proxy of the user's.

use crate::error::{Code, Problem};
use http_body_util::{BodyExt as _, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{Method, Request, StatusCode, Uri, body::Bytes, header};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use std::{error::Error, time::Duration};

/// How long the server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// What is sent may take longer than [`ANSWER`] by a second for so many bytes.
const UPLOAD_BYTES_PER_S: u64 = 1 << 20;
/// Largest answer that is read: a run with a thousand metrics is a tenth of it.
const ANSWER_BYTES: usize = 16 << 20;
/// How often something is asked before it counts as failed.
pub(super) const TRIES: u32 = 6;
/// Before the second try; doubled before each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Who asks.
const USER_AGENT: &str = concat!("spotsweep/", env!("CARGO_PKG_VERSION"));
/// Longest part of an answer that is quoted, in characters.
const QUOTED_CHARS: usize = 500;

/// What is sent.
pub(crate) type Content = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// A server.
pub(super) struct Server {
    client: Client<HttpConnector, Content>,
    base: String,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Refused {
    /// Another try may help. Whether the server did what was asked is not known.
    Again(String),
    /// The server says no, with its word for why.
    No(String, Problem),
}

impl Refused {
    /// For people.
    pub(super) fn problem(self, base: &str) -> Problem {
        match self {
            Self::No(_, problem) => problem,
            Self::Again(why) => {
                Problem::new(Code::Unreachable, format!("the MLflow server at {base} does not answer: {why}"))
                    .hint(
                        "run the same command again once it does; what is logged already is not logged again",
                    )
            }
        }
    }
}

impl Server {
    /// The one at `url`.
    ///
    /// # Errors
    /// If that is no URL of HTTP.
    pub(super) fn new(url: &str) -> Result<Self, Problem> {
        let wrong = |hint: &str| {
            Problem::new(Code::BadAddress, format!("{url:?} is no URL of an MLflow server")).hint(hint)
        };
        let base = url.trim_end_matches('/').to_owned();
        if base.starts_with("https://") {
            return Err(wrong(
                "only http:// is spoken; reach a server behind TLS through a tunnel, as `ssh -L` makes",
            ));
        }
        let uri: Uri = base.parse().map_err(|_| wrong("it looks like http://127.0.0.1:5000"))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() || uri.query().is_some() {
            return Err(wrong("it looks like http://127.0.0.1:5000"));
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), base })
    }

    /// Its URL.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Asks until there is an answer, at most [`TRIES`] times: for what does no harm when it is done twice.
    pub(super) async fn ask(&self, path: &str, body: &Value) -> Result<Value, Refused> {
        let mut turn = 1;
        loop {
            match self.once(path, body).await {
                Err(Refused::Again(_)) if turn < TRIES => wait(turn).await,
                other => return other,
            }
            turn += 1;
        }
    }

    /// Asks once. An empty `body` is a GET.
    pub(super) async fn once(&self, path: &str, body: &Value) -> Result<Value, Refused> {
        let (method, content) = match body {
            Value::Null => (Method::GET, Bytes::new()),
            other => (Method::POST, other.to_string().into()),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/api/2.0/mlflow/{path}", self.base))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .body(whole(content))
            .map_err(|error| Refused::No(String::new(), Problem::internal(&error)))?;
        let (status, bytes) = self.send(request, ANSWER).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.no(status, "", &format!("an answer that is no JSON: {error}")))
    }

    /// Puts an artifact of so many bytes at `path`, once. Doing it again puts it in the place of the first.
    pub(super) async fn put(&self, path: &str, bytes: u64, content: Content) -> Result<(), Refused> {
        let request = Request::builder()
            .method(Method::PUT)
            .uri(format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", self.base))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, bytes)
            .header(header::USER_AGENT, USER_AGENT)
            .body(content)
            .map_err(|error| Refused::No(String::new(), Problem::internal(&error)))?;
        let limit = ANSWER + Duration::from_secs(bytes / UPLOAD_BYTES_PER_S);
        self.send(request, limit).await.map(drop)
    }

    /// Sends, and gives the body of an answer that says yes.
    async fn send(&self, request: Request<Content>, limit: Duration) -> Result<(StatusCode, Bytes), Refused> {
        let answer = async {
            let response = self.client.request(request).await.map_err(|error| root(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
            Ok::<_, String>((status, body.map_err(|error| root(error.as_ref()))?.to_bytes()))
        };
        let answer = tokio::time::timeout(limit, answer).await;
        let late = |_| Refused::Again(format!("nothing within {} s", limit.as_secs()));
        let (status, bytes) = answer.map_err(late)?.map_err(Refused::Again)?;
        if status.is_success() {
            return Ok((status, bytes));
        }
        let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = said["message"]
            .as_str()
            .map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned);
        let text = super::cut(&text, QUOTED_CHARS);
        if status.is_server_error()
            || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status)
        {
            return Err(Refused::Again(format!("{status}: {text}")));
        }
        Err(self.no(status, said["error_code"].as_str().unwrap_or_default(), &text))
    }

    fn no(&self, status: StatusCode, word: &str, text: &str) -> Refused {
        let message = format!("the MLflow server at {} says {status}: {text}", self.base);
        Refused::No(word.to_owned(), Problem::new(Code::BadRequest, message))
    }
}

/// Content that is at hand.
pub(super) fn whole(content: Bytes) -> Content {
    Full::new(content).map_err(|never| match never {}).boxed_unsync()
}

/// The pause after the `turn`th try, counted from 1.
pub(super) async fn wait(turn: u32) {
    tokio::time::sleep(FIRST_WAIT * 2u32.saturating_pow(turn - 1)).await;
}

/// The innermost cause, which says what the outer ones only frame.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
