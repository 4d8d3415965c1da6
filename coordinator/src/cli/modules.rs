//! The TorchScript modules that a sweep file names: looked at, pinned to their content, and handed in.
//!
//! Must not print, and must not load a module: what is in it the trainer checks. Here only what people mistake for a module is
//! told from one, before anything runs.

use super::{
    code::{pieces, reference},
    error::io_problem,
    source::Source,
    sweep_file::SweepFile,
};
use crate::error::{Code as ErrorCode, Problem};
use serde_json::{Value, json};
use spotsweep_proto::{
    digest::Digest,
    module::{MODULE_BYTES, MODULES_PER_SWEEP, ModuleRef},
    program::Code,
};
use spotsweep_wire::v1::ModuleFile;
use std::{
    fs::File,
    io::{BufReader, Seek as _},
    path::{Path, PathBuf},
};
use zip::ZipArchive;

/// How a module is exported, for hints.
const EXPORT: &str = "export it in Python with `torch.jit.script(model).save(\"net.pt\")`";

/// A module that lies beside a sweep file.
#[derive(Debug, Clone)]
pub(crate) struct LocalModule {
    /// As the sweep file names it.
    pub(crate) file: String,
    /// Where it lies.
    path: PathBuf,
    /// What it is called in the store.
    pub(crate) code: Code,
}

/// Finds the modules of `file` and looks at them.
///
/// # Errors
/// One is missing, too large, no module, or not the one to which the sweep file pins it.
pub(crate) fn find(file: &SweepFile) -> Result<Vec<LocalModule>, Problem> {
    let named = file.spec.modules();
    if named.len() > MODULES_PER_SWEEP {
        let message = format!(
            "a sweep has at most {MODULES_PER_SWEEP} TorchScript modules, this one has {}",
            named.len()
        );
        return Err(Problem::new(ErrorCode::BadSweepFile, message));
    }
    named.iter().map(|module| look_at(module, &file.beside(module.file()))).collect()
}

/// Finds the modules of `file` and pins its specification to them.
///
/// # Errors
/// As [`find`].
pub(crate) fn pin(file: &mut SweepFile) -> Result<(), Problem> {
    let found = find(file)?;
    file.spec.pin_modules(|module| {
        found.iter().find(|local| local.file == module.file()).map(|local| local.code.digest)
    });
    file.modules = found;
    Ok(())
}

fn look_at(module: &ModuleRef, path: &Path) -> Result<LocalModule, Problem> {
    let unread =
        |error| io_problem("read", path, &error).hint("`model: net.pt` names a file beside the sweep file");
    let mut content = File::open(path).map_err(unread)?;
    let bytes = content.metadata().map_err(unread)?.len();
    if bytes > MODULE_BYTES {
        let message = format!("{} has {bytes} bytes; a module has at most {MODULE_BYTES}", path.display());
        return Err(Problem::new(ErrorCode::TooLarge, message).hint("train what is larger as a `program`"));
    }
    check(path, &content)?;
    let mut hasher = blake3::Hasher::new();
    content.rewind().and_then(|()| hasher.update_reader(&mut content).map(|_| ())).map_err(unread)?;
    let digest = Digest(*hasher.finalize().as_bytes());
    match module.digest() {
        Some(wanted) if wanted != digest => {
            let message = format!(
                "{} is not what the sweep file pins it to: its digest is {}, not {}",
                path.display(),
                digest.short(),
                wanted.short()
            );
            Err(Problem::new(ErrorCode::BadSweepFile, message)
                .hint(format!("write `model: {}` for the file as it is", module.file())))
        }
        _ => Ok(LocalModule {
            file: module.file().to_owned(),
            path: path.to_owned(),
            code: Code { digest, bytes },
        }),
    }
}

/// Tells a module from the other files that end in `.pt`, and bounds what it unpacks to.
fn check(path: &Path, content: &File) -> Result<(), Problem> {
    let wrong = |what: String| {
        Problem::new(ErrorCode::BadSweepFile, format!("{} {what}", path.display())).hint(EXPORT)
    };
    let mut archive = ZipArchive::new(BufReader::new(content))
        .map_err(|error| wrong(format!("is no TorchScript module, or is cut short: {error}")))?;
    let mut unpacked = 0_u64;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| wrong(format!("is damaged: {error}")))?;
        unpacked = unpacked.saturating_add(entry.size());
    }
    if unpacked > MODULE_BYTES {
        return Err(wrong(format!("unpacks to {unpacked} bytes; a module has at most {MODULE_BYTES}")));
    }
    // The folder in the archive is called like the file was when it was saved.
    let has = |name: &str| {
        archive
            .file_names()
            .filter_map(Result::ok)
            .any(|entry| entry.split_once('/').is_some_and(|(_, inner)| inner.starts_with(name)))
    };
    match (has("constants.pkl") && has("code/"), has("data.pkl")) {
        (true, true) => Ok(()),
        (_, true) => Err(wrong(
            "holds tensors or a pickled object, as torch.save writes them, and no TorchScript module"
                .to_owned(),
        )),
        (_, false) => Err(wrong("is a zip archive, but no TorchScript module".to_owned())),
    }
}

