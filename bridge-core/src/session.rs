//! One life of the link: an HTTP/2 server on which the Lab asks, from a closed list.
//!
//! Every request is checked against that list and the owner's policy when it arrives, not when the link came up. What is not on
//! the page of [`wire::relay`] is answered 400 `unlisted` and reaches nothing.

mod control;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    time::MissedTickBehavior,
};
use wire::{
    RelayId,
    relay::{
        CONNECTION_WINDOW, CONTROL_PATH, ENDING, Ending, FROM_BRIDGE, FROM_OLLAMA, Goodbye, MAX_BODY, OPERATION, ORIGIN, Operation,
        PING_EVERY, PING_TIMEOUT, PULL_PATH, RELAYS_PATH, Refusal, RefusalCode, SILENCE_LIMIT, STREAM_WINDOW,
    },
    stream::LinkStream,
};

use crate::{
    relay::{Attachment, Head, Read, Room},
    shared::Shared,
};

/// Streams beyond the relays: control, cancels, resumes that overlap what they replace.
const SPARE_STREAMS: u32 = 32;
/// The link's requests carry three short headers.
const MAX_HEADERS: u32 = 4 << 10;
/// The `Host` of every request on the link.
const AUTHORITY: &str = "bridge";

/// How a life of the link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// The other end closed it, or the network did.
    Closed,
    /// Nothing was heard for too long.
    Silent,
}

/// What the Lab said on the control stream that concerns the link itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkSignal {
    /// The Lab is going away: dial anew now, and let this link finish what runs on it.
    Drain,
    /// The Lab ends this link, and dialling again at once would be wrong.
    Goodbye(Goodbye),
}

/// Serves the Lab until the link ends.
pub(crate) async fn serve<T>(io: LinkStream<T>, shared: Arc<Shared>, signals: mpsc::Sender<LinkSignal>) -> SessionEnd
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pulse = io.pulse();
    let policy = shared.policy();
    let streams = policy.max_concurrent.saturating_add(policy.max_queued).saturating_add(SPARE_STREAMS);
    let service = service_fn({
        let shared = Arc::clone(&shared);
        move |request| {
            let (shared, signals) = (Arc::clone(&shared), signals.clone());
            async move { Ok::<_, Infallible>(answer(request, shared, signals).await) }
        }
    });
    let mut connection = std::pin::pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_concurrent_streams(streams)
            // Clients that complete as one types cancel by the dozen; the streams are bounded by the line above.
            .max_pending_accept_reset_streams(streams as usize)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(io), service)
    );
    // HTTP/2's own keep-alive says goodbye before it lets go, and on a dead socket whose buffer is full that never leaves.
    let mut watchdog = tokio::time::interval(Duration::from_secs(1));
    watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // How it broke is the network's affair; the dial that follows tells the owner what is wrong, if something is.
            _ = &mut connection => return SessionEnd::Closed,
            _ = watchdog.tick() => {
                let limit = if shared.relays.is_wanted() { SILENCE_LIMIT } else { PING_EVERY + PING_TIMEOUT };
                if pulse.silence() > limit {
                    return SessionEnd::Silent;
                }
            }
        }
    }
}

/// The request's whole life: what is it, may it be, do it.
async fn answer(request: Request<Incoming>, shared: Arc<Shared>, signals: mpsc::Sender<LinkSignal>) -> Response<Body> {
    let asked = match Asked::parse(&request) {
        Ok(asked) => asked,
        // An answer to HEAD has no body.
        Err(_) if request.method() == Method::HEAD => return plain(StatusCode::BAD_REQUEST),
        Err(refusal) => return refused(&refusal),
    };
    let attachment = match asked {
        Asked::Control => return control::open(request.into_body(), shared, signals),
        Asked::Start { id, operation } => match read_body(request, &shared).await {
            Ok((body, room)) => shared.relays.start(id, operation, &body, room),
            Err(refusal) => Err(refusal),
        },
        Asked::Resume { id, from } => shared.relays.resume(id, from),
        Asked::Cancel { id } => {
            let status = if shared.relays.cancel(id) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND };
            return plain(status);
        }
        Asked::Pull => return control::pull(request, &shared).await,
    };
    match attachment {
        Ok(attachment) => match attachment.head().await {
            Head::Ollama { status, content_type } => relayed(status, content_type, attachment),
            Head::Bridge(refusal) => refused(&refusal),
        },
        Err(refusal) => refused(&refusal),
    }
}

