//! Compiles the few lines of C++ against the libtorch that `torch-sys` has found.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        println!("cargo:warning=torch-sys did not say where libtorch lies");
        return;
    };
    let root = env::var_os("LIBTORCH_INCLUDE")
        .map(PathBuf::from)
        .or_else(|| lib.parent().map(PathBuf::from))
        .unwrap_or_default();
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| String::from("1"));
    cc::Build::new()
        .cpp(true)
        .pic(true)
        .warnings(false)
        .std("c++17")
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .define("AT_PER_OPERATOR_HEADERS", None)
        // What c10d's headers are cut to: Gloo is in every libtorch.
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        .include("cpp")
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .file("cpp/shim.cpp")
        .file("cpp/collectives.cpp")
        .file("cpp/torchscript.cpp")
        .compile("spotsweep_trainer_shim");
    // For those who link a binary: where to look for libtorch when LD_LIBRARY_PATH does not say.
    println!("cargo:libtorch_lib={}", lib.display());
}
