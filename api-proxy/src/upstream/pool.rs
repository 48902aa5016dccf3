//! The open connections of one channel.
//!
//! HTTP/1 connections wait in a list, the one used last on top, so that those at the bottom grow old. Nothing runs for them: a
//! connection is polled by the request that uses it, in that request's own task, so that no other task has to be woken for each
//! packet. One that waits is looked at when it is taken, to notice that the provider has closed it meanwhile.
//!
//! HTTP/2 connections carry many requests and run as tasks. A new one is opened when all are full. As long as nobody knows what a
//! provider speaks, one request finds out and the others wait for it: a thousand at once open ten connections and not a thousand.
//!
//! What nobody used for [`Tuning::keep`] is closed whenever the channel is asked or its health is looked at. Between two such
//! moments there are at most [`MOST_IDLE`] sockets lying about, which the provider closes from its side.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::unconstrained,
    time::Instant,
};
use tokio_rustls::TlsConnector;
use wire::Content;

use super::{
    Tuning,
    dial::{Destination, Socket, Version},
};

/// Connections of one channel at most. More requests than that at one account over HTTP/1 are refused before they cost anything.
const MOST_CONNECTIONS: usize = 1024;
/// Waiting connections of one channel at most; the oldest give way.
const MOST_IDLE: usize = 256;
/// Requests on one HTTP/2 connection at most, whatever the provider would take: one lost packet holds up all of them.
const MOST_STREAMS: usize = 100;
/// Longest head of an answer.
const LONGEST_HEAD: usize = 32 << 10;
/// Bytes that may come before the head of an answer is whole. `100 Continue` and its kin come before it, in any number.
const LONGEST_PRELUDE: usize = 64 << 10;
/// What hyper keeps of an answer that is not taken away, so that a line without an end costs no more than this.
const READ_BUFFER: usize = 128 << 10;
/// What may be on its way on one HTTP/2 stream: at 100 ms, 5 MB/s.
const STREAM_WINDOW: u32 = 512 << 10;
/// And on one connection: enough for callers who read slowly to hold up nobody else.
const CONNECTION_WINDOW: u32 = MOST_STREAMS as u32 * STREAM_WINDOW;
/// A connection with requests on it that does not answer a ping for this long is dead.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// The body of a request.
pub(super) type Sent = Full<Content>;

/// The connections of a channel.
pub(super) struct Pool {
    destination: Destination,
    tls: TlsConnector,
    tuning: Tuning,
    /// As many as may still be opened.
    room: Arc<Semaphore>,
    open: Mutex<Open>,
    /// Held by whoever opens a connection that others may share.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Open {
    idle: VecDeque<(Instant, Box<Line>)>,
    shared: Vec<Arc<Shared>>,
    /// What the provider spoke last.
    version: Option<Version>,
    /// How often none could be opened.
    failures: u64,
}

/// A way to send one request.
pub(super) enum Connection {
    /// Over HTTP/1. The flag says that it was used before, so that the provider may have closed it unnoticed.
    Line(Box<Line>, bool),
    /// Over HTTP/2. Likewise.
    Slot(Slot, bool),
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoConnection {
    /// There are too many.
    Full,
    /// None could be opened.
    Unreachable,
}

impl Pool {
    pub(super) fn new(destination: Destination, tls: TlsConnector, tuning: Tuning) -> Self {
        let open = Open { version: destination.version(), ..Open::default() };
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        Self { destination, tls, tuning, room, open: Mutex::new(open), opening: tokio::sync::Mutex::default() }
    }

    /// A connection that is ready for a request.
    pub(super) async fn connection(&self) -> Result<Connection, NoConnection> {
        while let Some(mut line) = self.pop() {
            if line.is_waiting() {
                return Ok(Connection::Line(line, true));
            }
        }
        self.shared_or_new(None).await
    }

    /// Likewise, but one that was not open yet at that time: a new one, or one that somebody else has opened since.
    pub(super) async fn opened_since(&self, time: Instant) -> Result<Connection, NoConnection> {
        self.shared_or_new(Some(time)).await
    }

