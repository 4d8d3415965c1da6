//! Pause, resume, cancel.

use super::{Answer, Api, At, ErrorBody, trial_name};
use crate::{
    error::{Code, Problem},
    orders,
};
use axum::{Json, extract::State};
use serde::Serialize;
use spotsweep_engine::event::Command;
use utoipa::ToSchema;

/// What an order did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    /// Trials that it changed.
    trials: u64,
}

fn command(action: &str) -> Result<Command, Problem> {
    match action {
        "pause" => Ok(Command::Pause),
        "resume" => Ok(Command::Resume),
        "cancel" => Ok(Command::Cancel),
        other => Err(Problem::new(Code::NoSuchPath, format!("there is no action {other:?}"))
            .hint("there are pause, resume and cancel")),
    }
}

/// Pauses, resumes or cancels a whole sweep; answers once it is durable.
#[utoipa::path(
    post,
    path = "/api/v1/sweeps/{sweep}/{action}",
    params(
        ("sweep" = String, Path, description = "The sweep"),
        ("action" = String, Path, description = "`pause`, `resume` or `cancel`"),
        ("X-Spotsweep" = String, Header, description = "Any value"),
    ),
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
pub(super) async fn on_sweep(
    State(api): State<Api>,
    At((sweep, action)): At<(String, String)>,
) -> Answer<Done> {
    let trials = orders::carry_out(&api.queries, &api.handle, &sweep, command(&action)?).await?;
    Ok(Json(Done { trials }))
}

/// Pauses, resumes or cancels one trial; answers once it is durable.
#[utoipa::path(
    post,
    path = "/api/v1/sweeps/{sweep}/trials/{number}/{action}",
    params(
        ("sweep" = String, Path, description = "The sweep"),
        ("number" = u32, Path, description = "The trial, from 0"),
        ("action" = String, Path, description = "`pause`, `resume` or `cancel`"),
        ("X-Spotsweep" = String, Header, description = "Any value"),
    ),
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
pub(super) async fn on_trial(
    State(api): State<Api>,
    At((sweep, number, action)): At<(String, u32, String)>,
) -> Answer<Done> {
    let target = trial_name(&sweep, number);
    let trials = orders::carry_out(&api.queries, &api.handle, &target, command(&action)?).await?;
    Ok(Json(Done { trials }))
}
