//! The programs under test, built in the profile of the test itself.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Set by `make test`, which built all programs in one go: asking again for some of them would compile much anew, with
/// other features.
const BUILT_VARIABLE: &str = "SPOTSWEEP_PROGRAMS_BUILT";

/// Folder of the programs: cargo puts tests one below it, and the benchmark into it.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let test = std::env::current_exe().expect("the test knows its path");
        let beside = test.parent().expect("target/PROFILE");
        let folder = if beside.ends_with("deps") { beside.parent().expect("target/PROFILE") } else { beside };
        let folder = folder.to_owned();
        if std::env::var_os(BUILT_VARIABLE).is_some() {
            return folder;
        }
        // `cargo test` builds programs only for the packages that it tests, so ask for the others by name.
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "-p", "spotsweep-coordinator", "-p", "spotsweep-worker"]);
        cargo.args(["-p", "spotsweep-tests", "--bins"]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        let target = folder.parent().expect("target");
        let status = cargo.env("CARGO_TARGET_DIR", target).current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(status.expect("cargo runs").success(), "the programs under test build");
        folder
    })
}

/// `spotsweep`.
pub fn spotsweep() -> PathBuf {
    folder().join("spotsweep")
}

/// `spotsweep-worker`.
pub fn worker() -> PathBuf {
    folder().join("spotsweep-worker")
}

/// The toy trainer, which needs no libtorch.
pub fn stub_trainer() -> PathBuf {
    folder().join("stub-trainer")
}

/// The trainer that trains with libtorch. `make test` builds it; the tests that need it are behind the feature `libtorch`.
pub fn libtorch_trainer() -> PathBuf {
    folder().join("spotsweep-trainer")
}

/// The example of a trainer with a model of its own; as [`libtorch_trainer`].
pub fn custom_trainer() -> PathBuf {
    folder().join("custom-model")
}
