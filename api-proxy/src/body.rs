//! The body of the proxy's answer: bytes pass through as they come, and every way to end is accounted for.
//!
//! A stream's end has four faces. Complete: the body ends. Failed: the dialect's error is appended, or the body breaks off where a
//! reader would otherwise take half a document for a whole one. Dropped: the caller hung up, and the workstation is told by
//! dropping its [`AnswerBody`]. Panicked: the entry settles itself while the stack unwinds. Each settles the request's one record.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use serde::de::IgnoredAny;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use wire::{
    Content,
    relay::{Ending, Failure, Outcome},
};

use crate::{
    Answer, AnswerBody, Leash, NotAdmitted, NotRelayed, Part, Protocol, RecordOutcome,
    cloud::CloudBody,
    error::ProxyError,
    manners::{Manners, Tail, event},
    settle::Entry,
};

/// How long a caller is left without a byte. Intermediaries give up on a silent answer after 60 to 125 s, headers or not; a byte
/// every 20 s was measured to be enough.
pub(crate) const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// The longest error text of Ollama's that is carried into a stream of events, in bytes.
const LONGEST_ERROR: usize = 64 << 10;

/// An answer that has not begun.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Result<Answer, NotRelayed>> + Send>>;

/// The body of the proxy's answer.
pub struct ProxyBody {
    kind: Kind,
    leash: Leashed,
    /// It is about to be [`Aborted`].
    is_breaking: bool,
}

enum Kind {
    Whole(Option<Content>),
    Relayed(Box<Relayed>),
    Provided(CloudBody),
}

/// Whether the key under which an answer runs still holds.
enum Leashed {
    /// Nothing runs any more.
    Free,
    /// Looked at whenever something passes; while nothing does, nobody waits yet.
    Held(Leash),
    /// Nothing passes, and a revocation wakes.
    Waiting(Leash, Pin<Box<WaitForCancellationFutureOwned>>),
}

impl Leashed {
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Held(leash) = self {
            *self = Self::Waiting(leash.clone(), Box::pin(leash.clone().cancelled_owned()));
        }
        match self {
            Self::Free | Self::Held(_) => Poll::Pending,
            Self::Waiting(_, waiting) => waiting.as_mut().poll(cx).map(|()| *self = Self::Free),
        }
    }

    fn is_lost(&mut self) -> bool {
        let lost = matches!(self, Self::Held(leash) | Self::Waiting(leash, _) if leash.is_cancelled());
        if lost {
            *self = Self::Free;
        }
        lost
    }
}

/// The request's body came too slowly. Whoever reads it from the network fails it with this, and the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's body came too slowly")]
pub struct TooSlow;

/// The answer broke off: what was received is not the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off before its end")]
pub struct Aborted;

impl ProxyBody {
    /// A body that is there already.
    pub(crate) fn whole(content: Content) -> Self {
        Self { kind: Kind::Whole(Some(content)), leash: Leashed::Free, is_breaking: false }
    }

    /// A body that comes from a workstation.
    pub(crate) fn relayed(entry: Entry, protocol: Protocol, manners: Manners, source: Source, leash: Leash) -> Self {
        let kind = Kind::Relayed(Box::new(Relayed::new(entry, protocol, manners, source)));
        Self { kind, leash: Leashed::Held(leash), is_breaking: false }
    }

