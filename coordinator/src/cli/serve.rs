//! `spotsweep serve`: a coordinator for workers and clients elsewhere (for now: on this machine).

use super::{
    error::{Ending, Outcome},
    out,
};
use crate::{error::Problem, server::Coordinator, store::StoreOptions};
use clap::Args;
use std::{net::SocketAddr, path::PathBuf};
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "Examples:
  spotsweep serve --dir sweeps
  spotsweep serve --dir sweeps --listen 127.0.0.1:0      a port of the system's choice

It ends on Ctrl-C or SIGTERM; the same command again goes on where it was, also after kill -9.";

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Folder of the journal, the results and the checkpoints
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Where to listen; on loopback only, for connections are not authenticated yet
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7077")]
    pub(crate) listen: SocketAddr,
}

/// Runs it.
///
/// # Errors
/// If the folder is another coordinator's or damaged, the address is taken, or the disk fails.
pub(crate) fn run(args: &ServeArgs) -> Outcome {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SPOTSWEEP_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second subscriber is no harm: the first one stays.
    let _set = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| Problem::internal(&error))?.block_on(serve(args))
}

async fn serve(args: &ServeArgs) -> Outcome {
    let internal = |error: std::io::Error| Problem::internal(&error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(internal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    let coordinator = Coordinator::open(&args.dir, &StoreOptions::default())?;
    for cut in &coordinator.report.cut {
        out::warn(&cut.to_string());
    }
    let running = coordinator.serve(args.listen).await?;
    out::say(&format!("serving {} at {}", args.dir.display(), running.url));
    let told = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    running.run(told).await?;
    out::say("closed; the same command goes on where it was");
    Ok(Ending::Well)
}
