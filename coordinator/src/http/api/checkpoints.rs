//! Checkpoints to take away.

use super::{Api, At, ErrorBody, Refused, error_response, trial_name};
use crate::error::{Code, Problem};
use crate::queries::no_checkpoints;
use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::Response,
};

/// One part of a kept checkpoint, as a safetensors file: the weights, or all else that a resume needs. Its content is
/// verified on the way: a damaged one breaks off before its end.
#[utoipa::path(
    get,
    path = "/api/v1/sweeps/{sweep}/trials/{number}/checkpoints/{step}/{part}",
    params(
        ("sweep" = String, Path, description = "The sweep"),
        ("number" = u32, Path, description = "The trial, from 0"),
        ("step" = u64, Path, description = "The step of a checkpoint that the trial keeps"),
        ("part" = String, Path, description = "`weights` or `state`"),
    ),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = ErrorBody)
    )
)]
pub(super) async fn download(
    State(api): State<Api>,
    At((sweep, number, step, part)): At<(String, u32, u64, String)>,
) -> Result<Response, Refused> {
    let (view, trial) = api.queries.find_trial(&trial_name(&sweep, number)).await?;
    if let Some(problem) = no_checkpoints(&view) {
        return Ok(error_response(&problem));
    }
    let kept = api.queries.ask(move |engine| engine.trial(trial)).await?;
    let kept = kept.map(|view| view.checkpoints).unwrap_or_default();
    let Some(checkpoint) = kept.iter().find(|checkpoint| checkpoint.reference.step == step) else {
        let message = format!("{sweep}/{number} keeps no checkpoint of step {step}");
        let steps: Vec<String> =
            kept.iter().map(|checkpoint| checkpoint.reference.step.to_string()).collect();
        let hint = if steps.is_empty() { String::new() } else { format!("it keeps: {}", steps.join(", ")) };
        return Ok(error_response(&Problem::new(Code::NoCheckpoint, message).hint(hint)));
    };
    let manifest = api.objects.manifest(checkpoint.reference.manifest).await.map_err(Problem::from)?;
    let chosen = match part.as_str() {
        "weights" => manifest.weights,
        "state" => manifest.state,
        other => {
            let message = format!("a checkpoint has no part {other:?}");
            return Ok(error_response(
                &Problem::new(Code::BadRequest, message).hint("it has weights and state"),
            ));
        }
    };
    let content = api.objects.stream(chosen).await.map_err(Problem::from)?;
    let mut response = Response::new(Body::from_stream(content));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(chosen.bytes));
    // Names of sweeps are letters, digits and a few harmless signs.
    let file = format!("attachment; filename=\"{}-{number}-step{step}-{part}.safetensors\"", view.name);
    if let Ok(value) = HeaderValue::from_str(&file) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}
