//! A provider's answer on its way to a caller: bytes pass as they come, and every way to end is priced and settled.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::task::JoinHandle;
use wire::Content;

use super::{Flight, HangUp, drain, recordable};
use crate::{
    Aborted, NotAdmitted, Protocol, RecordOutcome, Usage,
    error::ProxyError,
    estimate,
    manners::{Manners, Tail},
    tap::{Framing, Reading, Shape, Tap},
    upstream::{UpstreamAnswer, UpstreamBody},
};

/// A provider's own answer was an error, which the caller got as it was.
const PROVIDER_ERROR: RecordOutcome = RecordOutcome::Failed("provider_error");
/// The provider broke off, or fell silent.
const UPSTREAM_ERROR: RecordOutcome = RecordOutcome::Failed("upstream_error");
const UPSTREAM_TIMEOUT: RecordOutcome = RecordOutcome::Failed("upstream_timeout");
/// The stream ended without its protocol's own end.
const TRUNCATED: RecordOutcome = RecordOutcome::Failed("upstream_truncated");

/// A provider's answer on its way to a caller. Dropping it is how the caller hangs up.
pub(crate) struct CloudBody(Option<Box<Passage>>);

impl CloudBody {
    pub(super) fn new(passage: Passage) -> Self {
        Self(Some(Box::new(passage)))
    }

    pub(crate) fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Content, Aborted>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |passage| passage.poll_content(cx))
    }

    /// The key under which this runs was revoked.
    pub(crate) fn revoke(&mut self) {
        if let Some(passage) = &mut self.0 {
            passage.revoke();
        }
    }
}

impl Drop for CloudBody {
    fn drop(&mut self) {
        if let Some(passage) = self.0.take() {
            passage.hung_up();
        }
    }
}

/// The bytes' way, with or without somebody at its end.
pub(crate) struct Passage {
    /// `None` once the request is settled, or is about to be by whoever counts its tokens.
    flight: Option<Flight>,
    status: StatusCode,
    /// Whose errors are spoken; `None` when nobody listens.
    protocol: Option<Protocol>,
    manners: Manners,
    tail: Tail,
    tap: Tap,
    /// What goes out before anything else is looked at.
    next: Option<Content>,
    stage: Stage,
}

enum Stage {
    /// Bytes pass.
    Passing(UpstreamBody),
    /// They have passed, and their tokens are being counted.
    Counting(JoinHandle<()>),
    /// The end cannot be told in words.
    Breaking,
    /// It is over.
    Over,
}

