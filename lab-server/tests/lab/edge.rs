//! The door: headers on everything, TLS 1.3 only, nobody stays for ever.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::client::{TestLab, request};

const SOON: Duration = Duration::from_secs(5);

fn check_headers(headers: &HeaderMap) {
    for (name, value) in [
        ("strict-transport-security", "max-age=63072000; includeSubDomains; preload"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("x-xss-protection", "0"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(headers.get(name).map(|value| value.to_str().unwrap()), Some(value), "{name}");
    }
    assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none';"));
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let lab = TestLab::start().await;
    let cases = [
        ("GET", "/healthz", StatusCode::OK),
        ("GET", "/.well-known/security.txt", StatusCode::OK),
        ("GET", "/pair", StatusCode::OK),
        ("GET", "/nothing", StatusCode::NOT_FOUND),
        ("PUT", "/healthz", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "/pair/decide", StatusCode::FORBIDDEN),
        ("POST", "/bridge/v1/device_authorization", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ];
    for (method, path, status) in cases {
        let answer = lab.send(request(method, path).body(Full::default()).unwrap()).await;
        assert_eq!(answer.status, status, "{method} {path}");
        check_headers(&answer.headers);
        assert!(answer.headers.get("set-cookie").is_none());
    }
    assert_eq!(lab.get("/nothing").await.json()["error"]["code"], "not_found");
    let security = lab.get("/.well-known/security.txt").await;
    assert!(security.text().starts_with("Contact: mailto:security@localhost\nExpires: 20"), "{}", security.text());

    let large = request("POST", "/bridge/v1/token").header("content-type", "application/json");
    let answer = lab.send(large.body(vec![b' '; 65 * 1024].into()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    check_headers(&answer.headers);
}

/// Every route of the description, as nobody: refused, of a wrong method, of a wrong type, too large.
#[tokio::test]
async fn every_route_of_the_description_has_them_whatever_it_answers() {
    let lab = TestLab::start().await;
    let document: serde_json::Value = serde_json::from_str(&lab_server::api::document().unwrap()).unwrap();
    let mut statuses = std::collections::BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let address = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect::<Vec<_>>().join("/");
        let mut tries = vec![("TRACE".to_owned(), "", 0)];
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_uppercase();
            if operation.get("requestBody").is_some() {
                tries.push((method.clone(), "text/plain", 2));
                tries.push((method.clone(), "application/json", 1024 * 1024 + 1));
            }
            tries.push((method, "application/json", 0));
        }
        for (method, kind, length) in tries {
            let asked = request(&method, &address).header("sec-fetch-site", "same-origin");
            let asked = if kind.is_empty() { asked } else { asked.header("content-type", kind) };
            let answer = lab.send(asked.body(vec![b' '; length].into()).unwrap()).await;
            let what = format!("{method} {path} {kind} {length}: {}", answer.status);
            assert!(!answer.status.is_server_error(), "{what}");
            check_headers(&answer.headers);
            for name in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
                assert_eq!(answer.headers[name], "same-origin", "{what}");
            }
            let kept = answer.headers.get("cache-control").map(|value| value.to_str().unwrap());
            let public = answer.status == StatusCode::OK && kept == Some("public, max-age=3600");
            assert!(public || kept == Some("no-store"), "{what}: {kept:?}");
            statuses.insert(answer.status.as_u16());
        }
    }
    for status in [200, 401, 405] {
        assert!(statuses.contains(&status), "{statuses:?}");
    }
}

#[tokio::test]
async fn http2_is_spoken_on_one_connection() {
    let lab = TestLab::start().await;
    let stream = TokioIo::new(lab.tls(b"h2").await);
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let request = request("GET", "https://localhost/healthz").body(Full::default()).unwrap();
        let answer = sender.clone().send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        check_headers(answer.headers());
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), r#"{"status":"ok"}"#);
    }
}

#[tokio::test]
async fn plain_http_is_refused_without_json() {
    let lab = TestLab::start().await;
    let mut tcp = TcpStream::connect(lab.lab.addr).await.unwrap();
    tcp.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain"), "{answer}");
    assert!(answer.contains("\r\nx-content-type-options: nosniff\r\n"), "{answer}");
    assert!(!answer.contains('{'), "{answer}");
}

/// What hyper says by itself, before any handler: to a head that cannot be read, and to one that is too large.
#[tokio::test]
async fn what_no_handler_answers_has_the_security_headers_too() {
    let lab = TestLab::start().await;
    let many: String = (0..70).map(|number| format!("x-{number}: a\r\n")).collect();
    let large = format!("x-a: {}\r\n", "a".repeat(40 * 1024));
    for (what, head, status) in [
        ("no request line", "what is this\r\n\r\n".to_owned(), 400),
        ("a field without a name", "GET /healthz HTTP/1.1\r\nhost: localhost\r\n: a\r\n\r\n".to_owned(), 400),
        (
            "two lengths",
            "POST /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
            400,
        ),
        ("a folded field", "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-a: b\r\n c\r\n\r\n".to_owned(), 400),
        ("more than 64 fields", format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"), 431),
        ("more than 32 KiB", format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{large}\r\n"), 431),
    ] {
        let mut stream = lab.tls(b"http/1.1").await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The end may come as a reset where the head was not read whole.
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap_or_else(|_| panic!("{what}: still open"));
        let answer = String::from_utf8(answer).unwrap();
        let (first, fields) = answer.split_once("\r\n").unwrap_or_else(|| panic!("{what}: {answer:?}"));
        assert!(first.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        let fields = fields.split_terminator("\r\n").filter_map(|field| field.split_once(": "));
        let headers: HeaderMap =
            fields.map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())).collect();
        check_headers(&headers);
        assert_eq!(headers["content-length"], "0", "{what}");
    }
    // A connection that was answered well goes on to be: what is completed is not the next answer's business.
    let mut stream = lab.tls(b"http/1.1").await;
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 4096];
        let read = timeout(SOON, stream.read(&mut answer)).await.unwrap().unwrap();
        let answer = std::str::from_utf8(&answer[..read]).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(answer.matches("strict-transport-security").count(), 1);
    }
}