    async fn shared_or_new(&self, since: Option<Instant>) -> Result<Connection, NoConnection> {
        let failures = {
            let mut open = self.lock();
            if let Some(slot) = open.slot(since) {
                return Ok(Connection::Slot(slot, true));
            }
            (open.version != Some(Version::Http1)).then_some(open.failures)
        };
        let Some(failures) = failures else { return self.dial().await };
        // Whoever comes next may find room on the connection that is being opened.
        let turn = self.opening.lock().await;
        {
            let mut open = self.lock();
            if let Some(slot) = open.slot(since) {
                return Ok(Connection::Slot(slot, true));
            }
            if open.failures != failures {
                return Err(NoConnection::Unreachable);
            }
            if open.version == Some(Version::Http1) {
                drop(turn);
            }
        }
        self.dial().await
    }

    /// Takes back a connection whose answer was read to its end.
    pub(super) fn give_back(&self, mut line: Box<Line>) {
        if line.is_waiting() {
            let now = Instant::now();
            let mut open = self.lock();
            let aged = open.sweep(now, self.tuning.keep);
            open.idle.push_back((now, line));
            let surplus = (open.idle.len() > MOST_IDLE).then(|| open.idle.pop_front());
            drop(open);
            // Sockets are closed where nobody waits for the lock.
            drop((aged, surplus));
        }
    }

    /// Has no further request go over the connection.
    pub(super) fn forget(&self, slot: &Slot) {
        self.lock().shared.retain(|shared| !Arc::ptr_eq(shared, &slot.0));
    }

    /// Closes what nobody used for long.
    pub(super) fn sweep(&self) {
        let aged = self.lock().sweep(Instant::now(), self.tuning.keep);
        drop(aged);
    }

    fn pop(&self) -> Option<Box<Line>> {
        let mut open = self.lock();
        let aged = open.sweep(Instant::now(), self.tuning.keep);
        let line = open.idle.pop_back();
        drop(open);
        drop(aged);
        line.map(|(_, line)| line)
    }

