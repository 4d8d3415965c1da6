//! A coordinator inside this process, for `run`, `serve` and `import`.
//!
//! Owns its start, its log and its end. The work is done by [`crate::server`].

use super::{error::io_problem, out};
use crate::{
    data::sets::SetStore,
    error::{Code, Problem},
    http::HttpAddress,
    server::Coordinator,
    store::StoreOptions,
};
use spotsweep_proto::catalogue::OwnCatalogue;
use std::{
    fs::OpenOptions,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};
use tokio::{sync::oneshot, task::JoinHandle};
use tracing_subscriber::EnvFilter;

/// On loopback, at any port: for those who find it by its folder.
pub(crate) const FREE_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// What to log: error, warn, info, debug, trace, or a filter.
const LOG_VARIABLE: &str = "SPOTSWEEP_LOG";

/// A coordinator at work.
pub(crate) struct Host {
    url: String,
    page_url: Option<String>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), Problem>>,
}

impl Host {
    /// Opens `dir` and serves it on `listen`, and the web page at `page`. Sinks write below `sinks`, if not below `dir`.
    /// Sweeps may use what is `own` to the trainer of workers that will come.
    ///
    /// # Errors
    /// If another coordinator has the folder, it is damaged, or an address cannot be had.
    pub(crate) async fn open(
        dir: &Path,
        listen: SocketAddr,
        page: HttpAddress,
        sinks: Option<&Path>,
        own: &OwnCatalogue,
    ) -> Result<Self, Problem> {
        let owned = dir.to_owned();
        // Replaying a long journal takes seconds.
        let opened =
            tokio::task::spawn_blocking(move || Coordinator::open(&owned, &StoreOptions::default())).await;
        let coordinator = opened.map_err(|error| Problem::internal(&error))??;
        for cut in &coordinator.report.cut {
            out::warn(&cut.to_string());
        }
        let coordinator = match SetStore::place(None) {
            Ok(place) => coordinator.with_data_store(place),
            Err(_) => coordinator,
        };
        let coordinator = match sinks {
            Some(folder) => coordinator.with_sinks(folder),
            None => coordinator,
        };
        let running = coordinator.with_models_of(own).serve(listen, page).await?;
        let (url, page_url) = (running.url.clone(), running.page_url.clone());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(running.run(async {
            let _sender_gone = stopped.await;
        }));
        Ok(Self { url, page_url, stop, running })
    }

    /// Where it listens.
    #[must_use]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Says where the web page is, if anywhere.
    pub(crate) fn say_page(&self) {
        if let Some(url) = &self.page_url {
            out::say(&format!("web page at {url}"));
        }
    }

    /// Waits until it ends by itself, which it does only when it cannot go on.
    ///
    /// # Errors
    /// Why it ended.
    pub(crate) async fn ended(&mut self) -> Result<(), Problem> {
        (&mut self.running).await.map_err(|error| Problem::internal(&error))?
    }

    /// Closes the journal and ends.
    ///
    /// # Errors
    /// If the journal could not be closed in order; nothing that was answered is lost.
    pub(crate) async fn close(self) -> Result<(), Problem> {
        // It may have ended by itself.
        let _ended = self.stop.send(());
        self.running.await.map_err(|error| Problem::internal(&error))?
    }
}

fn filter() -> Result<EnvFilter, Problem> {
    let words = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| "info".to_owned());
    EnvFilter::try_new(&words).map_err(|error| {
        Problem::new(Code::BadRequest, format!("{LOG_VARIABLE} is no filter for logs: {error}"))
            .hint("write error, warn, info, debug or trace")
    })
}

/// Logs to stderr from now on.
///
/// # Errors
/// If the user's filter is none.
pub(crate) fn log_to_stderr() -> Result<(), Problem> {
    let colour =
        std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter()?)
        .with_target(false)
        .with_ansi(colour)
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// Logs to a file from now on, after what it holds.
///
/// # Errors
/// If it cannot be written, or the user's filter is none.
pub(crate) fn log_to_file(path: &Path) -> Result<(), Problem> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| io_problem("create", folder, &error))?;
    }
    let opened = OpenOptions::new().create(true).append(true).open(path);
    let file = opened.map_err(|error| io_problem("write", path, &error))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter()?)
        .with_target(false)
        .with_ansi(false)
        .with_writer(file)
        .init();
    Ok(())
}
