//! What becomes of a request: who it is for, whether it may, what it asks, and the answer or the mischief that it gets.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, ORIGIN, RETRY_AFTER};
use hyper::{HeaderMap, Request, Response, StatusCode, Version};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::answer::{Answer, Line, Playback};
use super::ask::Ask;
use super::behaviour::{Behaviour, Trouble};
use super::bomb::Bomb;
use super::gemini::Layout;
use super::kind::{Endpoint, Kind, Route, owner};
use super::log::Ticket;
use super::refusal::{Refusal, pretty};
use super::script::Script;
use super::tape::{Tape, data, named};
use super::{Shared, chat, gemini, head, messages, responses};
use crate::fake_ollama::gate::Point;

/// The largest body that is read. Anthropic's limit is its own.
const MOST_BODY: usize = 64 << 20;
/// Anthropic's.
const MOST_ANTHROPIC: usize = 32 << 20;
/// Over h2 a head cannot be endless: this many fields of 1 KiB.
const MANY_FIELDS: usize = 4096;
/// Stands in a token where bytes that are no UTF-8 shall be: no character, but text to whoever writes it down.
const NO_CHARACTER: &str = "\u{ffff}";
/// What is sent in its place.
const NO_UTF8: [u8; 3] = [0xff, 0xfe, 0xfd];

/// Why there is no answer: the connection is cut instead.
type Cut = std::io::Error;

/// Where a request came in.
pub(super) struct Place {
    /// The connection's number.
    pub(super) connection: u64,
    /// Whoever sends a ticket here has the connection for itself.
    pub(super) takeover: mpsc::Sender<Ticket>,
}

/// A request whose head was read.
struct Visit {
    kind: Kind,
    /// The provider's id of the request.
    id: String,
    version: Version,
    ticket: Ticket,
}

/// Answers one request.
pub(super) async fn handle(shared: Arc<Shared>, place: Arc<Place>, request: Request<Incoming>) -> Result<Response<Answer>, Cut> {
    let (parts, body) = request.into_parts();
    let (kind, path) = owner(parts.uri.path(), shared.only);
    let whole_path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let ticket = shared.log.open(kind, place.connection, (&parts.method, parts.version), whole_path, &parts.headers);
    let id = head::request_id(kind, ticket.number());
    let visit = Visit { kind, id, version: parts.version, ticket };
    // Read first, as a real server's front does: a refusal must not cut a request that is still coming.
    let body = match Limited::new(body, MOST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => return Ok(visit.refuse(&Refusal::too_large(), "")),
        Err(error) => return Err(std::io::Error::other(error)),
    };
    visit.ticket.body(&body);
    let query = parts.uri.query().unwrap_or_default();
    let route = Route::of(kind, &parts.method, path);
    if let Err(refusal) = admit(&shared, kind, route.as_ref(), &parts.headers, query) {
        return Ok(visit.refuse(&refusal, ""));
    }
    let Some(route) = route.filter(|route| !route.needs_version || parameter(query, "api-version").is_some()) else {
        return Ok(visit.refuse(&Refusal::no_such_address(kind, parts.method.as_str(), path), ""));
    };
    if kind == Kind::Anthropic && body.len() > MOST_ANTHROPIC {
        return Ok(visit.refuse(&Refusal::too_large(), ""));
    }
    match &route.endpoint {
        Endpoint::Models | Endpoint::Model(_) | Endpoint::GeminiModels | Endpoint::GeminiModel(_) => {
            Ok(visit.list(&route.endpoint))
        }
        Endpoint::Redirected => Ok(visit.refuse(&Refusal::bad("somebody followed a redirect"), "")),
        _ => visit.answer(&shared, &place, &route, query, &body).await,
    }
}

