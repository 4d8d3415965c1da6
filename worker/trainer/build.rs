//! Tells the loader where libtorch was at build time. It becomes a RUNPATH: LD_LIBRARY_PATH goes before it, so
//! whoever starts the trainer chooses the libtorch.

fn main() {
    if let Ok(lib) = std::env::var("DEP_SPOTSWEEP_TRAINER_SHIM_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags");
        // For programs that are built on this crate, as DEP_SPOTSWEEP_TRAINER_LIBTORCH_LIB in their build scripts.
        println!("cargo:libtorch_lib={lib}");
    }
}
