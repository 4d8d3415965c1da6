//! What a completed trial brings along to a tracking server beside its numbers: its weights and the sweep's specification.
//!
//! What cannot be brought is said in a tag of the run and in the log, and holds nothing up: the trial's numbers are there
//! without it. Only a server that does not answer is asked again, as for everything.

use crate::{
    error::{Code, Problem},
    export::mlflow::{artifacts::Place, rest::Rest},
    objects::Objects,
    queries::Queries,
};
use futures::TryStreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use spotsweep_engine::TrialRef;

/// Names of the artifacts.
const SPECIFICATION: &str = "sweep.json";
const WEIGHTS: &str = "weights.safetensors";
/// The tag that says why there are none.
const TAG: &str = "spotsweep.artifacts";

/// Brings them to the run that is open.
pub(super) async fn bring(
    rest: &Rest,
    (queries, objects): (&Queries, &Objects),
    trial: TrialRef,
    spec_json: &str,
) -> Result<(), Problem> {
    match put(rest, (queries, objects), trial, spec_json).await {
        Ok(None) => Ok(()),
        Err(problem) if matches!(problem.code, Code::Unreachable | Code::ShuttingDown) => Err(problem),
        Ok(Some(why)) => say(rest, trial, &why).await,
        Err(problem) => say(rest, trial, &problem.message).await,
    }
}

async fn say(rest: &Rest, trial: TrialRef, why: &str) -> Result<(), Problem> {
    tracing::warn!(%trial, "a run has no artifacts, or not all: {why}");
    rest.tag(TAG, &format!("missing: {why}")).await
}

/// Gives why something is not there, where that is nobody's failure.
async fn put(
    rest: &Rest,
    (queries, objects): (&Queries, &Objects),
    trial: TrialRef,
    spec_json: &str,
) -> Result<Option<String>, Problem> {
    let place = match rest.artifacts_place().await? {
        Place::Server(place) => place,
        Place::Elsewhere(uri) => {
            return Ok(Some(format!(
                "the server leaves artifacts to its clients, at {uri:?}; `mlflow server --serve-artifacts` takes them"
            )));
        }
    };
    rest.put_text(&format!("{place}/{SPECIFICATION}"), spec_json).await?;
    let kept = queries.ask(move |engine| engine.trial(trial)).await?.map(|view| view.checkpoints);
    let Some(newest) = kept.unwrap_or_default().into_iter().next_back() else {
        return Ok(Some("the trial keeps no checkpoint".to_owned()));
    };
    let weights = objects.manifest(newest.reference.manifest).await?.weights;
    let path = format!("{place}/{WEIGHTS}");
    let mut turn = 1;
    loop {
        let stream = objects.stream(weights).await?;
        let content = StreamBody::new(stream.map_ok(Frame::data).map_err(Into::into)).boxed_unsync();
        if rest.put_artifact(&path, (weights.bytes, content), turn).await? {
            break;
        }
        turn += 1;
    }
    Ok(None)
}
