//! The services over gRPC: conversions at the edge, and what is served. It must not decide anything.

mod code;
pub mod control;
pub mod from_worker;
pub(crate) mod import;
pub(crate) mod logs;
mod modules;
mod rendezvous;
mod to_worker;
pub(crate) mod watch;
pub mod worker;

use control::ControlService;
use spotsweep_proto::limits::GRPC_MESSAGE_BYTES;
use spotsweep_wire::v1::{control_server::ControlServer, worker_server::WorkerServer};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};
use worker::WorkerService;

/// HTTP/2 flow control windows, in bytes: room for a few large batches of reports.
const WINDOW_BYTES: u32 = 4 << 20;
/// HTTP/2 pings find a connection whose other end vanished without a word.
const PING_EVERY: Duration = Duration::from_secs(5);
/// A ping must be answered within this.
const PING_LIMIT: Duration = Duration::from_secs(10);

/// Serves until `stop` is done and all calls have ended.
///
/// # Errors
/// The listener breaks.
pub async fn serve(
    listener: TcpListener,
    control: ControlService,
    worker: WorkerService,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let control = ControlServer::new(control)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES);
    let worker = WorkerServer::new(worker)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES);
    // Without TCP_NODELAY, delayed acknowledgements cost 40 ms a round trip.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_LIMIT))
        .add_service(control)
        .add_service(worker)
        .serve_with_incoming_shutdown(incoming, stop)
        .await
}
