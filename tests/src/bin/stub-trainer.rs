//! A trainer without libtorch: a toy model that speaks the whole line protocol and resumes to the same bits.
//!
//! It must train whatever it is given without reading data, quickly, and misbehave where `SPOTSWEEP_STUB_FAULT` says so.

fn main() {
    std::process::exit(spotsweep_tests::stub::serve());
}
