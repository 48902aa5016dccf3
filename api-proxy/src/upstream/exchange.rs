//! One request and its answer over one connection.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    dial::Version,
    headers::MOST_FIELDS,
    pool::{Connection, Line, NoConnection, Pool, Sent, Slot, quietly},
};

/// A connection that was closed unnoticed says so within a round trip. One that is cut later may have cost its whole answer
/// already, which is not asked for again behind the caller's back.
const STALE_WITHIN: Duration = Duration::from_secs(2);

/// The rest of a provider's answer. Dropping it ends the request at the provider at once.
pub(crate) struct UpstreamBody {
    source: Source,
    idle: Duration,
    /// Rings when nothing came for too long; there from the first time that nothing was there.
    silence: Option<Pin<Box<Sleep>>>,
    /// Something came since it was wound.
    rewind: bool,
}

enum Source {
    Line { body: Incoming, line: Box<Line>, pool: Arc<Pool> },
    Stream { body: Incoming, _slot: Slot },
    Ended,
}

/// The answer broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokenOff {
    /// The connection ended or what came was no HTTP.
    Lost,
    /// Nothing came for too long.
    Silent,
}

/// An answer whose head and first bytes are there.
pub(super) struct Begun {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) first: Option<Bytes>,
    pub(super) body: UpstreamBody,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotBegun {
    /// The channel has too many connections.
    Full,
    /// It cannot be reached, or gave nothing that can be read.
    Failed,
    /// Nothing can be asked there in this way.
    Unaskable,
}

/// Sends a request and waits for the head of its answer and the first bytes.
///
/// A provider may close a connection at the moment at which a request goes out on it. That is seen by its saying nothing at all,
/// and the request is then sent once more over a connection that was opened since: several that have waited are often closed at once.
pub(super) async fn exchange(
    pool: &Arc<Pool>,
    idle: Duration,
    request: impl Fn(Version) -> Option<Request<Sent>>,
) -> Result<Begun, NotBegun> {
    let began = Instant::now();
    match once(pool, pool.connection().await?, idle, &request).await {
        Err(Broke::Stale) => once(pool, pool.opened_since(began).await?, idle, &request).await,
        other => other,
    }
    .map_err(|broke| match broke {
        Broke::Stale | Broke::Failed => NotBegun::Failed,
        Broke::Unaskable => NotBegun::Unaskable,
    })
}

/// Why one attempt came to nothing.
enum Broke {
    /// The request never got anywhere.
    Stale,
    /// It got somewhere, or nowhere over a connection that was new.
    Failed,
    /// There is no such request.
    Unaskable,
}

async fn once(
    pool: &Arc<Pool>,
    connection: Connection,
    idle: Duration,
    request: impl Fn(Version) -> Option<Request<Sent>>,
) -> Result<Begun, Broke> {
    let started = Instant::now();
    let is_early = || started.elapsed() < STALE_WITHIN;
    let (response, way) = match connection {
        Connection::Line(mut line, reused) => {
            let request = request(Version::Http1).ok_or(Broke::Unaskable)?;
            match over_line(&mut line, request).await {
                Ok(response) => (response, Way::Line(line)),
                Err(()) if reused && line.is_untouched() && is_early() => return Err(Broke::Stale),
                Err(()) => return Err(Broke::Failed),
            }
        }
        Connection::Slot(slot, reused) => {
            let request = request(Version::Http2).ok_or(Broke::Unaskable)?;
            match slot.sender().send_request(request).await {
                Ok(response) => (response, Way::Slot(slot)),
                Err(error) if is_stale(&error, reused && is_early()) => {
                    pool.forget(&slot);
                    return Err(Broke::Stale);
                }
                Err(_) => return Err(Broke::Failed),
            }
        }
    };
    let (head, body) = response.into_parts();
    if head.headers.len() > MOST_FIELDS || head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Broke::Failed);
    }
    let source = match way {
        Way::Line(line) => Source::Line { body, line, pool: Arc::clone(pool) },
        Way::Slot(slot) => Source::Stream { body, _slot: slot },
    };
    let mut body = UpstreamBody { source, idle, silence: None, rewind: false };
    let first = poll_fn(|cx| body.source.poll_bytes(cx)).await.transpose().map_err(|()| Broke::Failed)?;
    Ok(Begun { status: head.status, headers: head.headers, first, body })
}