/// The end of a caller who never reads is in `tests/journeys/cloud/hangups.rs`; this is one who sends and never reads at all.
#[tokio::test]
async fn who_never_reads_ends_in_time() {
    const SHORT: Duration = Duration::from_millis(300);
    let lab = TestLab::with(|config| config.limits.stall = SHORT).await;
    let (mut reading, mut writing) = tokio::io::split(lab.tls(b"http/1.1").await);
    let start = Instant::now();
    // Answers that nobody takes fill every buffer on the way.
    let asking = tokio::spawn(async move {
        while writing.write_all(b"GET /pair HTTP/1.1\r\nhost: localhost\r\n\r\n").await.is_ok() {}
        start.elapsed()
    });
    let took = timeout(Duration::from_secs(60), asking).await.expect("the Lab lets go").unwrap();
    assert!(took >= SHORT, "{took:?}");
    let mut rest = vec![0; 64 * 1024];
    while let Ok(1..) = timeout(SOON, reading.read(&mut rest)).await.expect("it is over") {}
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let lab = TestLab::start().await;
    let connect = |version: &'static str| {
        let address = lab.lab.addr.to_string();
        tokio::task::spawn_blocking(move || {
            let mut openssl = Command::new("openssl");
            openssl.args(["s_client", "-connect", &address, "-alpn", "http/1.1", version]);
            openssl.stdin(Stdio::null()).output()
        })
    };
    let Ok(refused) = connect("-tls1_2").await.unwrap() else {
        eprintln!("skipped: there is no openssl here");
        return;
    };
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("alert protocol version"), "{said}");
    assert!(connect("-tls1_3").await.unwrap().unwrap().status.success());
}

/// Reads until the Lab ends the connection, and says how long that took.
async fn until_closed(stream: &mut (impl AsyncReadExt + Unpin), what: &str) -> Duration {
    let start = Instant::now();
    let mut rest = [0; 1024];
    while let Ok(1..) = timeout(SOON, stream.read(&mut rest)).await.unwrap_or_else(|_| panic!("{what}: still open")) {}
    start.elapsed()
}

#[tokio::test]
async fn slow_and_silent_connections_end() {
    const SHORT: Duration = Duration::from_millis(200);
    // One limit at a time is short, so that each test can only pass through the limit that it names.
    let handshake = TestLab::with(|config| config.limits.handshake = SHORT).await;
    let mut silent = TcpStream::connect(handshake.lab.addr).await.unwrap();
    assert!(until_closed(&mut silent, "silent before the handshake").await >= SHORT);
    let mut half = TcpStream::connect(handshake.lab.addr).await.unwrap();
    half.write_all(&[22, 3, 1]).await.unwrap();
    until_closed(&mut half, "half a handshake").await;

    let head = TestLab::with(|config| config.limits.head = SHORT).await;
    let mut slow = head.tls(b"http/1.1").await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.unwrap();
    until_closed(&mut slow, "half a head").await;
    // Also the second head of a connection, whose first was in time.
    let mut second = head.tls(b"http/1.1").await;
    second.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first_byte = [0];
    second.read_exact(&mut first_byte).await.unwrap();
    second.write_all(b"GET").await.unwrap();
    until_closed(&mut second, "half a second head").await;

    let idle = TestLab::with(|config| config.limits.idle = SHORT).await;
    let mut done = idle.tls(b"http/1.1").await;
    done.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    done.read_exact(&mut first_byte).await.unwrap();
    until_closed(&mut done, "idle").await;
    let mut http2 = idle.tls(b"h2").await;
    until_closed(&mut http2, "idle http/2").await;
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_frees_the_port() {
    let mut lab = TestLab::start().await;
    let mut idle = lab.tls(b"http/1.1").await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first_byte = [0];
    idle.read_exact(&mut first_byte).await.unwrap();
    let addr = lab.lab.addr;
    timeout(SOON, lab.lab.shutdown()).await.unwrap().unwrap();
    until_closed(&mut idle, "idle at the end").await;
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn who_is_refused_is_told_why_after_a_long_body() {
    let lab = TestLab::start().await;
    let mut stream = lab.tls(b"http/1.1").await;
    // A client that looks at the answer when all of its body is sent, twice on one connection.
    for _ in 0..2 {
        let body = vec![b'a'; 1_000_000];
        let head = format!(
            "POST /api/conversations HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for piece in body.chunks(16 * 1024) {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("\"signed_out\""), "{answer}");
    }
}
