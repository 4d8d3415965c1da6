//! A whole coordinator: an open folder, the driver, and the services on a listener.

use crate::{
    data::sets::SetStore,
    driver::{Driver, DriverError, DriverOptions, Handle, Start, machine_time_us},
    error::{Code, Problem},
    grpc::{
        self,
        control::{About, ControlService},
        worker::{StoreUrls, WorkerService},
    },
    http::{self, HttpAddress, api::Api},
    logs::Logs,
    objects::{CODE_LOOK_EVERY, Objects},
    queries::{Queries, board::Boards},
    sinks::{self, Places},
    store::{self, DATABASE_FILE, FolderLock, History, OBJECTS_FOLDER, OpenReport, StoreOptions},
    told::Told,
};
use spotsweep_engine::{Config, views::SweepView};
use spotsweep_proto::catalogue::OwnCatalogue;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

/// Seconds between two ticks of the engine.
const TICK_S: f64 = 0.25;
/// How long sinks may take to deliver what they have not yet, once the coordinator goes down.
const SINKS_LIMIT: Duration = Duration::from_secs(10);
/// How long calls may take to end once the coordinator goes down.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// A folder that is open, not served yet.
pub struct Coordinator {
    dir: PathBuf,
    lock: FolderLock,
    driver: Driver,
    handle: Handle,
    objects: Objects,
    data_store: Option<String>,
    told: Told,
    sinks: Places,
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
            data_store: None,
            told: Told::default(),
            sinks: Places::new(dir, None),
            deletions: deleted,
            report: opened.report,
        })
    }

    /// The same with the object store at `place` (a folder or URL) for data sets that users have added.
    #[must_use]
    pub fn with_data_store(self, place: String) -> Self {
        Self { data_store: Some(place), ..self }
    }

    /// The same with models and data sets of a trainer whose workers will come.
    #[must_use]
    pub fn with_models_of(self, trainer: &OwnCatalogue) -> Self {
        self.told.add(trainer);
        self
    }

    /// The same with the folders of sinks below `folder`.
    #[must_use]
    pub fn with_sinks(self, folder: &Path) -> Self {
        let sinks = Places::new(&self.dir, Some(folder));
        Self { sinks, ..self }
    }

    /// Serves on `listen`, which must be on loopback: connections are not authenticated yet. The web page and its API
    /// are served at `page`, if anywhere.
    ///
    /// # Errors
    /// An address is not on loopback, or taken.
    pub async fn serve(mut self, listen: SocketAddr, page: HttpAddress) -> Result<Running, Problem> {
        if !listen.ip().is_loopback() {
            let message = format!("{listen} is not on loopback, and connections are not authenticated yet");
            return Err(Problem::new(Code::NotLoopback, message).hint("listen on 127.0.0.1 or [::1]"));
        }
        let taken = |error| {
            Problem::new(Code::InUse, format!("cannot listen on {listen}: {error}"))
                .hint("choose another port with --listen; port 0 takes a free one")
        };
        let listener = TcpListener::bind(listen).await.map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        let url = format!("http://{address}");
        let page = http::bind(page).await?;
        self.lock.announce(&url)?;
        let history = Arc::new(History::of_file(&self.dir.join(DATABASE_FILE)));
        let queries = Queries::live(self.handle.clone(), history, &self.objects.url());
        let started_at_us = machine_time_us();
        let about = About { dir: self.dir.display().to_string(), started_at_us };
        let data_url = match &self.data_store {
            Some(place) => SetStore::url_of(place)
                .map_err(|error| Problem::new(Code::BadAddress, error.to_string()).hint(error.hint()))?,
            None => String::new(),
        };
        let boards = Boards::new(queries.clone());
        let logs = Logs::live(&self.dir, self.handle.clone());
        let control = ControlService::new(queries.clone(), Some(self.handle.clone()), about)
            .with_boards(boards.clone())
            .with_data_store(self.data_store)
            .with_objects(self.objects.clone())
            .with_logs(logs.clone())
            .with_told(self.told.clone());
        let urls = StoreUrls { checkpoints: self.objects.url(), data: data_url };
        let worker = WorkerService::new(self.handle.clone(), urls, logs.clone(), self.told.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let services = tokio::spawn(grpc::serve(listener, control, worker, async {
            // Sent, or its other end dropped: both mean stop.
            let _stop = stopped.await;
        }));
        let mut page_url = None;
        let mut page_services = tokio::spawn(async {});
        let (page_stop, page_stopped) = oneshot::channel::<()>();
        if let Some(listener) = page {
            let address = listener.local_addr().map_err(|error| Problem::internal(&error))?;
            page_url = Some(format!("http://{address}/"));
            let (handle, objects) = (self.handle.clone(), self.objects.clone());
            let api = Api::new(queries.clone(), boards, handle, objects, logs.clone(), started_at_us);
            page_services = tokio::spawn(http::serve(listener, api, async {
                let _stop = page_stopped.await;
            }));
        }
        let (sinks_end, ends) = watch::channel(false);
        let sinks = tokio::spawn(sinks::serve(queries.clone(), self.objects.clone(), self.sinks, ends));
        let (objects, mut deletions) = (self.objects.clone(), self.deletions);
        tokio::spawn(async move {
            while let Some(digests) = deletions.recv().await {
                objects.delete(&digests).await;
            }
        });
        let collecting = tokio::spawn(collect_code(self.objects, self.handle.clone()));
        let driver = spawn_driver(self.driver).map_err(|error| Problem::internal(&error))?;
        let handle = self.handle;
        Ok(Running {
            url,
            page_url,
            queries,
            logs,
            handle,
            driver,
            services,
            page_services,
            sinks,
            sinks_end,
            collecting,
            stop,
            page_stop,
            _lock: self.lock,
        })
    }
}