    async fn dial(&self) -> Result<Connection, NoConnection> {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else { return Err(NoConnection::Full) };
        let dialled = async {
            match self.destination.dial(&self.tls, self.tuning.connect).await? {
                (socket, Version::Http1) => Line::new(socket, permit).await.map(|line| Connection::Line(Box::new(line), false)),
                (socket, Version::Http2) => {
                    Shared::new(socket, permit).await.map(|shared| Connection::Slot(Slot::new(&shared), false))
                }
            }
        }
        .await;
        let mut open = self.lock();
        match dialled {
            Ok(connection) => {
                if let Connection::Slot(slot, _) = &connection {
                    open.shared.push(Arc::clone(&slot.0));
                }
                let is_line = matches!(connection, Connection::Line(..));
                open.version = Some(if is_line { Version::Http1 } else { Version::Http2 });
                Ok(connection)
            }
            Err(_) => {
                open.failures += 1;
                Err(NoConnection::Unreachable)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections that are to be closed.
type Aged = (Vec<(Instant, Box<Line>)>, Vec<Arc<Shared>>);

impl Open {
    /// Room on a connection that is there, and where a time is given was not there before it.
    fn slot(&mut self, since: Option<Instant>) -> Option<Slot> {
        self.shared.retain(|shared| !shared.sender.is_closed());
        self.shared
            .iter()
            .filter(|shared| since.is_none_or(|since| shared.opened >= since))
            .find(|shared| shared.streams.load(Ordering::Relaxed) < shared.most.load(Ordering::Relaxed))
            .map(Slot::new)
    }

    fn sweep(&mut self, now: Instant, keep: Duration) -> Aged {
        let old = self.idle.iter().take_while(|(since, _)| now.duration_since(*since) >= keep).count();
        let lines = self.idle.drain(..old).collect();
        (lines, self.shared.extract_if(.., |shared| shared.is_unused(now, keep)).collect())
    }
}

/// An HTTP/1 connection. Dropping it closes it.
pub(super) struct Line {
    pub(super) sender: http1::SendRequest<Sent>,
    connection: http1::Connection<TokioIo<Counted>, Sent>,
    /// It has ended, and must not be polled again.
    over: bool,
    prelude: Arc<Prelude>,
    _permit: OwnedSemaphorePermit,
}

impl Line {
    async fn new(socket: Socket, permit: OwnedSemaphorePermit) -> io::Result<Self> {
        let prelude = Arc::new(Prelude::default());
        let io = TokioIo::new(Counted { socket, prelude: Arc::clone(&prelude) });
        let mut builder = http1::Builder::new();
        builder.max_header_size(LONGEST_HEAD).max_buf_size(READ_BUFFER);
        let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
        Ok(Self { sender, connection, over: false, prelude, _permit: permit })
    }

    /// Reads and writes what can be; whether the connection still stands.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        self.over = self.over || Pin::new(&mut self.connection).poll(cx).is_ready();
        !self.over
    }

    /// Whether it is ready for a request, both ends considered. Afterwards its socket wakes nobody.
    fn is_waiting(&mut self) -> bool {
        quietly(|cx| if self.drive(cx) { Poll::Pending } else { Poll::Ready(()) }).is_pending() && self.sender.is_ready()
    }

    /// A request goes out: the head of its answer has not begun.
    pub(super) fn begin(&self) {
        self.prelude.0.store(LONGEST_PRELUDE, Ordering::Relaxed);
    }

    /// The head of the answer is there.
    pub(super) fn begun(&self) {
        self.prelude.0.store(Prelude::NO_LIMIT, Ordering::Relaxed);
    }

    /// Whether the provider has said nothing since the request went out.
    pub(super) fn is_untouched(&self) -> bool {
        self.prelude.0.load(Ordering::Relaxed) == LONGEST_PRELUDE
    }
}

/// Polls what is ready only after its connection was polled, which the caller does: nobody has to be woken for it. Tokio's budget
/// is left out, because who is told "later" by it would be waiting for a waker that does nothing.
pub(super) fn quietly<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    pin!(unconstrained(poll_fn(poll))).poll(&mut Context::from_waker(Waker::noop()))
}

/// How many bytes may still come before the head of an answer is whole. Only the task that has the connection writes it.
struct Prelude(AtomicUsize);

impl Prelude {
    const NO_LIMIT: usize = usize::MAX;
}

impl Default for Prelude {
    fn default() -> Self {
        Self(AtomicUsize::new(Self::NO_LIMIT))
    }
}

/// A socket that counts what comes before a head.
struct Counted {
    socket: Socket,
    prelude: Arc<Prelude>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = self.prelude.0.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        if left != Prelude::NO_LIMIT {
            self.prelude.0.store(left.saturating_sub(buf.filled().len() - before), Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

/// An HTTP/2 connection. It is closed when nobody holds it.
struct Shared {
    sender: http2::SendRequest<Sent>,
    streams: AtomicUsize,
    most: Arc<AtomicUsize>,
    opened: Instant,
    used: Mutex<Instant>,
}

impl Shared {
    async fn new(socket: Socket, permit: OwnedSemaphorePermit) -> io::Result<Arc<Self>> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(MOST_STREAMS)
            .max_header_list_size(LONGEST_HEAD as u32);
        let (sender, mut connection) = builder.handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
        let most = Arc::new(AtomicUsize::new(MOST_STREAMS));
        let told = Arc::clone(&most);
        // It ends with the connection, which ends when its last sender is gone.
        tokio::spawn(async move {
            let _permit = permit;
            poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                told.store(connection.current_max_send_streams().clamp(1, MOST_STREAMS), Ordering::Relaxed);
                // How it ended, each of its requests is told for itself.
                polled.map(drop)
            })
            .await;
        });
        let opened = Instant::now();
        Ok(Arc::new(Self { sender, streams: AtomicUsize::new(0), most, opened, used: Mutex::new(opened) }))
    }

    fn is_unused(&self, now: Instant, keep: Duration) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.streams.load(Ordering::Relaxed) == 0 && now.duration_since(used) >= keep
    }
}

/// Room for one request on an HTTP/2 connection, until it is dropped.
pub(super) struct Slot(Arc<Shared>);

impl Slot {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }

    /// The connection's sender.
    pub(super) fn sender(&self) -> http2::SendRequest<Sent> {
        self.0.sender.clone()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_than_there_is_room_for_is_refused_at_once() {
        let roots = rustls::RootCertStore::empty();
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let pool = Pool::new(Destination::new(&base).unwrap(), TlsConnector::from(Arc::new(tls)), Tuning::default());
        assert_eq!(pool.room.forget_permits(MOST_CONNECTIONS - 1), MOST_CONNECTIONS - 1);
        let only = pool.connection().await;
        assert!(matches!(only, Ok(Connection::Line(_, false))));
        assert_eq!(pool.connection().await.err(), Some(NoConnection::Full));
        drop(only);
        assert!(pool.connection().await.is_ok());
    }
}
