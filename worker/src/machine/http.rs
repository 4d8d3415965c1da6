//! Requests to a metadata service: plain HTTP/1.1 to a link-local address, small answers, short patience.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, body::Bytes, header, header::HeaderMap};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{0:?} is not a URL that can be asked")]
    Url(String),
    #[error("it did not answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("it cannot be reached")]
    Connect(#[source] std::io::Error),
    #[error("the exchange failed")]
    Exchange(#[source] hyper::Error),
    #[error("the answer is longer than {ANSWER_BYTES} bytes, or broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("the answer is not text")]
    Text,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// Empty for none.
    pub(crate) body: &'a str,
    /// The whole exchange takes no longer than this.
    pub(crate) patience: Duration,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// A header's value, if it is there and text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Asks for `url` and gives the text of a successful answer.
pub(crate) async fn ask(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    patience: Duration,
) -> Result<String, HttpError> {
    Ok(exchange(Ask { method, url, headers, body: "", patience }).await?.text)
}

/// Asks, and gives a successful answer.
pub(crate) async fn exchange(ask: Ask<'_>) -> Result<Answer, HttpError> {
    let patience = ask.patience;
    timeout(patience, exchange_in_time(ask)).await.unwrap_or(Err(HttpError::Late(patience)))
}

async fn exchange_in_time(ask: Ask<'_>) -> Result<Answer, HttpError> {
    let Ask { method, url, headers, body, patience: _ } = ask;
    let bad_url = || HttpError::Url(url.to_owned());
    let parsed = url::Url::parse(url).ok().filter(|url| url.scheme() == "http").ok_or_else(bad_url)?;
    let host = parsed.host_str().ok_or_else(bad_url)?;
    let port = parsed.port_or_known_default().ok_or_else(bad_url)?;
    // `host_str` keeps the brackets of an IPv6 address; sockets want none.
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((address, port)).await.map_err(HttpError::Connect)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(HttpError::Exchange)?;
    let target = &parsed[url::Position::BeforePath..url::Position::AfterQuery];
    let mut request = Request::builder().method(method).uri(target).header(header::HOST, host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).map_err(|_| bad_url())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(HttpError::Exchange)?;
        if !answer.status().is_success() {
            return Err(HttpError::Status(answer.status().as_u16()));
        }
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(HttpError::Body)?;
        let text = String::from_utf8(body.to_bytes().to_vec()).map_err(|_| HttpError::Text)?;
        Ok(Answer { headers: head.headers, text })
    };
    // The connection moves only while it is polled; it ends when the answer is read.
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => {
            ended.map_err(HttpError::Exchange)?;
            answered.await
        }
    }
}