/// Whether the key and the headers are such that the provider listens.
fn admit(shared: &Shared, kind: Kind, route: Option<&Route>, headers: &HeaderMap, query: &str) -> Result<(), Refusal> {
    if kind == Kind::Anthropic && headers.contains_key(ORIGIN) {
        let text = "CORS requests must set 'anthropic-dangerous-direct-browser-access' header";
        return Err(Refusal::of_text(StatusCode::UNAUTHORIZED, text));
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let is_compatible =
        route.is_some_and(|route| matches!(route.endpoint, Endpoint::Chat | Endpoint::Embeddings | Endpoint::Images));
    let is_listing = route.is_some_and(|route| matches!(route.endpoint, Endpoint::Models | Endpoint::Model(_)));
    let presented = match kind {
        Kind::Openai | Kind::Xai | Kind::Compatible => bearer,
        // Its newer clients send a key as a bearer's.
        Kind::Anthropic => text("x-api-key").or(bearer),
        Kind::Gemini => text("x-goog-api-key").or(parameter(query, "key")).or(bearer.filter(|_| is_compatible || is_listing)),
        Kind::Azure => text("api-key").or(bearer),
    };
    match presented {
        None if kind == Kind::Compatible => {}
        None => return Err(Refusal::no_key(kind)),
        Some(key) if key != shared.key(kind) => return Err(Refusal::wrong_key(kind, key)),
        Some(_) => {}
    }
    if kind == Kind::Anthropic && !is_compatible && text("anthropic-version").is_none() {
        return Err(Refusal::bad("anthropic-version: header is required"));
    }
    Ok(())
}

/// A query's value of that name, as it stands there.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

impl Visit {
    fn refuse(mut self, refusal: &Refusal, model: &str) -> Response<Answer> {
        self.ticket.finish();
        self.response(refusal.status, json_type(self.kind), model, Answer::whole(refusal.body(self.kind, &self.id)))
    }

    fn response(&self, status: StatusCode, content_type: &'static str, model: &str, answer: Answer) -> Response<Answer> {
        let mut response = Response::new(answer);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        head::add(self.kind, &self.id, model, response.headers_mut());
        response
    }

    fn list(mut self, endpoint: &Endpoint) -> Response<Answer> {
        self.ticket.finish();
        let kind = self.kind;
        let body = match (kind, endpoint) {
            (_, Endpoint::Model(name) | Endpoint::GeminiModel(name)) if is_unknown(name) => {
                return self.refuse(&Refusal::no_such_model(kind, name), "");
            }
            (Kind::Anthropic, Endpoint::Model(name)) => messages::model(name),
            (Kind::Anthropic, _) => messages::models(),
            (_, Endpoint::GeminiModel(name)) => gemini::model(name),
            (_, Endpoint::GeminiModels) => gemini::models(),
            (_, Endpoint::Model(name)) => chat::model(kind, name),
            (_, _) => chat::models(kind),
        };
        self.response(StatusCode::OK, json_type(kind), "", Answer::whole(laid_out(kind, &body)))
    }

    async fn answer(
        mut self,
        shared: &Shared,
        place: &Place,
        route: &Route,
        query: &str,
        body: &Bytes,
    ) -> Result<Response<Answer>, Cut> {
        let kind = self.kind;
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Ok(self.refuse(&Refusal::no_json(kind), "")) };
        let path_model = route.model.as_deref().map(decoded);
        let ask = match Ask::read(kind, &route.endpoint, path_model.as_deref(), body) {
            Ok(ask) => ask,
            Err(refusal) => return Ok(self.refuse(&refusal, "")),
        };
        if is_unknown(&ask.model) {
            return Ok(self.refuse(&Refusal::no_such_model(kind, &ask.model), ""));
        }
        let behaviour = shared.behaviour(kind, &ask.model);
        if let Some(hold) = shared.gates.hold(&ask.model, Point::Headers) {
            self.ticket.held(true);
            hold.await;
            self.ticket.held(false);
        }
        if !behaviour.first.is_zero() {
            sleep(behaviour.first).await;
        }
        if behaviour.hang_at == Some(0) {
            return std::future::pending().await;
        }
        if behaviour.cut_at == Some(0) {
            self.ticket.finish();
            return Err(std::io::Error::other("cut as was asked for"));
        }
        if let Some(status) = behaviour.status.and_then(|status| StatusCode::from_u16(status).ok()) {
            let mut response = self.refuse(&Refusal::of_status(kind, status, &ask.model), &ask.model);
            if let Some(seconds) = behaviour.retry_after {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            return Ok(response);
        }
        match behaviour.trouble {
            None | Some(Trouble::InvalidUtf8) => Ok(self.say(shared, route, query, &ask, behaviour)),
            Some(trouble) => self.trouble(trouble, shared, place, &ask).await,
        }
    }

    /// What was asked for.
    fn say(mut self, shared: &Shared, route: &Route, query: &str, ask: &Ask, behaviour: Behaviour) -> Response<Answer> {
        let kind = self.kind;
        let part = shared.part(&ask.model);
        if part.is_some() && ask.lacks_signature {
            let text = "Function call is missing a thought_signature in functionCall parts. This is required for tools to work \
                        correctly, and missing thought_signature may lead to degraded model performance.";
            return self.refuse(&Refusal::bad(text), &ask.model);
        }
        let played = part.and_then(|part| Script::of_part(&part, ask, &behaviour));
        let mut script = played.unwrap_or_else(|| Script::write(ask, &behaviour));
        if behaviour.trouble == Some(Trouble::InvalidUtf8) {
            script.choices.iter_mut().flatten().for_each(|token| token.push_str(NO_CHARACTER));
        }
        let layout = if parameter(query, "alt") == Some("sse") { Layout::Events } else { Layout::Array };
        if ask.stream
            && let Some((mut tape, failure)) = streamed(&route.endpoint, ask, &script, &behaviour, layout)
        {
            if behaviour.trouble.is_some() {
                tape.frames.iter_mut().for_each(|frame| frame.bytes = without_utf8(&frame.bytes));
            }
            let content_type = match (kind, &route.endpoint) {
                (Kind::Gemini, Endpoint::StreamGenerate) if layout == Layout::Array => json_type(kind),
                (Kind::Gemini, _) => "text/event-stream",
                _ => "text/event-stream; charset=utf-8",
            };
            let mut response = self.response(StatusCode::OK, content_type, &ask.model, Answer::Whole(None));
            let playback = Playback::new(tape, failure, behaviour, (shared.gates.clone(), ask.model.clone()), self.ticket);
            *response.body_mut() = Answer::Stream(Box::new(playback));
            return response;
        }
        if behaviour.fail_at.is_some() {
            return self.refuse(&Refusal::of_status(kind, StatusCode::INTERNAL_SERVER_ERROR, &ask.model), &ask.model);
        }
        let mut document = laid_out(kind, &whole(&route.endpoint, ask, &script, &behaviour));
        if behaviour.trouble.is_some() {
            document = without_utf8(&document);
        }
        self.ticket.finish();
        let answer = if behaviour.cut_at.is_some() { Answer::half(&document) } else { Answer::whole(document) };
        self.response(StatusCode::OK, json_type(kind), &ask.model, answer)
    }

    /// What no provider does, and every upstream may.
    async fn trouble(mut self, trouble: Trouble, shared: &Shared, place: &Place, ask: &Ask) -> Result<Response<Answer>, Cut> {
        let kind = self.kind;
        let content_type = if ask.stream { "text/event-stream" } else { json_type(kind) };
        let answer = |visit: &Self, answer| Ok(visit.response(StatusCode::OK, content_type, &ask.model, answer));
        match trouble {
            Trouble::Garbage => {
                self.ticket.finish();
                answer(&self, Answer::whole(Bytes::from_static(if ask.stream { GARBAGE_EVENTS } else { GARBAGE_DOCUMENT })))
            }
            Trouble::Bomb => {
                let mut response = self.response(StatusCode::OK, content_type, &ask.model, Answer::Whole(None));
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                *response.body_mut() = Answer::Bomb(Bomb::new(), self.ticket);
                Ok(response)
            }
            Trouble::LongLine => {
                let first = if ask.stream { "data: {\"id\":\"" } else { "{\"id\":\"" };
                let mut response = self.response(StatusCode::OK, content_type, &ask.model, Answer::Whole(None));
                *response.body_mut() = Answer::Line(Line::new(first, self.ticket));
                Ok(response)
            }
            Trouble::Redirect => {
                let mut response = self.response(StatusCode::TEMPORARY_REDIRECT, content_type, &ask.model, Answer::Whole(None));
                if let Ok(there) = HeaderValue::from_str(&format!("{}/{}/redirected", shared.origin(), kind.name())) {
                    response.headers_mut().insert(LOCATION, there);
                }
                self.ticket.finish();
                Ok(response)
            }
            Trouble::EndlessHead if self.version == Version::HTTP_2 => {
                let mut response = self.response(StatusCode::OK, content_type, &ask.model, Answer::Whole(None));
                for number in 0..MANY_FIELDS {
                    if let (Ok(name), Ok(value)) =
                        (HeaderName::try_from(format!("x-fake-{number}")), HeaderValue::try_from("a".repeat(1024)))
                    {
                        response.headers_mut().append(name, value);
                    }
                }
                self.ticket.finish();
                Ok(response)
            }
            Trouble::EndlessHead => {
                // Nobody else takes the connection: it has one request at a time.
                let _ = place.takeover.try_send(self.ticket);
                std::future::pending().await
            }
            Trouble::Silence | Trouble::InvalidUtf8 => std::future::pending().await,
        }
    }
}

/// Frames that are none: half a document, other fields, another type, no end.
const GARBAGE_EVENTS: &[u8] = b"data: {\"id\":\n\n: {\"usage\":{\"prompt_tokens\":1}}\n\nevent:\n\ndata\n\ndata: no json\n\n{\"no\":\"field\"}\n\n\
data: {\"usage\":\"much\",\"choices\":7,\"type\":9}\n\ndata: [1,2\r\n\r\nretry: soon\n\x00\x01\x02\n\ndata: {\"usage\":{\"prompt_tokens\":-1,\
\"completion_tokens\":1e99}}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"";
/// What a machine in between says.
const GARBAGE_DOCUMENT: &[u8] = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n";

/// An answer's frames, and what is said where it fails between two of them.
fn streamed(endpoint: &Endpoint, ask: &Ask, script: &Script, behaviour: &Behaviour, layout: Layout) -> Option<(Tape, Bytes)> {
    let error = Refusal::mid_stream(ask.kind);
    Some(match endpoint {
        Endpoint::Chat => (chat::chat_stream(ask, script, behaviour), data(&error)),
        Endpoint::Completion => (chat::completion_stream(ask, script, behaviour), data(&error)),
        Endpoint::Images => (chat::images_stream(ask, behaviour), data(&error)),
        Endpoint::Responses => {
            let tape = responses::stream(ask, script, behaviour);
            // Its number is that of the event in whose place it stands.
            let number = behaviour.fail_at.and_then(|at| {
                let mut tokens = 0;
                tape.frames.iter().position(|frame| {
                    let here = tokens == at;
                    tokens += u32::from(frame.is_token);
                    here
                })
            });
            (tape, named(&responses::failure(number.unwrap_or_default() as u64, &error)))
        }
        Endpoint::Messages => (messages::stream(ask, script, behaviour), named(&error)),
        Endpoint::StreamGenerate => {
            let failure = match layout {
                Layout::Events => gemini::event(&error),
                Layout::Array => format!(",\r\n{}\n]\n", pretty(&error)).into(),
            };
            (gemini::stream(ask, script, behaviour, layout), failure)
        }
        _ => return None,
    })
}

/// An answer in one piece.
fn whole(endpoint: &Endpoint, ask: &Ask, script: &Script, behaviour: &Behaviour) -> Value {
    match endpoint {
        Endpoint::Completion => chat::completion(ask, script, behaviour),
        Endpoint::Embeddings => chat::embeddings(ask, behaviour),
        Endpoint::Images => chat::images(ask, behaviour),
        Endpoint::Responses => responses::whole(ask, script, behaviour),
        Endpoint::Messages => messages::whole(ask, script, behaviour),
        Endpoint::CountTokens => serde_json::json!({"input_tokens": ask.prompt_tokens()}),
        Endpoint::Generate | Endpoint::StreamGenerate => gemini::whole(ask, script, behaviour),
        Endpoint::GeminiCount => gemini::count(ask),
        Endpoint::GeminiEmbed => gemini::embed(&ask.model, behaviour, &ask.body),
        Endpoint::GeminiBatchEmbed => gemini::batch_embed(&ask.model, behaviour, &ask.body),
        // Chat; no listing comes here.
        _ => chat::chat(ask, script, behaviour),
    }
}

/// A document as its provider lays it out.
fn laid_out(kind: Kind, value: &Value) -> Bytes {
    match kind {
        Kind::Openai | Kind::Compatible | Kind::Gemini => (pretty(value) + "\n").into(),
        Kind::Anthropic | Kind::Azure | Kind::Xai => value.to_string().into(),
    }
}

const fn json_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Gemini => "application/json; charset=UTF-8",
        _ => "application/json",
    }
}

/// Puts bytes that are no text where they were asked for.
fn without_utf8(bytes: &[u8]) -> Bytes {
    let mut out = bytes.to_vec();
    while let Some(at) = out.windows(NO_UTF8.len()).position(|window| window == NO_CHARACTER.as_bytes()) {
        out[at..at + NO_UTF8.len()].copy_from_slice(&NO_UTF8);
    }
    out.into()
}

/// Every name is a model's, but for those that say otherwise.
fn is_unknown(model: &str) -> bool {
    model.contains("no-such")
}

/// A segment of a path without its escapes.
fn decoded(segment: &str) -> String {
    let mut out = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped =
            (byte == b'%').then(|| tail.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()));
        match escaped.flatten() {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
