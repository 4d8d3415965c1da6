//! Code is there before the sweep that needs it, whole, and once.

use crate::place::{Place, submission};
use spotsweep_coordinator::{Code, Problem, objects::CODE_UNCLAIMED, store::StoreOptions};
use spotsweep_proto::{digest::Digest, program, spec::SweepSpec};
use spotsweep_wire::v1::{self, control_client::ControlClient};
use tonic::{Status, transport::Channel};

/// Longest wait for what happens at once on an idle machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
const SWEEP: &str = "name: s\nmethod: grid\nprogram: train.py\ncode: ./src\n";

pub(crate) fn reference(content: &[u8]) -> v1::CodeRef {
    v1::CodeRef { digest: Digest::of(content).0.to_vec().into(), bytes: content.len() as u64 }
}

pub(crate) fn code(status: &Status) -> Code {
    Problem::from_status(status).code
}

pub(crate) async fn put(
    client: &mut ControlClient<Channel>,
    code: Option<v1::CodeRef>,
    content: &[u8],
) -> Result<bool, Status> {
    let mut code = code;
    let pieces: Vec<_> = content
        .chunks(1 << 20)
        .map(|piece| v1::PutCodeRequest { code: code.take(), piece: piece.to_vec().into() })
        .collect();
    Ok(client.put_code(futures::stream::iter(pieces)).await?.into_inner().new)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_with_code_is_taken_once_its_code_is_there_and_survives_a_restart() {
    let mut place = Place::start().await;
    let mut client = place.client().await;
    // Larger than any message may be.
    let content: Vec<u8> = (0..3_u32 << 20).flat_map(u32::to_le_bytes).collect();
    let request = |token| v1::SubmitRequest { code: Some(reference(&content)), ..submission(SWEEP, token) };
    assert_eq!(code(&client.submit(request(1)).await.unwrap_err()), Code::NoCode);
    assert!(put(&mut client, Some(reference(&content)), &content).await.unwrap());
    assert!(
        !put(&mut client, Some(reference(&content)), &content).await.unwrap(),
        "equal code is stored once"
    );
    client.submit(request(1)).await.unwrap();
    place.shut_down().await;
    place.restart(StoreOptions::default()).await;
    let mut client = place.client().await;
    let shown = client.show_sweep(v1::ShowSweepRequest { target: "s".to_owned() }).await.unwrap();
    let spec: SweepSpec = serde_json::from_str(&shown.into_inner().spec_json).unwrap();
    let wanted = program::Code { digest: Digest::of(&content), bytes: content.len() as u64 };
    assert_eq!(spec.program.unwrap().code, Some(wanted));
    assert_eq!(std::fs::read(place.dir().join("objects").join(wanted.path())).unwrap(), content);
    // The same again needs nothing but the reference.
    client.submit(request(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn code_and_sweep_file_must_agree() {
    let place = Place::start().await;
    let mut client = place.client().await;
    assert_eq!(code(&client.submit(submission(SWEEP, 1)).await.unwrap_err()), Code::BadRequest);
    let model = "name: m\nmethod: grid\ntrain: {model: softmax, data: fashion-mnist, steps: 1}\n\
                 parameters: {seed: {values: [1]}}\n";
    let request = v1::SubmitRequest { code: Some(reference(b"x")), ..submission(model, 2) };
    assert_eq!(code(&client.submit(request).await.unwrap_err()), Code::BadRequest);
    let short = v1::CodeRef { digest: vec![1].into(), bytes: 1 };
    let request = v1::SubmitRequest { code: Some(short), ..submission(SWEEP, 3) };
    assert_eq!(code(&client.submit(request).await.unwrap_err()), Code::BadRequest);
    // A program that names none may bring the folder in which its script was found, or not.
    let none = "name: s\nmethod: grid\nprogram: train.py\n";
    client.submit(submission(none, 4)).await.unwrap();
    assert!(put(&mut client, Some(reference(b"x")), b"x").await.unwrap());
    let request = v1::SubmitRequest { code: Some(reference(b"x")), ..submission(none, 5) };
    client.submit(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_is_not_what_it_says_is_refused_and_not_kept() {
    let place = Place::start().await;
    let mut client = place.client().await;
    let wrong = put(&mut client, Some(reference(b"other")), b"bytes").await.unwrap_err();
    assert_eq!(code(&wrong), Code::BadRequest);
    assert_eq!(code(&put(&mut client, None, b"bytes").await.unwrap_err()), Code::BadRequest);
    let large = v1::CodeRef { bytes: program::CODE_BYTES + 1, ..reference(b"bytes") };
    assert_eq!(code(&put(&mut client, Some(large), b"bytes").await.unwrap_err()), Code::TooLarge);
    let request = v1::SubmitRequest { code: Some(reference(b"other")), ..submission(SWEEP, 1) };
    assert_eq!(code(&client.submit(request).await.unwrap_err()), Code::NoCode);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_was_put_and_never_claimed_is_deleted_after_a_while() {
    let mut place = Place::start().await;
    let mut client = place.client().await;
    let contents: [&[u8]; 3] = [b"claimed", b"given up", b"just put"];
    let files = contents.map(|content| {
        let code = program::Code { digest: Digest::of(content), bytes: content.len() as u64 };
        place.dir().join("objects").join(code.path())
    });
    for content in contents {
        assert!(put(&mut client, Some(reference(content)), content).await.unwrap());
    }
    let request = v1::SubmitRequest { code: Some(reference(contents[0])), ..submission(SWEEP, 1) };
    client.submit(request).await.unwrap();
    place.shut_down().await;
    for file in &files[..2] {
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_modified(std::time::SystemTime::now() - 2 * CODE_UNCLAIMED).unwrap();
    }
    place.restart(StoreOptions::default()).await;
    let gone = async {
        while files[1].exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert!(files[0].exists() && files[2].exists());
}
