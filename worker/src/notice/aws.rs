//! Amazon EC2: spot interruption notices and rebalance recommendations, in the instance metadata (Amazon EC2 user
//! guide, "Spot Instance interruption notices", which recommends a look every 5 seconds, and "EC2 instance rebalance
//! recommendations").

use super::{Look, Source, SourceError, instant::rfc3339_in_s};
use crate::machine::imds::Imds;
use futures::future::BoxFuture;
use serde::Deserialize;
use spotsweep_proto::notice::{Notice, NoticeKind, NoticeSource};
use std::time::{Duration, SystemTime};

/// As Amazon recommends.
const PAUSE: Duration = Duration::from_secs(5);
/// One request takes no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The metadata service of this instance.
pub(super) struct Aws {
    service: Imds,
    /// Whether it may be a spot instance: unknown until the first look.
    may_be_spot: Option<bool>,
}

/// What stands at `spot/instance-action`.
#[derive(Deserialize)]
struct InstanceAction {
    action: Action,
    time: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Terminate,
    Stop,
    Hibernate,
}

/// What stands at `events/recommendations/rebalance`.
#[derive(Deserialize)]
struct Recommendation {
    #[serde(rename = "noticeTime")]
    _notice_time: String,
}

impl Aws {
    pub(super) fn new(address: &str) -> Self {
        Self::with_patience(address, PATIENCE)
    }

    fn with_patience(address: &str, patience: Duration) -> Self {
        Self { service: Imds::new(address, patience), may_be_spot: None }
    }

    async fn look_once(&mut self) -> Result<Look, SourceError> {
        let may_be_spot = match self.may_be_spot {
            Some(known) => known,
            None => {
                let cycle = self.service.get("instance-life-cycle").await?;
                let regular = matches!(cycle.as_deref().map(str::trim), Some("on-demand" | "scheduled"));
                self.may_be_spot = Some(!regular);
                !regular
            }
        };
        if !may_be_spot {
            return Ok(Look::Never("this instance is not a spot instance"));
        }
        if let Some(text) = self.service.get("spot/instance-action").await? {
            let found: InstanceAction =
                serde_json::from_str(&text).map_err(|_| SourceError::nonsense(&text))?;
            let kind = match found.action {
                Action::Terminate => NoticeKind::Terminate,
                Action::Stop => NoticeKind::Stop,
                Action::Hibernate => NoticeKind::Hibernate,
            };
            let in_s = rfc3339_in_s(&found.time, SystemTime::now());
            return Ok(Look::Notice(Notice::new(NoticeSource::Aws, kind, in_s)));
        }
        if let Some(text) = self.service.get("events/recommendations/rebalance").await? {
            let _: Recommendation = serde_json::from_str(&text).map_err(|_| SourceError::nonsense(&text))?;
            return Ok(Look::Notice(Notice::new(NoticeSource::Aws, NoticeKind::Rebalance, None)));
        }
        Ok(Look::Quiet)
    }
}

impl Source for Aws {
    fn name(&self) -> &'static str {
        "aws"
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
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    };

    const SHORT: Duration = Duration::from_millis(100);

    /// What stands where, below `meta-data`.
    type Items = Arc<Mutex<Vec<(&'static str, String)>>>;

    /// An instance metadata service that gives the tokens 1, 2, … and takes the newest only.
    async fn imds(items: &Items, token: &Arc<AtomicU32>) -> String {
        let (items, token) = (items.clone(), token.clone());
        service(move |head| {
            if head.starts_with("PUT /latest/api/token ") {
                return answered(&(token.fetch_add(1, Ordering::Relaxed) + 1).to_string());
            }
            let given = format!("x-aws-ec2-metadata-token: {}\r\n", token.load(Ordering::Relaxed));
            if !head.to_lowercase().contains(&given) {
                return refused("401 Unauthorized");
            }
            let items = items.lock().unwrap();
            let asked = path(head).strip_prefix("/latest/meta-data/").unwrap();
            match items.iter().find(|(path, _)| *path == asked) {
                Some((_, text)) => answered(text),
                None => refused("404 Not Found"),
            }
        })
        .await
    }

    fn items(list: &[(&'static str, &str)]) -> Items {
        Arc::new(Mutex::new(list.iter().map(|(path, text)| (*path, (*text).to_owned())).collect()))
    }

    #[tokio::test]
    async fn nothing_there_is_no_notice_and_an_interruption_goes_before_a_recommendation() {
        let items = items(&[("instance-life-cycle", "spot")]);
        let token = Arc::default();
        let mut source = Aws::new(&imds(&items, &token).await);
        assert_eq!(source.look().await.unwrap(), Look::Quiet);
        let told = r#"{"noticeTime": "2026-10-27T08:22:00Z"}"#;
        items.lock().unwrap().push(("events/recommendations/rebalance", told.to_owned()));
        let rebalance = Notice::new(NoticeSource::Aws, NoticeKind::Rebalance, None);
        assert_eq!(source.look().await.unwrap(), Look::Notice(rebalance));
        for (action, kind) in [
            ("terminate", NoticeKind::Terminate),
            ("stop", NoticeKind::Stop),
            ("hibernate", NoticeKind::Hibernate),
        ] {
            let told = format!(r#"{{"action": "{action}", "time": "2020-09-18T08:22:00Z"}}"#);
            items.lock().unwrap().insert(0, ("spot/instance-action", told));
            let notice = Notice::new(NoticeSource::Aws, kind, Some(0.0));
            assert_eq!(source.look().await.unwrap(), Look::Notice(notice));
        }
        assert_eq!(token.load(Ordering::Relaxed), 1, "one token serves them all");
    }

    #[tokio::test]
    async fn a_token_that_has_run_out_is_replaced() {
        let items = items(&[]);
        let token = Arc::default();
        let mut source = Aws::new(&imds(&items, &token).await);
        assert_eq!(source.look().await.unwrap(), Look::Quiet);
        token.fetch_add(1, Ordering::Relaxed);
        assert_eq!(source.look().await.unwrap(), Look::Quiet);
        assert_eq!(token.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn an_instance_that_cannot_be_interrupted_is_not_asked_again() {
        let items = items(&[("instance-life-cycle", "on-demand")]);
        let mut source = Aws::new(&imds(&items, &Arc::default()).await);
        assert!(matches!(source.look().await.unwrap(), Look::Never(_)));
    }

    #[tokio::test]
    async fn a_service_that_fails_stalls_or_babbles_is_an_error_and_no_notice() {
        let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(1_000_000));
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n{\"action\": \"termin";
        let services = [
            service(|_| None).await,
            service(|_| refused("429 Too Many Requests")).await,
            service(|_| refused("503 Service Unavailable")).await,
            service(|_| refused("403 Forbidden")).await,
            service(|_| answered("{\"action\": \"terminate\", \"ti")).await,
            service(|_| answered("{\"action\": \"explode\", \"time\": \"2026-09-18T08:22:00Z\"}")).await,
            service(|_| answered("<html>please log in</html>")).await,
            service(move |_| Some(huge.clone())).await,
            service(move |_| Some(cut.to_owned())).await,
            "http://127.0.0.1:1".to_owned(),
        ];
        for address in services {
            let mut source = Aws::with_patience(&address, SHORT);
            let look = source.look().await;
            assert!(look.is_err(), "{look:?}");
        }
    }
}
