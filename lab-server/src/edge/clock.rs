//! When a connection has had its time: a head that does not end, or a connection on which nothing happens.
//!
//! The connection's task runs both the connection and its alarm. An alarm that is set too early is set again when it rings, so the
//! usual request costs a lock and no timer.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};

use super::{Limits, Protocol, peer::Place};

/// What a connection is doing, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A head is arriving.
    Head(Instant),
    /// So many requests run.
    Busy(usize),
    /// Nothing.
    Idle(Instant),
}

/// A connection's clock; clones show the same time.
#[derive(Clone)]
pub(super) struct Clock {
    /// With the time since which the peer takes nothing of what is there for it.
    state: Arc<Mutex<(State, Option<Instant>)>>,
    /// Over HTTP/2, where a caller may take bytes of the connection and none of an answer: when each answer last gave something that
    /// nobody has asked to go on from.
    given: Arc<Mutex<Vec<Weak<Given>>>>,
    started: Instant,
    protocol: Protocol,
    limits: Limits,
}

/// When an answer last gave a piece, in milliseconds since the clock was started; 0 while it is asked for the next one, which its
/// maker may take any time for.
#[derive(Default)]
struct Given(AtomicU64);

impl Clock {
    /// Over HTTP/1 a head is expected at once; HTTP/2 begins with settings.
    pub(super) fn start(protocol: Protocol, limits: Limits) -> Self {
        let now = Instant::now();
        let state = match protocol {
            Protocol::Http1 => State::Head(now),
            Protocol::Http2 => State::Idle(now),
        };
        Self { state: Arc::new(Mutex::new((state, None))), given: Arc::default(), started: now, protocol, limits }
    }

    /// Bytes arrived. On an idle HTTP/1 connection they begin a head; over HTTP/2 they may be anything, and hyper bounds the rest.
    fn bytes_arrived(&self) {
        if self.protocol == Protocol::Http1 {
            self.update(|state| if matches!(state, State::Idle(_)) { State::Head(Instant::now()) } else { state });
        }
    }

    /// A head is complete.
    pub(super) fn request_began(&self) -> Request {
        self.update(|state| match state {
            State::Busy(running) => State::Busy(running + 1),
            State::Head(_) | State::Idle(_) => State::Busy(1),
        });
        Request(self.clone())
    }

    fn request_ended(&self) {
        self.update(|state| match state {
            State::Busy(running @ 2..) => State::Busy(running - 1),
            _ => State::Idle(Instant::now()),
        });
    }

    /// The peer takes no more bytes just now, or takes some again.
    fn stalled(&self, since: Option<Instant>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = since;
    }

    /// Whether somebody leaves an answer unread for longer than is borne. It ends the connection, which is all its caller's.
    fn is_left_unread(&self) -> bool {
        let limit = self.millis().saturating_sub(u64::try_from(self.limits.stall.as_millis()).unwrap_or(u64::MAX));
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|given| given.strong_count() > 0);
        let is_old = |given: Arc<Given>| (1..=limit).contains(&given.0.load(Ordering::Relaxed));
        given.iter().filter_map(Weak::upgrade).any(is_old)
    }

    /// Never 0.
    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Until when the connection may go on like this; `None` while a request runs whose caller listens.
    fn deadline(&self) -> Option<Instant> {
        let (state, stalled) = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let doing = match state {
            State::Head(since) => Some(since + self.limits.head),
            State::Busy(_) => None,
            State::Idle(since) => Some(since + self.limits.idle),
        };
        let stalled = stalled.map(|since| since + self.limits.stall);
        [doing, stalled].into_iter().flatten().min()
    }

    fn update(&self, next: impl FnOnce(State) -> State) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = next(state.0);
    }

    /// Runs the connection to its end; `None` when its time was up first.
    pub(super) async fn run<F: Future>(&self, mut connection: Pin<&mut F>) -> Option<F::Output> {
        let mut alarm = pin!(sleep_until(self.deadline().unwrap_or_else(|| Instant::now() + self.limits.idle)));
        poll_fn(|cx| {
            if let Poll::Ready(output) = connection.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if let Some(deadline) = self.deadline().filter(|deadline| *deadline < alarm.deadline()) {
                alarm.as_mut().reset(deadline);
            }
            while alarm.as_mut().poll(cx).is_ready() {
                let now = Instant::now();
                match self.deadline() {
                    Some(deadline) if deadline <= now => return Poll::Ready(None),
                    Some(deadline) => alarm.as_mut().reset(deadline),
                    None if self.is_left_unread() => return Poll::Ready(None),
                    // A request may end without this task's being woken; look again when an idle time could be over.
                    None => alarm.as_mut().reset(now + self.limits.idle.min(self.limits.stall)),
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// A request that runs, until it is dropped.
pub(super) struct Request(Clock);

impl Request {
    /// Makes it last until the answer's body is sent or given up.
    pub(super) fn until_sent(self, body: Body) -> Running {
        let given = (self.0.protocol == Protocol::Http2).then(|| {
            let given = Arc::new(Given::default());
            self.0.given.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&given));
            given
        });
        Running { body, given, request: self }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// An answer's body, as long as whose request runs.
pub(super) struct Running {
    body: Body,
    /// Over HTTP/2 only.
    given: Option<Arc<Given>>,
    request: Request,
}

impl HttpBody for Running {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(given) = &self.given {
            let since = if frame.is_pending() { 0 } else { self.request.0.millis() };
            given.0.store(since, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's bytes, watched by its clock, with its place in the count.
pub(super) struct Clocked<S> {
    stream: S,
    clock: Clock,
    /// Whether the clock was told that the peer takes nothing.
    stalled: bool,
    _place: Place,
}

impl<S> Clocked<S> {
    pub(super) fn new(stream: S, clock: Clock, place: Place) -> Self {
        Self { stream, clock, stalled: false, _place: place }
    }

    fn note<T>(&mut self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() != self.stalled {
            self.stalled = written.is_pending();
            self.clock.stalled(self.stalled.then(Instant::now));
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Clocked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.clock.bytes_arrived();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Clocked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(written)
    }
}
