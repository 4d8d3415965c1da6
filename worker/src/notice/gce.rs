//! Google Compute Engine: preemption and host maintenance, in the metadata server (Google Cloud documentation, "Spot
//! VMs", "Query metadata server for maintenance event notices", and "Monitor metadata values", which asks for
//! `wait_for_change` instead of polling: the server answers when something changes).

use super::{Look, Source, SourceError};
use crate::machine::http::{Ask, exchange};
use futures::future::BoxFuture;
use spotsweep_proto::notice::{Notice, NoticeKind, NoticeSource};
use std::time::Duration;

/// So long the server holds a request back while nothing changes, in seconds.
const WAIT_S: u64 = 60;
/// A request that waits for a change takes no longer.
const WAIT_PATIENCE: Duration = Duration::from_secs(WAIT_S + 15);
/// Any other takes no longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two requests, so that a server that does not wait is not asked without pause.
const PAUSE: Duration = Duration::from_secs(1);
/// A preempted machine is switched off after this, in seconds ("Spot VMs": up to 30 seconds).
const PREEMPTED_IN_S: f64 = 30.0;
/// A machine that does not live through maintenance ends after this at the earliest, in seconds; some types are told
/// an hour before.
const MAINTENANCE_IN_S: f64 = 60.0;

/// A value that is watched.
struct Watched {
    path: &'static str,
    /// What was seen last, with its tag.
    seen: Option<(String, String)>,
}

impl Watched {
    fn new(path: &'static str) -> Self {
        Self { path, seen: None }
    }

    /// The value, and its tag: at once if it was never seen, else when it changes or the server has waited enough.
    async fn next(&self, base: &str, patience: Duration) -> Result<(String, String), SourceError> {
        let path = self.path;
        let (url, patience) = match &self.seen {
            None => (format!("{base}/{path}"), patience),
            Some((_, tag)) => {
                let query = format!("wait_for_change=true&last_etag={tag}&timeout_sec={WAIT_S}");
                (format!("{base}/{path}?{query}"), WAIT_PATIENCE)
            }
        };
        let headers = [("Metadata-Flavor", "Google")];
        let answer =
            exchange(Ask { method: "GET", url: &url, headers: &headers, body: "", patience }).await?;
        let text = answer.text.trim().to_owned();
        // "Metadata-Flavor: Google" in the answer tells the server from whoever else answers at its address.
        let tag = answer.header("ETag").filter(|tag| tag.chars().all(|c| c.is_ascii_alphanumeric()));
        match (answer.header("Metadata-Flavor"), tag) {
            (Some("Google"), Some(tag)) => Ok((text, tag.to_owned())),
            _ => Err(SourceError::nonsense(&text)),
        }
    }

    fn is(&self, value: &str) -> bool {
        self.seen.as_ref().is_some_and(|(seen, _)| seen == value)
    }
}

/// The metadata server of this machine.
pub(super) struct Gce {
    base: String,
    patience: Duration,
    preempted: Watched,
    maintenance: Watched,
}

impl Gce {
    pub(super) fn new(address: &str) -> Self {
        Self {
            base: format!("{}/computeMetadata/v1/instance", address.trim_end_matches('/')),
            patience: PATIENCE,
            preempted: Watched::new("preempted"),
            maintenance: Watched::new("maintenance-event"),
        }
    }

    async fn look_once(&mut self) -> Result<Look, SourceError> {
        let Self { base, patience, preempted, maintenance } = self;
        tokio::select! {
            biased;
            seen = preempted.next(base, *patience) => preempted.seen = Some(seen?),
            // Both are seen once before any is waited for.
            seen = maintenance.next(base, *patience), if preempted.seen.is_some() => maintenance.seen = Some(seen?),
        }
        if let Some((value, _)) = preempted.seen.take_if(|(value, _)| value != "TRUE" && value != "FALSE") {
            return Err(SourceError::nonsense(&value));
        }
        if preempted.is("TRUE") {
            let notice = Notice::new(NoticeSource::Gce, NoticeKind::Preempt, Some(PREEMPTED_IN_S));
            return Ok(Look::Notice(notice));
        }
        if maintenance.is("TERMINATE_ON_HOST_MAINTENANCE") {
            let notice = Notice::new(NoticeSource::Gce, NoticeKind::Maintenance, Some(MAINTENANCE_IN_S));
            return Ok(Look::Notice(notice));
        }
        // A live migration (MIGRATE_ON_HOST_MAINTENANCE) loses nothing.
        Ok(Look::Quiet)
    }
}

