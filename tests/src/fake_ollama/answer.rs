//! The body of an answer: whole, generated, or the progress of a pull.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::{Sleep, sleep};

use super::Shared;
use super::generation::Generation;
use super::json::encode;
use super::log::Ticket;
use super::models::Model;

/// Go's server says the length of an answer that fits into its buffer, and sends a longer one in chunks. In bytes.
const BUFFER: usize = 2048;
/// How often a download reports, as Ollama does.
const TICK: Duration = Duration::from_millis(60);

/// The body of an answer.
pub(super) enum Answer {
    Whole(Option<Bytes>),
    /// A document in one piece whose length was not known when its headers left.
    Flushed(Option<Bytes>),
    Stream(Box<Generation>),
    Pull(Box<Pull>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Whole(bytes) | Self::Flushed(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(generation) => generation.poll_frame(context),
            Self::Pull(pull) => pull.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None) | Self::Flushed(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(None) => SizeHint::with_exact(0),
            Self::Whole(Some(bytes)) if bytes.len() <= BUFFER => SizeHint::with_exact(bytes.len() as u64),
            Self::Whole(_) | Self::Flushed(_) | Self::Stream(_) | Self::Pull(_) => SizeHint::default(),
        }
    }
}

/// A whole answer with its type; no body at all where it is empty.
pub(super) fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Answer> {
    let body = body.into();
    let mut response = Response::new(Answer::Whole((!body.is_empty()).then_some(body)));
    *response.status_mut() = status;
    if !content_type.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

/// A whole answer whose headers had to leave before its length was known.
pub(super) fn flushed(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Answer> {
    let mut response = stream(content_type, Answer::Flushed(Some(body)));
    *response.status_mut() = status;
    response
}

/// A streamed answer.
pub(super) fn stream(content_type: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A download in progress. Dropped before its end, its client is gone and the model is not there.
pub(super) struct Pull {
    shared: Arc<Shared>,
    model: String,
    ticket: Ticket,
    events: VecDeque<Event>,
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone)]
struct Event {
    after: Duration,
    line: serde_json::Value,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Progress,
    Success,
    Failure,
}

impl Pull {
    /// The download of a model: three layers of four reports; one whose name contains `fail` breaks off in the first.
    pub(super) fn new(shared: Arc<Shared>, model: String, ticket: Ticket) -> Self {
        let mut events = VecDeque::new();
        let mut add = |after, kind, line| events.push_back(Event { after, line, kind });
        add(Duration::ZERO, Kind::Progress, json!({"status": "pulling manifest"}));
        'layers: for (layer, total) in [("weights", 2_019_377_376_u64), ("template", 1429), ("license", 11_357)] {
            let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(format!("{model}/{layer}")));
            for quarter in 0..=4 {
                let mut line =
                    json!({"status": format!("pulling {}", &digest[..12]), "digest": format!("sha256:{digest}"), "total": total});
                // Zero is left out.
                if quarter > 0 {
                    line["completed"] = (total * quarter / 4).into();
                }
                add(if quarter > 0 { TICK } else { Duration::ZERO }, Kind::Progress, line);
                if quarter == 2 && model.contains("fail") {
                    add(TICK, Kind::Failure, json!({"error": "max retries exceeded: EOF"}));
                    break 'layers;
                }
            }
        }
        if !model.contains("fail") {
            for status in ["verifying sha256 digest", "writing manifest"] {
                add(Duration::ZERO, Kind::Progress, json!({"status": status}));
            }
            add(Duration::ZERO, Kind::Success, json!({"status": "success"}));
        }
        Self { shared, model, ticket, events, timer: None }
    }

    /// Runs it to its end without reporting.
    pub(super) async fn run_to_end(mut self) -> Response<Answer> {
        while let Some(event) = self.events.pop_front() {
            sleep(event.after).await;
            if self.end(event.kind) {
                let status = if event.kind == Kind::Failure { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
                return whole(status, "application/json", encode(&event.line));
            }
        }
        // Unreachable: the last event is an end.
        whole(StatusCode::INTERNAL_SERVER_ERROR, "", Bytes::new())
    }

    /// Settles an event that is the end; says whether it was.
    fn end(&mut self, kind: Kind) -> bool {
        if kind == Kind::Success {
            self.shared.store().add(Model::new(&self.model));
        }
        if kind != Kind::Progress {
            self.ticket.finish();
        }
        kind != Kind::Progress
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let Some(event) = self.events.front() else { return Poll::Ready(None) };
        if !event.after.is_zero() {
            let after = event.after;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(after)));
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
        }
        let Some(event) = self.events.pop_front() else { return Poll::Ready(None) };
        self.end(event.kind);
        let mut line = encode(&event.line);
        line.push(b'\n');
        Poll::Ready(Some(Ok(Frame::data(line.into()))))
    }
}