/// The closed list.
enum Asked {
    Control,
    Start { id: RelayId, operation: Operation },
    Resume { id: RelayId, from: u64 },
    Cancel { id: RelayId },
    Pull,
}

impl Asked {
    fn parse<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let unlisted = || Refusal::new(RefusalCode::Unlisted, "the bridge does not know this request");
        let uri = request.uri();
        if uri.authority().is_none_or(|authority| authority.as_str() != AUTHORITY) {
            return Err(unlisted());
        }
        let operation = request.headers().get(OPERATION);
        let foreign = |name: &header::HeaderName| name != OPERATION && name != header::CONTENT_LENGTH;
        if request.headers().keys().any(foreign) || request.headers().get_all(OPERATION).iter().count() > 1 {
            return Err(unlisted());
        }
        let relay = uri.path().strip_prefix(RELAYS_PATH).and_then(|id| id.parse::<RelayId>().ok());
        let asked = match (request.method(), uri.path(), relay, operation, uri.query()) {
            (&Method::POST, CONTROL_PATH, None, None, None) => Self::Control,
            (&Method::POST, PULL_PATH, None, None, None) => Self::Pull,
            (&Method::PUT, _, Some(id), Some(operation), None) => {
                let operation = operation.to_str().ok().and_then(|name| name.parse().ok()).ok_or_else(unlisted)?;
                Self::Start { id, operation }
            }
            (&Method::GET, _, Some(id), None, Some(query)) => {
                let from = query.strip_prefix("from=").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
                Self::Resume { id, from: from.and_then(|digits| digits.parse().ok()).ok_or_else(unlisted)? }
            }
            (&Method::DELETE, _, Some(id), None, None) => Self::Cancel { id },
            _ => return Err(unlisted()),
        };
        Ok(asked)
    }
}

/// Reads a request's body, at most [`MAX_BODY`] bytes of it, and holds the room that it takes among all bodies.
async fn read_body(request: Request<Incoming>, shared: &Shared) -> Result<(Bytes, Room), Refusal> {
    let too_large = || {
        let mib = MAX_BODY >> 20;
        Refusal::new(RefusalCode::TooLarge, format!("the request is larger than {mib} MiB; send fewer or smaller images"))
    };
    let mut body = request.into_body();
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    let mut room = Room::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::new(RefusalCode::InvalidBody, "the request was cut off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > MAX_BODY {
            return Err(too_large());
        }
        shared.relays.make_room(&mut room, whole.len() + data.len())?;
        whole.extend_from_slice(&data);
    }
    Ok((whole.freeze(), room))
}

fn relayed(status: u16, content_type: Option<HeaderValue>, attachment: Attachment) -> Response<Body> {
    let mut response = Response::new(Body::Relay(attachment));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(ORIGIN, HeaderValue::from_static(FROM_OLLAMA));
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}

fn refused(refusal: &Refusal) -> Response<Body> {
    // A refusal is made of an enum and sentences of ours: it always serialises.
    let mut response = Response::new(Body::Full(serde_json::to_vec(refusal).unwrap_or_default().into()));
    *response.status_mut() = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::BAD_REQUEST);
    response.headers_mut().insert(ORIGIN, HeaderValue::from_static(FROM_BRIDGE));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Full(Bytes::new()));
    *response.status_mut() = status;
    response.headers_mut().insert(ORIGIN, HeaderValue::from_static(FROM_BRIDGE));
    response
}

