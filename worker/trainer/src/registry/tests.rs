//! Rules of what a program adds: descriptions, and what is made of them.

use super::*;
use spotsweep_proto::catalogue::own::OwnKind;

fn nothing(_: &Hyperparameters<'_>, _: Shape, _: &mut Params) -> Result<Box<dyn Model>, TrainError> {
    Err(TrainError::Config("nobody builds it".to_owned()))
}

fn points(labels: &[u16]) -> MadeSamples {
    MadeSamples { inputs: vec![0.5; 2 * labels.len()], labels: labels.to_vec() }
}

fn dots() -> DataDescription {
    DataDescription::new("dots", "dots").shape([1, 1, 2]).classes(2).samples(3, 1)
}

#[test]
fn a_description_is_told_as_it_was_given() {
    let model = ModelDescription::new("net", "a net").version(3).integer("width", 1..=9, 4, "neurons");
    let registry = Registry::builtin()
        .model(model, nothing)
        .data_set(dots(), || Ok(MadeData { train: points(&[0, 1, 0]), test: points(&[1]) }));
    registry.check().unwrap();
    let told = OwnCatalogue::read(&registry.catalogue().to_json()).unwrap();
    assert_eq!(&told, registry.catalogue());
    let net = told.model("net").unwrap();
    assert_eq!((net.version, &net.parameters[0].kind), (3, &OwnKind::Integer { min: 1, max: 9 }));
    assert!(registry.data("dots").unwrap().is_some());
    assert!(registry.data("mnist").unwrap().is_none());
}

#[test]
fn what_cannot_be_told_is_found_before_anything_is_served() {
    for (model, words) in [
        (ModelDescription::new("mlp", ""), "would take the place"),
        (ModelDescription::new("a b", ""), "is not one of these"),
        (ModelDescription::new("a", "").integer("x", 1..=2, 3, ""), "x is an integer in [1, 2], not 3"),
        (ModelDescription::new("a", "").number("x", 0.0..=f64::INFINITY, 1.0, ""), "no end to it"),
        (ModelDescription::new("a", "").number("x.y", 0.0..=1.0, 1.0, ""), "has no '.'"),
        (ModelDescription::new("a", "").boolean("seed", true, ""), "would take the place"),
        (ModelDescription::new("a", "").choice("x", &["b"], "c", ""), "x is b, not \"c\""),
    ] {
        let error = Registry::builtin().model(model, nothing).check().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let error = Registry::builtin().data_set(DataDescription::new("dots", ""), || unreachable!()).check();
    assert!(error.unwrap_err().to_string().contains("all above 0"));
}

#[test]
fn samples_that_are_not_as_described_are_refused_in_words() {
    let infinite = MadeSamples { inputs: vec![0.0, f32::NAN], labels: vec![1] };
    for (train, test, words) in [
        (points(&[0, 1]), points(&[1]), "2 labels and 4 values were made for 3 samples of 2"),
        (points(&[0, 1, 2]), points(&[1]), "it holds the label 2, and there are 2 classes"),
        (points(&[0, 1, 1]), infinite, "a value of sample 0 is not finite"),
        (points(&[0, 1, 1]), MadeSamples { inputs: vec![0.0], labels: vec![1] }, "1 labels and 1 values"),
    ] {
        let made = MadeData { train, test };
        let registry = Registry::builtin().data_set(dots(), move || Ok(made.clone()));
        let error = registry.data("dots").unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("the data set dots"), "{error}");
    }
}