impl Source for Gce {
    fn name(&self) -> &'static str {
        "gce"
    }

    fn pause(&self) -> Duration {
        PAUSE
    }

    fn look(&mut self) -> BoxFuture<'_, Result<Look, SourceError>> {
        Box::pin(self.look_once())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::{answered, path, refused, service};
    use std::sync::{Arc, Mutex};

    /// A value with its tag, as the metadata server gives it.
    fn valued(value: &str, tag: &str) -> Option<String> {
        let length = value.len();
        Some(format!(
            "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nETag: {tag}\r\nContent-Length: {length}\r\n\r\n{value}"
        ))
    }

    /// Values of both keys; a request that waits for a change of what is so is held back for ever.
    async fn metadata(values: &Arc<Mutex<(&'static str, &'static str)>>) -> String {
        let values = values.clone();
        service(move |head| {
            if !head.to_lowercase().contains("metadata-flavor: google") {
                return refused("403 Forbidden");
            }
            let (preempted, maintenance) = *values.lock().unwrap();
            let asked = path(head).strip_prefix("/computeMetadata/v1/instance/").unwrap();
            let (key, query) = asked.split_once('?').unwrap_or((asked, ""));
            let value = match key {
                "preempted" => preempted,
                "maintenance-event" => maintenance,
                _ => return refused("404 Not Found"),
            };
            let tag = value.to_lowercase().replace('_', "");
            let waits = query == format!("wait_for_change=true&last_etag={tag}&timeout_sec={WAIT_S}");
            if waits { None } else { valued(value, &tag) }
        })
        .await
    }

    #[tokio::test]
    async fn a_preemption_is_heard_by_waiting_for_a_change() {
        let values = Arc::new(Mutex::new(("FALSE", "NONE")));
        let mut source = Gce::new(&metadata(&values).await);
        assert_eq!(source.look().await.unwrap(), Look::Quiet, "preempted is seen");
        assert_eq!(source.look().await.unwrap(), Look::Quiet, "maintenance is seen");
        *values.lock().unwrap() = ("TRUE", "NONE");
        let notice = Notice::new(NoticeSource::Gce, NoticeKind::Preempt, Some(30.0));
        assert_eq!(source.look().await.unwrap(), Look::Notice(notice));
    }

    #[tokio::test]
    async fn maintenance_that_ends_the_machine_is_a_notice_and_a_live_migration_is_none() {
        let values = Arc::new(Mutex::new(("FALSE", "NONE")));
        let mut source = Gce::new(&metadata(&values).await);
        source.look().await.unwrap();
        source.look().await.unwrap();
        *values.lock().unwrap() = ("FALSE", "MIGRATE_ON_HOST_MAINTENANCE");
        assert_eq!(source.look().await.unwrap(), Look::Quiet);
        *values.lock().unwrap() = ("FALSE", "TERMINATE_ON_HOST_MAINTENANCE");
        let notice = Notice::new(NoticeSource::Gce, NoticeKind::Maintenance, Some(60.0));
        assert_eq!(source.look().await.unwrap(), Look::Notice(notice));
    }

    #[tokio::test]
    async fn a_server_that_fails_stalls_or_is_not_googles_is_an_error_and_no_notice() {
        let huge = "x".repeat(1_000_000);
        let services = [
            service(|_| None).await,
            service(|_| refused("429 Too Many Requests")).await,
            service(|_| refused("503 Service Unavailable")).await,
            service(|_| answered("TRUE")).await,
            service(|_| valued("TRUE", "a&last_etag=b")).await,
            service(|_| valued("PERHAPS", "a")).await,
            service(move |_| valued(&huge, "a")).await,
            service(|_| Some("HTTP/1.1 200 OK\r\nMetadata-Flavor: Goo".to_owned())).await,
            "http://127.0.0.1:1".to_owned(),
        ];
        for address in services {
            let mut source = Gce { patience: Duration::from_millis(100), ..Gce::new(&address) };
            let look = source.look().await;
            assert!(look.is_err(), "{look:?}");
        }
    }
}