impl Passage {
    pub(super) fn new(
        answer: UpstreamAnswer,
        content_type: Option<&HeaderValue>,
        mut flight: Flight,
        protocol: Option<Protocol>,
    ) -> Self {
        let status = recordable(answer.status);
        let manners = Manners::of_answer(content_type, status, flight.account.streamed);
        let framing = match manners {
            Manners::Events => Framing::Events,
            Manners::Json if status.is_success() => Framing::Json,
            Manners::Json | Manners::Lines | Manners::Opaque => Framing::Opaque,
        };
        flight.account.answered_by = Some(answer.kind);
        let tap = Tap::new(Shape::of(flight.account.endpoint), framing, flight.account.words());
        flight.entry.note_status(status);
        let mut body = Self {
            flight: Some(flight),
            status,
            protocol,
            manners,
            tail: Tail::Nothing,
            tap,
            next: None,
            stage: Stage::Passing(answer.body),
        };
        match answer.first {
            Some(first) => body.pass(first),
            None => body.end_if_over(),
        }
        body
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Content, Aborted>>> {
        loop {
            // Before the last bytes: whoever has had a whole answer finds its record.
            if let Stage::Counting(counting) = &mut self.stage {
                // The entry settles itself if counting panics.
                let _ = ready!(Pin::new(counting).poll(cx));
                self.stage = Stage::Over;
            }
            if let Some(content) = self.next.take() {
                return Poll::Ready(Some(Ok(content)));
            }
            match &mut self.stage {
                Stage::Passing(body) => match ready!(body.poll_bytes(cx)) {
                    Some(Ok(bytes)) => self.pass(bytes),
                    Some(Err(why)) => self.break_off(&ProxyError::BrokenOff(why)),
                    None => self.end(),
                },
                Stage::Breaking => {
                    self.stage = Stage::Over;
                    return Poll::Ready(Some(Err(Aborted)));
                }
                Stage::Counting(_) => {}
                Stage::Over => return Poll::Ready(None),
            }
        }
    }

    fn revoke(&mut self) {
        if matches!(self.stage, Stage::Passing(_)) {
            self.break_off(&ProxyError::NotAdmitted(NotAdmitted::Unknown));
        }
    }

    /// The caller went away: whoever stops then is dropped, and what is paid for all the same is read to its end.
    fn hung_up(mut self: Box<Self>) {
        let Some(flight) = &self.flight else { return };
        let drains = flight.account.hang_up() == HangUp::Drains;
        if drains && !self.had_all() && self.status.is_success() && matches!(self.stage, Stage::Passing(_)) {
            let (places, limit) = (Arc::clone(&flight.account.drains), flight.account.drain_limit());
            self.protocol = None;
            drain(&places, limit, async move { self.read_to_end().await });
        }
    }

    /// A caller who does not wait for the end after the last word has had the whole answer.
    fn had_all(&self) -> bool {
        self.next.is_none() && self.protocol.is_some() && self.tap.has_ended()
    }

    /// Reads to the end for the sake of the bill.
    pub(super) async fn read_to_end(&mut self) {
        while let Some(Ok(_)) = poll_fn(|cx| self.poll_content(cx)).await {}
    }

    fn pass(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.tap.read(&bytes);
        let Some(flight) = &mut self.flight else { return };
        flight.entry.note_byte();
        let bytes = match &mut flight.account.strip {
            Some(strip) => strip.pass(bytes),
            None => bytes,
        };
        if !bytes.is_empty() {
            self.tail = self.tail.after(&bytes);
            self.next = Some(bytes.into());
        }
        self.end_if_over();
    }

    /// Whoever sends on an answer of known length never asks for what comes behind its last byte: its end is seen with that.
    fn end_if_over(&mut self) {
        if matches!(&self.stage, Stage::Passing(body) if body.has_ended()) {
            self.end();
        }
    }

    /// All of it has come.
    fn end(&mut self) {
        self.stage = Stage::Over;
        let Some(mut flight) = self.flight.take() else { return };
        if let Some(rest) = flight.account.strip.as_mut().and_then(crate::exact::Strip::finish) {
            let before = self.next.take().unwrap_or_default();
            self.next = Some(Bytes::from([before.for_routing(), &rest[..]].concat()).into());
        }
        let reading = self.tap.reading();
        let outcome = match self.protocol {
            None => RecordOutcome::Cancelled,
            Some(_) if !self.status.is_success() || reading.failed => PROVIDER_ERROR,
            Some(_) if self.manners == Manners::Events && !reading.ended => TRUNCATED,
            Some(_) => RecordOutcome::Complete,
        };
        let came_to_nothing = matches!(outcome, PROVIDER_ERROR | TRUNCATED) && reading.usage.is_none() && reading.text.all() == 0;
        if !self.status.is_success() || came_to_nothing {
            flight.entry.settle(outcome);
        } else if let Some(counting) = flight.settle_by(reading, outcome) {
            self.stage = Stage::Counting(counting);
        }
    }

    /// It came to no good end, and the caller is told where there is a way to tell.
    fn break_off(&mut self, error: &ProxyError) {
        self.stage = Stage::Breaking;
        let Some(flight) = self.flight.take() else { return };
        let (request, surface) = (flight.entry.request(), flight.entry.surface());
        self.cut_short(flight, RecordOutcome::Failed(error.code()));
        let words = |protocol| self.manners.last_words(self.tail, protocol, surface, error, request);
        if let Some(words) = self.protocol.and_then(words) {
            self.next = Some(words);
            self.stage = Stage::Over;
        }
    }

    /// Settles what did not come to its end.
    fn cut_short(&mut self, flight: Flight, outcome: RecordOutcome) {
        let reading = self.tap.reading();
        // Whom the provider left before a word owes nothing; who left the provider owes what it had begun to do.
        let came_to_nothing =
            matches!(outcome, UPSTREAM_ERROR | UPSTREAM_TIMEOUT) && reading.usage.is_none() && reading.text.all() == 0;
        if !self.status.is_success() || came_to_nothing {
            flight.settle_unused(outcome);
        } else {
            // It settles when it is counted, whether anybody waits for that or not.
            drop(flight.settle_by(reading, outcome));
        }
    }
}

impl Flight {
    fn settle(mut self, usage: &Usage, estimated: bool, outcome: RecordOutcome) {
        let mut used = self.account.used(self.entry.time(), usage, estimated);
        if estimated {
            // An estimate is nobody's word: it never costs more than was set aside for the truth.
            used.cost_nano = used.cost_nano.min(self.entry.reserved_nano());
        }
        self.entry.note_used(used);
        self.entry.settle(outcome);
    }

    fn settle_unused(mut self, outcome: RecordOutcome) {
        self.entry.settle(outcome);
    }

    /// Settles by what the provider told, and where that is not all by what has passed. Where the request's words were kept for it
    /// their tokens are counted, away from the runtime; otherwise lengths must do.
    fn settle_by(mut self, reading: Reading, outcome: RecordOutcome) -> Option<JoinHandle<()>> {
        if let Some(usage) = self.account.known(&reading) {
            self.settle(&usage, false, outcome);
            return None;
        }
        if self.account.endpoint.is_free() {
            self.settle_unused(outcome);
            return None;
        }
        let runtime = tokio::runtime::Handle::try_current().ok();
        match self.account.request.take().zip(runtime) {
            Some((request, runtime)) => Some(runtime.spawn_blocking(move || {
                let whole = estimate::counted(self.account.endpoint, &self.account.model.id, &request, &reading);
                let usage = self.account.as_asked(whole, &reading);
                self.settle(&usage, true, outcome);
            })),
            None => {
                let whole = estimate::guessed(self.account.request_bytes, &reading);
                let usage = self.account.as_asked(whole, &reading);
                self.settle(&usage, true, outcome);
                None
            }
        }
    }
}

impl Drop for Passage {
    /// It ends before its end, unless it is over.
    fn drop(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        if self.had_all() {
            drop(flight.settle_by(self.tap.reading(), RecordOutcome::Complete));
        } else {
            self.cut_short(flight, RecordOutcome::Cancelled);
        }
    }
}
