//! One request's whole life: ingress, admit, route, reserve, forward, settle.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
    request,
};
use http_body::Body;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use wire::{
    Content, DeviceId, LocalModel, RequestId,
    relay::{Failure, MAX_BODY, Operation, Outcome, RefusalCode},
};

use crate::{
    Admitted, Answer, Ask, AskedModel, Bridges, Catalogue, Endpoint, Listing, Meter, NotAdmitted, NotRelayed, Offer, Order, Part,
    Presence, Protocol, ProxyBody, RecordOutcome, Route, Surface, TooSlow, Upstream,
    body::{KEEPALIVE_EVERY, Pending, Source},
    cloud::{self, Cloud, CloudOrder},
    error::ProxyError,
    estimate, head, keys, listing,
    manners::Manners,
    route::{self, Affinity, Wanted},
    scan::{Asked, scan},
    settle::{Arrival, Entry, Ledger, ledger},
    surface::{DEPLOYMENTS_PATH, MODEL_PATH, protocol_at, surface},
    upstream::Addressing,
};

/// The proxy: told by `M` who asks and what they may, telling it one record for each request; asking workstations through `B` and
/// providers through [`Upstream`].
pub struct Proxy<M, B> {
    meter: Arc<M>,
    bridges: Arc<B>,
    cloud: Cloud,
    ledger: Ledger,
    affinity: Affinity,
    /// Room for bodies, in KiB.
    room: Arc<Semaphore>,
}

/// What all bodies may take that are being read or passed on, together. One of the largest size for each of 32 callers; whoever comes
/// when there is no more is told to come again.
const ROOM_KIB: usize = 1 << 20;
/// From here on a body is looked at off the runtime: it takes milliseconds.
const LARGE_BODY: usize = 512 << 10;

impl<M: Meter, B: Bridges> Proxy<M, B> {
    /// A proxy between these.
    pub fn new(meter: Arc<M>, bridges: Arc<B>, upstream: Arc<Upstream>, catalogue: Arc<Catalogue>) -> Self {
        let ledger = ledger(&meter);
        Self {
            meter,
            bridges,
            cloud: Cloud::new(upstream, catalogue),
            ledger,
            affinity: Affinity::default(),
            room: Arc::new(Semaphore::new(ROOM_KIB)),
        }
    }

