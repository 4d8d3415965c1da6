//! A module is there before the sweep that names it, and its name is pinned to it.

use crate::{
    code::{code, put, reference},
    place::{Place, submission},
};
use spotsweep_coordinator::Code;
use spotsweep_proto::{digest::Digest, module::MODULE_BYTES, spec::SweepSpec};
use spotsweep_wire::v1;

const SWEEP: &str =
    "name: s\nmethod: grid\nparameters: {model: {values: [a.pt, mlp]}}\ntrain: {data: mnist}\n";

fn file(file: &str, content: &[u8]) -> v1::ModuleFile {
    v1::ModuleFile { file: file.to_owned(), content: Some(reference(content)) }
}

fn with(token: u128, modules: Vec<v1::ModuleFile>) -> v1::SubmitRequest {
    v1::SubmitRequest { modules, ..submission(SWEEP, token) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_is_taken_once_its_modules_are_there_and_is_pinned_to_them() {
    let place = Place::start().await;
    let mut client = place.client().await;
    let request = with(1, vec![file("a.pt", b"module")]);
    assert_eq!(code(&client.submit(request.clone()).await.unwrap_err()), Code::NoCode);
    assert!(put(&mut client, Some(reference(b"module")), b"module").await.unwrap());
    client.submit(request).await.unwrap();
    let shown = client.show_sweep(v1::ShowSweepRequest { target: "s".to_owned() }).await.unwrap();
    let spec: SweepSpec = serde_json::from_str(&shown.into_inner().spec_json).unwrap();
    let pinned = format!("a.pt@blake3:{}", Digest::of(b"module"));
    assert_eq!(spec.assignment(0).0[0].1.to_string(), pinned);
    assert_eq!(spec.assignment(1).0[0].1.to_string(), "mlp");
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_and_sweep_file_must_agree() {
    let place = Place::start().await;
    let mut client = place.client().await;
    assert!(put(&mut client, Some(reference(b"module")), b"module").await.unwrap());
    let huge = v1::CodeRef { bytes: MODULE_BYTES + 1, ..reference(b"module") };
    for (modules, wanted) in [
        (Vec::new(), Code::BadRequest),
        (vec![file("b.pt", b"module")], Code::BadRequest),
        (vec![file("a.pt", b"module"), file("b.pt", b"module")], Code::BadRequest),
        (vec![v1::ModuleFile { file: "a.pt".to_owned(), content: None }], Code::BadRequest),
        (vec![v1::ModuleFile { file: "a.pt".to_owned(), content: Some(huge) }], Code::TooLarge),
        (vec![file("a.pt", b"module"); 65], Code::BadRequest),
    ] {
        let refused = client.submit(with(1, modules.clone())).await.unwrap_err();
        assert_eq!(code(&refused), wanted, "{modules:?}: {refused}");
    }
    let other = SWEEP.replace("a.pt", &format!("\"a.pt@blake3:{}\"", Digest::of(b"other")));
    let request = v1::SubmitRequest { modules: vec![file("a.pt", b"module")], ..submission(&other, 2) };
    assert_eq!(code(&client.submit(request).await.unwrap_err()), Code::BadSweepFile);
    client.submit(with(3, vec![file("a.pt", b"module")])).await.unwrap();
}
