//! What carries out one job and tells of it in the messages of the line protocol: a trainer process, or a program.

use super::{child::Death, pipe::PipeError};
use spotsweep_proto::line::{FromTrainer, ToTrainer};
use std::io;

/// As the course of a job sees it.
pub(crate) trait Carrier: Send {
    /// Says something to it.
    fn say(&mut self, message: &ToTrainer) -> impl Future<Output = io::Result<()>> + Send;

    /// What it says next; `None` when it is gone. Nothing is lost when the future is dropped.
    fn next(&mut self) -> impl Future<Output = Result<Option<FromTrainer>, PipeError>> + Send;

    /// Ends it with all that it started: at once, or by itself if it is about to exit anyway.
    fn end(self, at_once: bool) -> impl Future<Output = Death> + Send;
}
