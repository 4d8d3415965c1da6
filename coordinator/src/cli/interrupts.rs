//! Ctrl-C, and its likes: a polite kill, a terminal that closes.

use crate::error::Problem;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What asks this process to end. From `listen` on, they do nothing by themselves.
pub(crate) struct Interrupts {
    signals: [Signal; 3],
}

impl Interrupts {
    /// Listens.
    ///
    /// # Errors
    /// If the system does not let it.
    pub(crate) fn listen() -> Result<Self, Problem> {
        let on = |kind| signal(kind).map_err(|error| Problem::internal(&error));
        let signals = [on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?];
        Ok(Self { signals })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
