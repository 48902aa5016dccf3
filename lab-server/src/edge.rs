//! The Lab's door: accepts connections, speaks TLS 1.3, and keeps slow, greedy or silent ones from taking a place for ever.
//!
//! `axum::serve` is not used: it gives hyper no timer, and then hyper's limit on the time for a request's head silently becomes none.
//! A connection here has an end in each of its states: the handshake has one deadline, a request's head another, and a connection
//! that does nothing a third. A request that runs has none of the edge's; its own handler bounds it. A connection that was upgraded
//! to a WebSocket leaves the edge's clocks and keeps its place in the count.

pub(crate) mod attempts;
mod bare;
pub mod certificate;
mod clock;
mod headers;
pub(crate) mod leftover;
mod pace;
pub mod peer;

use std::{convert::Infallible, future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service;

use bare::Completed;
use clock::{Clock, Clocked};
use pace::Paced;
use peer::{Peer, Place, Places};

/// The edge's limits. They are constants of the program (SECURITY 4.11); a test may have shorter ones.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the TLS handshake, from the accepted connection on.
    pub handshake: Duration,
    /// For the head of an HTTP/1 request, from its first byte on, and from the handshake on for the first.
    pub head: Duration,
    /// For a connection on which no request runs.
    pub idle: Duration,
    /// For a caller who takes nothing of an answer that is there for them.
    pub stall: Duration,
    /// For requests that run when the Lab is told to stop.
    pub drain: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address (IPv6: one /64). This machine's own are not counted.
    pub connections_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            stall: Duration::from_secs(300),
            drain: Duration::from_secs(10),
            connections: 20_000,
            connections_per_address: 200,
        }
    }
}

/// Header fields of one request.
const MAX_HEADERS: usize = 64;
/// Bytes of an HTTP/1 head; also the most that is read at once.
const MAX_HEAD: usize = 32 * 1024;
/// Bytes of an HTTP/2 head.
const MAX_H2_HEAD: u32 = 16 * 1024;
/// Requests at once on one HTTP/2 connection. Their stream windows together bound what a connection can make the Lab hold.
const MAX_H2_STREAMS: u32 = 250;
/// A stream's window: what may arrive of a body before its handler reads.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// The connection's window: bodies that nobody reads yet do not stop the others before there are sixteen of them.
const H2_CONNECTION_WINDOW: u32 = 16 * H2_STREAM_WINDOW;
/// Streams reset for the peer's mistakes before the connection ends.
const MAX_H2_ERROR_RESETS: usize = 256;
/// HTTP/2 PING: a peer that vanished is noticed within the sum of the two.
const H2_PING_EVERY: Duration = Duration::from_secs(20);
/// How long a PING may go unanswered.
const H2_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long accepting rests after the system refused, which it does when file descriptors run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown`, then stops accepting, lets what runs end within [`Limits::drain`], and leaves.
///
/// Each request carries its [`Peer`] as an extension; each answer gets the headers of [`headers`].
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let door = Door {
        tls: TlsAcceptor::from(tls),
        http1: http1(),
        http2: http2(),
        router,
        limits,
        places: Places::new(limits.connections, limits.connections_per_address),
        closing: CancellationToken::new(),
    };
    let door = Arc::new(door);
    let connections = TaskTracker::new();
    let ending = CancellationToken::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((tcp, address)) => {
                    // Without a place the connection is dropped: an answer would cost more than it tells.
                    if let Some(place) = door.places.take(address.ip()) {
                        let connection = door.clone().admit(tcp, address, place);
                        connections.spawn(ending.clone().run_until_cancelled_owned(connection));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
        }
    }
    drop(listener);
    door.closing.cancel();
    connections.close();
    if tokio::time::timeout(limits.drain, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "ending connections that did not end in time");
        // Ended and waited for, so that each leaves its record before the store closes.
        ending.cancel();
        connections.wait().await;
    }
}

/// What every connection needs.
struct Door {
    tls: TlsAcceptor,
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
    router: Router,
    limits: Limits,
    places: Places,
    closing: CancellationToken,
}

impl Door {
    /// A connection's whole life.
    async fn admit(self: Arc<Self>, tcp: TcpStream, address: SocketAddr, place: Place) {
        // A token of 30 bytes must not wait for the acknowledgement of the one before.
        let _ = tcp.set_nodelay(true);
        let Ok(Some(stream)) = tokio::time::timeout(self.limits.handshake, self.handshake(tcp)).await else { return };
        let protocol = if stream.get_ref().1.alpn_protocol() == Some(b"h2") { Protocol::Http2 } else { Protocol::Http1 };
        let clock = Clock::start(protocol, self.limits);
        let stream = Clocked::new(stream, clock.clone(), place);
        self.converse(stream, Peer(address), protocol, &clock).await;
    }

    async fn handshake(&self, tcp: TcpStream) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
        if speaks_plain_http(&tcp).await? {
            refuse_plain_http(tcp).await;
            return None;
        }
        self.tls.accept(tcp).await.ok()
    }

    async fn converse<S>(&self, stream: S, peer: Peer, protocol: Protocol, clock: &Clock)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let builder = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        let service = hyper::service::service_fn(|request| answer(self.router.clone(), request, peer, clock.clone()));
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(Completed::new(stream)), service));
        tokio::select! {
            biased;
            // Errors here are the peer's: it went away, or did not speak HTTP.
            _ = clock.run(connection.as_mut()) => return,
            () = self.closing.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = clock.run(connection).await;
    }
}

/// Which HTTP the two sides agreed on during the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// One request: through the router, out with the headers that every answer has.
async fn answer(
    mut router: Router,
    mut request: Request<Incoming>,
    peer: Peer,
    clock: Clock,
) -> Result<Response<clock::Running>, Infallible> {
    let running = clock.request_began();
    request.extensions_mut().insert(peer);
    let mut response = router.call(request.map(|body| Body::from(Paced::new(body)))).await?;
    headers::secure(response.headers_mut());
    Ok(response.map(|body| running.until_sent(body)))
}

fn http1() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    // hyper's own limit on the head also counts the time before its first byte, so it would end idle connections; ours does not.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD);
    builder
}

fn http2() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_H2_STREAMS)
        .max_header_list_size(MAX_H2_HEAD)
        .max_local_error_reset_streams(MAX_H2_ERROR_RESETS)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .keep_alive_interval(H2_PING_EVERY)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    builder
}

/// Whether the first byte is a letter, as that of an HTTP request is; a TLS record begins with 22. `None` when the peer left.
async fn speaks_plain_http(tcp: &TcpStream) -> Option<bool> {
    let mut first = [0];
    match tcp.peek(&mut first).await {
        Ok(1) => Some(first[0].is_ascii_alphabetic()),
        _ => None,
    }
}

/// Says why in plain text, never in the API's own words: a program must not take this for an answer.
async fn refuse_plain_http(mut tcp: TcpStream) {
    const TEXT: &str = "this port speaks HTTPS only; use an address that begins with https://\n";
    let mut fields = http::HeaderMap::new();
    headers::secure(&mut fields);
    let mut head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n",
        TEXT.len()
    );
    for (name, value) in &fields {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    let _ = tcp.write_all(format!("{head}\r\n{TEXT}").as_bytes()).await;
    let _ = tcp.shutdown().await;
    // What was sent is read to its end, for a socket that is closed over unread bytes resets the answer away.
    let mut rest = [0; 4096];
    while let Ok(1..) = tokio::io::AsyncReadExt::read(&mut tcp, &mut rest).await {}
}
