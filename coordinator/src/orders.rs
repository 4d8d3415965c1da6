//! What clients order of sweeps and trials, over gRPC and HTTP alike. It must not decide anything: the engine does.

use crate::{
    driver::Handle,
    error::{Code, Problem},
    queries::{Found, Queries},
};
use spotsweep_engine::{
    Refusal, Reply, TrialRef,
    event::{Command, Target},
};

/// Pauses, resumes or cancels the sweep or trial that `target` names; gives how many trials that changed, once it is
/// durable.
///
/// # Errors
/// A name that nothing has, something that has ended, or as [`Handle::control`].
pub async fn carry_out(
    queries: &Queries,
    handle: &Handle,
    target: &str,
    command: Command,
) -> Result<u64, Problem> {
    let Found { sweep, number } = queries.find(target).await?;
    let target = match number {
        Some(number) => Target::Trial(TrialRef { sweep: sweep.id, number }),
        None => Target::Sweep(sweep.id),
    };
    match handle.control(target, command).await?.map_err(|refusal| refused(&refusal))? {
        Reply::Done { trials } => Ok(u64::from(trials)),
        Reply::Submitted { .. } | Reply::Importing { .. } => {
            Err(Problem::new(Code::Internal, "an answer to another question"))
        }
    }
}

/// Why the engine does not do it, for clients.
#[must_use]
pub fn refused(refusal: &Refusal) -> Problem {
    let code = match refusal {
        Refusal::NoSweep => Code::NoSuchSweep,
        Refusal::NoTrial { .. } => Code::NoSuchTrial,
        Refusal::Ended { .. } => Code::AlreadyEnded,
        Refusal::TooManySweeps { .. } => Code::TooManySweeps,
        Refusal::ReadOnly => Code::ReadOnly,
        Refusal::AlreadyImported { .. } | Refusal::NameTaken { .. } => Code::AlreadyThere,
        Refusal::NoImport => Code::Unreachable,
        Refusal::BadImport { .. } => Code::BadExport,
    };
    let hint = match refusal {
        Refusal::AlreadyImported { .. } | Refusal::NameTaken { coming: false, .. } => {
            "import it under another name with --name NAME"
        }
        Refusal::NameTaken { coming: true, .. } => {
            "wait until that import is done, or choose another name with --name NAME"
        }
        Refusal::NoImport => "import it again; nothing of it is there",
        Refusal::ReadOnly => "submit its specification as a sweep of its own to train again",
        Refusal::NoSweep
        | Refusal::NoTrial { .. }
        | Refusal::Ended { .. }
        | Refusal::TooManySweeps { .. }
        | Refusal::BadImport { .. } => "",
    };
    Problem::new(code, refusal.to_string()).hint(hint)
}
