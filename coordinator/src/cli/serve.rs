//! `spotsweep serve`: a coordinator for clients and workers of their own. Prints its URL once it answers.

use super::{
    error::{Ending, Outcome},
    host::{self, Host},
    http::{self, HttpArgs},
    interrupts::Interrupts,
    out::{self, Out},
};
use clap::Args;
use spotsweep_proto::catalogue::OwnCatalogue;
use std::{net::SocketAddr, path::PathBuf};

const EXAMPLES: &str = "Examples:
  spotsweep serve --dir /var/lib/spotsweep
  spotsweep serve --dir DIR --listen 127.0.0.1:0     any free port; its URL is printed
  spotsweep-worker --coordinator http://127.0.0.1:7077

Ctrl-C or SIGTERM ends it in order; kill -9 loses nothing either. For now it listens on loopback only: connections
are not authenticated yet. SPOTSWEEP_LOG=debug makes its log longer.";

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// The folder that holds everything: journal, history, checkpoints
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7077", value_parser = http::address)]
    pub(crate) listen: SocketAddr,
    /// Below which folder sinks of sweeps may write, instead of sinks/ in DIR
    #[arg(long, value_name = "DIR")]
    pub(crate) sinks: Option<PathBuf>,
    /// The web page.
    #[command(flatten)]
    pub(crate) http: HttpArgs,
}

/// Runs it until it is told to end.
///
/// # Errors
/// If the folder or the address cannot be had, or the journal cannot be written any more.
pub(crate) async fn run(args: ServeArgs) -> Outcome {
    host::log_to_stderr()?;
    let mut stop = Interrupts::listen()?;
    let mut host = Host::open(
        &args.dir,
        args.listen,
        args.http.address(),
        args.sinks.as_deref(),
        &OwnCatalogue::default(),
    )
    .await?;
    let mut data = Out::stdout();
    data.line(host.url())?;
    data.flush()?;
    out::say(&format!("serving {} at {}", args.dir.display(), host.url()));
    host.say_page();
    tokio::select! {
        ended = host.ended() => ended?,
        () = stop.next() => {
            out::say("ending: nothing is lost; agents wait for the next start");
            tokio::select! {
                closed = host.close() => closed?,
                () = stop.next() => return Ok(Ending::Interrupted),
            }
        }
    }
    Ok(Ending::Well)
}
