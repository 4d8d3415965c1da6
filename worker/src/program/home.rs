//! The folder of one attempt of a program, and what the program finds in it and in its environment.
//!
//! ```text
//! work/         the working folder, with the code
//! checkpoints/  SPOTSWEEP_CHECKPOINTS
//! resume/       SPOTSWEEP_RESUME
//! to-agent, from-agent, job.json, params.json, args.json, output
//! ```

use super::{checkpoint, rank::Rank};
use crate::{
    attempt::{Attempt, Failure},
    interval,
    python::{PYTHONPATH, PythonPackage},
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::{Map, Value, json};
use spotsweep_proto::{
    line::{CheckpointFiles, FailureKind, PROTOCOL_VERSION},
    program::{INTERPRETER, ProgramSection, Surroundings, args_json, command, nested, variable},
    value::Assignment,
};
use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

fn storage(what: &str, error: &io::Error) -> Failure {
    Failure { kind: FailureKind::Storage, message: format!("{what} cannot be made: {error}") }
}

/// A folder that is ready.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) folder: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(OsString, OsString)>,
}

impl Home {
    pub(crate) fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.folder.join("checkpoints")
    }

    pub(crate) fn to_agent(&self) -> PathBuf {
        self.folder.join("to-agent")
    }

    pub(crate) fn orders(&self) -> PathBuf {
        self.folder.join("from-agent")
    }

    pub(crate) fn stop(&self) -> PathBuf {
        self.folder.join("stop")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.folder.join("output")
    }

    /// A file whose existence says that a checkpoint is due.
    pub(crate) fn due(&self) -> PathBuf {
        self.checkpoints().join(".due")
    }

    /// Makes all of it. The code lies in the working folder already.
    pub(crate) fn make(
        folder: &Path,
        attempt: &Attempt,
        section: &ProgramSection,
        resume: Option<&CheckpointFiles>,
        rank: Option<&Rank>,
    ) -> Result<Self, Failure> {
        let internal = |message: String| Failure { kind: FailureKind::Internal, message };
        let flat: Map<String, Value> = serde_json::from_str(&attempt.params_json).map_err(|error| {
            internal(format!("the coordinator sent parameters that are no JSON object: {error}"))
        })?;
        let assignment = Assignment::from_json(&flat).map_err(internal)?;
        let folder = folder.canonicalize().map_err(|error| storage("its folder", &error))?;
        let mut home = Self { folder, arguments: Vec::new(), environment: Vec::new() };
        for path in [home.work(), home.checkpoints()] {
            fs::create_dir_all(path).map_err(|error| storage("its folder", &error))?;
        }
        for path in [home.to_agent(), home.orders()] {
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
                .map_err(|error| storage("its named pipe", &error.into()))?;
        }
        let resumed = match resume {
            Some(files) => {
                let to = home.folder.join("resume");
                checkpoint::unpack(files, &to).map_err(|error| Failure {
                    kind: FailureKind::Checkpoint,
                    message: format!("the checkpoint of step {} cannot be unpacked: {error}", files.step),
                })?;
                Some((files.step, to))
            }
            None => None,
        };
        let write = |name: &str, content: &[u8]| {
            let path = home.folder.join(name);
            fs::write(&path, content).map_err(|error| storage(name, &error))?;
            Ok::<_, Failure>(path)
        };
        let parameters = nested(&assignment, &section.groups);
        let params_file = write("params.json", Value::Object(parameters).to_string().as_bytes())?;
        let mut job = job(attempt, flat, resumed.as_ref());
        if let Some(rank) = rank {
            (job["rank"], job["world_size"]) = (rank.rank.into(), rank.ranks.into());
        }
        let job_file = write("job.json", job.to_string().as_bytes())?;
        let args_file = if section.command.iter().any(|part| part == "${args_json_file}") {
            write("args.json", args_json(&assignment, &section.groups).as_bytes())?
        } else {
            home.folder.join("args.json")
        };
        home.environment =
            home.environment(attempt, section, job_file, params_file, resumed.map(|(_, to)| to));
        let of_rank = rank.map(Rank::environment).into_iter().flatten();
        home.environment.extend(of_rank.map(|(name, value)| (name.into(), value.into())));
        let variable = |name: &str| {
            let own = home
                .environment
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone());
            own.or_else(|| std::env::var_os(name))?.into_string().ok()
        };
        let args_json_file = args_file.display().to_string();
        let surroundings =
            Surroundings { interpreter: INTERPRETER, variable: &variable, args_json_file: &args_json_file };
        home.arguments = command(section, &assignment, &surroundings).map_err(|error| Failure {
            kind: FailureKind::Config,
            message: format!("{error}\nhint: {}", error.hint()),
        })?;
        Ok(home)
    }

    fn environment(
        &self,
        attempt: &Attempt,
        section: &ProgramSection,
        job: PathBuf,
        params: PathBuf,
        resume: Option<PathBuf>,
    ) -> Vec<(OsString, OsString)> {
        let mut all: Vec<(OsString, OsString)> = Vec::new();
        // What a program prints is wanted when it prints it.
        if std::env::var_os("PYTHONUNBUFFERED").is_none() {
            all.push(("PYTHONUNBUFFERED".into(), "1".into()));
        }
        all.extend(section.environment.iter().map(|(name, value)| (name.into(), value.into())));
        let mut own = |name: &str, value: OsString| all.push((name.into(), value));
        own(variable::TO_AGENT, self.to_agent().into());
        own(variable::FROM_AGENT, self.orders().into());
        own(variable::JOB, job.into());
        own(variable::PARAMS, params.into());
        own(variable::STOP, self.stop().into());
        own(variable::CHECKPOINTS, self.checkpoints().into());
        own(variable::TRIAL, attempt.trial().to_string().into());
        own(variable::ATTEMPT, attempt.lease.epoch.to_string().into());
        if let Some(resume) = resume {
            own(variable::RESUME, resume.into());
        }
        let cuda = attempt.device.as_str().strip_prefix("cuda:").unwrap_or_default();
        own("CUDA_VISIBLE_DEVICES", cuda.into());
        all
    }

    /// Puts the Python package, which lies below `base`, on the path of every Python that the program starts.
    pub(crate) fn put_python(&mut self, base: &Path, section: &ProgramSection) -> Result<(), Failure> {
        let package = PythonPackage::install(base).map_err(|error| storage("the Python package", &error))?;
        let own =
            section.environment.get(PYTHONPATH).map(OsString::from).or_else(|| std::env::var_os(PYTHONPATH));
        self.environment.push((PYTHONPATH.into(), package.path(section.compat, own.as_deref())));
        Ok(())
    }

    /// The executable: one that is named with a folder lies in the working folder, others are looked for in PATH.
    pub(crate) fn executable(&self) -> PathBuf {
        let named = self.arguments.first().map_or("", String::as_str);
        if named.contains('/') { self.work().join(named) } else { PathBuf::from(named) }
    }
}

/// The content of the file [`variable::JOB`].
fn job(attempt: &Attempt, params: Map<String, Value>, resume: Option<&(u64, PathBuf)>) -> Value {
    let mut job = json!({
        "protocol": PROTOCOL_VERSION,
        "trial": attempt.trial(),
        "number": attempt.lease.trial.number,
        "attempt": attempt.number,
        "params": params,
        "device": attempt.device,
        "checkpoint": interval::for_trainer(attempt.sweep.checkpoint),
        "seed": attempt.sweep.train.get("seed").cloned().unwrap_or(0.into()),
    });
    if let Some((step, dir)) = resume {
        job["resume"] = json!({"step": step, "dir": dir});
    }
    job
}
