//! The folder of code that a sweep file names: what would travel, and handing it in.
//!
//! Must not print. What an archive is, `spotsweep_archive` says.

use super::{source::Source, sweep_file::SweepFile};
use crate::error::{Code as ErrorCode, Problem, chain};
use spotsweep_archive::{ArchiveError, Contents, Packed};
use spotsweep_proto::program::Code;
use spotsweep_wire::v1::{CodeRef, PutCodeRequest};
use std::{
    fs::File,
    io::Read as _,
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use tempfile::NamedTempFile;

/// Of a script, so many bytes are looked at for what it imports.
const SCRIPT_BYTES: u64 = 1 << 20;
/// Bytes that are sent at a time.
const PIECE_BYTES: usize = 1 << 20;

/// The packed folder of a sweep file, in a temporary file that goes with it.
#[derive(Debug, Clone)]
pub(crate) struct Travelling {
    /// What it is called in the store.
    pub(crate) code: Code,
    archive: Arc<NamedTempFile>,
}

/// The folder that `file` names, and what of it would travel.
///
/// # Errors
/// If it cannot be read, holds what cannot travel, or the program is not in it.
pub(crate) fn contents(file: &SweepFile) -> Result<Option<(PathBuf, Contents)>, Problem> {
    let Some(folder) = &file.code_folder else { return Ok(None) };
    let contents = spotsweep_archive::contents(folder).map_err(|error| problem(folder, &error))?;
    holds_program(file, folder, &contents)?;
    Ok(Some((folder.clone(), contents)))
}

/// Packs the folder that `file` names, if any, and gives the archive's digest to its specification.
///
/// # Errors
/// As [`contents`], or there is no room for temporary files.
pub(crate) fn pack(file: &mut SweepFile) -> Result<(), Problem> {
    let Some(folder) = &file.code_folder else { return Ok(()) };
    let temporary = |error: std::io::Error| {
        Problem::new(ErrorCode::Storage, format!("cannot write a temporary file: {error}"))
            .hint("is there room in the folder for temporary files (TMPDIR)?")
    };
    let archive = NamedTempFile::new().map_err(temporary)?;
    let into = std::io::BufWriter::new(archive.reopen().map_err(temporary)?);
    let Packed { code, contents } =
        spotsweep_archive::pack(folder, into).map_err(|error| problem(folder, &error))?;
    holds_program(file, folder, &contents)?;
    if let Some(program) = &mut file.spec.program {
        program.code = Some(code);
    }
    file.code = Some(Travelling { code, archive: Arc::new(archive) });
    Ok(())
}

impl Travelling {
    /// As it stands in messages.
    pub(crate) fn reference(&self) -> CodeRef {
        reference(self.code)
    }

    /// Hands it in.
    ///
    /// # Errors
    /// If it cannot be read any more, or the coordinator does not take it.
    pub(crate) async fn put(&self, source: &mut Source) -> Result<(), Problem> {
        let lost = |error: std::io::Error| {
            Problem::new(ErrorCode::Storage, format!("cannot read the packed code again: {error}"))
        };
        source.put_code(pieces(self.code, self.archive.reopen().map_err(lost)?)).await
    }
}

/// For people: the script imports wandb, which most workers do not have, and the sweep file does not ask for ours.
pub(crate) fn about_wandb(file: &SweepFile) -> Option<String> {
    let section = file.spec.program.as_ref().filter(|section| section.compat.is_none())?;
    let program = section.program.as_deref()?;
    let mut script = Vec::new();
    let opened = File::open(file.code_folder.as_ref()?.join(program)).ok()?;
    opened.take(SCRIPT_BYTES).read_to_end(&mut script).ok()?;
    let imports = |line: &str| {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next(), words.next().unwrap_or_default());
        let module = second.trim_end_matches([',', ';']).split('.').next();
        matches!(first, Some("import" | "from")) && module == Some("wandb")
    };
    String::from_utf8_lossy(&script).lines().any(imports).then(|| {
        format!("{program} imports wandb: `compat: wandb` in the sweep file runs it without an account; else every worker needs wandb")
    })
}

/// What `file` holds, as messages. Ended early by an error of reading, it has another digest than it says, which the
/// coordinator refuses.
pub(super) fn pieces(code: Code, mut file: File) -> impl Iterator<Item = PutCodeRequest> + Send {
    let mut code = Some(reference(code));
    std::iter::from_fn(move || {
        let mut piece = Vec::new();
        let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece).ok()?;
        (read > 0).then(|| PutCodeRequest { code: code.take(), piece: piece.into() })
    })
}

