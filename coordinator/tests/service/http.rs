//! The web page and its API over real sockets.

use crate::{
    agent::{Agent, hello, whole_trial},
    place::{Place, nothing, submission},
    schema::misfits,
};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use spotsweep_coordinator::{
    Code,
    http::HttpAddress,
    server::Coordinator,
    store::{OBJECTS_FOLDER, StoreOptions},
};
use spotsweep_proto::{
    checkpoint::{MANIFEST_FORMAT, Manifest, Part, object_path},
    digest::Digest,
};
use spotsweep_wire::v1::{self, report::Body};
use std::collections::BTreeSet;
use tokio::net::TcpStream;

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends a request with these headers; gives the answer's head, its body still to come. `None` if it broke off before.
async fn try_open(
    place: &Place,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> Option<Response<Incoming>> {
    let address = place.page.trim_start_matches("http://");
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    if headers.iter().all(|(name, _)| *name != "host") {
        request = request.header("host", address);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.ok()
}

async fn open(place: &Place, method: Method, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
    try_open(place, method, path, headers).await.expect("an answer")
}

pub(crate) async fn call(place: &Place, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let response = open(place, method, path, headers).await;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Answer { status, headers, body }
}

pub(crate) async fn get(place: &Place, path: &str) -> Answer {
    call(place, Method::GET, path, &[]).await
}

async fn post(place: &Place, path: &str) -> Answer {
    call(place, Method::POST, path, &[("x-spotsweep", "1")]).await
}

/// A part in the coordinator's own object store, as an agent leaves it.
fn stored(place: &Place, content: &[u8]) -> Part {
    let digest = Digest::of(content);
    let path = place.dir().join(OBJECTS_FOLDER).join(object_path(&digest));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    Part { digest, bytes: content.len() as u64 }
}

const WEIGHTS: &[u8] = b"the weights of trial 0";

/// A sweep `s` of 30 trials: 0 has completed with a checkpoint, 1 has failed once with a hostile message, the others
/// up to 11 completed, and the rest wait.
async fn place_with_a_sweep() -> (Place, Agent) {
    let place = Place::start().await;
    let mut client = place.client().await;
    let source = format!("description: '<script>alert(1)</script> \u{202e}x'\n{}", nothing("s", 30));
    client.submit(submission(&source, 1)).await.unwrap();
    let (mut agent, _) = Agent::connect(&place.url, hello("a", 1)).await;
    let mut sweeps = Vec::new();
    let mut seen = 0;
    while seen < 12 {
        agent.ready(12 - seen).await;
        for grant in agent.grants(&mut sweeps).await {
            seen += 1;
            let number = grant.trial.unwrap().number;
            let mut bodies = whole_trial(f64::from(number) * 0.5);
            if number == 0 {
                let (weights, state) = (stored(&place, WEIGHTS), stored(&place, b"the state"));
                let trial = "s/0".parse().unwrap();
                let (bytes, digest) =
                    Manifest { format: MANIFEST_FORMAT, trial, step: 2, weights, state, so_far: None }
                        .encode();
                stored(&place, &bytes);
                let whole = |digest: Digest| Bytes::copy_from_slice(&digest.0);
                let checkpoint = v1::Checkpoint {
                    step: 2,
                    manifest: whole(digest),
                    parts: vec![whole(weights.digest), whole(state.digest)],
                    bytes: weights.bytes + state.bytes,
                    last: true,
                    best: false,
                };
                bodies.insert(3, Body::Checkpoint(checkpoint));
            }
            if number == 1 {
                let message = "</td><img src=x> \u{1b}[2J".to_owned();
                let kind = v1::FailureKind::Crashed.into();
                bodies = vec![
                    Body::Started(v1::Started { step: 0, total_steps: None }),
                    Body::Failed(v1::Failed { step: 1, kind, message, seconds: 0.1 }),
                ];
            }
            agent.report(&grant, &["val_loss"], bodies).await;
        }
    }
    agent.acknowledged().await;
    (place, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_described_path_answers_with_a_body_that_fits() {
    let (place, _agent) = place_with_a_sweep().await;
    let document = get(&place, "/api/v1/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let paths = document["paths"].as_object().unwrap();
    let mut tried = 0;
    // Of what changes something, what is done to one trial first: a sweep that is cancelled has none left to pause.
    let mut paths: Vec<_> = paths.iter().collect();
    paths.sort_by_key(|(template, methods)| (methods.get("post").is_some(), !template.contains("{number}")));
    for (template, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let actions: &[&str] = if method == "post" { &["pause", "resume", "cancel"] } else { &[""] };
            for action in actions {
                let number = if method == "post" { "20" } else { "0" };
                let path = template
                    .replace("{sweep}", "s")
                    .replace("{number}", number)
                    .replace("{step}", "2")
                    .replace("{attempt}", "1")
                    .replace("{part}", "weights")
                    .replace("{action}", action);
                assert!(!path.contains('{'), "{path}: a parameter that the test does not know");
                let path = if path.ends_with("/s/curves") { format!("{path}?metric=val_loss") } else { path };
                let ok = &operation["responses"]["200"]["content"];
                if ok.get("text/event-stream").is_some() {
                    continue;
                }
                let answer =
                    if method == "post" { post(&place, &path).await } else { get(&place, &path).await };
                assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.body);
                tried += 1;
                if let Some(media) = ok.get("application/json") {
                    let wrong = misfits(&answer.json(), &media["schema"], &document);
                    assert!(wrong.is_empty(), "{path}: {wrong:#?}");
                } else if ok.get("text/plain; charset=utf-8").is_some() {
                    assert!(answer.body.starts_with(b"[spotsweep: attempt 1"), "{path}: {:?}", answer.body);
                } else {
                    assert_eq!((&answer.body[..], method.as_str()), (WEIGHTS, "get"), "{path}");
                }
                if template.contains("{sweep}") {
                    let unknown = path.replacen("/sweeps/s", "/sweeps/none", 1);
                    let refused = if method == "post" {
                        post(&place, &unknown).await
                    } else {
                        get(&place, &unknown).await
                    };
                    assert_eq!((refused.code().as_str(), refused.status.as_u16()), ("no_such_sweep", 404));
                    let schema = &operation["responses"]["default"]["content"]["application/json"]["schema"];
                    let wrong = misfits(&refused.json(), schema, &document);
                    assert!(wrong.is_empty(), "{path}: {wrong:#?}");
                }
            }
        }
    }
    assert!(tried >= 16, "only {tried} calls are described");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_has_the_same_code_as_over_grpc() {
    let (place, _agent) = place_with_a_sweep().await;
    for (path, code) in [
        ("/api/v1/sweeps/none", Code::NoSuchSweep),
        ("/api/v1/sweeps/a%20b", Code::BadRequest),
        ("/api/v1/sweeps/s/trials/30", Code::NoSuchTrial),
        ("/api/v1/sweeps/s/trials/x", Code::BadRequest),
        ("/api/v1/sweeps/s/trials/5/checkpoints/2/weights", Code::NoCheckpoint),
        ("/api/v1/sweeps/s/trials/0/attempts/2/log", Code::NoSuchAttempt),
        ("/api/v1/sweeps/s/trials/0/attempts/0/log", Code::NoSuchAttempt),
        ("/api/v1/sweeps/s/trials/0/attempts/x/log", Code::BadRequest),
        ("/api/v1/sweeps/s/trials/0/checkpoints/2/gradients", Code::BadRequest),
        ("/api/v1/sweeps/s/trials?sort=nothing", Code::BadRequest),
        ("/api/v1/sweeps/s/trials?filter=val_loss%3Cx", Code::BadRequest),
        ("/api/v1/sweeps/s/trials?unknown=1", Code::BadRequest),
        ("/api/v1/sweeps/s/trials?offset=-1", Code::BadRequest),
        ("/api/v1/sweeps/s/trials?limit=10001", Code::TooLarge),
        ("/api/v1/sweeps/s/curves", Code::BadRequest),
        ("/api/v1/sweeps/s/curves?metric=val_loss&points=1", Code::BadRequest),
        ("/api/v1/sweeps/s/curves?metric=val_loss&limit=501", Code::TooLarge),
        ("/api/v1/timeline?limit=5001", Code::TooLarge),
        ("/api/v2/sweeps", Code::NoSuchPath),
        ("/assets/../../Cargo.toml", Code::NoSuchPath),
        ("/etc/passwd", Code::NoSuchPath),
    ] {
        let answer = get(&place, path).await;
        assert_eq!(answer.code(), code.as_str(), "{path}: {:?}", answer.body);
        assert_eq!(answer.status.as_u16(), code.http_status(), "{path}");
    }
    assert_eq!(post(&place, "/api/v1/sweeps/s/trials/0/cancel").await.code(), "already_ended");
    assert_eq!(post(&place, "/api/v1/sweeps/s/explode").await.code(), "no_such_path");
    let wrong = get(&place, "/api/v1/sweeps/s/cancel").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (StatusCode::METHOD_NOT_ALLOWED, "bad_request"));
    assert_eq!(post(&place, "/").await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_in_uninvited_through_a_browser() {
    let (place, _agent) = place_with_a_sweep().await;
    let cancel = "/api/v1/sweeps/s/cancel";
    let order = ("x-spotsweep", "1");
    let refused = [
        call(&place, Method::GET, "/api/v1/sweeps", &[("host", "evil.example:80")]).await,
        call(&place, Method::POST, cancel, &[("host", "evil.example"), order]).await,
        call(&place, Method::POST, cancel, &[]).await,
        call(&place, Method::POST, cancel, &[order, ("origin", "http://evil.example")]).await,
        call(&place, Method::POST, cancel, &[order, ("origin", "null")]).await,
        call(&place, Method::GET, "/api/v1/sweeps", &[("sec-fetch-site", "cross-site")]).await,
        // What a browser asks before it sends a header of its own to another origin.
        call(&place, Method::OPTIONS, cancel, &[("origin", "http://evil.example")]).await,
    ];
    for answer in refused {
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::FORBIDDEN, "forbidden"));
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
    let long = format!("/{}", "x".repeat(9000));
    assert_eq!(get(&place, &long).await.code(), "too_large");
    let state = get(&place, "/api/v1/sweeps").await.json()["sweeps"][0]["state"].clone();
    assert_eq!(state, "running", "nothing was cancelled");
    let own = [order, ("origin", place.page.as_str())];
    assert_eq!(call(&place, Method::POST, cancel, &own).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_strangers_reach_serves_no_page() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::open(folder.path(), &StoreOptions::default()).unwrap();
    let everywhere = HttpAddress::At("0.0.0.0:0".parse().unwrap());
    let problem = coordinator.serve("127.0.0.1:0".parse().unwrap(), everywhere).await.err().unwrap();
    assert_eq!(problem.code, Code::NotLoopback);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_comes_with_a_policy_that_runs_nothing_of_others() {
    let place = Place::start().await;
    let page = get(&place, "/").await;
    assert_eq!(page.status, StatusCode::OK);
    let policy = page.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    for (path, kind) in
        [("/", "text/html"), ("/assets/app.js", "text/javascript"), ("/assets/style.css", "text/css")]
    {
        let file = get(&place, path).await;
        assert!(file.header("content-type").starts_with(kind), "{path}");
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        let tag = [("if-none-match", file.header("etag"))];
        assert_eq!(call(&place, Method::GET, path, &tag).await.status, StatusCode::NOT_MODIFIED);
    }
    assert_eq!(get(&place, "/api/v1/sweeps").await.header("cache-control"), "no-store");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_text_comes_back_as_it_is_in_json_and_nothing_else() {
    let (place, _agent) = place_with_a_sweep().await;
    let sweeps = get(&place, "/api/v1/sweeps").await;
    assert_eq!(sweeps.header("content-type"), "application/json");
    assert_eq!(sweeps.json()["sweeps"][0]["description"], "<script>alert(1)</script> \u{202e}x");
    let trial = get(&place, "/api/v1/sweeps/s/trials/1").await;
    assert_eq!(trial.header("content-type"), "application/json");
    let text = trial.json()["attempts"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("<img src=x>"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_of_a_table_hold_every_trial_once_in_order() {
    let (place, _agent) = place_with_a_sweep().await;
    let (mut numbers, mut losses) = (Vec::new(), Vec::new());
    for offset in (0..30).step_by(7) {
        let path = format!("/api/v1/sweeps/s/trials?columns=number,val_loss&offset={offset}&limit=7");
        let page = get(&place, &path).await.json();
        assert_eq!((page["total"].as_u64(), page["offset"].as_u64()), (Some(30), Some(offset)));
        for row in page["rows"].as_array().unwrap() {
            numbers.push(row[0].as_u64().unwrap());
            losses.extend(row[1].as_f64());
        }
    }
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 30);
    assert_eq!(numbers.len(), 30);
    assert!(losses.is_sorted() && losses.len() == 11, "the best first, those without one last: {losses:?}");
    let down = get(&place, "/api/v1/sweeps/s/trials?columns=number&sort=-number&limit=2").await.json();
    assert_eq!(down["rows"], serde_json::json!([[29], [28]]));
    let filter =
        get(&place, "/api/v1/sweeps/s/trials?columns=number&filter=state%3Dcompleted%3Bval_loss%3C1.2").await;
    assert_eq!(filter.json()["rows"], serde_json::json!([[0], [2]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn curves_are_those_that_were_reported() {
    let (place, _agent) = place_with_a_sweep().await;
    let path = "/api/v1/sweeps/s/curves?metric=val_loss&trials=2,3&points=2";
    let curves = get(&place, path).await.json();
    let curve = &curves["curves"][0];
    assert_eq!((curve["number"].as_u64(), curve["reported"].as_u64()), (Some(2), Some(2)));
    assert_eq!(curve["steps"], serde_json::json!([1, 2]));
    assert_eq!(curve["values"], serde_json::json!([2.0, 1.0]));
    // From the cache the same.
    assert_eq!(get(&place, path).await.json(), curves);
    let one = get(&place, "/api/v1/sweeps/s/trials/2/curves").await.json();
    assert_eq!(one["curves"][0]["values"], curve["values"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_comes_whole_and_a_damaged_one_breaks_off() {
    let (place, _agent) = place_with_a_sweep().await;
    let path = "/api/v1/sweeps/s/trials/0/checkpoints/2/weights";
    let whole = get(&place, path).await;
    assert_eq!(&whole.body[..], WEIGHTS);
    let name = "attachment; filename=\"s-0-step2-weights.safetensors\"";
    assert_eq!(whole.header("content-disposition"), name);
    let file = place.dir().join(OBJECTS_FOLDER).join(object_path(&Digest::of(WEIGHTS)));
    let mut damaged = WEIGHTS.to_vec();
    damaged[0] ^= 1;
    std::fs::write(file, damaged).unwrap();
    let Some(response) = try_open(&place, Method::GET, path, &[]).await else { return };
    assert!(response.into_body().collect().await.is_err(), "a damaged part must not end as a whole one");
}

/// Reads a stream of events until `wanted` finds what it looks for in one.
async fn event(body: &mut Incoming, wanted: impl Fn(&Value) -> bool) {
    let mut text = String::new();
    loop {
        let frame = body.frame().await.expect("the stream goes on").unwrap();
        text += &String::from_utf8_lossy(&frame.into_data().unwrap_or_default());
        let events = text.split("\n\n").filter_map(|event| event.split_once("data: "));
        if events.filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok()).any(|event| wanted(&event))
        {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_what_changed_as_it_happens() {
    let (place, mut agent) = place_with_a_sweep().await;
    let mut body = open(&place, Method::GET, "/api/v1/events?sweep=s", &[]).await.into_body();
    event(&mut body, |event| event["missed"] == true && event["sweeps"][0]["sweep"] == "s").await;
    agent.ready(1).await;
    let mut sweeps = vec![0];
    let grant = agent.grants(&mut sweeps).await.remove(0);
    let name = format!("s/{}", grant.trial.unwrap().number);
    agent.report(&grant, &["val_loss"], whole_trial(0.1)).await;
    let named =
        |event: &Value| event["trials"].as_array().is_some_and(|all| all.iter().any(|one| *one == *name));
    event(&mut body, named).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_may_follow_events_and_who_leaves_makes_room() {
    let mut place = Place::start().await;
    let mut open_streams = Vec::new();
    for _ in 0..32 {
        let response = open(&place, Method::GET, "/api/v1/events", &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        open_streams.push(response);
    }
    assert_eq!(get(&place, "/api/v1/events").await.code(), "too_many_watchers");
    open_streams.pop();
    // That somebody has gone is seen when the connection has closed.
    let again = async {
        loop {
            let response = open(&place, Method::GET, "/api/v1/events", &[]).await;
            if response.status() == StatusCode::OK {
                return response;
            }
            tokio::task::yield_now().await;
        }
    };
    open_streams.push(again.await);
    // They do not keep the coordinator from ending.
    place.shut_down().await;
}
