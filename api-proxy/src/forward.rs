//! One request's whole life: ingress, admit, route, forward, settle.

use std::{error::Error, future::Future, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE, request};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};
use wire::{
    Content, DeviceId,
    relay::{Dialect, Failure, MAX_BODY, Operation, Outcome, RefusalCode},
};

use crate::{
    Answer, Bridges, Caller, Listing, Meter, NotRelayed, Order, Part, Presence, ProxyBody, RecordOutcome, Surface,
    body::{KEEPALIVE_EVERY, Pending, Source},
    error::ProxyError,
    head, keys, listing,
    manners::Manners,
    route::{self, Affinity},
    scan::scan,
    settle::{Arrival, Entry, Ledger, ledger},
    surface::{MODEL_PATH, dialect_at, surface},
};

/// The proxy: told by `M` who asks, telling it one record for each request, asking the workstations through `B`.
pub struct Proxy<M, B> {
    meter: Arc<M>,
    bridges: Arc<B>,
    ledger: Ledger,
    affinity: Affinity,
}

impl<M: Meter, B: Bridges> Proxy<M, B> {
    /// A proxy between these two.
    pub fn new(meter: Arc<M>, bridges: Arc<B>) -> Self {
        let ledger = ledger(&meter);
        Self { meter, bridges, ledger, affinity: Affinity::default() }
    }

    /// Answers one request.
    ///
    /// Dropping this future or the answer's body is how a caller hangs up; the workstation then stops at once. A request whose key
    /// was found good settles exactly one [`Record`](crate::Record), however it ends.
    pub async fn handle<R>(&self, request: Request<R>) -> Response<ProxyBody>
    where
        R: Body<Data = Bytes> + Send,
        R::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let arrival = Arrival::now();
        let (head, body) = request.into_parts();
        let dialect = dialect_of(&head);
        let (surface, caller) = match self.admit(&head).await {
            Ok(admitted) => admitted,
            Err(error) => return error.response(dialect, arrival.request),
        };
        let mut entry = Entry::open(&self.ledger, arrival, caller, surface);
        let answer = match surface {
            Surface::Relay(operation) => self.forward(operation, caller, body, &mut entry).await,
            Surface::Listing(listing) => self.list(listing, &head, caller),
        };
        match answer {
            Ok(answer) => answer.into_response(dialect, entry),
            Err(error) => {
                entry.refuse(&error);
                error.response(dialect, arrival.request)
            }
        }
    }

    /// Whose request it is, and for what. The body has not been touched: nobody without a key makes the Lab read one.
    async fn admit(&self, head: &request::Parts) -> Result<(Surface, Caller), ProxyError> {
        let surface = surface(&head.method, head.uri.path()).ok_or(ProxyError::NoSuchRoute)?;
        let key = keys::presented(&head.headers).map_err(ProxyError::NotAdmitted)?;
        let caller = self.meter.admit(key).await.map_err(ProxyError::NotAdmitted)?;
        Ok((surface, caller))
    }

    /// From the body to the first byte of the answer, or to the moment when the caller has waited too long for one.
    async fn forward<R>(&self, operation: Operation, caller: Caller, body: R, entry: &mut Entry) -> Result<Forwarded, ProxyError>
    where
        R: Body<Data = Bytes> + Send,
        R::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let content = read(body).await?;
        let asked = scan(content.for_routing())?;
        let streamed = can_stream(operation) && asked.stream.unwrap_or(operation.streams_by_default());
        entry.note_stream(streamed);
        let wanted = route::wanted(operation.dialect(), asked.model.as_deref())?;

        let expected = Manners::expected(operation, streamed);
        let patience = expected.keepalive().map(|_| Instant::now() + KEEPALIVE_EVERY);
        let mut workstations = self.bridges.workstations(caller.user);
        let mut refused = None;
        loop {
            let last = self.affinity.last(caller.key, &wanted.model);
            let device = match route::choose(&wanted, operation, &workstations, last) {
                Ok(device) => device,
                Err(error) => return Err(refused.unwrap_or(error)),
            };
            self.affinity.remember(caller.key, &wanted.model, device);
            // Only now: a name that no workstation has is a caller's text like any other, and is not kept.
            entry.note_model(&wanted.model);
            entry.note_device(device);
            let mut pending = self.relay(device, Order { operation, body: content.for_retry(), streamed });
            match until(patience, &mut pending).await {
                None => return Ok(Forwarded::committed(device, expected, pending)),
                Some(Ok(answer)) => return begun(device, answer, patience).await,
                Some(Err(why)) if another_may_do_it(&why) => {
                    // The caller has waited already: no second attempt goes to one whose link may stay away.
                    workstations.retain(|w| w.device != device && w.presence == Presence::Online);
                    refused.get_or_insert(why.into());
                }
                Some(Err(why)) => return Err(why.into()),
            }
        }
    }

    fn relay(&self, device: DeviceId, order: Order) -> Pending {
        let bridges = Arc::clone(&self.bridges);
        Box::pin(async move { bridges.relay(device, order).await })
    }

    fn list(&self, listing: Listing, head: &request::Parts, caller: Caller) -> Result<Forwarded, ProxyError> {
        let workstations = self.bridges.workstations(caller.user);
        let anthropic = dialect_of(head) == Dialect::Anthropic;
        let list = match listing {
            Listing::Models if anthropic => listing::anthropic_models(&workstations),
            Listing::Models => listing::openai_models(&workstations),
            Listing::Model => {
                let id = unescaped(head.uri.path().strip_prefix(MODEL_PATH).unwrap_or_default());
                if anthropic { listing::anthropic_one(&id, &workstations)? } else { listing::openai_one(&id, &workstations)? }
            }
            Listing::Tags => listing::tags(&workstations),
            Listing::Running => listing::running(&workstations),
            Listing::Version => listing::version(&workstations)?,
        };
        Ok(Forwarded::Listed(Bytes::from(list.to_string()).into()))
    }
}