/// As it stands in messages.
pub(super) fn reference(code: Code) -> CodeRef {
    CodeRef { digest: code.digest.0.to_vec().into(), bytes: code.bytes }
}

/// A script that is not where it will be looked for is found here rather than in every trial.
fn holds_program(file: &SweepFile, folder: &Path, contents: &Contents) -> Result<(), Problem> {
    let section = file.spec.program.as_ref();
    let Some(section) = section.filter(|section| section.command.iter().any(|part| part == "${program}"))
    else {
        return Ok(());
    };
    let Some(program) = section.program.as_deref().filter(|program| !program.starts_with(['/', '~'])) else {
        return Ok(());
    };
    let plain = Path::new(program).components().filter(|part| *part != Component::CurDir);
    let plain: PathBuf = plain.collect();
    if contents.files.iter().any(|(name, _)| Path::new(name).starts_with(&plain)) {
        return Ok(());
    }
    let message = format!("{program} is not among the files of {} that would travel", folder.display());
    Err(Problem::new(ErrorCode::BadSweepFile, message).hint(
        "`program` is relative to the folder of `code`; what .gitignore names does not travel, `spotsweep check` lists the rest",
    ))
}

fn problem(folder: &Path, error: &ArchiveError) -> Problem {
    let code = match error {
        ArchiveError::TooLarge { .. } | ArchiveError::TooManyFiles { .. } => ErrorCode::TooLarge,
        _ => ErrorCode::BadSweepFile,
    };
    let message = format!("the code in {} cannot travel: {}", folder.display(), chain(error));
    Problem::new(code, message).hint(error.hint())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::sweep_file;

    #[test]
    fn a_script_that_imports_wandb_is_told_of_ours_unless_the_sweep_asks_for_it() {
        for (script, compat, told) in [
            ("import os\n  import wandb as w\n", "", true),
            ("from wandb.sdk import x", "", true),
            ("import wandb\n", "compat: wandb\n", false),
            ("import wandbox\n# import wandb\nprint('import wandb')\n", "", false),
        ] {
            let home = tempfile::tempdir().unwrap();
            std::fs::write(home.path().join("train.py"), script).unwrap();
            let path = home.path().join("a.yaml");
            std::fs::write(&path, format!("method: grid\nprogram: train.py\n{compat}")).unwrap();
            let file = sweep_file::read(&path, &spotsweep_proto::catalogue::OwnCatalogue::default()).unwrap();
            assert_eq!(about_wandb(&file).is_some(), told, "{script}");
        }
    }

    fn sweep(files: &[&str], code: &str) -> (tempfile::TempDir, SweepFile) {
        let home = tempfile::tempdir().unwrap();
        for name in files {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let path = home.path().join("a.yaml");
        std::fs::write(&path, format!("method: grid\nprogram: ./train.py\ncode: {code}\n")).unwrap();
        let file = sweep_file::read(&path, &spotsweep_proto::catalogue::OwnCatalogue::default()).unwrap();
        (home, file)
    }

    #[test]
    fn a_folder_is_found_beside_the_sweep_file_and_gives_it_its_digest() {
        let (_home, mut file) = sweep(&["src/train.py", "other"], "src");
        let (_, contents) = contents(&file).unwrap().unwrap();
        assert_eq!(contents.files, [("train.py".to_owned(), 1)]);
        let before = file.spec.digest();
        pack(&mut file).unwrap();
        assert_ne!(file.spec.digest(), before);
        assert_eq!(file.spec.program.unwrap().code, file.code.map(|travelling| travelling.code));
    }

    #[test]
    fn a_program_that_would_not_travel_is_told_before_any_trial() {
        let (_home, file) = sweep(&["src/other.py"], "src");
        let problem = contents(&file).unwrap_err();
        assert!(problem.message.contains("train.py is not among the files"), "{problem:?}");
    }

    #[test]
    fn a_coordinators_folder_beside_the_code_is_known_by_its_file() {
        assert_eq!(spotsweep_archive::COORDINATORS_FILE, crate::store::DATABASE_FILE);
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_by_name() {
        let (_home, mut file) = sweep(&["train.py"], "sources");
        let problem = pack(&mut file).unwrap_err();
        assert!(problem.message.contains("sources cannot travel: cannot read"), "{problem:?}");
    }
}