/// Deletes code that no sweep refers to, now and then, as long as the driver answers.
async fn collect_code(objects: Objects, handle: Handle) {
    let mut looks = tokio::time::interval(CODE_LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let code_of = |sweep: SweepView| sweep.spec.stored_code();
        let refers = async {
            let (needed, _) =
                handle.query(move |engine| engine.sweeps().flat_map(code_of).collect::<Vec<_>>()).await?;
            Ok::<_, Problem>(needed)
        };
        match objects.collect_code(refers).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "code that no sweep refers to is deleted"),
            Err(problem) => {
                tracing::debug!(%problem, "code that no sweep refers to is left for the next time")
            }
        }
    }
}

/// Runs the driver on a thread of its own: it computes for milliseconds at a time, and must neither keep connections
/// waiting nor wait for them.
fn spawn_driver(driver: Driver) -> std::io::Result<oneshot::Receiver<Result<(), DriverError>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (ended, driver_ended) = oneshot::channel();
    std::thread::Builder::new().name("driver".to_owned()).spawn(move || {
        let outcome = runtime.block_on(driver.run());
        let _nobody = ended.send(outcome);
    })?;
    Ok(driver_ended)
}

/// A coordinator at work.
pub struct Running {
    /// Where it listens.
    pub url: String,
    /// Where the web page is, if anywhere.
    pub page_url: Option<String>,
    /// Answers without going over the wire.
    pub queries: Queries,
    logs: Logs,
    handle: Handle,
    driver: oneshot::Receiver<Result<(), DriverError>>,
    services: JoinHandle<Result<(), tonic::transport::Error>>,
    page_services: JoinHandle<()>,
    sinks: JoinHandle<()>,
    sinks_end: watch::Sender<bool>,
    collecting: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    page_stop: oneshot::Sender<()>,
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
            _ = &mut self.services => {
                // The listener broke: what is in hand is made durable all the same.
                self.handle.shutdown().await;
                (&mut self.driver).await
            }
            () = until => {
                self.end_sinks().await;
                self.logs.flush().await;
                self.handle.shutdown().await;
                (&mut self.driver).await
            }
        };
        self.sinks.abort();
        self.collecting.abort();
        // The streams of agents and watchers have ended with the driver; other calls may take a moment.
        let _gone = self.stop.send(());
        let _gone = self.page_stop.send(());
        if !self.services.is_finished()
            && tokio::time::timeout(DRAIN_LIMIT, &mut self.services).await.is_err()
        {
            self.services.abort();
        }
        if tokio::time::timeout(DRAIN_LIMIT, &mut self.page_services).await.is_err() {
            self.page_services.abort();
        }
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(DriverError::Journal(error))) => Err(error.into()),
            Ok(Err(DriverError::WriterGone)) => Err(Problem::internal(&DriverError::WriterGone)),
            Err(_) => Err(Problem::new(Code::Internal, "the driver ended without a word")),
        }
    }

    /// Lets the sinks deliver what is there. What they do not get to they deliver after the next start.
    async fn end_sinks(&mut self) {
        let _gone = self.sinks_end.send(true);
        if tokio::time::timeout(SINKS_LIMIT, &mut self.sinks).await.is_err() {
            tracing::warn!(
                "sinks have not delivered everything; they go on with the next start on this folder"
            );
        }
    }
}
