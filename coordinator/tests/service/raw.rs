//! Calls made by hand: any bytes over HTTP/2 where a client would send gRPC frames.

use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Request,
    body::{Bytes, Frame},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use tokio::net::TcpStream;
use tonic::Status;

/// A frame of gRPC: not compressed, its length, the message.
pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), message].concat()
}

/// How the body of a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Closed,
    /// The caller resets the stream in the middle.
    Reset,
}

/// Posts `pieces` as the body of a call; gives the status it ends with, or none where the stream was reset.
pub(crate) async fn call(url: &str, method: &str, pieces: Vec<Vec<u8>>, end: End) -> Option<Status> {
    let address = url.trim_start_matches("http://");
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut pieces: Vec<io::Result<Frame<Bytes>>> =
        pieces.into_iter().map(|piece| Ok(Frame::data(piece.into()))).collect();
    if end == End::Reset {
        pieces.push(Err(io::Error::other("gone in the middle")));
    }
    let request = Request::post(format!("{url}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(tokio_stream::iter(pieces)))
        .unwrap();
    let outcome = async {
        let response = sender.send_request(request).await.ok()?;
        if let Some(status) = Status::from_header_map(response.headers()) {
            return Some(status);
        }
        let collected = response.into_body().collect().await.ok()?;
        collected.trailers().and_then(Status::from_header_map)
    };
    let status = outcome.await;
    connection.abort();
    status
}
