//! Every path that Ollama answers, by who may call it, and the handlers behind them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, HOST, HeaderValue, LOCATION, ORIGIN};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Shared;
use super::answer::{Answer, Pull, flushed, stream, whole};
use super::gate::Point;
use super::generation::{AT_ONCE, End, Opening, Script, totals};
use super::grammar::Spec;
use super::json::{BadBody, Fields, encode};
use super::log::{Ticket, ViolationKind};
use super::models::{Capability, KeepAlive, Model, Source, full_name, is_name, source};
use super::render::{RUNNER_DIED, RUNNER_STOPPED, Renderer};
use super::request::{Ask, Format, Invalid, Keep, Surface, keep_alive, string};
use super::shape::{self, Shape, check_options};
use super::text::{mix, seed};

/// What Ollama says when its queue is full; the two spaces are its own.
const BUSY: &str = "server busy, please try again.  maximum pending requests exceeded";
const JSON: &str = "application/json; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
/// What Ollama says of a model's name that cannot be one.
const BAD_NAME: &str = "invalid model name";
const TEXT: &str = "text/plain; charset=utf-8";

/// A path that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route<'a> {
    // Reads.
    Root,
    Version,
    Status,
    Tags,
    Ps,
    Show,
    OpenAiModels,
    OpenAiModel(&'a str),
    // Computes.
    Generate(Surface),
    Embed,
    OldEmbeddings,
    OpenAiEmbeddings,
    // Changes what is on disk; the owner's own commands do that.
    Pull,
    Delete,
    /// Changes, uploads, signs or leaves the machine: nobody may call it.
    Forbidden,
}

impl<'a> Route<'a> {
    /// The route of a path, whatever the method.
    fn of(path: &'a str) -> Option<Self> {
        Some(match path {
            "/" => Self::Root,
            "/api/version" => Self::Version,
            "/api/status" => Self::Status,
            "/api/tags" => Self::Tags,
            "/api/ps" => Self::Ps,
            "/api/show" => Self::Show,
            "/api/chat" => Self::Generate(Surface::Chat),
            "/api/generate" => Self::Generate(Surface::Generate),
            "/api/embed" => Self::Embed,
            "/api/embeddings" => Self::OldEmbeddings,
            "/api/pull" => Self::Pull,
            "/api/delete" => Self::Delete,
            "/v1/chat/completions" => Self::Generate(Surface::OpenAiChat),
            "/v1/completions" => Self::Generate(Surface::OpenAiCompletion),
            "/v1/responses" => Self::Generate(Surface::Responses),
            "/v1/messages" => Self::Generate(Surface::Messages),
            "/v1/embeddings" => Self::OpenAiEmbeddings,
            "/v1/models" => Self::OpenAiModels,
            "/api/create" | "/api/copy" | "/api/push" | "/api/me" | "/api/signout" | "/v1/audio/transcriptions" => Self::Forbidden,
            _ if path.starts_with("/api/blobs/")
                || path.starts_with("/api/user/keys/")
                || path.starts_with("/api/experimental/") =>
            {
                Self::Forbidden
            }
            _ => Self::OpenAiModel(path.strip_prefix("/v1/models/").filter(|name| !name.is_empty() && !name.contains('/'))?),
        })
    }

    fn takes(self, method: &Method) -> bool {
        match self {
            Self::Forbidden => true,
            _ => self.methods().split(", ").any(|known| known == method.as_str()),
        }
    }

    /// The methods that it has, as gin names them.
    const fn methods(self) -> &'static str {
        match self {
            Self::Root | Self::Version | Self::Tags => "HEAD, GET",
            Self::Status | Self::Ps | Self::OpenAiModels | Self::OpenAiModel(_) => "GET",
            Self::Delete => "DELETE",
            _ => "POST",
        }
    }
}

/// Whose manners an error has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    Ollama,
    OpenAi,
    Anthropic,
}

impl From<Surface> for Manners {
    fn from(surface: Surface) -> Self {
        match surface {
            Surface::Chat | Surface::Generate => Self::Ollama,
            Surface::OpenAiChat | Surface::OpenAiCompletion | Surface::Responses => Self::OpenAi,
            Surface::Messages => Self::Anthropic,
        }
    }
}

