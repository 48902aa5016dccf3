//! The proxies against a plain echo server.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use journeys::connect_proxy::{Attempt, ConnectProxy, Manner};
use journeys::fault_proxy::{Fault, FaultProxy, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Says back everything, after `greeting`.
async fn echo(greeting: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(greeting).await?;
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    addr
}

async fn exchange(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(back, text);
}

/// What arrives, and how it ends.
async fn drain(stream: &mut TcpStream) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all).await;
    (all, end.map(|_| ()).map_err(|error| error.kind()))
}

/// Whether nothing arrives for a while.
async fn is_silent(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn bytes_pass_and_are_counted() {
    let proxy = FaultProxy::start(echo(b"hi").await);
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    stream.write_all(&[7; 300_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let (all, end) = drain(&mut stream).await;
    assert_eq!((all.len(), end), (300_002, Ok(())));
    proxy.wait_for(|traffic| traffic.connections == 0).await;
    assert_eq!(proxy.bytes(), (300_000, 300_002));
    assert_eq!(proxy.traffic().resets, 0);
}

#[tokio::test]
async fn a_cut_is_a_reset() {
    let proxy = FaultProxy::start(echo(b"").await);
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    exchange(&mut stream, b"one").await;
    assert_eq!(proxy.connections(), 1);
    proxy.cut();
    assert_eq!(drain(&mut stream).await, (vec![], Err(ErrorKind::ConnectionReset)));
    proxy.wait_for(|traffic| traffic.connections == 0 && traffic.resets == 1).await;
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    exchange(&mut stream, b"two").await;
}

#[tokio::test]
async fn a_cut_comes_at_exactly_its_byte() {
    let proxy = FaultProxy::start(echo(b"").await);
    for (way, bytes) in [(Way::Down, 0), (Way::Down, 1), (Way::Down, 20_001), (Way::Up, 70_001), (Way::Up, 5)] {
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        exchange(&mut stream, b"before").await;
        let (up, down) = proxy.bytes();
        let resets = proxy.traffic().resets;
        proxy.cut_after(way, bytes);
        // The reset may come while this is written.
        let _ = stream.write_all(&[7; 200_000]).await;
        let (all, end) = drain(&mut stream).await;
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
        proxy.wait_for(|traffic| traffic.resets == resets + 1).await;
        let passed = match way {
            Way::Up => proxy.bytes().0 - up,
            Way::Down => proxy.bytes().1 - down,
        };
        assert_eq!(passed, bytes, "{way:?}");
        if way == Way::Down {
            assert_eq!(all.len() as u64, bytes);
        }
    }
}

#[tokio::test]
async fn a_black_hole_swallows_nothing() {
    let proxy = FaultProxy::start(echo(b"").await);
    let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
    exchange(&mut old, b"before").await;
    proxy.set(Fault::BlackHole);
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    old.write_all(b"held").await.unwrap();
    new.write_all(b"held too").await.unwrap();
    assert!(is_silent(&mut old).await && is_silent(&mut new).await);
    assert_eq!(proxy.bytes(), (6, 6));
    proxy.set(Fault::Pass);
    let (mut four, mut eight) = ([0; 4], [0; 8]);
    old.read_exact(&mut four).await.unwrap();
    new.read_exact(&mut eight).await.unwrap();
    assert_eq!((&four, &eight), (b"held", b"held too"));
}

#[tokio::test]
async fn a_half_open_connection_never_thaws() {
    let proxy = FaultProxy::start(echo(b"").await);
    let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
    exchange(&mut old, b"before").await;
    proxy.set(Fault::HalfOpen);
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    exchange(&mut new, b"after").await;
    old.write_all(b"lost").await.unwrap();
    proxy.set(Fault::Pass);
    assert!(is_silent(&mut old).await);
    exchange(&mut new, b"still").await;
    proxy.cut();
    assert_eq!(drain(&mut old).await.1, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_refusal_resets_old_and_new() {
    let proxy = FaultProxy::start(echo(b"").await);
    let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
    exchange(&mut old, b"before").await;
    proxy.set(Fault::Refuse);
    assert_eq!(drain(&mut old).await.1, Err(ErrorKind::ConnectionReset));
    // Depending on who is faster, the reset is seen while connecting or at the first read.
    if let Ok(mut new) = TcpStream::connect(proxy.addr()).await {
        assert_eq!(drain(&mut new).await.1, Err(ErrorKind::ConnectionReset));
    }
    proxy.wait_for(|traffic| traffic.resets == 2).await;
    proxy.set(Fault::Pass);
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    exchange(&mut stream, b"again").await;
}

#[tokio::test]
async fn a_slow_line_is_slow() {
    let proxy = FaultProxy::start(echo(b"").await);
    let latency = Duration::from_millis(40);
    proxy.set(Fault::Slow { bytes_per_second: 100_000, latency });
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    let started = Instant::now();
    exchange(&mut stream, b"x").await;
    assert!(started.elapsed() >= 2 * latency, "{:?}", started.elapsed());
    let started = Instant::now();
    exchange(&mut stream, &[7; 20_000]).await;
    assert!(started.elapsed() >= Duration::from_millis(280), "{:?}", started.elapsed());
    // A change reaches the connections that live.
    proxy.set(Fault::Pass);
    let started = Instant::now();
    exchange(&mut stream, &[7; 20_000]).await;
    assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
}

#[tokio::test]
async fn new_connections_go_where_they_are_sent() {
    let proxy = FaultProxy::start(echo(b"a").await);
    let mut first = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(first.read_u8().await.unwrap(), b'a');
    proxy.retarget(echo(b"b").await);
    let mut second = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(second.read_u8().await.unwrap(), b'b');
    exchange(&mut first, b"stays").await;
}

#[tokio::test]
async fn the_idle_are_killed() {
    let proxy = FaultProxy::start(echo(b"").await);
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    exchange(&mut stream, b"busy").await;
    let limit = Duration::from_millis(150);
    proxy.kill_idle(Some(limit));
    let started = Instant::now();
    while started.elapsed() < 2 * limit {
        exchange(&mut stream, b"busy").await;
    }
    let last = Instant::now();
    assert_eq!(drain(&mut stream).await, (vec![], Err(ErrorKind::ConnectionReset)));
    assert!(last.elapsed() >= limit - Duration::from_millis(20), "{:?}", last.elapsed());
}

async fn knock(proxy: &ConnectProxy, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

#[tokio::test]
async fn tunnels_are_opened_for_whom_the_proxy_knows() {
    let target = echo(b"").await;
    let proxy = ConnectProxy::start(Manner::Open);
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let (mut stream, head) = knock(&proxy, &(request.clone() + "early")).await;
    assert!(head.starts_with("HTTP/1.1 200 "));
    let mut early = [0; 5];
    stream.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    exchange(&mut stream, b"through").await;

    proxy.set(Manner::Basic { user: "ana".into(), password: "s3cret".into() });
    let (_, head) = knock(&proxy, &request).await;
    assert!(head.starts_with("HTTP/1.1 407 ") && head.contains("Proxy-Authenticate: Basic realm=\"proxy\"\r\n"));
    let wrong = format!("CONNECT {target} HTTP/1.1\r\nProxy-Authorization: Basic YW5hOndyb25n\r\n\r\n");
    assert!(knock(&proxy, &wrong).await.1.starts_with("HTTP/1.1 407 "));
    let right = format!("CONNECT {target} HTTP/1.1\r\nproxy-authorization: Basic YW5hOnMzY3JldA==\r\n\r\n");
    let (mut stream, head) = knock(&proxy, &right).await;
    assert!(head.starts_with("HTTP/1.1 200 "));
    exchange(&mut stream, b"through").await;
    proxy.set(Manner::Deny);
    assert!(knock(&proxy, &request).await.1.starts_with("HTTP/1.1 403 "));
    let target = target.to_string();
    let attempt = |status| Attempt { target: target.clone(), status };
    proxy.wait_for(|attempts| attempts.len() == 5).await;
    assert_eq!(proxy.attempts(), [200, 407, 407, 200, 403].map(attempt));
}

#[tokio::test]
async fn a_captive_portal_answers_everybody() {
    let proxy = ConnectProxy::start(Manner::PortalRedirect);
    let (_, head) = knock(&proxy, "GET / HTTP/1.1\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\n"));
    proxy.set(Manner::PortalPage);
    let (mut stream, head) = knock(&proxy, "\u{16}\u{3}\u{1} not http at all").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"));
    let (body, _) = drain(&mut stream).await;
    assert!(body.starts_with(b"<html>"));
    assert_eq!(proxy.attempts(), []);
}
