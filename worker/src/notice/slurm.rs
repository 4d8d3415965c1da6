//! Slurm: the signal USR1 that a job is sent before it is preempted (`SlurmctldParameters=preempt_send_user_signal`) or
//! before its time is up (`sbatch --signal=B:USR1@60`). CONT, which Slurm sends besides, says nothing by itself; TERM,
//! which comes at the end of the grace time, is the program's own.

use super::{Look, Source, SourceError};
use futures::future::BoxFuture;
use spotsweep_proto::notice::{Notice, NoticeKind, NoticeSource};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals are waited for, so there is no pause between two looks.
const PAUSE: Duration = Duration::ZERO;

/// USR1 within a Slurm job.
pub(super) struct Slurm {
    signal: Signal,
    counts: bool,
}

impl Slurm {
    /// Listens to USR1; unless it `counts`, only so that the process does not die of it.
    pub(super) fn new(counts: bool) -> std::io::Result<Self> {
        Ok(Self { signal: signal(SignalKind::user_defined1())?, counts })
    }
}

impl Source for Slurm {
    fn name(&self) -> &'static str {
        if self.counts { "slurm" } else { "slurm (ignored)" }
    }

    fn pause(&self) -> Duration {
        PAUSE
    }

    fn look(&mut self) -> BoxFuture<'_, Result<Look, SourceError>> {
        Box::pin(async {
            if self.signal.recv().await.is_none() {
                return Ok(Look::Never("no more signals come"));
            }
            if self.counts {
                return Ok(Look::Notice(Notice::new(NoticeSource::Slurm, NoticeKind::Preempt, None)));
            }
            tracing::warn!("Slurm's USR1 is ignored, as --notices says");
            Ok(Look::Quiet)
        })
    }
}