/// An error on its way out.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    text: String,
    /// Whether it comes from before Ollama's own handler, which writes errors in another way.
    early: bool,
}

impl Refused {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), early: false }
    }

    fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    fn not_found(model: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("model '{model}' not found"))
    }

    fn not_pulled(model: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("model {model:?} not found, try pulling it first"))
    }

    fn answer(self, manners: Manners) -> Response<Answer> {
        let (status, early) = (self.status, self.early);
        let mut body = self.body(manners);
        if early || manners == Manners::Ollama {
            return whole(status, JSON, body);
        }
        // Go's encoder ends a document with a newline; gin's does not.
        body.push(b'\n');
        whole(status, "application/json", body)
    }

    /// The same in a stream's place.
    fn flushed(self, manners: Manners) -> Response<Answer> {
        let status = self.status;
        let mut body = self.body(manners);
        if manners != Manners::Ollama {
            body.push(b'\n');
        }
        flushed(status, "application/json", body.into())
    }

    fn body(self, manners: Manners) -> Vec<u8> {
        let Self { status, text, .. } = self;
        let kind = match (status.as_u16(), manners) {
            (400, _) => "invalid_request_error",
            (404, _) => "not_found_error",
            (401, Manners::Anthropic) => "authentication_error",
            (403, Manners::Anthropic) => "permission_error",
            (429, Manners::Anthropic) => "rate_limit_error",
            (503 | 529, Manners::Anthropic) => "overloaded_error",
            _ => "api_error",
        };
        let value = match manners {
            Manners::Ollama if status == StatusCode::UNAUTHORIZED => {
                json!({"error": text, "signin_url": "https://ollama.example/connect"})
            }
            Manners::Ollama => json!({"error": text}),
            Manners::OpenAi => json!({"error": {"message": text, "type": kind, "param": null, "code": null}}),
            Manners::Anthropic => {
                json!({"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_0123456789abcdef01234567"})
            }
        };
        encode(&value)
    }
}

impl From<Invalid> for Refused {
    fn from(Invalid(text): Invalid) -> Self {
        Self { early: true, ..Self::bad(text) }
    }
}

/// Why there is no answer: the connection is cut instead.
type Cut = std::io::Error;

/// Answers one request.
pub(super) async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Answer>, Cut> {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut ticket = shared.log.open(&head.method, path, &head.headers);
    if !admits(&head.headers, shared.addr.ip()) {
        ticket.finish();
        return Ok(whole(StatusCode::FORBIDDEN, "", Bytes::new()));
    }
    let path = head.uri.path();
    let Some(route) = Route::of(path) else {
        ticket.finish();
        return Ok(elsewhere(path, &head.method));
    };
    if !route.takes(&head.method) {
        ticket.finish();
        let mut answer = whole(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "405 method not allowed");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(route.methods()));
        return Ok(answer);
    }
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    ticket.body(&body);
    match route {
        Route::Generate(surface) => generate(&shared, surface, &body, arrived, ticket).await,
        Route::Embed | Route::OldEmbeddings | Route::OpenAiEmbeddings => Ok(embed(&shared, route, &body, ticket).await),
        Route::Pull => Ok(pull(&shared, &body, ticket).await),
        other => {
            let answer = at_once(&shared, other, path, &body);
            ticket.finish();
            Ok(answer)
        }
    }
}

/// What gin says of a path that it does not know: a redirect where a slash is too many.
fn elsewhere(path: &str, method: &Method) -> Response<Answer> {
    let shorter = path.trim_end_matches('/');
    if shorter.len() + 1 == path.len() && Route::of(shorter).is_some_and(|route| route.takes(method)) {
        let mut answer = match *method {
            Method::GET => whole(StatusCode::MOVED_PERMANENTLY, HTML, format!("<a href=\"{shorter}\">Moved Permanently</a>.\n\n")),
            Method::HEAD => whole(StatusCode::TEMPORARY_REDIRECT, HTML, Bytes::new()),
            _ => whole(StatusCode::TEMPORARY_REDIRECT, "", Bytes::new()),
        };
        if let Ok(location) = HeaderValue::from_str(shorter) {
            answer.headers_mut().insert(LOCATION, location);
        }
        return answer;
    }
    whole(StatusCode::NOT_FOUND, "text/plain", "404 page not found")
}

