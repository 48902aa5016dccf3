//! The body of an answer: whole, streamed token by token, or one of those that nobody should have to read.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::behaviour::Behaviour;
use super::bomb::Bomb;
use super::log::Ticket;
use super::tape::{self, Tape};
use crate::fake_ollama::gate::{Gates, Point};

/// A line without an end is written in pieces of this many bytes.
const PIECE: usize = 64 << 10;
/// How long such a line is.
const LINE: u64 = 1 << 30;

/// The body of an answer.
pub(super) enum Answer {
    Whole(Option<Bytes>),
    /// The first half of a document, then a cut connection.
    Half {
        half: Option<Bytes>,
        whole: u64,
        flushed: bool,
    },
    Stream(Box<Playback>),
    Line(Line),
    Bomb(Bomb, Ticket),
}

impl Answer {
    /// A document; none at all where it is empty.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }

    pub(super) fn half(bytes: &Bytes) -> Self {
        Self::Half { half: Some(bytes.slice(..bytes.len() / 2)), whole: bytes.len() as u64, flushed: false }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Half { half, flushed, .. } => match half.take() {
                Some(half) => Poll::Ready(Some(Ok(Frame::data(half)))),
                None => cut(flushed, context),
            },
            Self::Stream(playback) => playback.poll_frame(context),
            Self::Line(line) => Poll::Ready(line.next().map(|piece| Ok(Frame::data(piece)))),
            Self::Bomb(bomb, ticket) => {
                let piece = bomb.next();
                if piece.is_none() {
                    ticket.finish();
                }
                Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Half { whole, .. } => SizeHint::with_exact(*whole),
            Self::Stream(_) | Self::Line(_) | Self::Bomb(..) => SizeHint::default(),
        }
    }
}

type Polled = Poll<Option<std::io::Result<Frame<Bytes>>>>;

/// Cuts the connection, after what was written before has reached the socket.
fn cut(flushed: &mut bool, context: &Context<'_>) -> Polled {
    if !std::mem::replace(flushed, true) {
        context.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(Some(Err(std::io::Error::other("cut as was asked for"))))
}

/// A line of 1 GiB.
pub(super) struct Line {
    first: Option<Bytes>,
    piece: Bytes,
    left: u64,
    ticket: Ticket,
}

impl Line {
    pub(super) fn new(first: &'static str, ticket: Ticket) -> Self {
        Self { first: Some(Bytes::from_static(first.as_bytes())), piece: vec![b'x'; PIECE].into(), left: LINE, ticket }
    }

    fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.left == 0 {
            self.ticket.finish();
            return None;
        }
        self.left = self.left.saturating_sub(PIECE as u64);
        Some(self.piece.clone())
    }
}

/// A streamed answer. Dropped before its end, its client is gone.
pub(super) struct Playback {
    frames: std::iter::Peekable<std::vec::IntoIter<tape::Frame>>,
    behaviour: Behaviour,
    /// What is said in the stream when it fails.
    failure: Bytes,
    gates: Arc<Gates>,
    /// The model, by which gates know it.
    model: String,
    ticket: Ticket,
    /// Tokens that were written.
    tokens: u32,
    /// When the next token is due. The schedule is absolute, so late timers do not add up.
    due: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    hold: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Whether what was written must reach the socket before the next write.
    flush: bool,
    flushed: bool,
    ended: bool,
}

impl Playback {
    pub(super) fn new(
        tape: Tape,
        failure: Bytes,
        behaviour: Behaviour,
        (gates, model): (Arc<Gates>, String),
        ticket: Ticket,
    ) -> Self {
        Self {
            frames: tape.frames.into_iter().peekable(),
            behaviour,
            failure,
            gates,
            model,
            ticket,
            tokens: 0,
            due: Instant::now(),
            timer: None,
            hold: None,
            flush: false,
            flushed: false,
            ended: false,
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled {
        if self.ended {
            return Poll::Ready(None);
        }
        if std::mem::take(&mut self.flush) {
            // The server writes to the socket when a body has nothing to give.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let is_token = self.frames.peek().is_some_and(|frame| frame.is_token);
        if is_token && (self.poll_hold(context).is_pending() || self.poll_due(context).is_pending()) {
            return Poll::Pending;
        }
        self.step(context)
    }

    fn poll_hold(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.hold.is_none()
            && let Some(hold) = self.gates.hold(&self.model, Point::Token(self.tokens))
        {
            self.ticket.held(true);
            self.hold = Some(Box::pin(hold));
        }
        let Some(hold) = &mut self.hold else { return Poll::Ready(()) };
        let released = hold.as_mut().poll(context);
        if released.is_ready() {
            self.hold = None;
            self.ticket.held(false);
        }
        released
    }

    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.behaviour.delay.is_zero() || Instant::now() >= self.due {
            return Poll::Ready(());
        }
        let due = self.due;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(context)
    }

    fn step(&mut self, context: &Context<'_>) -> Polled {
        let now = Some(self.tokens);
        if now == self.behaviour.hang_at {
            // Only the client's leaving ends this.
            return Poll::Pending;
        }
        if now == self.behaviour.cut_at {
            let cut = cut(&mut self.flushed, context);
            if cut.is_ready() {
                self.end();
            }
            return cut;
        }
        if now == self.behaviour.end_at {
            self.end();
            return Poll::Ready(None);
        }
        if now == self.behaviour.fail_at {
            self.end();
            return Poll::Ready(Some(Ok(Frame::data(self.failure.clone()))));
        }
        let Some(frame) = self.frames.next() else {
            self.end();
            return Poll::Ready(None);
        };
        if frame.is_token {
            self.tokens += 1;
            self.ticket.token();
            self.due += self.behaviour.delay;
            self.flush = self.behaviour.write_each;
        }
        if self.frames.peek().is_none() {
            // The client may leave at once when it has read this, and is no deserter.
            self.ticket.finish();
        }
        Poll::Ready(Some(Ok(Frame::data(frame.bytes))))
    }

    fn end(&mut self) {
        self.ended = true;
        self.ticket.finish();
    }
}