/// What is known when the head of the answer goes out.
enum Forwarded {
    /// The proxy's own answer.
    Listed(Content),
    /// A workstation's.
    Relayed { device: DeviceId, status: StatusCode, content_type: HeaderValue, manners: Manners, source: Source },
}

impl Forwarded {
    /// The workstation is still silent, and the answer begins without it.
    fn committed(device: DeviceId, manners: Manners, pending: Pending) -> Self {
        let (status, content_type) = (StatusCode::OK, manners.content_type());
        Self::Relayed { device, status, content_type, manners, source: Source::Waiting(pending) }
    }

    fn into_response(self, dialect: Dialect, mut entry: Entry) -> Response<ProxyBody> {
        let request = entry.request();
        match self {
            Self::Listed(content) => {
                entry.note_status(StatusCode::OK);
                entry.settle(RecordOutcome::Complete, None);
                let mut response = head::response(StatusCode::OK, request, ProxyBody::whole(content));
                response.headers_mut().insert(CONTENT_TYPE, head::json(dialect));
                response
            }
            Self::Relayed { device, status, content_type, manners, source } => {
                entry.note_status(status);
                let body = ProxyBody::relayed(entry, dialect, manners, source);
                head::relayed(status, content_type, device, request, body)
            }
        }
    }
}

/// The head of a workstation's answer with its first bytes: what breaks before them can still be told with a status.
async fn begun(device: DeviceId, mut answer: Answer, patience: Option<Instant>) -> Result<Forwarded, ProxyError> {
    // 1xx would not be an answer.
    let status = StatusCode::from_u16(answer.status).ok().filter(|s| !s.is_informational()).unwrap_or(StatusCode::BAD_GATEWAY);
    let first = loop {
        match until(patience, answer.body.part()).await {
            Some(Part::Bytes(content)) if content.is_empty() => {}
            first => break first,
        }
    };
    let source = match first {
        None => Source::Answering { status, first: None, body: answer.body },
        Some(Part::Bytes(content)) => Source::Answering { status, first: Some(content), body: answer.body },
        Some(Part::End(ending)) => match ProxyError::of_ending(ending.outcome) {
            // An error of Ollama's that says nothing but its status.
            Some(_) if ending.outcome == Outcome::Failed(Failure::OllamaError) && !status.is_success() => {
                Source::Ended { status, ending }
            }
            Some(error) => return Err(error),
            None => Source::Ended { status, ending },
        },
    };
    let manners = Manners::of(&answer.content_type);
    Ok(Forwarded::Relayed { device, status, content_type: answer.content_type, manners, source })
}

/// Whether nothing was started there and another workstation may be able to.
fn another_may_do_it(why: &NotRelayed) -> bool {
    match why {
        NotRelayed::Offline => true,
        NotRelayed::LinkLost => false,
        NotRelayed::Refused(refusal) => match refusal.code {
            RefusalCode::ModelNotShared
            | RefusalCode::OperationNotShared
            | RefusalCode::Paused
            | RefusalCode::QueueFull
            | RefusalCode::OllamaUnavailable
            | RefusalCode::OllamaTooOld => true,
            RefusalCode::Unlisted
            | RefusalCode::InvalidBody
            | RefusalCode::TooLarge
            | RefusalCode::FieldNotAllowed
            | RefusalCode::ModelNotLocal
            | RefusalCode::UnknownRelay
            | RefusalCode::OffsetGone => false,
        },
    }
}

/// Whether the operation knows streams at all; the others ignore `stream`, as Ollama does.
fn can_stream(operation: Operation) -> bool {
    match operation {
        Operation::OllamaEmbed | Operation::OllamaShow | Operation::OpenaiEmbeddings => false,
        Operation::OllamaChat
        | Operation::OllamaGenerate
        | Operation::OpenaiChat
        | Operation::OpenaiCompletions
        | Operation::OpenaiResponses
        | Operation::AnthropicMessages => true,
    }
}

/// The future's output; `None` when patience ran out before.
async fn until<F: Future>(patience: Option<Instant>, future: F) -> Option<F::Output> {
    match patience {
        Some(end) => timeout_at(end, future).await.ok(),
        None => Some(future.await),
    }
}

/// The whole body, up to [`MAX_BODY`].
async fn read<R>(body: R) -> Result<Content, ProxyError>
where
    R: Body<Data = Bytes>,
    R::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(ProxyError::BodyTooLarge);
    }
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(ProxyError::BodyTooLarge),
        Err(_) => Err(ProxyError::BodyBroken),
    }
}

/// Decided by the path; where two dialects share one, by the header that one of them requires.
fn dialect_of(head: &request::Parts) -> Dialect {
    match dialect_at(head.uri.path()) {
        Dialect::Openai if is_models(head.uri.path()) && speaks_anthropic(&head.headers) => Dialect::Anthropic,
        dialect => dialect,
    }
}

fn is_models(path: &str) -> bool {
    path == "/v1/models" || path.starts_with(MODEL_PATH)
}

fn speaks_anthropic(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version")
}

/// A path's segment with its percent escapes undone; bytes that are no UTF-8 become the replacement character, which is in no name.
fn unescaped(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, ..] => hex_digit(*high).zip(hex_digit(*low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        for (segment, text) in [
            ("local/a:1", "local/a:1"),
            ("local%2Fa%3a1", "local/a:1"),
            ("local%40b%C3%A9/a", "local@bé/a"),
            ("%", "%"),
            ("%2", "%2"),
            ("%zz%41", "%zzA"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(unescaped(segment), text, "{segment}");
        }
    }
}
