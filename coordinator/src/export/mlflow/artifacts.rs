//! Artifacts of a run: files that the tracking server takes over its own HTTP interface and keeps where it keeps all others.
//!
//! A server that leaves artifacts to its clients (`--no-serve-artifacts`, or a store of its own for an experiment) takes none
//! here: this program has no access to such stores, and says so. Putting one again replaces it, so each is there once.
//! Source: `mlflow.server.handlers._upload_artifact` and the scheme `mlflow-artifacts:` of MLflow's documentation.

use super::{
    client::{Content, Refused, Server, TRIES, wait, whole},
    rest::Rest,
};
use crate::error::Problem;
use serde_json::Value;

/// The scheme of places that the server itself keeps.
const SCHEME: &str = "mlflow-artifacts:/";

/// What a server does with artifacts of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// It takes them, below this path.
    Server(String),
    /// It leaves them to clients that can write there.
    Elsewhere(String),
}

impl Place {
    fn of(uri: &str) -> Self {
        // `mlflow-artifacts://HOST:PORT/...` is another server.
        match uri.strip_prefix(SCHEME) {
            Some(path) if is_plain(path) => Self::Server(path.to_owned()),
            Some(_) | None => Self::Elsewhere(super::cut(uri, 200)),
        }
    }
}

/// Whether a path can stand in a URL as it is, and leads nowhere but below.
fn is_plain(path: &str) -> bool {
    let plain = |part: &str| {
        let chars = part.chars().all(|c| c.is_ascii_alphanumeric() || "._-~".contains(c));
        chars && !part.is_empty() && part != "." && part != ".."
    };
    path.split('/').all(plain)
}

impl Rest {
    /// Where artifacts of the open run belong.
    pub(crate) async fn artifacts_place(&self) -> Result<Place, Problem> {
        let Some(run) = self.open_run() else { return Ok(Place::Elsewhere(String::new())) };
        let answer = self.server().ask(&format!("runs/get?run_id={run}"), &Value::Null).await;
        let answer = answer.map_err(|refused| refused.problem(self.server().base()))?;
        Ok(Place::of(answer["run"]["info"]["artifact_uri"].as_str().unwrap_or_default()))
    }

    /// Puts one below `place`, at the `turn`th try, counted from 1; false if another try may help, after a pause.
    pub(crate) async fn put_artifact(
        &self,
        path: &str,
        (bytes, content): (u64, Content),
        turn: u32,
    ) -> Result<bool, Problem> {
        let server: &Server = self.server();
        match server.put(path, bytes, content).await {
            Err(Refused::Again(_)) if turn < TRIES => {
                wait(turn).await;
                Ok(false)
            }
            answer => answer.map(|()| true).map_err(|refused| refused.problem(server.base())),
        }
    }

    /// As [`Rest::put_artifact`], for a text and all tries.
    pub(crate) async fn put_text(&self, path: &str, text: &str) -> Result<(), Problem> {
        let content = || (text.len() as u64, whole(text.to_owned().into()));
        let mut turn = 1;
        while !self.put_artifact(path, content(), turn).await? {
            turn += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_keeps_itself_is_put_and_nothing_leads_elsewhere() {
        let own = "mlflow-artifacts:/3/0af7/artifacts";
        assert_eq!(Place::of(own), Place::Server("3/0af7/artifacts".to_owned()));
        for uri in [
            "s3://bucket/3/0af7/artifacts",
            "/srv/mlruns/3/0af7/artifacts",
            "mlflow-artifacts://other:5000/3",
            "mlflow-artifacts:/../../etc",
            "mlflow-artifacts:/3/%2e%2e",
            "mlflow-artifacts:/3/a?b",
            "mlflow-artifacts:/",
            "",
        ] {
            assert_eq!(Place::of(uri), Place::Elsewhere(uri.to_owned()));
        }
    }
}
