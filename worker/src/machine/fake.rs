//! A metadata service for tests: answers each request as the test says, one connection at a time.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// Answers each request with what `answer` makes of its head and body; `None` is silence.
pub(crate) async fn service(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let mut said = String::from_utf8(head).unwrap();
            let mut body = vec![0; length(&said)];
            if stream.read_exact(&mut body).await.is_ok() {
                said += &String::from_utf8(body).unwrap();
            }
            match answer(&said) {
                // Whoever asked may have had enough of a long answer.
                Some(text) => drop(stream.write_all(text.as_bytes()).await),
                None => silent.push(stream),
            }
        }
    });
    address
}

pub(crate) fn answered(body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

pub(crate) fn refused(status: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))
}

/// Bytes of the body that a head announces.
fn length(head: &str) -> usize {
    let lower = head.to_lowercase();
    let value = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// What a head asks for.
pub(crate) fn path(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}
