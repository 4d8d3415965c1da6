//! `spotsweep submit`: hands a sweep file to a coordinator. Prints the sweep's name.

use super::{
    client::CoordinatorArgs,
    code::{self, Travelling},
    error::{Ending, Outcome, io_problem},
    modules::{self, LocalModule},
    out::{self, Out},
    source::Source,
    sweep_file, text,
};
use crate::error::{Code, Problem};
use clap::Args;
use spotsweep_wire::v1::{SubmitRequest, SubmitResponse};
use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

const EXAMPLES: &str = "Examples:
  spotsweep submit sweep.yaml
  spotsweep watch $(spotsweep submit sweep.yaml)";

/// How often a submission is tried when the coordinator goes away under it.
const TRIES: u32 = 5;

/// Options of `submit`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SubmitArgs {
    /// The sweep file
    pub(crate) file: PathBuf,
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) coordinator: CoordinatorArgs,
}

/// Runs it.
///
/// # Errors
/// If the file is wrong, or the coordinator does not answer.
pub(crate) async fn run(args: SubmitArgs) -> Outcome {
    // Checked here first: a wrong file is told even where no coordinator answers.
    let mut file = sweep_file::read_for_coordinator(&args.file)?;
    code::pack(&mut file)?;
    code::about_wandb(&file).iter().for_each(|words| out::note(words));
    modules::pin(&mut file)?;
    let mut source = args.coordinator.open().await?;
    let answer = submit(&mut source, &file).await?;
    let mut out = Out::stdout();
    out.line(&answer.sweep)?;
    out.flush()?;
    out::say(&format!("{} is in: {}", answer.sweep, text::count(answer.trials, "trial")));
    Ok(Ending::Well)
}

/// Hands in a file once, however often it has to be tried.
///
/// # Errors
/// If the coordinator refuses it or stays away.
pub(crate) async fn submit(
    source: &mut Source,
    file: &sweep_file::SweepFile,
) -> Result<SubmitResponse, Problem> {
    let request = SubmitRequest {
        source: file.source.clone().into(),
        file_name: file.name.clone(),
        token: token()?.to_vec().into(),
        code: file.code.as_ref().map(Travelling::reference),
        modules: file.modules.iter().map(LocalModule::reference).collect(),
    };
    let mut tries = 1;
    loop {
        match source.submit(request.clone()).await {
            Err(failure) if failure.code == Code::Unreachable && tries < TRIES => {
                tokio::time::sleep(Duration::from_millis(200 << tries)).await;
                tries += 1;
            }
            // Equal code and modules are handed in once, however many sweeps need them.
            Err(failure) if failure.code == Code::NoCode && tries < TRIES => {
                match put(source, file).await {
                    Ok(()) => {}
                    Err(failure) if failure.code == Code::Unreachable => {
                        tokio::time::sleep(Duration::from_millis(200 << tries)).await;
                    }
                    Err(failure) => return Err(failure),
                }
                tries += 1;
            }
            answer => return answer,
        }
    }
}

/// Hands in the code and the modules of a file.
async fn put(source: &mut Source, file: &sweep_file::SweepFile) -> Result<(), Problem> {
    if let Some(code) = &file.code {
        code.put(source).await?;
    }
    for module in &file.modules {
        module.put(source).await?;
    }
    Ok(())
}

/// 16 random bytes of the system.
pub(super) fn token() -> Result<[u8; 16], Problem> {
    let path = Path::new("/dev/urandom");
    let mut token = [0; 16];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut token))
        .map_err(|error| io_problem("read", path, &error))?;
    Ok(token)
}