/// Whether `Host` and `Origin` are such that Ollama listens at all.
fn admits(headers: &HeaderMap, bound: IpAddr) -> bool {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("\u{0}"));
    let origin = text(ORIGIN).is_none_or(|origin| {
        let (scheme, rest) = origin.split_once("://").unwrap_or((origin, ""));
        matches!(scheme, "app" | "file" | "tauri" | "vscode-webview" | "vscode-file")
            || matches!(scheme, "http" | "https") && matches!(host_of(rest), "localhost" | "127.0.0.1" | "0.0.0.0")
    });
    let host = !bound.is_loopback()
        || text(HOST).is_none_or(|host| {
            let host = host_of(host).to_ascii_lowercase();
            let local = ["localhost", "local", "internal"];
            match host.parse() {
                Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_unspecified(),
                Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unspecified(),
                Err(_) => host.is_empty() || host == "localhost" || local.iter().any(|tld| host.ends_with(&format!(".{tld}"))),
            }
        });
    origin && host
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

/// What needs no waiting.
fn at_once(shared: &Shared, route: Route<'_>, path: &str, body: &Bytes) -> Response<Answer> {
    let json = |value: &Value| whole(StatusCode::OK, JSON, encode(value));
    match route {
        Route::Root => whole(StatusCode::OK, TEXT, "Ollama is running"),
        Route::Version => json(&json!({"version": shared.version()})),
        Route::Status => json(&json!({"cloud": {"disabled": false, "source": "none"}})),
        Route::Tags => json(&shared.store().tags()),
        Route::Ps => json(&shared.store().ps()),
        Route::OpenAiModels => {
            let mut list = encode(&shared.store().openai_list());
            list.push(b'\n');
            whole(StatusCode::OK, "application/json", list)
        }
        Route::OpenAiModel(name) => match found_to_show(shared, path, name) {
            Ok(_) => {
                let mut model = encode(&Model::openai(name));
                model.push(b'\n');
                whole(StatusCode::OK, "application/json", model)
            }
            Err(refused) => refused.answer(Manners::OpenAi),
        },
        Route::Show => show(shared, path, body).map_or_else(|refused| refused.answer(Manners::Ollama), |model| json(&model)),
        Route::Delete => match delete(shared, body) {
            Ok(()) => whole(StatusCode::OK, "", Bytes::new()),
            Err(refused) => refused.answer(Manners::Ollama),
        },
        // Nobody may come here; an answer that looks like success is what a bridge would have to be stopped from getting.
        _ => {
            shared.log.violation(ViolationKind::Forbidden, path, "");
            whole(StatusCode::OK, JSON, "null")
        }
    }
}

fn read(body: &Bytes, shape: &Shape, manners: Manners) -> Result<Fields, Refused> {
    let early = |text: String| Refused { early: true, ..Refused::bad(text) };
    let fields = Fields::parse(body, shape).map_err(|bad| {
        early(match bad {
            BadBody::Empty if manners == Manners::Ollama => "missing request body".to_owned(),
            BadBody::Empty => "EOF".to_owned(),
            BadBody::Malformed(text) => text,
        })
    })?;
    shape.check(&fields).map_err(early)?;
    Ok(fields)
}

/// The model that `model` or the older `name` names.
fn named(fields: &Fields) -> String {
    let (model, name) = (string(fields, "model"), string(fields, "name"));
    if model.is_empty() { name } else { model }.to_owned()
}

fn show(shared: &Shared, path: &str, body: &Bytes) -> Result<Value, Refused> {
    let name = named(&read(body, &shape::SHOW, Manners::Ollama)?);
    if name.is_empty() {
        return Err(Refused::bad("model is required"));
    }
    found_to_show(shared, path, &name).map(|model| model.shown())
}

fn found_to_show(shared: &Shared, path: &str, name: &str) -> Result<Model, Refused> {
    let (base, from) = source(name);
    match from {
        Source::Conflict => return Err(conflict(name)),
        Source::Cloud => {
            shared.log.violation(ViolationKind::CloudModel, path, name);
            return Ok(cloud_model(name));
        }
        Source::Any | Source::Local => {}
    }
    if !is_name(base) {
        return Err(Refused::bad(BAD_NAME));
    }
    let found = shared.model(base).filter(|model| from == Source::Any || model.remote.is_none());
    found.ok_or_else(|| Refused::not_found(&full_name(base)))
}