    /// Answers one request.
    ///
    /// Dropping this future or the answer's body is how a caller hangs up; whoever works for them then stops at once, unless it
    /// would be paid for all the same. A request whose key was found good settles exactly one [`Record`](crate::Record), however it
    /// ends.
    pub async fn handle<R>(&self, request: Request<R>) -> Response<ProxyBody>
    where
        R: Body<Data = Bytes> + Send,
        R::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let arrival = Arrival::now();
        let (head, body) = request.into_parts();
        let admitted = self.admit(&head).await;
        self.live(arrival, &head, body, admitted).await
    }

    /// Answers a request of the house's own, which never was on a network: `admit` lets somebody in without a key, as a person who
    /// is signed in. From there on it is a request like any other: reserved, forwarded, read and settled with one record.
    ///
    /// `request` is what it shall be called, so that whoever asks can follow it before there is an answer.
    pub async fn handle_for<R>(
        &self,
        request: RequestId,
        admit: impl Future<Output = Result<Admitted, NotAdmitted>> + Send,
        asked: Request<R>,
    ) -> Response<ProxyBody>
    where
        R: Body<Data = Bytes> + Send,
        R::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let arrival = Arrival::of(request);
        let (head, body) = asked.into_parts();
        let path = head.uri.path();
        let admitted = match surface(&head.method, path) {
            None => Err(ProxyError::no_route(path)),
            Some(route) => admit.await.map(|admitted| (route, admitted)).map_err(ProxyError::NotAdmitted),
        };
        self.live(arrival, &head, body, admitted).await
    }

    /// Every cloud model that has a price and is served by somebody, under the first of its names by which it is.
    #[must_use]
    pub fn offers(&self) -> Vec<Offer> {
        self.cloud.listed().into_iter().filter_map(|offered| self.cloud.offer(offered)).collect()
    }

    /// The cloud model that is meant by a name, if it would be listed.
    #[must_use]
    pub fn offer(&self, name: &str) -> Option<Offer> {
        self.cloud.offered(name).and_then(|offered| self.cloud.offer(offered))
    }

    /// From the moment in which it is known whose request it is, which begins its record, to the head of its answer.
    async fn live<R>(
        &self,
        arrival: Arrival,
        head: &request::Parts,
        body: R,
        admitted: Result<(Route<'_>, Admitted), ProxyError>,
    ) -> Response<ProxyBody>
    where
        R: Body<Data = Bytes> + Send,
        R::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let protocol = protocol_of(head);
        let (route, admitted) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => return error.unrecorded_response(protocol, arrival.request),
        };
        let mut entry = Entry::open(&self.ledger, arrival, admitted.caller, route.surface);
        let answer = tokio::select! {
            biased;
            answer = self.answer(route, &admitted, head, body, &mut entry) => answer,
            () = admitted.leash.cancelled() => Err(ProxyError::NotAdmitted(NotAdmitted::Unknown)),
        };
        match answer {
            Ok(answer) => answer.into_response(protocol, entry, admitted),
            Err(error) => {
                entry.refuse(&error);
                error.response(protocol, arrival.request)
            }
        }
    }

    /// Whose request it is, and for what. The body has not been touched: nobody without a key makes the Lab read one.
    async fn admit<'a>(&self, head: &'a request::Parts) -> Result<(Route<'a>, Admitted), ProxyError> {
        let path = head.uri.path();
        let route = surface(&head.method, path).ok_or_else(|| ProxyError::no_route(path))?;
        let key = keys::presented_key(&head.headers, &head.uri).map_err(ProxyError::NotAdmitted)?;
        let admitted = self.meter.admit(key, route.surface).await.map_err(ProxyError::NotAdmitted)?;
        Ok((route, admitted))
    }

    /// The whole body, up to [`MAX_BODY`], and the room that it takes.
    async fn read<R>(&self, body: R) -> Result<(Content, OwnedSemaphorePermit), ProxyError>
    where
        R: Body<Data = Bytes> + Send,
        R::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let announced = body.size_hint().lower();
        if announced > MAX_BODY as u64 {
            return Err(ProxyError::BodyTooLarge);
        }
        let mut room = self.take_room(usize::try_from(announced).unwrap_or(MAX_BODY))?;
        let mut body = pin!(body);
        let (mut first, mut rest): (Bytes, Option<BytesMut>) = (Bytes::new(), None);
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let frame =
                frame.map_err(|error| if is_slow(&*error.into()) { ProxyError::BodySlow } else { ProxyError::BodyBroken })?;
            let Ok(data) = frame.into_data() else { continue };
            let length = rest.as_ref().map_or(first.len(), BytesMut::len) + data.len();
            if length > MAX_BODY {
                return Err(ProxyError::BodyTooLarge);
            }
            if length.div_ceil(1024) > room.num_permits() {
                room.merge(self.take_room(length - room.num_permits() * 1024)?);
            }
            // Most bodies come in one piece, which is not copied.
            match &mut rest {
                Some(rest) => rest.extend_from_slice(&data),
                None if first.is_empty() => first = data,
                None => rest = Some(BytesMut::from_iter([&first[..], &data[..]].concat())),
            }
        }
        Ok((rest.map_or(first, BytesMut::freeze).into(), room))
    }

    fn take_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ProxyError> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).try_acquire_many_owned(kib).map_err(|_| ProxyError::NoRoom)
    }

    async fn answer<R>(
        &self,
        route: Route<'_>,
        admitted: &Admitted,
        head: &request::Parts,
        body: R,
        entry: &mut Entry,
    ) -> Result<Forwarded, ProxyError>
    where
        R: Body<Data = Bytes> + Send,
        R::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        // A caller who names a project means the key to be good for that one.
        let named = head.headers.get(PROJECT);
        if named.is_some_and(|project| project.as_bytes() != admitted.caller.project.to_string().as_bytes()) {
            return Err(ProxyError::NotAdmitted(NotAdmitted::Unknown));
        }
        match route.surface {
            Surface::Model(endpoint) => self.ask(endpoint, route.model, admitted, head, body, entry).await,
            Surface::Listing(listing) => self.list(listing, route.model, head, admitted),
        }
    }

    /// From the body to whoever has the model.
    async fn ask<R>(
        &self,
        endpoint: Endpoint,
        in_path: Option<&str>,
        admitted: &Admitted,
        head: &request::Parts,
        body: R,
        entry: &mut Entry,
    ) -> Result<Forwarded, ProxyError>
    where
        R: Body<Data = Bytes> + Send,
        R::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if is_encoded(&head.headers) {
            return Err(ProxyError::BodyEncoded);
        }
        let (content, room) = self.read(body).await?;
        entry.keep(room);
        let (asked, most_input) = look_at(&content).await?;
        let streamed = streams(endpoint, &asked);
        entry.note_stream(streamed);
        let in_path = in_path.map(unescaped);
        let name = in_path.as_deref().or(asked.model.as_deref());
        // Azure's own clients name a deployment in the path and anything in the body, which Azure then does not read. Whoever else
        // was asked would run what the body names, and the path's model would be paid for.
        let differs = match (&in_path, &asked.model) {
            (Some(in_path), Some(in_body)) => !self.cloud.is_same(in_path, in_body),
            _ => false,
        };
        let wanted = route::wanted(endpoint.protocol(), name)?;
        if differs && (endpoint.protocol() != Protocol::Openai || matches!(wanted, Wanted::Local(_))) {
            return Err(ProxyError::ModelMismatch);
        }
        match wanted {
            Wanted::Local(local) => {
                let operation = endpoint.operation().ok_or(ProxyError::NotForLocal)?;
                self.ask_workstation(operation, &local, streamed, admitted, content, entry).await
            }
            Wanted::Named(name) => {
                let order = CloudOrder {
                    endpoint,
                    name,
                    addressing: addressing(head.uri.path(), endpoint, differs || asked.model.is_none()),
                    query: head.uri.query(),
                    headers: &head.headers,
                    terms: asked.terms,
                    streamed,
                    exact_usage: admitted.exact_usage,
                    prompt_lies_elsewhere: most_input == u64::MAX,
                };
                self.ask_provider(&order, admitted, content, most_input, entry).await
            }
        }
    }

    /// From the choice of a workstation to the first byte of its answer, or to the moment when the caller has waited too long for one.
    async fn ask_workstation(
        &self,
        operation: Operation,
        wanted: &LocalModel,
        streamed: bool,
        admitted: &Admitted,
        content: Content,
        entry: &mut Entry,
    ) -> Result<Forwarded, ProxyError> {
        let caller = admitted.caller;
        let expected = Manners::expected(operation, streamed);
        let patience = expected.keepalive().map(|_| Instant::now() + KEEPALIVE_EVERY);
        let mut workstations = self.bridges.workstations(caller.user);
        let mut refused = None;
        loop {
            let last = self.affinity.last(caller.key, &wanted.model);
            let device = match route::choose(wanted, operation, &workstations, last) {
                Ok(device) => device,
                Err(error) => return Err(refused.unwrap_or(error)),
            };
            if refused.is_none() {
                let ask = entry.ask(AskedModel::Local(&wanted.model), streamed);
                entry.hold(self.meter.reserve(&caller, ask).await.map_err(ProxyError::NotReserved)?);
            }
            self.affinity.remember(caller.key, &wanted.model, device);
            // Only now: a name that no workstation has is a caller's text like any other, and is not kept.
            entry.note_local(&wanted.model);
            entry.note_device(device);
            let mut pending =
                self.relay(device, Order { request: entry.request(), operation, body: content.for_retry(), streamed });
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

    /// From the catalogue to the first byte of a provider's answer.
    async fn ask_provider(
        &self,
        order: &CloudOrder<'_>,
        admitted: &Admitted,
        content: Content,
        most_input: u64,
        entry: &mut Entry,
    ) -> Result<Forwarded, ProxyError> {
        if order.terms.background {
            return Err(ProxyError::Background);
        }
        let model = self.cloud.model(order, entry.time())?;
        let bound = cloud::bound(&model, order, most_input);
        let most_nano = self.cloud.most(&model, entry.time(), order.endpoint, &bound);
        entry.note_cloud(&model, self.cloud.prices());
        let ask = Ask {
            most_nano,
            most_tokens: if order.endpoint.is_free() { 0 } else { bound.input.saturating_add(bound.output) },
            ..entry.ask(AskedModel::Cloud(&model), order.streamed)
        };
        entry.hold(self.meter.reserve(&admitted.caller, ask).await.map_err(ProxyError::NotReserved)?);
        self.cloud.ask(model, order, content, &admitted.leash, entry).await.map(|begun| Forwarded::Provided(Box::new(begun)))
    }

    fn list(
        &self,
        listing: Listing,
        in_path: Option<&str>,
        head: &request::Parts,
        admitted: &Admitted,
    ) -> Result<Forwarded, ProxyError> {
        let workstations = self.bridges.workstations(admitted.caller.user);
        let protocol = protocol_of(head);
        let id = in_path.map(unescaped).unwrap_or_default();
        let list = match listing {
            Listing::Models => match protocol {
                Protocol::Anthropic => listing::anthropic_models(&workstations, &self.cloud.listed()),
                Protocol::Gemini => listing::gemini_models(&self.cloud.listed()),
                Protocol::Openai | Protocol::Ollama => listing::openai_models(&workstations, &self.cloud.listed()),
            },
            Listing::Model => match protocol {
                Protocol::Anthropic => listing::anthropic_one(&id, &workstations, self.cloud.offered(&id))?,
                Protocol::Gemini => listing::gemini_one(self.cloud.offered(&id))?,
                Protocol::Openai | Protocol::Ollama => listing::openai_one(&id, &workstations, self.cloud.offered(&id))?,
            },
            Listing::Tags => listing::tags(&workstations),
            Listing::Running => listing::running(&workstations),
            Listing::Version => listing::version(&workstations)?,
        };
        Ok(Forwarded::Listed(Bytes::from(list.to_string()).into()))
    }
}

/// Request header: the project that the caller means. A key of another one is refused.
const PROJECT: &str = "x-1k4-project";

/// What the path says that a provider's path must say as well.
fn addressing(path: &str, endpoint: Endpoint, only_in_path: bool) -> Addressing {
    match endpoint.protocol() {
        Protocol::Gemini if path.starts_with(MODEL_PATH) => Addressing::GeminiStable,
        Protocol::Openai if path.starts_with(DEPLOYMENTS_PATH) && only_in_path => Addressing::Deployment,
        Protocol::Openai | Protocol::Anthropic | Protocol::Gemini | Protocol::Ollama => Addressing::Usual,
    }
}

/// What is known when the head of the answer goes out.
enum Forwarded {
    /// The proxy's own answer.
    Listed(Content),
    /// A workstation's.
    Relayed { device: DeviceId, status: StatusCode, content_type: HeaderValue, manners: Manners, source: Source },
    /// A provider's.
    Provided(Box<cloud::Begun>),
}

impl Forwarded {
    /// The workstation is still silent, and the answer begins without it.
    fn committed(device: DeviceId, manners: Manners, pending: Pending) -> Self {
        let (status, content_type) = (StatusCode::OK, manners.content_type());
        Self::Relayed { device, status, content_type, manners, source: Source::Waiting(pending) }
    }

    fn into_response(self, protocol: Protocol, mut entry: Entry, admitted: Admitted) -> Response<ProxyBody> {
        let request = entry.request();
        let mut allowance = admitted.allowance;
        let mut response = match self {
            Self::Listed(content) => {
                entry.note_status(StatusCode::OK);
                entry.settle(RecordOutcome::Complete);
                let mut response = head::response(StatusCode::OK, request, ProxyBody::whole(content));
                response.headers_mut().insert(CONTENT_TYPE, head::json(protocol));
                response
            }
            Self::Relayed { device, status, content_type, manners, source } => {
                entry.note_status(status);
                allowance = entry.allowance().or(allowance);
                let body = ProxyBody::relayed(entry, protocol, manners, source, admitted.leash);
                head::relayed(status, content_type, device, request, body)
            }
            Self::Provided(begun) => {
                allowance = begun.allowance().or(allowance);
                begun.into_response(protocol, request, admitted.leash)
            }
        };
        if let Some(allowance) = &allowance {
            head::tell_allowance(response.headers_mut(), allowance);
        }
        response
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

/// Whether the answer will be a stream: as the body says where there can be one, as Ollama does it where it says nothing.
fn streams(endpoint: Endpoint, asked: &Asked) -> bool {
    match endpoint {
        Endpoint::OllamaChat | Endpoint::OllamaGenerate => asked.stream.unwrap_or(true),
        Endpoint::OpenaiChat
        | Endpoint::OpenaiCompletions
        | Endpoint::OpenaiResponses
        | Endpoint::OpenaiImages
        | Endpoint::AnthropicMessages => asked.stream.unwrap_or(false),
        Endpoint::GeminiStreamGenerate => true,
        Endpoint::OllamaEmbed
        | Endpoint::OllamaShow
        | Endpoint::OpenaiEmbeddings
        | Endpoint::AnthropicCountTokens
        | Endpoint::GeminiGenerate
        | Endpoint::GeminiCountTokens
        | Endpoint::GeminiEmbed
        | Endpoint::GeminiBatchEmbed => false,
    }
}

/// The future's output; `None` when patience ran out before.
async fn until<F: Future>(patience: Option<Instant>, future: F) -> Option<F::Output> {
    match patience {
        Some(end) => timeout_at(end, future).await.ok(),
        None => Some(future.await),
    }
}

/// What a body asks for, and the most prompt tokens that it can be.
async fn look_at(content: &Content) -> Result<(Asked, u64), ProxyError> {
    let look = |content: &Content| Ok((scan(content.for_routing())?, estimate::most_input(content.for_routing())));
    if content.len() < LARGE_BODY {
        return look(content);
    }
    let again = content.for_retry();
    // It does not panic: what it is made of is tried with every body there is.
    tokio::task::spawn_blocking(move || look(&again)).await.unwrap_or(Err(ProxyError::BodyBroken))
}

/// Whether somewhere under an error the server's own word is that the body came too slowly.
fn is_slow(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A compressed body could not be read without undoing it, and its bytes would not be what the provider is paid to read.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Decided by the path; where several protocols share one, by the header that only one's clients send.
fn protocol_of(head: &request::Parts) -> Protocol {
    let path = head.uri.path();
    let by_path = protocol_at(path);
    let is_shared = by_path == Protocol::Openai && (path == "/v1/models" || path.starts_with(MODEL_PATH));
    if is_shared && head.headers.contains_key("anthropic-version") {
        Protocol::Anthropic
    } else if is_shared && head.headers.contains_key("x-goog-api-key") {
        Protocol::Gemini
    } else {
        by_path
    }
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
