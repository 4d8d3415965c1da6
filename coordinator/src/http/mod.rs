//! The web page and the JSON API, over HTTP/1.1.
//!
//! Owns the listener, its limits, who may ask what (`guard`), the API (`api`) and the page's files (`page`). It must
//! not decide anything, and reads what it shows through [`crate::queries`].

pub mod api;
mod guard;
pub mod importance;
pub mod lttb;
mod page;

use crate::error::{Code, Problem};
use api::Api;
use axum::{Router, extract::Request, middleware, response::Response};
use guard::Guard;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore};

/// Connections at once; others wait until one ends.
const CONNECTIONS: usize = 256;
/// Within this the head of a request has come, or the connection is closed.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Longest head of a request that is read, in bytes.
const HEAD_BYTES: usize = 32 << 10;
/// Most headers of a request.
const HEADERS: usize = 64;
/// Within this a request has its answer, or the first of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Where the page is unless somebody says otherwise; another port if this one is taken.
pub const USUAL_PORT: u16 = 7078;

/// Where to serve the page and the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpAddress {
    /// Nowhere.
    #[default]
    Off,
    /// On loopback: [`USUAL_PORT`] where `usual` and it is free, else whichever port is.
    Free {
        /// Whether the usual port is tried.
        usual: bool,
    },
    /// Exactly here.
    At(SocketAddr),
}

/// Takes the address; `None` if none is wanted.
///
/// # Errors
/// It is not on loopback ([`Code::NotLoopback`]: connections are not authenticated yet), or taken.
pub async fn bind(address: HttpAddress) -> Result<Option<TcpListener>, Problem> {
    let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let taken = |address: SocketAddr| {
        move |error: std::io::Error| {
            Problem::new(Code::InUse, format!("cannot serve the web page at {address}: {error}"))
                .hint("choose another port with --http; port 0 takes a free one, `--http off` serves none")
        }
    };
    let at = match address {
        HttpAddress::Off => return Ok(None),
        HttpAddress::At(address) => address,
        HttpAddress::Free { usual } => {
            if usual && let Ok(listener) = TcpListener::bind(local(USUAL_PORT)).await {
                return Ok(Some(listener));
            }
            local(0)
        }
    };
    if !at.ip().is_loopback() {
        let message = format!("{at} is not on loopback, and connections are not authenticated yet");
        return Err(Problem::new(Code::NotLoopback, message)
            .hint("serve the page on 127.0.0.1 or [::1]; from elsewhere: ssh -L 7078:127.0.0.1:7078 HOST"));
    }
    TcpListener::bind(at).await.map(Some).map_err(taken(at))
}

/// Everything that is served, behind the guard.
fn router(api: Api, address: SocketAddr) -> Router {
    let guard = Arc::new(Guard::new(address.ip()));
    let (routes, description) = api::routes();
    let described = Arc::new(description);
    routes
        .route("/api/v1/openapi.json", axum::routing::get(move || api::describe(described.clone())))
        .with_state(api)
        .fallback(page::serve)
        .method_not_allowed_fallback(guard::wrong_method)
        .layer(middleware::from_fn(limit_time))
        .layer(middleware::from_fn(move |request: Request, next: middleware::Next| {
            let guard = guard.clone();
            async move { guard.pass(request, next).await }
        }))
}

async fn limit_time(request: Request, next: middleware::Next) -> Response {
    match tokio::time::timeout(ANSWER_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => api::error_response(
            &Problem::new(Code::Unreachable, format!("no answer within {} s", ANSWER_LIMIT.as_secs()))
                .hint("the coordinator is busy; try again"),
        ),
    }
}

/// Serves until `stop` is done and the requests in hand are answered.
pub async fn serve(listener: TcpListener, api: Api, stop: impl Future<Output = ()>) {
    let Ok(address) = listener.local_addr() else { return };
    let service = TowerToHyperService::new(router(api, address));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::pin!(stop);
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors: others must close first.
                    tracing::warn!("cannot accept a connection to the web page: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let _without = stream.set_nodelay(true);
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::spawn(async move {
            // Whatever the other end did wrong concerns nobody else.
            let _ended = connection.await;
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}