fn delete(shared: &Shared, body: &Bytes) -> Result<(), Refused> {
    let name = named(&read(body, &shape::DELETE, Manners::Ollama)?);
    if name.is_empty() {
        return Err(Refused::bad("model is required"));
    }
    if !is_name(source(&name).0) {
        return Err(Refused::bad(format!("name {name:?} is invalid")));
    }
    if shared.store().remove(source(&name).0) { Ok(()) } else { Err(Refused::not_found(&name)) }
}

fn conflict(name: &str) -> Refused {
    Refused::bad(format!("use either :local or :cloud, not both: {name:?}"))
}

/// A model of the vendor's, which has everything.
fn cloud_model(name: &str) -> Model {
    use Capability::{Completion, Embedding, Tools, Vision};
    Model::new(name).with(&[Completion, Tools, Vision, Embedding]).remote("https://ollama.com:443", name)
}

async fn pull(shared: &Arc<Shared>, body: &Bytes, mut ticket: Ticket) -> Response<Answer> {
    let wanted = read(body, &shape::PULL, Manners::Ollama).and_then(|fields| {
        let name = named(&fields);
        let stream = fields.get("stream") != Some(&Value::Bool(false));
        if is_name(&name) { Ok((full_name(&name), stream)) } else { Err(Refused::bad(BAD_NAME)) }
    });
    match wanted {
        Err(refused) => {
            ticket.finish();
            refused.answer(Manners::Ollama)
        }
        Ok((name, streamed)) => {
            let pull = Pull::new(shared.clone(), name, ticket);
            if streamed { stream("application/x-ndjson", Answer::Pull(Box::new(pull))) } else { pull.run_to_end().await }
        }
    }
}

/// Chat, generation, completion, response, message: the whole journey of one.
async fn generate(
    shared: &Arc<Shared>,
    surface: Surface,
    body: &Bytes,
    arrived: Instant,
    mut ticket: Ticket,
) -> Result<Response<Answer>, Cut> {
    let manners = Manners::from(surface);
    let asked = read(body, surface.shape(), manners).and_then(|fields| Ok(Ask::parse(surface, &fields)?));
    let ask = match asked {
        Ok(ask) => ask,
        Err(refused) => {
            ticket.finish();
            return Ok(refused.answer(manners));
        }
    };
    // Two surfaces prepare the headers of a stream before they know whether there will be one.
    let no_cache = ask.stream && matches!(surface, Surface::Responses | Surface::Messages);
    let answer = run(shared, ask, arrived, ticket).await;
    answer.map(|mut answer| {
        if no_cache {
            answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        answer
    })
}

/// A generation whose request could be read.
async fn run(shared: &Arc<Shared>, ask: Ask, arrived: Instant, mut ticket: Ticket) -> Result<Response<Answer>, Cut> {
    let surface = ask.surface;
    let manners = Manners::from(surface);
    let admitted = match admit(shared, ask) {
        Ok(admitted) => admitted,
        Err(refused) => {
            ticket.finish();
            return Ok(refused.answer(manners));
        }
    };
    let Admitted { ask, model, spec, think, then } = admitted;
    let permit = shared.slot().await;
    let keep = match (then, ask.keep_alive) {
        (Then::Unload, _) => {
            shared.store().unload(&model.name);
            None
        }
        (_, Keep::Loaded(keep)) => Some(keep),
        (_, Keep::Unload) => Some(KeepAlive::For(std::time::Duration::ZERO)),
    };
    if let Some(keep) = keep {
        if !spec.load.is_zero() {
            sleep(spec.load).await;
        }
        shared.store().load(&model.name, keep);
    }
    let script = match then {
        Then::Answer => {
            let played = shared.part(&model.name).and_then(|part| Script::of_part(&part, &ask));
            played.unwrap_or_else(|| Script::write(&ask, &spec, think))
        }
        Then::Load => Script::silent("load"),
        Then::Unload => Script::silent("unload"),
    };
    // Native replies that only load or unload are one document, streamed or not.
    let streamed = ask.stream && (then == Then::Answer || !surface.is_native());
    let renderer = Renderer::new(&ask, spec.padding_kib, model.remote.clone());
    let failed = match &ask.format {
        Format::Unknown(format) if then == Then::Answer => {
            Some(format!("invalid format: {:?}; expected \"json\" or a valid JSON Schema object", format.to_string()))
        }
        _ => (spec.fail_at == Some(0)).then(|| RUNNER_DIED.to_owned()),
    };
    if then == Then::Load && streamed && surface == Surface::OpenAiCompletion {
        let (mut renderer, mut body) = (renderer, Vec::new());
        renderer.finish(&totals(&script, &spec, arrived), &mut body);
        ticket.finish();
        return Ok(whole(StatusCode::OK, renderer.content_type(), body));
    }
    let opening = Opening { renderer, script, spec, gates: shared.gates.clone(), model: model.name, permit, arrived, ticket };
    if then == Then::Answer {
        opening.first_token().await;
    }
    if let Some(text) = failed {
        let mut ticket = opening.ticket;
        ticket.finish();
        let refused = Refused::new(StatusCode::INTERNAL_SERVER_ERROR, text);
        // Nothing is out yet, so this failure still has a status, though the answer to it is on its way as a stream.
        return Ok(if streamed { refused.flushed(manners) } else { refused.answer(manners) });
    }
    if !streamed {
        let (end, mut ticket) = opening.run_to_end().await;
        ticket.finish();
        return match end {
            End::Whole(kind, bytes) => Ok(whole(StatusCode::OK, kind, bytes)),
            End::Failed => Ok(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, RUNNER_DIED).answer(manners)),
            End::Cut => Err(std::io::Error::other("cut as the model's name asks")),
        };
    }
    let kind = opening.renderer.content_type();
    Ok(stream(kind, Answer::Stream(Box::new(opening.stream()))))
}

