//! What a sweep needs of this machine before workers start: data, a trainer, devices, and how many workers.
//!
//! Must not start anything that outlives it.

use super::{RunArgs, crew::CrewPlan};
use crate::{
    cli::{local, sweep_file::SweepFile},
    data::{DataStore, Origin, Presence, known},
    error::{Code, Problem},
};
use spotsweep_proto::{
    catalogue::{Dataset, datasets::SYNTHETIC},
    spec::{DeviceRequest, SweepSpec},
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Fetches the data sets that the sweep names and that are not here.
///
/// # Errors
/// If one cannot be had.
pub(crate) fn data(spec: &SweepSpec) -> Result<(), Problem> {
    // Added data sets come to workers by themselves.
    let wanted: Vec<String> = spec
        .data_names()
        .iter()
        .map(ToString::to_string)
        .filter(|name| Dataset::named(name).is_some_and(|dataset| dataset.name != SYNTHETIC))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let store = DataStore::from_environment().map_err(crate::cli::data::problem)?;
    for name in wanted {
        if store.presence(known(&name).map_err(crate::cli::data::problem)?) != Presence::Here {
            crate::cli::data::get(&store, &name, Origin::Usual)?;
        }
    }
    Ok(())
}

/// The parameters that tell trials apart.
#[must_use]
pub(crate) fn varying(spec: &SweepSpec) -> Vec<String> {
    spec.space.varying().map(ToString::to_string).collect()
}

/// How workers are to be started.
///
/// # Errors
/// If a program is missing, the trainer does not start, or there is no such device.
pub(crate) async fn crew(
    args: &RunArgs,
    file: &SweepFile,
    dir: &Path,
    url: &str,
) -> Result<CrewPlan, Problem> {
    let program = local::worker()?;
    if file.spec.program.is_some() {
        return programs(program, args, file, dir, url);
    }
    let facts = local::probe(&local::trainer_or(args.trainer.as_deref())?).await?;
    let gpu = match args.device.as_str() {
        "auto" => facts.has_gpu(),
        "cpu" => false,
        _ => true,
    };
    if args.device != "auto" && !facts.devices.iter().any(|device| device.name.as_str() == args.device) {
        let here: Vec<&str> = facts.devices.iter().map(|device| device.name.as_str()).collect();
        return Err(Problem::new(Code::Missing, format!("the trainer has no device {:?}", args.device))
            .hint(format!("it has: {}; `spotsweep doctor` shows more", here.join(", "))));
    }
    match (file.spec.resources.device, gpu) {
        (DeviceRequest::Cuda, false) => {
            return Err(Problem::new(
                Code::Missing,
                "the sweep wants a GPU (resources.device: cuda), and there is none here",
            )
            .hint("`spotsweep doctor` shows what the trainer sees; --device says where to train"));
        }
        (DeviceRequest::Cpu, true) => {
            return Err(Problem::new(
                Code::Missing,
                "the sweep wants a CPU (resources.device: cpu), and the workers would take the GPU",
            )
            .hint("--device cpu trains on the CPU"));
        }
        (DeviceRequest::Any, _) | (DeviceRequest::Cuda, true) | (DeviceRequest::Cpu, false) => {}
    }
    let carried = if gpu { 1 } else { local::cores() / usize::from(file.spec.train.threads.max(1)) };
    let workers = workers(&file.spec, carried, args.workers)?;
    let library_path = facts.library_path.map(|folder| (local::LIBRARY_VARIABLE, folder));
    Ok(plan(args, dir, url, (program, facts.path, library_path), workers))
}

/// The plan for so many workers: their program, the trainer that they start, and where the loader finds its libtorch.
fn plan(
    args: &RunArgs,
    dir: &Path,
    url: &str,
    (program, trainer, library_path): (PathBuf, PathBuf, Option<(&'static str, OsString)>),
    workers: usize,
) -> CrewPlan {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    CrewPlan {
        program,
        trainer,
        url: url.to_owned(),
        device: args.device.clone(),
        library_path,
        logs: absolute.join("logs"),
        scratch: absolute.join("scratch"),
        workers,
    }
}

/// The same where a program of the user's own trains: neither trainer nor libtorch is needed.
fn programs(
    program: PathBuf,
    args: &RunArgs,
    file: &SweepFile,
    dir: &Path,
    url: &str,
) -> Result<CrewPlan, Problem> {
    // Which GPUs there are, the worker finds out. One worker has all of them, or each a core.
    let wants_gpu = file.spec.resources.device == DeviceRequest::Cuda;
    let on_gpu = match args.device.as_str() {
        "auto" => wants_gpu || Path::new("/dev/nvidia0").exists(),
        device => device != "cpu",
    };
    if wants_gpu && !on_gpu {
        return Err(Problem::new(
            Code::Missing,
            "the sweep wants a GPU (resources.device: cuda), and the workers would take the CPU",
        )
        .hint("leave --device out, or name a GPU"));
    }
    let workers = workers(&file.spec, if on_gpu { 1 } else { local::cores() }, args.workers)?;
    Ok(plan(args, dir, url, (program, PathBuf::from(local::NO_TRAINER), None), workers))
}

/// How many workers to start: as many as were asked for, else as the machine carries and the sweep can use.
fn workers(spec: &SweepSpec, carried: usize, asked: Option<u16>) -> Result<usize, Problem> {
    let trials = usize::try_from(spec.trials()).unwrap_or(usize::MAX);
    let gang = spec.resources.workers;
    let (min, useful) = (gang.min as usize, trials.saturating_mul(gang.max as usize));
    let workers = asked.map_or_else(|| carried.min(useful).max(min), usize::from);
    if workers < min {
        let message =
            format!("a trial of this sweep needs {min} workers at once, and {workers} would run here");
        return Err(Problem::new(Code::BadRequest, message)
            .hint(format!("--workers {min}, or a smaller `min` in `resources: {{workers: ...}}`")));
    }
    Ok(workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gang_gets_as_many_workers_as_it_needs_or_is_refused_in_words() {
        let text = "method: grid\ntrain: {model: mlp, data: synthetic, shards: 8}\n";
        let spec = |resources: &str| {
            let file = format!("{text}{resources}");
            spotsweep_proto::spec::parse(file.as_bytes(), "gang.yaml").unwrap()
        };
        let (single, gang) = (spec(""), spec("resources: {workers: {min: 3, max: 8}}\n"));
        assert_eq!(workers(&single, 2, None).unwrap(), 1, "one trial keeps one worker busy");
        assert_eq!(workers(&gang, 2, None).unwrap(), 3);
        assert_eq!(workers(&gang, 16, None).unwrap(), 8);
        assert_eq!(workers(&gang, 2, Some(5)).unwrap(), 5);
        let refused = workers(&gang, 2, Some(2)).unwrap_err();
        assert!(refused.message.contains("needs 3 workers at once, and 2 would run"), "{refused}");
    }

    use spotsweep_proto::spec::parse;

    #[test]
    fn the_data_of_every_trial_is_needed() {
        let sets = |text: &str| {
            let spec = parse(text.as_bytes(), "a.yaml").unwrap();
            spec.data_names().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            sets("{method: grid, parameters: {model: {value: mlp}}, train: {data: mnist}}"),
            ["mnist"]
        );
        assert_eq!(
            sets("{method: grid, parameters: {model: {value: mlp}, data: {values: [mnist, fashion-mnist]}}}"),
            ["fashion-mnist", "mnist"]
        );
        assert!(
            sets("{method: grid, train: {model: noop}, parameters: {seed: {values: [1, 2]}}}").is_empty()
        );
    }

    #[test]
    fn constants_do_not_tell_trials_apart() {
        let spec = parse(
            b"{method: grid, parameters: {model: {value: mlp}, dropout: {values: [0.1, 0.2]}}, train: {data: mnist}}",
            "a.yaml",
        );
        assert_eq!(varying(&spec.unwrap()), ["dropout"]);
    }
}
