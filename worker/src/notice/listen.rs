//! A POST on a loopback port is a notice, for whoever can run `curl`. Loopback only: whoever reaches it can send the
//! agent away.

use super::{
    Look, NoticeError, Source, SourceError,
    order::{self, ORDER_BYTES},
};
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::ORIGIN,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use spotsweep_proto::notice::{Notice, NoticeSource};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Notices are waited for, so there is no pause between two looks.
const PAUSE: Duration = Duration::ZERO;
/// Connections that are served at a time; others wait.
const CONNECTIONS: usize = 4;
/// One connection lasts no longer.
const CONNECTION_LIMIT: Duration = Duration::from_secs(5);
/// Wait after a connection that could not be taken, for instance because there are too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// Notices that wait to be looked at.
const WAITING: usize = 4;

/// Listens for notices.
pub(super) struct Listener {
    notices: mpsc::Receiver<Notice>,
    server: JoinHandle<()>,
}

impl Listener {
    /// Takes the port.
    pub(super) fn bind(address: SocketAddr) -> Result<Self, NoticeError> {
        if !address.ip().is_loopback() {
            return Err(NoticeError::NotLoopback { address });
        }
        let failed = |source| NoticeError::Listen { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let (sender, notices) = mpsc::channel(WAITING);
        Ok(Self { notices, server: tokio::spawn(serve(listener, sender)) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Source for Listener {
    fn name(&self) -> &'static str {
        "http"
    }

    fn pause(&self) -> Duration {
        PAUSE
    }

    fn look(&mut self) -> BoxFuture<'_, Result<Look, SourceError>> {
        Box::pin(async { self.notices.recv().await.map(Look::Notice).ok_or(SourceError::Gone) })
    }
}

async fn serve(listener: TcpListener, notices: mpsc::Sender<Notice>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let notices = notices.clone();
                tokio::spawn(async move {
                    // Who is too slow or breaks off is not heard, and can ask again.
                    let _late = timeout(CONNECTION_LIMIT, converse(stream, notices)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for a notice is not taken");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, notices: mpsc::Sender<Notice>) -> Result<(), hyper::Error> {
    let service = service_fn(|request| {
        let notices = notices.clone();
        async move { Ok::<_, Infallible>(answer(request, &notices).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.keep_alive(false).serve_connection(TokioIo::new(stream), service).await
}

async fn answer(request: Request<Incoming>, notices: &mpsc::Sender<Notice>) -> Response<Full<Bytes>> {
    match heard(request, notices).await {
        Ok(notice) => say(StatusCode::ACCEPTED, &format!("heard: {notice}\n")),
        Err((status, reason)) => say(status, &format!("error: {reason}\n")),
    }
}

async fn heard(
    request: Request<Incoming>,
    notices: &mpsc::Sender<Notice>,
) -> Result<Notice, (StatusCode, String)> {
    if request.method() != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "a notice is a POST".to_owned()));
    }
    // A web page that a browser on this machine shows must not send the agent away.
    if request.headers().contains_key(ORIGIN) {
        return Err((StatusCode::FORBIDDEN, "notices are not taken from web pages".to_owned()));
    }
    let body = Limited::new(request.into_body(), ORDER_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            (StatusCode::PAYLOAD_TOO_LARGE, format!("at most {ORDER_BYTES} bytes are read"))
        } else {
            (StatusCode::BAD_REQUEST, "the request broke off".to_owned())
        }
    })?;
    let notice = order::notice(NoticeSource::Http, &body.to_bytes())
        .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    notices
        .try_send(notice.clone())
        .map_err(|_| (StatusCode::SERVICE_UNAVAILABLE, "earlier notices are not looked at yet".to_owned()))?;
    Ok(notice)
}

fn say(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::http::{Ask, HttpError, exchange};
    use spotsweep_proto::notice::NoticeKind;

    /// A listener on a free port, and its URL.
    fn listener() -> (Listener, String) {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        (Listener::bind(address).unwrap(), format!("http://{address}/"))
    }

    async fn post(url: &str, headers: &[(&str, &str)], body: &str) -> Result<String, HttpError> {
        let patience = Duration::from_secs(20);
        Ok(exchange(Ask { method: "POST", url, headers, body, patience }).await?.text)
    }

    #[tokio::test]
    async fn a_post_is_a_notice_with_or_without_a_body() {
        let (mut source, url) = listener();
        let plain = Notice::new(NoticeSource::Http, NoticeKind::Terminate, None);
        assert_eq!(post(&url, &[], "").await.unwrap(), "heard: a notice over HTTP\n");
        assert_eq!(source.look().await.unwrap(), Look::Notice(plain.clone()));
        let body = r#"{"in_s": 30, "reason": "price"}"#;
        assert_eq!(post(&url, &[], body).await.unwrap(), "heard: a notice over HTTP: price\n");
        let told = Notice { in_s: Some(30.0), ..plain.because("price") };
        assert_eq!(source.look().await.unwrap(), Look::Notice(told));
    }

    #[tokio::test]
    async fn what_is_no_notice_is_refused_with_its_reason() {
        let (mut source, url) = listener();
        let long = "x".repeat(ORDER_BYTES + 1);
        let origin = [("Origin", "http://example.com")];
        for (from_page, body, status) in [
            (false, "{\"in_s\": -3}", 400),
            (false, "now", 400),
            (false, long.as_str(), 413),
            (true, "", 403),
        ] {
            let answer = post(&url, if from_page { &origin } else { &[] }, body).await;
            assert!(
                matches!(answer, Err(HttpError::Status(found)) if found == status),
                "{status}: {answer:?}"
            );
        }
        let get = Ask { method: "GET", url: &url, headers: &[], body: "", patience: Duration::from_secs(20) };
        assert!(matches!(exchange(get).await, Err(HttpError::Status(405))));
        post(&url, &[], "").await.unwrap();
        assert!(matches!(source.look().await.unwrap(), Look::Notice(notice) if notice.in_s.is_none()));
    }

    #[tokio::test]
    async fn who_says_nothing_does_not_keep_others_from_being_heard() {
        let (mut source, url) = listener();
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS - 1 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        post(&url, &[], "").await.unwrap();
        assert!(matches!(source.look().await.unwrap(), Look::Notice(_)));
    }

    #[tokio::test]
    async fn only_loopback_is_listened_on() {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
            let error = Listener::bind(address.parse().unwrap()).err().unwrap().to_string();
            assert!(error.contains("is not a loopback address\nhint: "), "{error}");
        }
    }
}
