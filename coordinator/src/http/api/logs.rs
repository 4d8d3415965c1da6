//! What attempts printed.

use super::{Api, Asked, At, ErrorBody, Refused, trial_name};
use crate::{
    error::{Code, Problem},
    grpc::logs::Reader,
    logs::{Readable, last_lines},
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;

/// How much of a log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogQuery {
    /// The last so many lines; all that is kept if left out.
    tail: Option<usize>,
}

/// What an attempt printed, as text: the first 64 KiB and the newest 192 KiB, or somewhat more. Escape sequences of colours are left
/// out, other control characters and marks of direction spelled out as `\u{1b}`, and a carriage return is a line break. Lines that
/// begin with `[spotsweep: ` are not the attempt's. It grows while the attempt runs, and has an `ETag` that changes with it.
#[utoipa::path(
    get,
    path = "/api/v1/sweeps/{sweep}/trials/{number}/attempts/{attempt}/log",
    params(
        ("sweep" = String, Path, description = "The sweep"),
        ("number" = u32, Path, description = "The trial, from 0"),
        ("attempt" = u32, Path, description = "The attempt, from 1"),
        LogQuery,
    ),
    responses(
        (status = 200, body = String, content_type = "text/plain; charset=utf-8"),
        (status = 304, description = "It is as it was under the `If-None-Match` of the request"),
        (status = "default", body = ErrorBody)
    )
)]
pub(super) async fn of_attempt(
    State(api): State<Api>,
    At((sweep, number, attempt)): At<(String, u32, u32)>,
    Asked(asked): Asked<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let trial = trial_name(&sweep, number);
    if attempt == 0 {
        let message = format!("{trial} has no attempt 0: they are counted from 1");
        return Err(Problem::new(Code::NoSuchAttempt, message).into());
    }
    let reader = Reader::open(&api.queries, &api.logs, &trial, attempt).await?;
    let (bytes, note) = reader.whole().await?;
    let mut text = Readable::whole(&bytes);
    if let Some(note) = note {
        text = format!("[spotsweep: {note}]\n");
    }
    let text = match asked.tail {
        Some(lines) => last_lines(text.as_bytes(), lines),
        None => text.as_bytes(),
    };
    let tag = format!("\"{}\"", blake3::hash(text).to_hex());
    let tag = HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""));
    let same = headers.get(header::IF_NONE_MATCH) == Some(&tag);
    let mut response = Response::new(if same { Body::empty() } else { Body::from(text.to_vec()) });
    if same {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    fields.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("inline"));
    fields.insert(header::ETAG, tag);
    Ok(response)
}