/// The answers of a bridge.
enum Body {
    /// All of it at once.
    Full(Bytes),
    /// A relay's bytes, then its ending as a trailer.
    Relay(Attachment),
    /// Lines, as they come.
    Lines(mpsc::Receiver<Bytes>),
    /// Nothing more.
    Done,
}

/// A reader that a newer one has replaced: its stream is reset, so that nobody takes its end for the answer's.
#[derive(Debug, thiserror::Error)]
#[error("a newer reader has taken over")]
struct Superseded;

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Superseded;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Superseded>>> {
        let frame = match &mut *self {
            Self::Full(bytes) if !bytes.is_empty() => Frame::data(std::mem::take(bytes)),
            Self::Full(_) | Self::Done => return Poll::Ready(None),
            Self::Lines(lines) => match ready!(lines.poll_recv(cx)) {
                Some(line) => Frame::data(line),
                None => return Poll::Ready(None),
            },
            Self::Relay(attachment) => match ready!(attachment.poll_read(cx)) {
                Read::Bytes(bytes) => Frame::data(bytes),
                Read::Superseded => return Poll::Ready(Some(Err(Superseded))),
                Read::End(ending) => {
                    *self = Self::Done;
                    Frame::trailers(trailers(ending))
                }
            },
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Done => true,
            Self::Relay(_) | Self::Lines(_) => false,
        }
    }
}

fn trailers(ending: Ending) -> http::HeaderMap {
    let mut trailers = http::HeaderMap::with_capacity(1);
    // An ending is made of enums and numbers: its JSON is ASCII.
    let json = serde_json::to_string(&ending).unwrap_or_default();
    if let Ok(value) = HeaderValue::try_from(json) {
        trailers.insert(ENDING, value);
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, uri: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Asked::parse(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn the_list_is_closed() {
        let id = RelayId::random();
        let relay = format!("http://bridge/v1/relays/{id}");
        let chat = [(OPERATION, "ollama.chat")];
        assert!(parse("POST", "http://bridge/v1/control", &[]));
        assert!(parse("POST", "http://bridge/v1/models/pull", &[("content-length", "3")]));
        assert!(parse("PUT", &relay, &chat));
        assert!(parse("GET", &format!("{relay}?from=0"), &[]));
        assert!(parse("DELETE", &relay, &[]));
        for (method, uri, headers) in [
            ("GET", "http://bridge/v1/control", &[][..]),
            ("POST", "http://bridge/v1/control?x", &[]),
            ("POST", "http://bridge/v1/control/", &[]),
            ("POST", "http://bridge/v1/%63ontrol", &[]),
            ("POST", "http://elsewhere/v1/control", &[]),
            ("POST", "http://bridge/api/chat", &[]),
            ("PUT", relay.as_str(), &[]),
            ("PUT", relay.as_str(), &[(OPERATION, "ollama.delete")]),
            ("PUT", relay.as_str(), &[(OPERATION, "ollama.chat"), (OPERATION, "ollama.chat")]),
            ("PUT", relay.as_str(), &[(OPERATION, "ollama.chat"), ("host", "x")]),
            ("PUT", relay.as_str(), &[(OPERATION, "ollama.chat"), ("authorization", "x")]),
            ("PUT", "http://bridge/v1/relays/../control", &chat),
            ("PUT", "http://bridge/v1/relays/1", &chat),
            ("POST", relay.as_str(), &chat),
            ("GET", relay.as_str(), &[]),
            ("GET", &format!("{relay}?from=-1"), &[]),
            ("GET", &format!("{relay}?from=1&from=2"), &[]),
            ("GET", &format!("{relay}?from="), &[]),
            ("DELETE", &format!("{relay}/x"), &[]),
            ("CONNECT", relay.as_str(), &[]),
        ] {
            assert!(!parse(method, uri, headers), "{method} {uri} {headers:?}");
        }
    }
}
