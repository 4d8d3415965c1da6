//! Tells the loader where libtorch was at build time.

fn main() {
    if let Ok(lib) = std::env::var("DEP_SPOTSWEEP_TRAINER_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib},--enable-new-dtags");
    }
}