/// A generation that may start.
struct Admitted {
    ask: Ask,
    model: Model,
    spec: Spec,
    think: bool,
    then: Then,
}

/// What a generation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Answer,
    Load,
    Unload,
}

fn admit(shared: &Shared, ask: Ask) -> Result<Admitted, Refused> {
    let surface = ask.surface;
    if ask.model.is_empty() {
        let generate = matches!(surface, Surface::Generate | Surface::OpenAiCompletion);
        return Err(if generate { Refused::not_found("") } else { Refused::bad("model is required") });
    }
    let model = reached(shared, &ask.model, || Refused::not_found(&ask.model))?;
    if ask.web_search {
        shared.log.violation(ViolationKind::WebSearch, "", &ask.model);
    }
    let spec = Spec::parse(&ask.model);
    if let Some(status) = spec.status {
        return Err(as_asked(status, &ask.model));
    }
    let empty = ask.talk.messages == 0;
    if empty && surface.is_native() && ask.keep_alive == Keep::Unload {
        return Ok(Admitted { ask, model, spec, think: false, then: Then::Unload });
    }
    let think = match (model.can(Capability::Thinking), ask.think) {
        (true, wanted) => wanted.unwrap_or(true),
        (false, Some(true)) if surface != Surface::Messages => {
            return Err(Refused::bad(format!("{:?} does not support thinking", ask.model)));
        }
        (false, _) => false,
    };
    if !model.can(Capability::Completion) {
        let verb = if matches!(surface, Surface::Generate | Surface::OpenAiCompletion) { "generate" } else { "chat" };
        return Err(Refused::bad(format!("{:?} does not support {verb}", ask.model)));
    }
    if !ask.tools.is_empty() && !model.can(Capability::Tools) {
        return Err(Refused::bad(format!("registry.ollama.ai/library/{} does not support tools", model.name)));
    }
    if let Some(text) = &ask.bad_option {
        return Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, text));
    }
    Ok(Admitted { ask, model, spec, think, then: if empty { Then::Load } else { Then::Answer } })
}

