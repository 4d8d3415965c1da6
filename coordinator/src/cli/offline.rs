//! Reading a folder on which no coordinator runs: the same service as a coordinator's, over a pipe within this
//! process, so that every command is written once.

use crate::{
    error::Problem,
    grpc::control::{About, ControlService},
    queries::Queries,
    store::{self, FolderLock, OBJECTS_FOLDER},
};
use futures::{StreamExt as _, stream};
use spotsweep_wire::v1::control_server::ControlServer;
use std::path::Path;
use tokio::io::DuplexStream;
use tonic::transport::{Channel, Endpoint, Server};

/// Bytes that the pipe holds.
const PIPE_BYTES: usize = 256 << 10;

/// Who answers for a folder.
pub(crate) enum Folder {
    /// A coordinator that runs on it, here.
    Live(String),
    /// The folder itself.
    Offline(Channel),
}

/// Opens `dir` for reading.
///
/// # Errors
/// There is no such folder, or it is damaged.
pub(crate) async fn open(dir: &Path) -> Result<Folder, Problem> {
    if let Some(url) = FolderLock::holder(dir).and_then(|live| live.url) {
        return Ok(Folder::Live(url));
    }
    let (engine, history, report) = store::open_read_only(dir)?;
    for cut in &report.cut {
        super::out::warn(&cut.to_string());
    }
    let objects = dir.join(OBJECTS_FOLDER);
    let objects = objects.canonicalize().unwrap_or(objects);
    let queries = Queries::offline(engine, history, &format!("file://{}", objects.display()));
    let about = About { dir: dir.display().to_string(), started_at_us: 0 };
    let service = ControlServer::new(ControlService::new(queries, None, about));
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let incoming = stream::once(async { Ok::<DuplexStream, std::io::Error>(far) }).chain(stream::pending());
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    let mut near = Some(hyper_util::rt::TokioIo::new(near));
    let connector = tower::service_fn(move |_: http::Uri| {
        let near = near.take();
        async move { near.ok_or_else(|| std::io::Error::other("the pipe is used once")) }
    });
    let endpoint = Endpoint::from_static("http://folder");
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| Problem::internal(&error))
        .map(Folder::Offline)
}
