//! A provider that says back everything it is told, in each way in which a provider can answer or fail, and adds canaries of its
//! own. What it is asked to do stands in the model's name, behind the surface on which it is asked.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::search::Canary;

/// Everything that it can be asked to do.
pub(super) const MOODS: [Mood; 12] = [
    Mood::Well,
    Mood::Refuses,
    Mood::Fails,
    Mood::Busy,
    Mood::Keyless,
    Mood::Forbids,
    Mood::Garbage,
    Mood::Cuts,
    Mood::Stalls,
    Mood::Hangs,
    Mood::Page,
    Mood::Moved,
];

/// How it answers. What it was told is in every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it should.
    Well,
    /// With status 400.
    Refuses,
    /// With status 500.
    Fails,
    /// With status 429.
    Busy,
    /// With status 401, and the key that it was sent.
    Keyless,
    /// With status 403, likewise.
    Forbids,
    /// With events that are none.
    Garbage,
    /// With half an answer, and then the connection breaks.
    Cuts,
    /// With half an answer, and then nothing more.
    Stalls,
    /// Not at all.
    Hangs,
    /// With a page for people.
    Page,
    /// With the address of another place.
    Moved,
}

impl Mood {
    /// Its name, as models have it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Refuses => "refuses",
            Self::Fails => "fails",
            Self::Busy => "busy",
            Self::Keyless => "keyless",
            Self::Forbids => "forbids",
            Self::Garbage => "garbage",
            Self::Cuts => "cuts",
            Self::Stalls => "stalls",
            Self::Hangs => "hangs",
            Self::Page => "page",
            Self::Moved => "moved",
        }
    }
}

/// The provider. It ends when it is dropped.
pub(super) struct Parrot {
    pub(super) addr: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    heard: Mutex<Vec<Vec<u8>>>,
    said: Mutex<Vec<Canary>>,
    released: watch::Sender<bool>,
}

type Body = BoxBody<Bytes, std::io::Error>;

impl Parrot {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared { heard: Mutex::default(), said: Mutex::default(), released: watch::Sender::new(false) });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Self { addr, shared, task }
    }

    /// How many requests came.
    pub(super) fn count(&self) -> usize {
        self.shared.heard.lock().unwrap().len()
    }

    /// Whether this stands in one of the requests from the one of that number on.
    pub(super) fn heard(&self, text: &str, from: usize) -> bool {
        self.shared.heard.lock().unwrap()[from..].iter().any(|heard| super::contains(heard, text))
    }

    /// The canaries of its own.
    pub(super) fn said(&self) -> Vec<Canary> {
        self.shared.said.lock().unwrap().clone()
    }

    /// Ends every answer that hangs.
    pub(super) fn release(&self) {
        self.shared.released.send_replace(true);
    }
}

