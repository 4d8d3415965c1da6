//! Amazon EC2's instance metadata service as a spot instance sees it, on a loopback port, saying what a test wants.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// The session token that it gives and wants.
const TOKEN: &str = "TOKEN==";

/// Paths below `meta-data` and what stands there.
type Items = Arc<Mutex<Vec<(&'static str, String)>>>;

/// The service; it ends with the test's process.
pub struct FakeAws {
    address: SocketAddr,
    items: Items,
}

impl FakeAws {
    /// On a free port, with nothing announced.
    pub fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    /// As [`Self::start`], where `listener` listens.
    ///
    /// # Panics
    /// If it has no address.
    pub fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("an address");
        let items: Items = Arc::new(Mutex::new(vec![("instance-life-cycle", "spot".to_owned())]));
        let shown = items.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who breaks off wants no answer.
                let _gone = answer(stream, &shown);
            }
        });
        Self { address, items }
    }

    /// What `AWS_EC2_METADATA_SERVICE_ENDPOINT` is set to.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The instance will be terminated, at a time that has passed by any clock.
    pub fn interrupt(&self) {
        let text = r#"{"action": "terminate", "time": "2020-09-18T08:22:00Z"}"#;
        self.show("spot/instance-action", text);
    }

    /// The instance is more likely to be interrupted than others.
    pub fn recommend_rebalance(&self) {
        self.show("events/recommendations/rebalance", r#"{"noticeTime": "2026-10-27T08:22:00Z"}"#);
    }

    /// Nothing is announced any more.
    pub fn calm(&self) {
        self.items.lock().expect("no panic").retain(|(path, _)| *path == "instance-life-cycle");
    }

    fn show(&self, path: &'static str, text: &str) {
        self.items.lock().expect("no panic").push((path, text.to_owned()));
    }
}

fn answer(mut stream: TcpStream, items: &Items) -> std::io::Result<()> {
    let mut head = Vec::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        match line? {
            line if line.is_empty() => break,
            line => head.push(line.to_lowercase()),
        }
    }
    let request = head.first().cloned().unwrap_or_default();
    let authorized = head.contains(&format!("x-aws-ec2-metadata-token: {}", TOKEN.to_lowercase()));
    let asked = request.split(' ').nth(1).and_then(|path| path.strip_prefix("/latest/meta-data/"));
    let (status, body) = if request.starts_with("put /latest/api/token ") {
        ("200 OK", TOKEN.to_owned())
    } else if !authorized {
        ("401 Unauthorized", String::new())
    } else {
        let items = items.lock().expect("no panic");
        match items.iter().find(|(path, _)| Some(*path) == asked) {
            Some((_, text)) => ("200 OK", text.clone()),
            None => ("404 Not Found", String::new()),
        }
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