    /// A body that comes from a provider.
    pub(crate) fn provided(body: CloudBody, leash: Leash) -> Self {
        Self { kind: Kind::Provided(body), leash: Leashed::Held(leash), is_breaking: false }
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Content, Aborted>>> {
        match &mut self.kind {
            Kind::Whole(content) => Poll::Ready(content.take().map(Ok)),
            Kind::Relayed(relayed) => relayed.poll_content(cx),
            Kind::Provided(body) => body.poll_content(cx),
        }
    }

    /// The key was revoked: the answer ends, and says why.
    fn revoke(&mut self) {
        match &mut self.kind {
            Kind::Whole(_) => {}
            Kind::Relayed(relayed) => relayed.revoke(),
            Kind::Provided(body) => body.revoke(),
        }
    }
}

impl Body for ProxyBody {
    type Data = Content;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Content>, Aborted>>> {
        if self.is_breaking {
            return Poll::Ready(Some(Err(Aborted)));
        }
        if self.leash.is_lost() {
            self.revoke();
        }
        let mut content = self.poll_content(cx);
        if content.is_pending() && self.leash.poll_lost(cx).is_ready() {
            self.revoke();
            content = self.poll_content(cx);
        }
        if matches!(content, Poll::Ready(Some(Err(Aborted)))) {
            // A server that hears of a broken body drops what it has not written yet, the head even. It writes when a body has
            // nothing to give: what came before the break goes out first.
            self.is_breaking = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        content.map(|content| content.map(|content| content.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.kind, Kind::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(content) => SizeHint::with_exact(content.as_ref().map_or(0, |c| c.len() as u64)),
            Kind::Relayed(_) | Kind::Provided(_) => SizeHint::default(),
        }
    }
}

/// How far an answer had come when its head was sent.
pub(crate) enum Source {
    /// The workstation has not said anything: the head was the proxy's own.
    Waiting(Pending),
    /// Its head and maybe its first bytes are there.
    Answering {
        /// Its status, as sent on to the caller.
        status: StatusCode,
        /// The first bytes.
        first: Option<Content>,
        /// The rest.
        body: AnswerBody,
    },
    /// It has a head and no body.
    Ended {
        /// Its status, as sent on to the caller.
        status: StatusCode,
        /// How it ended.
        ending: Ending,
    },
}

/// An answer on its way from a workstation to a caller.
struct Relayed {
    entry: Entry,
    protocol: Protocol,
    manners: Manners,
    tail: Tail,
    keepalive: Option<Pin<Box<Sleep>>>,
    /// What goes out before anything else is looked at.
    next: Option<Content>,
    stage: Stage,
}

enum Stage {
    /// The head went out under the proxy's own hand; the workstation is silent.
    Waiting(Pending),
    /// Bytes pass.
    Passing { status: StatusCode, body: AnswerBody },
    /// The answer is an error, and the head that went out said there would be events: gather it, to say it in one.
    Gathering { body: AnswerBody, text: BytesMut },
    /// It ended, and nothing has come of that yet.
    Ended { status: StatusCode, ending: Ending },
    /// The end cannot be told in words.
    Breaking,
    /// It is over.
    Over,
}

/// What the caller gets to see of an end.
#[derive(Debug, PartialEq, Eq)]
enum Close {
    /// The body simply ends.
    Clean,
    /// They must be told.
    Tell(ProxyError),
}

impl Relayed {
    fn new(mut entry: Entry, protocol: Protocol, manners: Manners, source: Source) -> Self {
        let mut next = None;
        let mut tail = Tail::Nothing;
        let stage = match source {
            Source::Waiting(pending) => {
                next = manners.keepalive();
                Stage::Waiting(pending)
            }
            Source::Answering { status, first, body } => {
                if let Some(first) = &first {
                    entry.note_byte();
                    tail = tail.after(first.for_routing());
                }
                next = first.or_else(|| manners.keepalive());
                Stage::Passing { status, body }
            }
            Source::Ended { status, ending } => Stage::Ended { status, ending },
        };
        let silent = tail == Tail::Nothing && next.is_some();
        let keepalive = silent.then(|| Box::pin(sleep(KEEPALIVE_EVERY)));
        Self { entry, protocol, manners, tail, keepalive, next, stage }
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Content, Aborted>>> {
        loop {
            if let Some(content) = self.next.take() {
                return Poll::Ready(Some(Ok(content)));
            }
            match &mut self.stage {
                Stage::Waiting(pending) => match pending.as_mut().poll(cx) {
                    Poll::Ready(Ok(answer)) => self.answered(answer),
                    Poll::Ready(Err(why)) => self.fail(&why.into()),
                    Poll::Pending => ready!(self.poll_keepalive(cx)),
                },
                Stage::Passing { status, body } => match body.poll_part(cx) {
                    Poll::Ready(Part::Bytes(content)) => self.pass(content),
                    Poll::Ready(Part::End(ending)) => self.stage = Stage::Ended { status: *status, ending },
                    Poll::Pending => ready!(self.poll_keepalive(cx)),
                },
                Stage::Gathering { body, text } => match body.poll_part(cx) {
                    Poll::Ready(Part::Bytes(content)) => {
                        let room = LONGEST_ERROR.saturating_sub(text.len());
                        text.extend_from_slice(&content.for_routing()[..room.min(content.len())]);
                    }
                    Poll::Ready(Part::End(_)) => {
                        let text = mem::take(text);
                        self.explain(&text);
                    }
                    Poll::Pending => ready!(self.poll_keepalive(cx)),
                },
                Stage::Ended { status, ending } => {
                    let (status, ending) = (*status, *ending);
                    self.end(status, ending);
                }
                Stage::Breaking => {
                    self.stage = Stage::Over;
                    return Poll::Ready(Some(Err(Aborted)));
                }
                Stage::Over => return Poll::Ready(None),
            }
        }
    }

    /// Ready with something to say when the caller has heard nothing for too long.
    fn poll_keepalive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.keepalive else { return Poll::Pending };
        ready!(sleep.as_mut().poll(cx));
        sleep.as_mut().reset(Instant::now() + KEEPALIVE_EVERY);
        self.next = self.manners.keepalive();
        Poll::Ready(())
    }

    /// The workstation's head came after the proxy's own had gone out with status 200.
    fn answered(&mut self, answer: Answer) {
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
        self.stage = if self.manners == Manners::Events && !status.is_success() {
            Stage::Gathering { body: answer.body, text: BytesMut::new() }
        } else {
            Stage::Passing { status, body: answer.body }
        };
    }

    fn pass(&mut self, content: Content) {
        if !content.is_empty() {
            self.entry.note_byte();
            self.keepalive = None;
            self.tail = self.tail.after(content.for_routing());
            self.next = Some(content);
        }
    }

    fn end(&mut self, status: StatusCode, ending: Ending) {
        let (close, outcome) = close(self.manners, status, ending.outcome);
        if let Some(usage) = ending.usage {
            self.entry.note_used(usage.into());
        }
        self.entry.settle(outcome);
        match close {
            Close::Clean => self.stage = Stage::Over,
            Close::Tell(error) => self.tell(&error),
        }
    }

    /// Dropping what the answer came from is how its workstation is told.
    fn revoke(&mut self) {
        if !matches!(self.stage, Stage::Breaking | Stage::Over) {
            self.next = None;
            self.fail(&ProxyError::NotAdmitted(NotAdmitted::Unknown));
        }
    }

    /// The request came to nothing after its head had gone out.
    fn fail(&mut self, error: &ProxyError) {
        self.entry.settle(RecordOutcome::Failed(error.code()));
        self.tell(error);
    }

    fn tell(&mut self, error: &ProxyError) {
        self.next = self.manners.last_words(self.tail, self.protocol, self.entry.surface(), error, self.entry.request());
        self.stage = if self.next.is_some() { Stage::Over } else { Stage::Breaking };
    }

    /// Ollama's own error, gathered, as an event.
    fn explain(&mut self, text: &[u8]) {
        let is_an_object = text.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(text).is_ok();
        if !is_an_object {
            return self.fail(&ProxyError::OllamaError);
        }
        self.entry.settle(RecordOutcome::Failed(ProxyError::OllamaError.code()));
        self.next = Some(event(self.tail, self.protocol, text));
        self.stage = Stage::Over;
    }
}

impl Drop for Relayed {
    /// A caller who hangs up after the last byte has had the whole answer. In every other case the entry knows what to say.
    fn drop(&mut self) {
        if let (None, Stage::Passing { status, body }) = (&self.next, &mut self.stage)
            && let Some(ending) = body.end_in_hand()
        {
            let (_, outcome) = close(self.manners, *status, ending.outcome);
            if let Some(usage) = ending.usage {
                self.entry.note_used(usage.into());
            }
            self.entry.settle(outcome);
        }
    }
}

/// What an end means: for the caller who saw this status, and for the record.
fn close(manners: Manners, status: StatusCode, outcome: Outcome) -> (Close, RecordOutcome) {
    let Some(error) = ProxyError::of_ending(outcome) else {
        return (Close::Clean, RecordOutcome::Complete);
    };
    match outcome {
        Outcome::Cancelled => (Close::Tell(error), RecordOutcome::Cancelled),
        // Ollama's own words have told it: as an answer with an error status, or as the stream's last line.
        Outcome::Failed(Failure::OllamaError) if !status.is_success() || manners == Manners::Lines => {
            (Close::Clean, RecordOutcome::Failed(error.code()))
        }
        Outcome::Complete | Outcome::Failed(_) => {
            let outcome = RecordOutcome::Failed(error.code());
            (Close::Tell(error), outcome)
        }
    }
}
