//! A whole coordinator: an open folder, the driver, and the services on a listener.

use crate::{
    driver::{Driver, DriverOptions, Handle, Start},
    error::{Code, Problem},
    grpc::{
        control::{About, ControlService},
        worker::WorkerService,
    },
    objects::Objects,
    queries::Queries,
    store::{self, DATABASE_FILE, FolderLock, History, OBJECTS_FOLDER, OpenReport, StoreOptions},
};
use spotsweep_engine::Config;
use spotsweep_proto::limits::GRPC_MESSAGE_BYTES;
use spotsweep_wire::v1::{control_server::ControlServer, worker_server::WorkerServer};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tonic::transport::{Server, server::TcpIncoming};

/// Seconds between two ticks of the engine.
const TICK_S: f64 = 0.25;

/// A folder that is open, not served yet.
pub struct Coordinator {
    dir: PathBuf,
    lock: FolderLock,
    driver: Driver,
    handle: Handle,
    objects: Objects,
    deletions: mpsc::UnboundedReceiver<Vec<spotsweep_proto::digest::Digest>>,
    /// What opening the folder found.
    pub report: OpenReport,
}

impl Coordinator {
    /// Opens `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// Another coordinator has it, it is damaged, or the disk says no.
    pub fn open(dir: &Path, options: &StoreOptions) -> Result<Self, Problem> {
        std::fs::create_dir_all(dir).map_err(|error| {
            Problem::new(Code::Storage, format!("cannot make the folder {}: {error}", dir.display()))
        })?;
        let lock = FolderLock::take(dir)?;
        let objects = Objects::open(&dir.join(OBJECTS_FOLDER))?;
        let opened = store::open(dir, &lock, options, Config::default())?;
        let start = Start {
            journal: Box::new(opened.journal),
            engine: opened.engine,
            last_seq: opened.last_seq,
            last_at: opened.last_at,
            unwritten: opened.unwritten,
            journal_bytes: opened.journal_bytes,
        };
        let (deletions, deleted) = mpsc::unbounded_channel();
        let driver =
            DriverOptions { snapshot_every_bytes: options.snapshot_every_bytes, tick_s: TICK_S, deletions };
        let (driver, handle) = Driver::new(start, driver).map_err(|error| Problem::internal(&error))?;
        Ok(Self {
            dir: dir.to_owned(),
            lock,
            driver,
            handle,
            objects,
            deletions: deleted,
            report: opened.report,
        })
    }

    /// Serves on `listen`, which must be on loopback: connections are not authenticated yet.
    ///
    /// # Errors
    /// The address is not on loopback, or taken.
    pub async fn serve(mut self, listen: SocketAddr) -> Result<Running, Problem> {
        if !listen.ip().is_loopback() {
            let message = format!("{listen} is not on loopback, and connections are not authenticated yet");
            return Err(Problem::new(Code::NotLoopback, message).hint("listen on 127.0.0.1 or [::1]"));
        }
        let taken = |error| {
            Problem::new(Code::InUse, format!("cannot listen on {listen}: {error}"))
                .hint("choose another port with --listen")
        };
        let listener = TcpListener::bind(listen).await.map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        let url = format!("http://{address}");
        self.lock.announce(&url)?;
        let history = Arc::new(History::of_file(&self.dir.join(DATABASE_FILE)));
        let queries = Queries::live(self.handle.clone(), history, &self.objects.url());
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let about = About {
            dir: self.dir.display().to_string(),
            started_at_us: u64::try_from(started).unwrap_or(u64::MAX),
        };
        let control = ControlService::new(queries.clone(), Some(self.handle.clone()), about);
        let worker = WorkerService::new(self.handle.clone(), &self.objects.url());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Server::builder()
            .add_service(ControlServer::new(control).max_decoding_message_size(GRPC_MESSAGE_BYTES))
            .add_service(WorkerServer::new(worker).max_decoding_message_size(GRPC_MESSAGE_BYTES));
        // Without TCP_NODELAY, delayed acknowledgements cost 40 ms a round trip.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let services = tokio::spawn(serving.serve_with_incoming_shutdown(incoming, async {
            let _sender_gone = stopped.await;
        }));
        let (objects, mut deletions) = (self.objects.clone(), self.deletions);
        tokio::spawn(async move {
            while let Some(digests) = deletions.recv().await {
                objects.delete(&digests).await;
            }
        });
        let driver = tokio::spawn(self.driver.run());
        Ok(Running { url, queries, handle: self.handle, driver, services, stop, _lock: self.lock })
    }
}

/// A coordinator at work.
pub struct Running {
    /// Where it listens.
    pub url: String,
    /// Answers without going over the wire.
    pub queries: Queries,
    handle: Handle,
    driver: JoinHandle<Result<(), crate::driver::DriverError>>,
    services: JoinHandle<Result<(), tonic::transport::Error>>,
    stop: oneshot::Sender<()>,
    _lock: FolderLock,
}

impl Running {
    /// Runs until `until` is ready, then closes the journal with a snapshot.
    ///
    /// # Errors
    /// The journal cannot be written any more; nothing that was answered is lost.
    pub async fn run(mut self, until: impl Future<Output = ()>) -> Result<(), Problem> {
        let ended = tokio::select! {
            ended = &mut self.driver => ended,
            () = until => {
                self.handle.shutdown().await;
                (&mut self.driver).await
            }
        };
        // Streams of agents never end by themselves: they are cut with the services.
        let _nobody_waits = self.stop.send(());
        self.services.abort();
        let ended = ended.map_err(|error| Problem::internal(&error))?;
        ended.map_err(|error| {
            Problem::new(Code::Storage, crate::error::chain(&error))
                .hint("is its disk healthy? Nothing that was answered is lost")
        })
    }
}