/// The model of a name, with a note where reaching it is a fault.
fn reached(shared: &Shared, name: &str, missing: impl Fn() -> Refused) -> Result<Model, Refused> {
    let (base, from) = source(name);
    if from == Source::Conflict {
        return Err(conflict(name));
    }
    if from == Source::Cloud {
        shared.log.violation(ViolationKind::CloudModel, "", name);
        return Ok(cloud_model(name));
    }
    if !is_name(base) {
        return Err(Refused::bad(BAD_NAME));
    }
    let model = shared.model(base).ok_or_else(&missing)?;
    if model.remote.is_some() {
        if from == Source::Local {
            return Err(missing());
        }
        shared.log.violation(ViolationKind::RemoteModel, "", name);
    }
    Ok(model)
}

/// The error of a status that a model's name asks for.
fn as_asked(status: u16, model: &str) -> Refused {
    let text = match status {
        401 => "unauthorized".to_owned(),
        403 => "ollama cloud is disabled: remote inference is unavailable".to_owned(),
        404 => return Refused::not_found(model),
        499 => "request canceled".to_owned(),
        500 => RUNNER_STOPPED.to_owned(),
        503 => BUSY.to_owned(),
        other => format!("status {other}, as the model's name asks"),
    };
    Refused::new(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text)
}

/// Vectors, on all three surfaces.
async fn embed(shared: &Arc<Shared>, route: Route<'_>, body: &Bytes, mut ticket: Ticket) -> Response<Answer> {
    let manners = if route == Route::OpenAiEmbeddings { Manners::OpenAi } else { Manners::Ollama };
    let started = Instant::now();
    let asked = match admit_embedding(shared, route, body) {
        Ok(asked) => asked,
        Err(refused) => {
            ticket.finish();
            return refused.answer(manners);
        }
    };
    let _permit = shared.slot().await;
    sleep(asked.spec.load).await;
    shared.store().load(&asked.model.name, asked.keep);
    if let Some(hold) = shared.gates.hold(&asked.model.name, Point::Headers) {
        ticket.held(true);
        hold.await;
        ticket.held(false);
    }
    sleep(asked.spec.first).await;
    ticket.finish();
    let vectors: Vec<Vec<f32>> = asked.inputs.iter().map(|input| asked.vector(input)).collect();
    match route {
        Route::OldEmbeddings => {
            // Not normalised, and in double precision.
            let vector: Vec<f64> = vectors.first().into_iter().flatten().map(|x| f64::from(*x) * 2.0).collect();
            whole(StatusCode::OK, JSON, encode(&json!({"embedding": vector})))
        }
        Route::OpenAiEmbeddings => {
            let data: Vec<Value> = vectors
                .iter()
                .enumerate()
                .map(|(index, vector)| {
                    let embedding = if asked.base64 {
                        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                        data_encoding::BASE64.encode(&bytes).into()
                    } else {
                        numbers(vector)
                    };
                    json!({"object": "embedding", "embedding": embedding, "index": index})
                })
                .collect();
            let usage = json!({"prompt_tokens": asked.tokens, "total_tokens": asked.tokens});
            let mut body = encode(&json!({"object": "list", "data": data, "model": asked.name, "usage": usage}));
            body.push(b'\n');
            whole(StatusCode::OK, "application/json", body)
        }
        _ => {
            let vectors: Vec<Value> = vectors.iter().map(|vector| numbers(vector)).collect();
            let mut answer = json!({"model": asked.name, "embeddings": vectors});
            if !asked.inputs.is_empty() {
                answer["total_duration"] = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX).into();
                let load = asked.spec.load.max(AT_ONCE);
                answer["load_duration"] = u64::try_from(load.as_nanos()).unwrap_or(u64::MAX).into();
                answer["prompt_eval_count"] = asked.tokens.into();
            }
            whole(StatusCode::OK, JSON, encode(&answer))
        }
    }
}

/// An array of numbers in single precision, each as short as it can be.
fn numbers(vector: &[f32]) -> Value {
    vector.iter().map(|x| x.to_string().parse::<f64>().map_or(Value::Null, Value::from)).collect()
}

struct Embedding {
    /// The name as it came.
    name: String,
    model: Model,
    spec: Spec,
    keep: KeepAlive,
    inputs: Vec<String>,
    dimensions: usize,
    tokens: u64,
    base64: bool,
}

