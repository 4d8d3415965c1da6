//! The program `spotsweep`: everything is in [`spotsweep_coordinator::cli`].

fn main() -> std::process::ExitCode {
    spotsweep_coordinator::cli::main()
}
