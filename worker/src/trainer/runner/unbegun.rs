//! An attempt that has not begun: it waits for its rank, or is stopped.

use crate::{
    attempt::{LeaseKey, ReportBody},
    gang::GangPlace,
    trainer::{HowToStop, course::End, process::RunnerCommand},
};
use tokio::sync::mpsc;

/// The end of an attempt that was stopped before its trainer had it. `how` is `None` when the agent lets go.
pub(super) fn unbegun(how: Option<HowToStop>, first_step: u64) -> End {
    match how {
        Some(HowToStop::Checkpoint | HowToStop::CheckpointBy(_)) => {
            End::Healthy(Some(ReportBody::Released { step: first_step, seconds: 0.0 }))
        }
        Some(HowToStop::Discard) => End::Healthy(None),
        None => End::Closed,
    }
}

/// Waits until the attempt shall stop, or leave its gang; `None` when the agent lets go. Meanwhile `place` becomes the
/// newest that it is told of.
pub(super) async fn stopped(
    commands: &mut mpsc::UnboundedReceiver<RunnerCommand>,
    lease: LeaseKey,
    place: &mut Option<GangPlace>,
) -> Option<HowToStop> {
    loop {
        if let Some(how) = stopped_before_ranked(commands, lease, place).await {
            return how;
        }
    }
}

/// Waits until the attempt gets a rank in its gang, which is `None`, or shall stop: `Some`, as [`stopped`] gives it.
pub(super) async fn stopped_before_ranked(
    commands: &mut mpsc::UnboundedReceiver<RunnerCommand>,
    lease: LeaseKey,
    place: &mut Option<GangPlace>,
) -> Option<Option<HowToStop>> {
    loop {
        let Some(command) = commands.recv().await else { return Some(None) };
        match command {
            RunnerCommand::Stop(meant, how) if meant == lease => return Some(Some(how)),
            RunnerCommand::Regang(meant, newer) if meant == lease => {
                if newer.rank.is_none() {
                    return Some(Some(HowToStop::Checkpoint));
                }
                *place = Some(newer);
                return None;
            }
            // Of an attempt before this one. A start cannot come: one attempt at a time.
            RunnerCommand::Stop(..)
            | RunnerCommand::Regang(..)
            | RunnerCommand::Answer(..)
            | RunnerCommand::Start(_) => {}
        }
    }
}