impl Embedding {
    /// A vector of length 1 that depends on the model and the text.
    fn vector(&self, input: &str) -> Vec<f32> {
        let seed = seed(&[self.model.name.as_bytes(), input.as_bytes()]);
        let raw: Vec<f64> =
            (0..self.dimensions as u64).map(|index| (mix(seed, index) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5).collect();
        let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        raw.iter().map(|x| (x / length) as f32).collect()
    }
}

fn admit_embedding(shared: &Shared, route: Route<'_>, body: &Bytes) -> Result<Embedding, Refused> {
    let manners = if route == Route::OpenAiEmbeddings { Manners::OpenAi } else { Manners::Ollama };
    let shape = match route {
        Route::OpenAiEmbeddings => &shape::OPENAI_EMBEDDINGS,
        Route::OldEmbeddings => &shape::OLD_EMBEDDINGS,
        _ => &shape::EMBED,
    };
    let fields = read(body, shape, manners)?;
    let encoding = string(&fields, "encoding_format");
    if route == Route::OpenAiEmbeddings && !["", "float", "base64"].iter().any(|known| encoding.eq_ignore_ascii_case(known)) {
        let text = format!("Invalid value for 'encoding_format' = {encoding}. Supported values: ['float', 'base64'].");
        return Err(Refused { early: true, ..Refused::bad(text) });
    }
    let name = string(&fields, "model").to_owned();
    let keep = match keep_alive(&fields) {
        // This surface does not know of it.
        _ if route == Route::OpenAiEmbeddings => KeepAlive::Default,
        keep => match keep? {
            Keep::Loaded(keep) => keep,
            Keep::Unload => KeepAlive::For(std::time::Duration::ZERO),
        },
    };
    let given = given(&fields, route)?;
    if name.is_empty() {
        return Err(if route == Route::OldEmbeddings { Refused::bad("model is required") } else { Refused::not_found("") });
    }
    let inputs = texts(given)?;
    let model = reached(shared, &name, || Refused::not_pulled(&name))?;
    let spec = Spec::parse(&name);
    if let Some(status) = spec.status {
        return Err(as_asked(status, &name));
    }
    check_options(fields.get("options")).map_err(|text| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, text))?;
    let tokens: Vec<u64> = inputs.iter().map(|input| input.len().div_ceil(4).max(1) as u64).collect();
    let limit =
        fields.get("options").and_then(|options| options.get("num_ctx")?.as_u64()).unwrap_or(u64::MAX).min(model.context_length);
    if fields.get("truncate") == Some(&Value::Bool(false)) && tokens.iter().any(|tokens| *tokens > limit) {
        return Err(Refused::bad("the input length exceeds the context length"));
    }
    let wanted = fields.get("dimensions").and_then(Value::as_u64).filter(|wanted| *wanted > 0).unwrap_or(u64::MAX);
    let dimensions = usize::try_from(wanted).unwrap_or(usize::MAX).min(spec.dimensions);
    let tokens = tokens.iter().map(|tokens| (*tokens).min(limit)).sum();
    Ok(Embedding { name, model, spec, keep, inputs, dimensions, tokens, base64: encoding.eq_ignore_ascii_case("base64") })
}

/// What is to be turned into vectors, as it came; the newer OpenAI surface must be given something.
fn given<'a>(fields: &'a Fields, route: Route<'_>) -> Result<Vec<&'a Value>, Refused> {
    let openai = route == Route::OpenAiEmbeddings;
    match fields.get(if route == Route::OldEmbeddings { "prompt" } else { "input" }) {
        Some(Value::String(text)) if text.is_empty() && !openai => Ok(Vec::new()),
        Some(Value::Array(texts)) if !(openai && texts.is_empty()) => Ok(texts.iter().collect()),
        None | Some(Value::Array(_)) if openai => Err(Refused { early: true, ..Refused::bad("invalid input") }),
        None | Some(Value::Array(_)) => Ok(Vec::new()),
        Some(other) => Ok(vec![other]),
    }
}

fn texts(given: Vec<&Value>) -> Result<Vec<String>, Refused> {
    given.into_iter().map(|text| text.as_str().map(str::to_owned).ok_or_else(|| Refused::bad("invalid input type"))).collect()
}
