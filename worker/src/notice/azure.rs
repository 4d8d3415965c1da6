//! Azure: scheduled events, in the instance metadata (Microsoft's documentation, "Scheduled Events for Linux VMs", API
//! version 2020-07-01, which recommends a look once per second and says that the very first may take two minutes).

use super::{Look, Source, SourceError, instant::http_date_in_s};
use crate::machine::http::{Ask, ask, exchange};
use futures::future::BoxFuture;
use serde::Deserialize;
use spotsweep_proto::notice::{Notice, NoticeKind, NoticeSource};
use std::time::{Duration, SystemTime};

/// As Microsoft recommends.
const PAUSE: Duration = Duration::from_secs(1);
/// One request takes no longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The first look of a machine's life switches the service on, and takes its time.
const FIRST_PATIENCE: Duration = Duration::from_secs(150);
const HEADERS: [(&str, &str); 1] = [("Metadata", "true")];

/// The metadata service of this machine.
pub(super) struct Azure {
    base: String,
    patience: Duration,
    /// What the machine is called in events.
    name: Option<String>,
    /// Events about this machine and no other: they begin sooner if they are acknowledged.
    ours_alone: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    events: Vec<Event>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    event_id: String,
    event_type: String,
    event_status: String,
    #[serde(default)]
    resources: Vec<String>,
    /// Empty once it has begun.
    #[serde(default)]
    not_before: String,
    #[serde(default)]
    description: String,
}

impl Event {
    /// What it does to the machine, if that ends the agent. `Freeze` pauses a machine for seconds and loses nothing.
    fn kind(&self) -> Option<NoticeKind> {
        let stands = matches!(self.event_status.as_str(), "Scheduled" | "Started");
        let kind = match self.event_type.as_str() {
            "Preempt" => NoticeKind::Preempt,
            "Terminate" => NoticeKind::Terminate,
            "Reboot" => NoticeKind::Reboot,
            "Redeploy" => NoticeKind::Redeploy,
            _ => return None,
        };
        stands.then_some(kind)
    }

    /// Seconds until it begins; 0 once it has, `None` where no time is given that can be read.
    fn in_s(&self) -> Option<f64> {
        if self.event_status == "Started" {
            return Some(0.0);
        }
        http_date_in_s(&self.not_before, SystemTime::now())
    }

    fn names(&self, machine: &str) -> bool {
        self.resources.iter().any(|name| name.eq_ignore_ascii_case(machine))
    }
}

impl Azure {
    pub(super) fn new(address: &str) -> Self {
        Self {
            base: format!("{}/metadata", address.trim_end_matches('/')),
            patience: FIRST_PATIENCE,
            name: None,
            ours_alone: Vec::new(),
        }
    }

    fn events_url(&self) -> String {
        format!("{}/scheduledevents?api-version=2020-07-01", self.base)
    }

    async fn look_once(&mut self) -> Result<Look, SourceError> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let url = format!("{}/instance/compute/name?api-version=2021-02-01&format=text", self.base);
                let name = ask("GET", &url, &HEADERS, PATIENCE).await?.trim().to_owned();
                self.name.insert(name).clone()
            }
        };
        let text = ask("GET", &self.events_url(), &HEADERS, self.patience).await?;
        self.patience = PATIENCE;
        let document: Document = serde_json::from_str(&text).map_err(|_| SourceError::nonsense(&text))?;
        self.ours_alone.clear();
        let mut first: Option<Notice> = None;
        for event in document.events.iter().filter(|event| event.names(&name)) {
            let Some(kind) = event.kind() else { continue };
            if let [_] = event.resources.as_slice() {
                self.ours_alone.push(event.event_id.clone());
            }
            let notice = Notice::new(NoticeSource::Azure, kind, event.in_s()).because(&event.description);
            // Without a time it may be at once.
            let sooner = |other: &Notice| notice.in_s.unwrap_or(0.0) < other.in_s.unwrap_or(0.0);
            if first.as_ref().is_none_or(sooner) {
                first = Some(notice);
            }
        }
        Ok(first.map_or(Look::Quiet, Look::Notice))
    }

    /// An event that names other machines too is not ours to hurry.
    async fn acknowledge(&mut self) -> Result<(), SourceError> {
        if self.ours_alone.is_empty() {
            return Ok(());
        }
        let ids = self.ours_alone.iter().map(|id| serde_json::json!({ "EventId": id }));
        let body = serde_json::json!({ "StartRequests": ids.collect::<Vec<_>>() }).to_string();
        let url = self.events_url();
        exchange(Ask { method: "POST", url: &url, headers: &HEADERS, body: &body, patience: PATIENCE })
            .await?;
        tracing::info!(events = self.ours_alone.len(), "told Azure that this machine may go");
        Ok(())
    }
}