impl LocalModule {
    /// As it stands in messages.
    pub(crate) fn reference(&self) -> ModuleFile {
        ModuleFile { file: self.file.clone(), content: Some(reference(self.code)) }
    }

    /// As `spotsweep check` tells it to programs.
    pub(crate) fn json(&self) -> Value {
        json!({"file": self.file, "bytes": self.code.bytes, "digest": self.code.digest.to_string()})
    }

    /// Hands it in.
    ///
    /// # Errors
    /// If it cannot be read any more, or the coordinator does not take it: then it was changed meanwhile, perhaps.
    pub(crate) async fn put(&self, source: &mut Source) -> Result<(), Problem> {
        let content = File::open(&self.path).map_err(|error| io_problem("read", &self.path, &error))?;
        source.put_code(pieces(self.code, content)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::sweep_file;
    use spotsweep_proto::catalogue::OwnCatalogue;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../worker/trainer/tests/modules");

    fn sweep(model: &str) -> (tempfile::TempDir, SweepFile) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("nets")).unwrap();
        std::fs::copy(format!("{FIXTURES}/mlp.pt"), home.path().join("nets/net.pt")).unwrap();
        std::fs::copy(format!("{FIXTURES}/weights.pt"), home.path().join("weights.pt")).unwrap();
        let whole = std::fs::read(home.path().join("nets/net.pt")).unwrap();
        std::fs::write(home.path().join("cut.pt"), &whole[..whole.len() - 100]).unwrap();
        std::fs::write(home.path().join("text.pt"), "model").unwrap();
        let path = home.path().join("a.yaml");
        let text =
            format!("method: grid\nparameters: {{model: {{values: [{model}]}}}}\ntrain: {{data: mnist}}\n");
        std::fs::write(&path, text).unwrap();
        let file = sweep_file::read(&path, &OwnCatalogue::default()).unwrap();
        (home, file)
    }

    #[test]
    fn a_module_is_found_beside_the_sweep_file_and_pinned_to_its_content() {
        let (home, mut file) = sweep("nets/net.pt, mlp");
        let before = file.spec.digest();
        pin(&mut file).unwrap();
        assert_ne!(file.spec.digest(), before);
        let digest = Digest::of(&std::fs::read(home.path().join("nets/net.pt")).unwrap());
        let named: Vec<String> = file.spec.modules().iter().map(ToString::to_string).collect();
        assert_eq!(named, [format!("nets/net.pt@blake3:{digest}")]);
        assert_eq!(file.modules[0].code.digest, digest);
        let once = file.spec.clone();
        pin(&mut file).unwrap();
        assert_eq!(file.spec, once);

        let (_home, file) = sweep(&format!("\"nets/net.pt@blake3:{}\"", Digest::of(b"other")));
        let problem = find(&file).unwrap_err();
        assert!(problem.message.contains("is not what the sweep file pins it to"), "{problem:?}");
    }

    #[test]
    fn the_example_names_modules_that_lie_beside_it() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/own-module/sweep.yaml");
        let file = sweep_file::read(Path::new(path), &OwnCatalogue::default()).unwrap();
        let found = find(&file).unwrap();
        let names: Vec<&str> = found.iter().map(|module| module.file.as_str()).collect();
        assert_eq!((names, file.spec.trials()), (vec!["small.pt", "wide.pt"], 6));
    }

    #[test]
    fn what_is_no_module_is_told_before_any_trial_in_its_own_words() {
        for (model, words) in [
            ("missing.pt", "cannot read"),
            ("cut.pt", "cut short"),
            ("text.pt", "is no TorchScript module"),
            ("weights.pt", "as torch.save writes them"),
        ] {
            let (home, file) = sweep(model);
            let problem = find(&file).unwrap_err();
            assert!(problem.message.contains(words) && problem.message.contains(model), "{problem:?}");
            assert!(!problem.hint.is_empty(), "{problem:?}");
            drop(home);
        }
    }
}
