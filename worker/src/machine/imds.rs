//! Amazon EC2's instance metadata service, version 2: every request carries a session token, which runs out (Amazon
//! EC2 user guide, "Use the Instance Metadata Service to access instance metadata").

use super::http::{HttpError, ask};
use std::time::Duration;
use tokio::time::Instant;

/// Life of a session token, in seconds: the longest that the service gives.
const TOKEN_S: &str = "21600";
/// A token is asked for anew long before it runs out.
const RENEW_AFTER: Duration = Duration::from_secs(10_800);
const UNAUTHORIZED: u16 = 401;
const NOT_FOUND: u16 = 404;

/// The service, and the token that it gave.
#[derive(Debug)]
pub(crate) struct Imds {
    base: String,
    patience: Duration,
    token: Option<(String, Instant)>,
}

impl Imds {
    /// The service at `address`; one request takes no longer than `patience`.
    pub(crate) fn new(address: &str, patience: Duration) -> Self {
        Self { base: format!("{}/latest", address.trim_end_matches('/')), patience, token: None }
    }

    /// What stands at a path below `meta-data`; `None` where there is nothing.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Option<String>, HttpError> {
        let url = format!("{}/meta-data/{path}", self.base);
        let mut outcome = self.ask(&url).await;
        if matches!(outcome, Err(HttpError::Status(UNAUTHORIZED))) {
            // It has run out before its time, for instance because the machine slept.
            self.token = None;
            outcome = self.ask(&url).await;
        }
        match outcome {
            Ok(text) => Ok(Some(text)),
            Err(HttpError::Status(NOT_FOUND)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn ask(&mut self, url: &str) -> Result<String, HttpError> {
        let patience = self.patience;
        let token = self.token().await?;
        ask("GET", url, &[("X-aws-ec2-metadata-token", token)], patience).await
    }

    async fn token(&mut self) -> Result<&str, HttpError> {
        if self.token.as_ref().is_none_or(|(_, since)| since.elapsed() >= RENEW_AFTER) {
            let url = format!("{}/api/token", self.base);
            let life = [("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_S)];
            let token = ask("PUT", &url, &life, self.patience).await?;
            self.token = Some((token.trim().to_owned(), Instant::now()));
        }
        Ok(self.token.as_ref().map_or("", |(token, _)| token))
    }
}