impl Source for Azure {
    fn name(&self) -> &'static str {
        "azure"
    }

    fn pause(&self) -> Duration {
        PAUSE
    }

    fn look(&mut self) -> BoxFuture<'_, Result<Look, SourceError>> {
        Box::pin(self.look_once())
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), SourceError>> {
        Box::pin(self.acknowledge())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::fake::{answered, path, refused, service};
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    fn event(id: &str, kind: &str, status: &str, resources: &[&str], not_before: &str) -> Value {
        json!({
            "EventId": id, "EventType": kind, "ResourceType": "VirtualMachine", "Resources": resources,
            "EventStatus": status, "NotBefore": not_before, "Description": "Spot eviction.",
            "EventSource": "Platform", "DurationInSeconds": -1
        })
    }

    const LONG_AGO: &str = "Mon, 19 Sep 2016 18:29:47 GMT";
    const FAR_OFF: &str = "Wed, 19 Sep 2096 18:29:47 GMT";

    /// Scheduled events of the machine `vm-1`, and what was acknowledged.
    async fn azure(events: &[Value]) -> (Azure, Arc<Mutex<Vec<String>>>) {
        let document = json!({ "DocumentIncarnation": 3, "Events": events }).to_string();
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let heard = acknowledged.clone();
        let address = service(move |said| {
            if !said.to_lowercase().contains("metadata: true") {
                return refused("400 Bad Request");
            }
            match path(said) {
                "/metadata/instance/compute/name?api-version=2021-02-01&format=text" => answered("vm-1"),
                "/metadata/scheduledevents?api-version=2020-07-01" if said.starts_with("POST") => {
                    heard.lock().unwrap().push(said.split("\r\n\r\n").nth(1).unwrap().to_owned());
                    answered("")
                }
                "/metadata/scheduledevents?api-version=2020-07-01" => answered(&document),
                _ => refused("404 Not Found"),
            }
        })
        .await;
        (Azure::new(&address), acknowledged)
    }

    #[tokio::test]
    async fn an_eviction_of_this_machine_is_a_notice_and_is_acknowledged_once_all_is_handed_over() {
        let (mut source, acknowledged) =
            azure(&[event("e1", "Preempt", "Scheduled", &["VM-1"], LONG_AGO)]).await;
        let notice =
            Notice::new(NoticeSource::Azure, NoticeKind::Preempt, Some(0.0)).because("Spot eviction.");
        assert_eq!(source.look().await.unwrap(), Look::Notice(notice));
        assert_eq!(*acknowledged.lock().unwrap(), Vec::<String>::new());
        source.settle().await.unwrap();
        assert_eq!(*acknowledged.lock().unwrap(), [r#"{"StartRequests":[{"EventId":"e1"}]}"#]);
    }

    #[tokio::test]
    async fn events_of_other_machines_pauses_and_what_is_over_are_no_notices() {
        let (mut source, acknowledged) = azure(&[
            event("e1", "Preempt", "Scheduled", &["vm-2", "vm-11"], LONG_AGO),
            event("e2", "Freeze", "Scheduled", &["vm-1"], LONG_AGO),
            event("e3", "Reboot", "Completed", &["vm-1"], ""),
            event("e4", "Dance", "Scheduled", &["vm-1"], LONG_AGO),
        ])
        .await;
        assert_eq!(source.look().await.unwrap(), Look::Quiet);
        source.settle().await.unwrap();
        assert_eq!(*acknowledged.lock().unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn the_soonest_event_counts_and_one_that_names_others_too_is_not_hurried() {
        let (mut source, acknowledged) = azure(&[
            event("e1", "Redeploy", "Scheduled", &["vm-1"], FAR_OFF),
            event("e2", "Reboot", "Started", &["vm-1", "vm-2"], ""),
        ])
        .await;
        let Look::Notice(notice) = source.look().await.unwrap() else { panic!("a notice") };
        assert_eq!((notice.kind, notice.in_s), (NoticeKind::Reboot, Some(0.0)));
        source.settle().await.unwrap();
        assert_eq!(*acknowledged.lock().unwrap(), [r#"{"StartRequests":[{"EventId":"e1"}]}"#]);
    }

    #[tokio::test]
    async fn a_service_that_fails_stalls_or_babbles_is_an_error_and_no_notice() {
        let huge = format!("{{\"Events\": [{}1]}}", "1,".repeat(500_000));
        let services = [
            service(|_| None).await,
            service(|_| refused("429 Too Many Requests")).await,
            service(|_| refused("503 Service Unavailable")).await,
            service(|_| answered("{\"DocumentIncarnation\": 1, \"Events\": [{\"EventId\": \"a")).await,
            service(|_| answered("{}")).await,
            service(move |_| answered(&huge)).await,
            "http://127.0.0.1:1".to_owned(),
        ];
        for address in services {
            let patience = Duration::from_millis(100);
            let mut source = Azure { patience, name: Some("vm-1".to_owned()), ..Azure::new(&address) };
            let look = source.look().await;
            assert!(look.is_err(), "{look:?}");
        }
    }
}
