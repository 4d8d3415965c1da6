//! `spotsweep-trainer`: see the crate `spotsweep_trainer`. An agent starts it; people rarely do.

fn main() {
    spotsweep_trainer::serve::serve()
}