impl Drop for Parrot {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        connections.spawn(async move {
            // Its callers go when they like, and some answers are meant to break.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.to_string();
    let told = format!("{path} {:?} {}", head.headers, String::from_utf8_lossy(&body));
    shared.heard.lock().unwrap().push([told.as_bytes(), b"\n", &body[..]].concat());
    let own = Canary::fresh();
    shared.said.lock().unwrap().push(own.clone());
    let mood = MOODS.into_iter().find(|mood| told.contains(&format!("-{}", mood.name()))).unwrap_or(Mood::Well);
    // The key is said back by those only who refuse it, as providers do.
    let mut headers = head.headers.clone();
    if !matches!(mood, Mood::Keyless | Mood::Forbids) {
        for name in ["authorization", "x-api-key", "x-goog-api-key", "api-key"] {
            headers.remove(name);
        }
    }
    let echo = format!("{own} {path} {headers:?} {}", String::from_utf8_lossy(&body));
    let streamed = path.contains("alt=sse") || body.windows(13).any(|window| window == b"\"stream\":true");
    let error = json!({"type": "error", "error": {"type": "invalid_request_error", "message": echo, "param": own.as_str(), "code": own.as_str()}});
    let whole = |status: u16, document: &Value| (status, "application/json", vec![Bytes::from(document.to_string())]);
    let (status, content_type, parts) = match mood {
        Mood::Refuses => whole(400, &error),
        Mood::Fails => whole(500, &error),
        Mood::Busy => whole(429, &error),
        Mood::Keyless => whole(401, &error),
        Mood::Forbids => whole(403, &error),
        Mood::Moved => whole(307, &error),
        Mood::Page => (200, "text/html", vec![format!("<html>{echo}</html>").into()]),
        Mood::Garbage => (200, "text/event-stream", vec![format!("data: {echo}\n\n{echo}\n\ndata: {{\"{echo}\n\n").into()]),
        Mood::Hangs => {
            // A sender that is gone has released everybody.
            let _ = shared.released.subscribe().wait_for(|released| *released).await;
            whole(500, &error)
        }
        Mood::Well | Mood::Cuts | Mood::Stalls if streamed => (200, "text/event-stream", events(&path, &echo)),
        Mood::Well | Mood::Cuts | Mood::Stalls => whole(200, &document(&echo)),
    };
    let mut response = Response::new(self::body(&shared, mood, parts));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    let of_own = |prefix: &str| HeaderValue::try_from(format!("{prefix}{own}")).expect("a header");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(LOCATION, of_own("http://127.0.0.1:9/"));
    for name in ["x-request-id", "request-id", "openai-organization", "set-cookie", "x-note"] {
        headers.insert(HeaderName::from_static(name), of_own(""));
    }
    Ok(response)
}

/// The parts of an answer: all of them, or the first and then what the mood is.
fn body(shared: &Arc<Shared>, mood: Mood, mut parts: Vec<Bytes>) -> Body {
    if matches!(mood, Mood::Cuts | Mood::Stalls) && parts.len() == 1 {
        let half = parts[0].len() * 3 / 4;
        parts[0].truncate(half);
    } else if matches!(mood, Mood::Cuts | Mood::Stalls) {
        parts.truncate(2);
    }
    let frames = stream::iter(parts).map(|part| Ok(Frame::data(part)));
    let end: Pin<Box<dyn Stream<Item = std::io::Result<Frame<Bytes>>> + Send + Sync>> = match mood {
        Mood::Cuts => Box::pin(stream::once(async {
            // What was written before is to be seen first.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            Err(std::io::Error::other("cut"))
        })),
        Mood::Stalls => {
            let mut released = shared.released.subscribe();
            Box::pin(stream::once(async move {
                // Likewise.
                let _ = released.wait_for(|released| *released).await;
                Err(std::io::Error::other("it has stalled for long enough"))
            }))
        }
        _ => Box::pin(stream::empty()),
    };
    BodyExt::boxed(StreamBody::new(frames.chain(end)))
}

/// One answer in the words of all providers at once.
fn document(echo: &str) -> Value {
    json!({
        "id": echo, "object": "chat.completion", "model": echo,
        "choices": [{"index": 0, "text": echo, "message": {"role": "assistant", "content": echo, "tool_calls": [{"id": echo,
            "type": "function", "function": {"name": echo, "arguments": echo}}]}, "finish_reason": "stop"}],
        "content": [{"type": "text", "text": echo}, {"type": "thinking", "thinking": echo, "signature": echo}],
        "output": [{"type": "message", "content": [{"type": "output_text", "text": echo}]}],
        "candidates": [{"content": {"parts": [{"text": echo}], "role": "model"}, "finishReason": "STOP"}],
        "data": [{"object": "embedding", "embedding": [0.5], "b64_json": echo}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "input_tokens": 9, "output_tokens": 4, "note": echo},
        "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13},
        "input_tokens": 9, "totalTokens": 9, "service_tier": echo, "system_fingerprint": echo,
    })
}

/// The same as events, in the words of the provider whose path it is.
fn events(path: &str, echo: &str) -> Vec<Bytes> {
    let data = |value: Value| Bytes::from(format!("data: {value}\n\n"));
    let named = |value: Value| Bytes::from(format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default()));
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "input_tokens": 9, "output_tokens": 4});
    if path.contains("/messages") {
        return vec![
            named(
                json!({"type": "message_start", "message": {"id": echo, "model": echo, "usage": {"input_tokens": 9, "output_tokens": 1}}}),
            ),
            named(json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": echo}})),
            named(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}})),
            named(json!({"type": "message_stop"})),
        ];
    }
    if path.contains("alt=sse") {
        let candidate = json!([{"content": {"parts": [{"text": echo}], "role": "model"}}]);
        let last = json!([{"content": {"parts": [{"text": echo}], "role": "model"}, "finishReason": "STOP"}]);
        let usage = json!({"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13});
        return vec![
            data(json!({"candidates": candidate, "responseId": echo})),
            data(json!({"candidates": candidate})),
            data(json!({"candidates": last, "usageMetadata": usage})),
        ];
    }
    if path.contains("/responses") {
        return vec![
            named(json!({"type": "response.created", "response": {"id": echo, "instructions": echo}})),
            named(json!({"type": "response.output_text.delta", "delta": echo})),
            named(json!({"type": "response.completed", "response": {"id": echo, "usage": usage}})),
        ];
    }
    vec![
        Bytes::from(format!(": {echo}\n\n")),
        data(json!({"id": echo, "choices": [{"index": 0, "text": echo, "delta": {"content": echo}}]})),
        data(json!({"id": echo, "choices": [{"index": 0, "text": "", "delta": {}, "finish_reason": "stop"}]})),
        data(json!({"id": echo, "choices": [], "usage": usage})),
        Bytes::from_static(b"data: [DONE]\n\n"),
    ]
}