/// What an answer came over.
enum Way {
    Line(Box<Line>),
    Slot(Slot),
}

/// Drives the connection until the head of the answer is there.
async fn over_line(line: &mut Line, request: Request<Sent>) -> Result<Response<Incoming>, ()> {
    line.begin();
    let mut response = pin!(line.sender.send_request(request));
    let response = poll_fn(|cx| {
        let stands = line.drive(cx);
        match quietly(|cx| response.as_mut().poll(cx)) {
            Poll::Pending if !stands => Poll::Ready(Err(())),
            polled => polled.map_err(drop),
        }
    })
    .await?;
    line.begun();
    Ok(response)
}

/// Whether a request over HTTP/2 got nowhere: the provider says that it did not look at it, or the connection, which was good
/// before, has ended.
fn is_stale(error: &hyper::Error, was_good: bool) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        if error.is::<std::io::Error>() {
            return was_good;
        }
        source = error.source();
    }
    // It never left.
    error.is_canceled() || error.is_closed()
}

impl UpstreamBody {
    /// The next bytes; `None` at the end.
    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        match self.source.poll_bytes(cx) {
            Poll::Ready(bytes) => {
                self.rewind = true;
                Poll::Ready(bytes.map(|bytes| bytes.map_err(|()| BrokenOff::Lost)))
            }
            Poll::Pending => {
                ready!(self.poll_silence(cx));
                self.source = Source::Ended;
                Poll::Ready(Some(Err(BrokenOff::Silent)))
            }
        }
    }

    /// Whether nothing comes any more, as far as that is known before it is asked for.
    pub(crate) fn has_ended(&self) -> bool {
        match &self.source {
            Source::Stream { body, .. } | Source::Line { body, .. } => body.is_end_stream(),
            Source::Ended => true,
        }
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(self.idle)));
        if mem::take(&mut self.rewind) {
            silence.as_mut().reset(Instant::now() + self.idle);
        }
        silence.as_mut().poll(cx)
    }
}

impl Source {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>> {
        loop {
            let (polled, is_last) = match self {
                Self::Line { body, line, .. } => (ready!(poll_line(body, line, cx)), body.is_end_stream()),
                Self::Stream { body, .. } => (ready!(Pin::new(&mut *body).poll_frame(cx)).map(|frame| frame.map_err(drop)), false),
                Self::Ended => return Poll::Ready(None),
            };
            match polled {
                Some(Ok(frame)) => {
                    if is_last {
                        // Whoever passes on an answer of known length may never ask for what comes behind it.
                        self.finish();
                    }
                    // Trailers end here: no API has any that means something.
                    if let Ok(bytes) = frame.into_data()
                        && !bytes.is_empty()
                    {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Some(Err(())) => {
                    *self = Self::Ended;
                    return Poll::Ready(Some(Err(())));
                }
                None => self.finish(),
            }
        }
    }

    /// The answer was read to its end.
    fn finish(&mut self) {
        if let Self::Line { line, pool, .. } = mem::replace(self, Self::Ended) {
            pool.give_back(line);
        }
    }
}

type Frame = http_body::Frame<Bytes>;

fn poll_line(body: &mut Incoming, line: &mut Line, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ()>>> {
    let taken = |body: &mut Incoming| quietly(|cx| Pin::new(&mut *body).poll_frame(cx)).map(|frame| frame.map(|f| f.map_err(drop)));
    // What was read already, first; asking for it also tells the connection that more is wanted.
    if let Poll::Ready(frame) = taken(body) {
        return Poll::Ready(frame);
    }
    let stands = line.drive(cx);
    match taken(body) {
        Poll::Pending if !stands => Poll::Ready(Some(Err(()))),
        polled => polled,
    }
}

impl From<NoConnection> for NotBegun {
    fn from(why: NoConnection) -> Self {
        match why {
            NoConnection::Full => Self::Full,
            NoConnection::Unreachable => Self::Failed,
        }
    }
}
