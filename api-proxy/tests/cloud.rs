//! The proxy between a meter that remembers and a provider on a socket.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use api_proxy::{
    Admitted, Answer, Ask, Bridges, Caller, Catalogue, Channel, Endpoint, KeyId, Leash, Meter, ModelOverride, ModelPrices,
    NotAdmitted, NotRelayed, NotReserved, Order, PresentedKey, Price, ProviderKind, ProviderSecret, Proxy, ProxyBody, Record,
    RecordOutcome, Reservation, Surface, Tuning, Upstream, Workstation,
};
use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use wire::{DeviceId, ProjectId, UserId};

const SSE: &str = "text/event-stream";
const JSON: &str = "application/json";
const CHAT: &str = "/v1/chat/completions";
const STREAMED: &str = r#"{"model":"gpt-5.4-mini","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
const SECRET: &str = "sk-the-operators-own";

/// What the provider does with a request.
enum Act {
    /// Answers at once.
    Say(u16, &'static str, Vec<u8>),
    /// Answers what the test sends, until it sends no more; `Err` breaks the connection.
    Live(u16, &'static str, mpsc::Receiver<Result<Bytes, Broken>>),
    /// Keeps silent until the test says so, then answers.
    Hold(watch::Receiver<bool>, &'static str, Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
#[error("scripted")]
struct Broken;

struct Seen {
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone)]
struct Provider {
    address: SocketAddr,
    acts: Arc<Mutex<VecDeque<Act>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Provider {
    async fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Self {
            address: listener.local_addr().unwrap(),
            acts: Arc::new(Mutex::new(acts.into_iter().collect())),
            seen: Arc::default(),
        };
        let serving = provider.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let serving = serving.clone();
                let service = service_fn(move |request| serving.clone().answer(request));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
        });
        provider
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<UnsyncBoxBody<Bytes, Broken>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        self.seen.lock().unwrap().push(Seen { target: head.uri.to_string(), headers: head.headers, body });
        let act = self.acts.lock().unwrap().pop_front().unwrap();
        let (status, content_type, body) = match act {
            Act::Say(status, content_type, text) => (status, content_type, whole_body(text)),
            Act::Live(status, content_type, pieces) => {
                let frames = stream::unfold(pieces, async |mut pieces| pieces.recv().await.map(|piece| (piece, pieces)));
                (status, content_type, StreamBody::new(frames.map(|piece| piece.map(Frame::data))).boxed_unsync())
            }
            Act::Hold(mut until, content_type, text) => {
                until.wait_for(|now| *now).await.unwrap();
                (200, content_type, whole_body(text))
            }
        };
        Ok(Response::builder()
            .status(status)
            .header(CONTENT_TYPE, content_type)
            .header("x-request-id", "theirs")
            .header("cache-control", "max-age=60")
            .body(body)
            .unwrap())
    }

    fn contacts(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn whole_body(text: Vec<u8>) -> UnsyncBoxBody<Bytes, Broken> {
    Full::<Bytes>::from(text).map_err(|never| match never {}).boxed_unsync()
}

fn live(content_type: &'static str) -> (mpsc::Sender<Result<Bytes, Broken>>, Act) {
    let (sender, pieces) = mpsc::channel(1);
    (sender, Act::Live(200, content_type, pieces))
}

/// Lets in whoever has the key `good`, and reserves what the test says.
struct Recorder {
    caller: Caller,
    exact_usage: bool,
    leash: Leash,
    refusal: Option<NotReserved>,
    reserved: Mutex<Vec<(i64, u64)>>,
    records: watch::Sender<Vec<(Record, Option<Reservation>)>>,
}

impl Meter for Recorder {
    async fn admit(&self, key: PresentedKey<'_>, _: Surface) -> Result<Admitted, NotAdmitted> {
        if key.expose() != "good" {
            return Err(NotAdmitted::Unknown);
        }
        Ok(Admitted { caller: self.caller, exact_usage: self.exact_usage, leash: self.leash.clone(), allowance: None })
    }

    async fn reserve(&self, _: &Caller, ask: Ask<'_>) -> Result<Reservation, NotReserved> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        self.reserved.lock().unwrap().push((ask.most_nano, ask.most_tokens));
        Ok(Reservation { nano: ask.most_nano, tokens: ask.most_tokens, free: false, allowance: None })
    }

    fn settle(&self, record: Record, reservation: Option<Reservation>) {
        self.records.send_modify(|records| records.push((record, reservation)));
    }
}

struct NoBridges;

impl Bridges for NoBridges {
    fn workstations(&self, _: UserId) -> Vec<Workstation> {
        Vec::new()
    }

    async fn relay(&self, _: DeviceId, _: Order) -> Result<Answer, NotRelayed> {
        Err(NotRelayed::Offline)
    }
}

struct World {
    provider: Provider,
    meter: Arc<Recorder>,
    proxy: Arc<Proxy<Recorder, NoBridges>>,
}

impl World {
    async fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::with(acts, |_| {}).await
    }

    async fn with(acts: impl IntoIterator<Item = Act>, change: impl FnOnce(&mut Recorder)) -> Self {
        let kinds = [("openai", ProviderKind::Openai), ("anthropic", ProviderKind::Anthropic), ("google", ProviderKind::Gemini)];
        let channels = kinds.map(|(name, kind)| channel(name, kind));
        Self::of(acts, change, channels.into(), Catalogue::embedded().unwrap()).await
    }

    /// One whose channels, wherever they say that they are, lead to the provider.
    async fn of(
        acts: impl IntoIterator<Item = Act>,
        change: impl FnOnce(&mut Recorder),
        mut channels: Vec<Channel>,
        catalogue: Catalogue,
    ) -> Self {
        let provider = Provider::start(acts).await;
        let key: KeyId = "abcDEF123456".parse().unwrap();
        let mut meter = Recorder {
            caller: Caller { user: UserId::random(), project: ProjectId::random(), key },
            exact_usage: false,
            leash: Leash::new(),
            refusal: None,
            reserved: Mutex::default(),
            records: watch::Sender::default(),
        };
        change(&mut meter);
        let meter = Arc::new(meter);
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        for channel in &mut channels {
            channel.base = format!("http://{}", provider.address).parse().unwrap();
        }
        let upstream = Upstream::new(channels, &Arc::new(tls), Tuning::default());
        let proxy = Arc::new(Proxy::new(Arc::clone(&meter), Arc::new(NoBridges), Arc::new(upstream), Arc::new(catalogue)));
        Self { provider, meter, proxy }
    }

    async fn get(&self, path: &str, (name, value): (&'static str, &'static str)) -> Response<ProxyBody> {
        let request = Request::get(path).header("authorization", "Bearer good").header(name, value);
        self.proxy.handle(request.body(Full::<Bytes>::default()).unwrap()).await
    }

    async fn post(&self, path: &str, body: impl Into<Bytes>) -> Response<ProxyBody> {
        let request =
            Request::post(path).header("x-api-key", "good").header(CONTENT_TYPE, JSON).body(Full::new(body.into())).unwrap();
        self.proxy.handle(request).await
    }

    /// The one record, once it is there.
    async fn record(&self) -> Record {
        let mut records = self.meter.records.subscribe();
        let waiting = records.wait_for(|records| !records.is_empty());
        let (record, reservation) = timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap()[0].clone();
        assert_eq!(self.meter.records.borrow().len(), 1);
        assert_eq!(reservation.is_some(), !self.meter.reserved.lock().unwrap().is_empty(), "what was set aside comes back");
        record
    }
}

fn channel(provider: &str, kind: ProviderKind) -> Channel {
    Channel {
        name: provider.parse().unwrap(),
        provider: provider.parse().unwrap(),
        kind,
        base: "https://provider.example".parse().unwrap(),
        secret: Some(ProviderSecret::new(SECRET)),
        priority: 0,
        weight: 1,
        models: None,
        deployments: HashMap::new(),
        api_version: None,
    }
}

fn header<'a>(response: &'a Response<ProxyBody>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn read(response: Response<ProxyBody>) -> (u16, Vec<u8>, bool) {
    let status = response.status().as_u16();
    let (mut body, mut all) = (response.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => all.extend_from_slice(frame.into_data().ok().unwrap().chunk()),
            Err(_) => return (status, all, false),
        }
    }
    (status, all, true)
}

async fn text(response: Response<ProxyBody>) -> (u16, String) {
    let (status, bytes, whole) = read(response).await;
    assert!(whole);
    (status, String::from_utf8(bytes).unwrap())
}

async fn first(body: &mut ProxyBody) -> Bytes {
    let mut content = body.frame().await.unwrap().unwrap().into_data().ok().unwrap();
    content.copy_to_bytes(content.remaining())
}

#[tokio::test]
async fn bytes_arrive_as_they_were_sent_in_both_directions() {
    for odd in [
        "\r\n { \"model\" :\t\"gpt-5.4-mini\" ,\n\"messages\":[ ] } \n",
        r#"{"z":1,"a":{"z":1e400,"z":2},"model":"gpt-5.4-mini","unknown":[null,-0.0,1E+3],"z":3}"#,
        r#"{"messages":[{"content":"\ud800 \uDFFF \u0000 \/ é"}],"m\u006fdel":"gpt-5.4-mini"}"#,
        r#"{"model":"gpt-5.4-mini","big":123456789012345678901234567890.5e-3}"#,
    ] {
        let answer = [odd.as_bytes(), b"\xff\xfe\0 not json \r\n"].concat();
        let world = World::new([Act::Say(200, JSON, answer.clone())]).await;
        let response = world.post(CHAT, odd).await;
        assert_eq!(response.headers()["x-request-id"], "theirs");
        assert_eq!(response.headers()["x-1k4-provider"], "openai");
        assert_eq!(response.headers().get_all("cache-control").iter().collect::<Vec<_>>(), ["no-store"]);
        let id = response.headers()["x-1k4-request-id"].to_str().unwrap().to_owned();
        assert_eq!(response.headers()["x-1k4-receipt"], format!("/v1/requests/{id}"));
        assert_eq!(read(response).await, (200, answer, true));
        let seen = world.provider.seen.lock().unwrap();
        assert_eq!((seen.len(), seen[0].body.as_ref()), (1, odd.as_bytes()), "{odd}");
        assert_eq!(seen[0].headers["authorization"], format!("Bearer {SECRET}"));
        assert!(!format!("{:?}", seen[0].headers).contains("good"));
    }
}

#[tokio::test]
async fn an_answer_is_priced_to_the_token() {
    let answer = r#"{"usage":{"prompt_tokens":1000,"completion_tokens":101,"total_tokens":1101,"prompt_tokens_details":{"cached_tokens":400}}}"#;
    let world = World::new([Act::Say(200, JSON, answer.into())]).await;
    let body = r#"{"model":"gpt-5.4-mini","max_tokens":200,"messages":[]}"#;
    assert_eq!(text(world.post(CHAT, body).await).await, (200, answer.into()));
    let record = world.record().await;
    assert_eq!(record.model.as_deref(), Some("gpt-5.4-mini"));
    assert_eq!(record.provider.as_ref().map(|name| name.as_str()), Some("openai"));
    assert_eq!((record.input_tokens, record.output_tokens, record.estimated), (Some(1000), Some(101), false));
    // 600 at 0.75, 400 at 0.075 and 101 at 4.5 USD per million.
    assert_eq!(record.cost_nano, 450_000 + 30_000 + 454_500);
    assert_eq!((record.status, record.outcome), (200, RecordOutcome::Complete));
    assert_eq!(record.operation, Surface::Model(Endpoint::OpenaiChat));
    assert!(record.prices.is_some() && record.first_byte_ms.is_some());
    let (nano, tokens) = world.meter.reserved.lock().unwrap()[0];
    assert!(tokens >= 200 && nano >= 200 * 4500, "{tokens} tokens, {nano}");
}

#[tokio::test]
async fn a_stream_passes_as_it_comes_and_ends_priced() {
    let (say, act) = live(SSE);
    let world = World::new([act]).await;
    let begun = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n";
    say.send(Ok(begun.into())).await.unwrap();
    let response = world.post(CHAT, STREAMED).await;
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let mut body = response.into_body();
    assert_eq!(first(&mut body).await, begun);
    let last =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5,\"total_tokens\":8}}\n\ndata: [DONE]\n\n";
    say.send(Ok(last.into())).await.unwrap();
    drop(say);
    assert_eq!(first(&mut body).await, last);
    assert!(body.frame().await.is_none());
    let record = world.record().await;
    assert_eq!((record.input_tokens, record.output_tokens, record.cost_nano), (Some(3), Some(5), 2_250 + 22_500));
    assert_eq!((record.stream, record.estimated, record.outcome), (true, false, RecordOutcome::Complete));
}

#[tokio::test]
async fn a_providers_no_is_passed_on_and_costs_nothing() {
    for status in [400, 404, 409, 413, 422, 429, 500, 503, 529] {
        let world = World::new([Act::Say(status, JSON, br#"{"error":{"message":"no"}}"#.into())]).await;
        let response = world.post(CHAT, STREAMED).await;
        assert_eq!(response.headers()["x-1k4-source"], "provider");
        assert_eq!(text(response).await, (status, r#"{"error":{"message":"no"}}"#.into()));
        let record = world.record().await;
        assert_eq!((record.status, record.cost_nano, record.outcome), (status, 0, RecordOutcome::Failed("provider_error")));
    }
}

#[tokio::test]
async fn the_operators_key_is_not_the_callers_fault() {
    for status in [401, 402, 403] {
        let world = World::new([Act::Say(status, JSON, b"{\"error\":\"bad key sk-the-ope...\"}".into())]).await;
        let response = world.post(CHAT, STREAMED).await;
        assert_eq!((response.status().as_u16(), header(&response, "x-1k4-error")), (502, "upstream_error"));
        assert_eq!(header(&response, "x-should-retry"), "false");
        assert!(!text(response).await.1.contains("sk-"));
        assert_eq!(world.record().await.outcome, RecordOutcome::Failed("upstream_error"));
    }
}

#[tokio::test]
async fn the_operators_empty_account_is_not_the_callers_fault() {
    let spent =
        r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    let world = World::new([Act::Say(429, JSON, spent.into())]).await;
    let response = world.post(CHAT, STREAMED).await;
    assert_eq!((response.status().as_u16(), header(&response, "x-1k4-error")), (502, "upstream_error"));
    assert_eq!((header(&response, "x-should-retry"), header(&response, "x-1k4-source")), ("false", "gateway"));
    assert!(text(response).await.1.contains("this Lab's own account at the provider is used up"));
    assert_eq!(world.record().await.outcome, RecordOutcome::Failed("upstream_error"));
}

#[tokio::test]
async fn what_breaks_in_the_middle_is_told_in_the_callers_words() {
    let gemini = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
    for (path, body, piece, told) in [
        (CHAT, STREAMED, "data: {\"x\":1}\n\n", "data: {\"error\":{\"message\":\"the provider broke off"),
        (
            "/v1/responses",
            r#"{"model":"gpt-5.4-mini","stream":true,"input":"a"}"#,
            "event: response.created\ndata: {\"type\":\"response.created\"}\n\n",
            "event: error\ndata: {\"type\":\"error\",\"code\":\"upstream_error\",\"message\":\"the provider broke off",
        ),
        (
            "/v1/messages",
            r#"{"model":"claude-haiku-4-5","stream":true,"max_tokens":5,"messages":[]}"#,
            "event: ping\ndata: {\"type\":\"ping\"}\n\n",
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"the provider broke off",
        ),
        (
            gemini,
            r#"{"contents":[]}"#,
            "data: {\"candidates\":[]}\r\n\r\n",
            "data: {\"error\":{\"code\":502,\"message\":\"the provider broke off",
        ),
    ] {
        let (say, act) = live(SSE);
        let world = World::new([act]).await;
        say.send(Ok(piece.into())).await.unwrap();
        let response = world.post(path, body).await;
        say.send(Err(Broken)).await.unwrap();
        let (status, answer) = text(response).await;
        assert_eq!(status, 200);
        let rest = answer.strip_prefix(piece).unwrap().trim_start_matches(['\r', '\n']);
        assert!(rest.starts_with(told), "{answer}");
        assert!(!answer.contains("[DONE]") && !answer.contains("message_stop"));
        assert_eq!(world.record().await.outcome, RecordOutcome::Failed("upstream_error"));
    }
    // A document cannot tell, so it breaks off.
    let (say, act) = live(JSON);
    let world = World::new([act]).await;
    say.send(Ok("{\"half".into())).await.unwrap();
    let response = world.post(CHAT, r#"{"model":"gpt-5.4-mini","messages":[]}"#).await;
    say.send(Err(Broken)).await.unwrap();
    assert_eq!(read(response).await, (200, b"{\"half".to_vec(), false));
}

#[tokio::test]
async fn who_hangs_up_stops_the_provider_that_then_stops_counting() {
    let (say, act) = live(SSE);
    let world = World::new([act]).await;
    say.send(Ok("data: {\"choices\":[{\"delta\":{\"content\":\"abcdefgh\"}}]}\n\n".into())).await.unwrap();
    let mut body = world.post(CHAT, STREAMED).await.into_body();
    first(&mut body).await;
    let begun = Instant::now();
    drop(body);
    timeout(Duration::from_secs(5), say.closed()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    let record = world.record().await;
    assert_eq!((record.outcome, record.estimated), (RecordOutcome::Cancelled, true));
    assert!(record.input_tokens > Some(0) && record.cost_nano > 0, "{record:?}");
    let (reserved, _) = world.meter.reserved.lock().unwrap()[0];
    assert!(record.cost_nano <= reserved);
}

#[tokio::test]
async fn what_is_paid_for_all_the_same_is_read_to_its_end() {
    // Google does not stop when its reader goes.
    let (say, act) = live(SSE);
    let world = World::new([act]).await;
    say.send(Ok("data: {\"candidates\":[]}\r\n\r\n".into())).await.unwrap();
    let path = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
    let mut body = world.post(path, r#"{"contents":[]}"#).await.into_body();
    first(&mut body).await;
    drop(body);
    let last = "data: {\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":10,\"candidatesTokenCount\":20,\"totalTokenCount\":30}}\r\n\r\n";
    say.send(Ok(last.into())).await.unwrap();
    drop(say);
    let record = world.record().await;
    assert_eq!((record.input_tokens, record.output_tokens), (Some(10), Some(20)));
    assert_eq!((record.cost_nano, record.estimated, record.outcome), (3_000 + 50_000, false, RecordOutcome::Cancelled));

    // An answer in one piece is made in any case, also if its caller leaves before its head.
    let (go, held) = watch::channel(false);
    let answer = r#"{"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}"#;
    let world = World::new([Act::Hold(held, JSON, answer.into())]).await;
    {
        let mut asking = std::pin::pin!(world.post(CHAT, r#"{"model":"gpt-5.4-mini","messages":[]}"#));
        while world.provider.contacts() == 0 {
            assert!(timeout(Duration::from_millis(5), &mut asking).await.is_err());
        }
    }
    go.send(true).unwrap();
    let record = world.record().await;
    assert_eq!((record.input_tokens, record.output_tokens, record.outcome), (Some(2), Some(3), RecordOutcome::Cancelled));
}

#[tokio::test]
async fn a_revoked_key_ends_what_runs_under_it() {
    let (say, act) = live(SSE);
    let world = World::new([act]).await;
    say.send(Ok("data: {}\n\n".into())).await.unwrap();
    let mut body = world.post(CHAT, STREAMED).await.into_body();
    first(&mut body).await;
    world.meter.leash.cancel();
    let last = first(&mut body).await;
    assert!(last.starts_with(b"data: {\"error\":{\"message\":\"the API key is not valid here"), "{last:?}");
    assert!(body.frame().await.is_none());
    timeout(Duration::from_secs(5), say.closed()).await.unwrap();
    assert_eq!(world.record().await.outcome, RecordOutcome::Failed("invalid_api_key"));
    // Also before there is an answer.
    let (_go, held) = watch::channel(false);
    let world = World::new([Act::Hold(held, SSE, Vec::new())]).await;
    let (response, ()) = tokio::join!(world.post(CHAT, STREAMED), async {
        while world.provider.contacts() == 0 {
            tokio::task::yield_now().await;
        }
        world.meter.leash.cancel();
    });
    assert_eq!(response.status(), 401);
}

#[tokio::test]
async fn who_may_not_contacts_nobody() {
    let allowance = api_proxy::Allowance::default();
    for (refusal, status, code) in [
        (NotReserved::ModelNotAllowed, 403, "model_not_allowed"),
        (NotReserved::InsufficientCredits, 402, "insufficient_credits"),
        (NotReserved::KeySpendLimit, 402, "key_spend_limit"),
        (NotReserved::TrialExhausted, 402, "trial_exhausted"),
        (NotReserved::InFlight { retry_after_s: 3 }, 402, "in_flight_budget_exhausted"),
        (NotReserved::RateLimited { retry_after: Duration::from_millis(1500), allowance }, 429, "rate_limited"),
        (NotReserved::Unavailable, 503, "unavailable"),
    ] {
        let world = World::with([], |meter| meter.refusal = Some(refusal)).await;
        let response = world.post(CHAT, STREAMED).await;
        assert_eq!((response.status().as_u16(), response.headers()["x-1k4-error"].to_str().unwrap()), (status, code));
        let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap());
        let expected = match refusal {
            NotReserved::InFlight { .. } => Some("3"),
            NotReserved::RateLimited { .. } => Some("2"),
            NotReserved::Unavailable => Some("1"),
            _ => None,
        };
        assert_eq!(retry, expected, "{code}");
        // The SDKs take a 402 for final unless they are told otherwise.
        let should = match (status, refusal) {
            (402, NotReserved::InFlight { .. }) => "true",
            (402, _) => "false",
            _ => "",
        };
        assert_eq!(header(&response, "x-should-retry"), should, "{code}");
        assert_eq!(world.record().await.outcome, RecordOutcome::Failed(code));
        assert_eq!(world.provider.contacts(), 0);
    }
}

#[tokio::test]
async fn what_cannot_be_asked_contacts_nobody() {
    for (path, body, status, code) in [
        (CHAT, r#"{"model":"no-such-model"}"#, 404, "model_not_found"),
        (CHAT, r#"{"model":"gemini-2.5-flash/../x"}"#, 404, "model_not_found"),
        ("/v1/messages", r#"{"model":"gpt-5.4-mini"}"#, 404, "model_not_found"),
        ("/v1beta/models/gpt-5.4-mini:generateContent", "{}", 404, "model_not_found"),
        ("/v1beta/models/..%2f..%2fx:generateContent", "{}", 404, "model_not_found"),
        ("/v1beta/models/local%2Fm:generateContent", "{}", 404, "model_not_found"),
        (CHAT, "{", 400, "invalid_body"),
        (CHAT, "{}", 400, "missing_model"),
        ("/v1/responses", r#"{"model":"gpt-5.4-mini","background":true}"#, 400, "background_not_supported"),
        ("/v1/audio/speech", r#"{"model":"tts-1"}"#, 404, "endpoint_not_supported"),
        ("/v1/nothing", "{}", 404, "not_found"),
    ] {
        let world = World::new([]).await;
        let response = world.post(path, body).await;
        assert_eq!(
            (response.status().as_u16(), response.headers()["x-1k4-error"].to_str().unwrap()),
            (status, code),
            "{path} {body}"
        );
        assert_eq!(world.provider.contacts(), 0);
    }
    for (name, value, status) in [("content-encoding", "gzip", 415), ("x-1k4-project", "prj_00000000000000000000000000", 401)] {
        let world = World::new([]).await;
        let request = Request::post(CHAT).header("x-api-key", "good").header(name, value).body(Full::from(STREAMED)).unwrap();
        assert_eq!(world.proxy.handle(request).await.status(), status, "{name}");
        assert_eq!(world.provider.contacts(), 0);
    }
}

#[tokio::test]
async fn what_no_channel_can_be_asked_is_not_found_and_not_reserved() {
    let azure = |kind| Channel { deployments: HashMap::from([("gpt-5.5".into(), "prod".into())]), ..channel("openai", kind) };
    for (channel, path, body) in [
        // Azure reads the body's model as the deployment, and the body is passed on as it is.
        (azure(ProviderKind::Azure), CHAT, r#"{"model":"gpt-5.5","messages":[]}"#),
        (azure(ProviderKind::AzureDeployments), "/openai/responses", r#"{"model":"gpt-5.5","input":"a"}"#),
        (channel("openai", ProviderKind::Openai), "/openai/deployments/gpt-5.5/chat/completions", r#"{"messages":[]}"#),
    ] {
        let world = World::of([], |_| {}, vec![channel], Catalogue::embedded().unwrap()).await;
        let response = world.post(path, body).await;
        assert_eq!((response.status().as_u16(), header(&response, "x-1k4-error")), (404, "model_not_found"), "{path}");
        assert_eq!(header(&response, "retry-after"), "");
        assert_eq!(world.record().await.outcome, RecordOutcome::Failed("model_not_found"));
        assert!(world.meter.reserved.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn azures_older_responses_are_passed_on() {
    let deployments = HashMap::from([("gpt-5.5".into(), "gpt-5.5".into())]);
    let azure = Channel { deployments, ..channel("openai", ProviderKind::AzureDeployments) };
    let answer = r#"{"usage":{"input_tokens":1,"output_tokens":1}}"#;
    let world = World::of([Act::Say(200, JSON, answer.into())], |_| {}, vec![azure], Catalogue::embedded().unwrap()).await;
    let path = "/openai/responses?api-version=2025-04-01-preview";
    assert_eq!(text(world.post(path, r#"{"model":"gpt-5.5","input":"a"}"#).await).await, (200, answer.into()));
    assert_eq!(world.provider.seen.lock().unwrap()[0].target, path);
}

#[tokio::test]
async fn a_method_that_an_address_does_not_take_is_named() {
    let world = World::new([]).await;
    for (path, allow, told) in [
        (CHAT, "POST", r#"{"error":{"message":"this address takes another method: use POST","type":"invalid_request_error""#),
        ("/v1/messages", "POST", r#"{"type":"error","error":{"type":"invalid_request_error","message":"this address takes"#),
        ("/v1beta/models/gemini-2.5-flash:generateContent", "POST", r#"{"error":{"code":405,"message":"this address takes"#),
        ("/v1/models", "GET, HEAD", r#"{"error":{"message":"this address takes another method: use GET, HEAD""#),
    ] {
        let request = Request::delete(path).header("x-api-key", "good").body(Full::<Bytes>::default()).unwrap();
        let response = world.proxy.handle(request).await;
        assert_eq!((response.status().as_u16(), header(&response, "x-1k4-error")), (405, "method_not_allowed"), "{path}");
        assert_eq!(header(&response, "allow"), allow, "{path}");
        let (_, text) = text(response).await;
        assert!(text.starts_with(told), "{text}");
    }
}

#[tokio::test]
async fn an_error_carries_its_id_where_sdks_look_and_its_receipt_where_there_is_one() {
    let world = World::new([]).await;
    for (key, path, name, has_record) in [
        ("good", CHAT, "x-request-id", true),
        ("good", "/v1/messages", "request-id", true),
        ("bad", CHAT, "x-request-id", false),
        ("bad", "/v1/messages", "request-id", false),
        ("good", "/v1/nothing", "x-request-id", false),
    ] {
        let request = Request::post(path).header("x-api-key", key).body(Full::from(r#"{"model":"no-such-model"}"#)).unwrap();
        let response = world.proxy.handle(request).await;
        let id = header(&response, "x-1k4-request-id");
        assert!(id.starts_with("req_"));
        assert_eq!(header(&response, name), id, "{key} {path}");
        let receipt = if has_record { format!("/v1/requests/{id}") } else { String::new() };
        assert_eq!(header(&response, "x-1k4-receipt"), receipt, "{key} {path}");
    }
}

#[tokio::test]
async fn a_model_is_listed_under_the_name_by_which_it_is_asked_for() {
    let world = World::new([]).await;
    let one = async |path: &str, header| {
        let (status, text) = text(world.get(path, header).await).await;
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        (status, value)
    };
    let plain = ("accept", "*/*");
    let anthropic = ("anthropic-version", "2023-06-01");
    for name in ["claude-haiku-4-5", "claude-haiku-4-5-20251001", "claude-haiku-5-5-20261001"] {
        let path = format!("/v1/models/{name}");
        for header in [plain, anthropic] {
            let (status, told) = one(&path, header).await;
            assert_eq!((status, &told["id"]), (200, &name.into()), "{header:?}");
        }
    }
    let (status, told) = one("/v1beta/models/gemini-flash-latest", plain).await;
    assert_eq!((status, &told["name"]), (200, &"models/gemini-flash-latest".into()));
    assert_eq!(one("/v1/models/gpt-5.4-mini", plain).await.1["id"], "gpt-5.4-mini");
    assert_eq!(one("/v1/models/gpt-5.4-mini", anthropic).await.0, 404);
    let (_, list) = one("/v1/models", anthropic).await;
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&"claude-haiku-4-5") && ids.iter().all(|id| id.starts_with("claude-")), "{ids:?}");
}

#[tokio::test]
async fn only_xais_own_word_is_a_price_and_not_against_the_operators() {
    let answer = |output: &str| format!(r#"{{"usage":{{"prompt_tokens":10{output},"cost_in_usd_ticks":500}}}}"#);
    let cost = async |kind, catalogue: Catalogue, output: &str| {
        let act = Act::Say(200, JSON, answer(output).into());
        let world = World::of([act], |_| {}, vec![channel("xai", kind)], catalogue).await;
        assert_eq!(text(world.post(CHAT, r#"{"model":"grok-4.3","max_tokens":10,"messages":[]}"#).await).await.0, 200);
        let record = world.record().await;
        (record.cost_nano, record.estimated)
    };
    let listed = || Catalogue::embedded().unwrap();
    let price = |usd: &str| Some(Price::per_million_tokens(usd).unwrap());
    let prices = ModelPrices {
        input: price("2").unwrap(),
        output: price("4"),
        cached: None,
        cache_write_short: None,
        cache_write_long: None,
        input_audio: None,
        input_image: None,
        output_audio: None,
        output_image: None,
        search: None,
    };
    let own = ModelOverride {
        id: "grok-4.3".to_owned(),
        provider: "xai".parse().unwrap(),
        aliases: Vec::new(),
        max_input: None,
        max_output: None,
        prices: Some(prices),
    };
    let overridden = listed().with_overrides(&[own]).unwrap();
    let told = r#","completion_tokens":4"#;
    // 500 ticks are 50,000 pico-dollars.
    assert_eq!(cost(ProviderKind::Xai, listed(), told).await, (50, false));
    assert_eq!(cost(ProviderKind::Xai, overridden.clone(), told).await, (20_000 + 16_000, false));
    assert_eq!(cost(ProviderKind::OpenaiCompatible, listed(), told).await, (12_500 + 10_000, false));
    // Nor does it stand for the tokens that were not told.
    assert_eq!(cost(ProviderKind::Xai, listed(), "").await, (50, false));
    assert_eq!(cost(ProviderKind::OpenaiCompatible, listed(), "").await, (12_500, true));
    assert_eq!(cost(ProviderKind::Xai, overridden, "").await, (20_000, true));
}

#[tokio::test]
async fn a_stream_under_another_content_type_is_read_as_one() {
    let answer =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5,\"total_tokens\":8}}\n\ndata: [DONE]\n\n";
    let world = World::new([Act::Say(200, "text/plain", answer.into())]).await;
    let response = world.post(CHAT, STREAMED).await;
    assert_eq!(header(&response, "content-type"), "text/plain");
    assert_eq!(text(response).await, (200, answer.into()));
    let record = world.record().await;
    assert_eq!((record.input_tokens, record.output_tokens, record.estimated), (Some(3), Some(5), false));
    assert_eq!(record.outcome, RecordOutcome::Complete);
}

#[tokio::test]
async fn a_stream_that_tells_nothing_is_counted_and_marked() {
    let answer = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello world\"}}]}\n\ndata: [DONE]\n\n";
    let world = World::new([Act::Say(200, SSE, answer.into())]).await;
    let body = r#"{"model":"gpt-5.4-mini","stream":true,"messages":[{"role":"user","content":"Say hello"}]}"#;
    assert_eq!(text(world.post(CHAT, body).await).await, (200, answer.into()));
    let record = world.record().await;
    // OpenAI's own rule: 3 for the message, 1 for its role, 2 for its words, 3 to begin the answer; 2 for the answer.
    assert_eq!((record.input_tokens, record.output_tokens, record.estimated), (Some(9), Some(2), true));
    assert_eq!((record.cost_nano, record.outcome), (9 * 750 + 2 * 4500, RecordOutcome::Complete));
}

#[tokio::test]
async fn a_project_that_wants_exact_usage_gets_it_unseen() {
    let shown = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n";
    let hidden = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5,\"total_tokens\":8}}\n\n";
    let answer = format!("{shown}{hidden}data: [DONE]\n\n");
    let world = World::with([Act::Say(200, SSE, answer.into())], |meter| meter.exact_usage = true).await;
    let body = r#"{"model":"gpt-5.4-mini","stream":true,"messages":[]}"#;
    assert_eq!(text(world.post(CHAT, body).await).await, (200, format!("{shown}data: [DONE]\n\n")));
    {
        let seen = world.provider.seen.lock().unwrap();
        let sent: serde_json::Value = serde_json::from_slice(&seen[0].body).unwrap();
        assert_eq!(sent["stream_options"]["include_usage"], true);
        let sent = String::from_utf8(seen[0].body.to_vec()).unwrap();
        assert_eq!(sent.replacen("\"stream_options\":{\"include_usage\":true},", "", 1), body, "every other byte stays");
    }
    let record = world.record().await;
    assert_eq!((record.input_tokens, record.output_tokens, record.estimated), (Some(3), Some(5), false));
}

#[tokio::test]
async fn googles_key_in_the_address_goes_no_further() {
    let answer = r#"{"usageMetadata":{"promptTokenCount":1,"totalTokenCount":1}}"#;
    let world = World::new([Act::Say(200, JSON, answer.into())]).await;
    let request = Request::post("/v1beta/models/gemini-2.5-flash:generateContent?key=good").body(Full::from("{}")).unwrap();
    assert_eq!(text(world.proxy.handle(request).await).await.0, 200);
    let seen = world.provider.seen.lock().unwrap();
    assert_eq!(seen[0].target, "/v1beta/models/gemini-2.5-flash:generateContent");
    assert_eq!(seen[0].headers["x-goog-api-key"], SECRET);
}

#[tokio::test]
async fn counting_tokens_is_free() {
    let world = World::new([Act::Say(200, JSON, br#"{"input_tokens":7}"#.into())]).await;
    let body = r#"{"model":"claude-haiku-4-5","messages":[]}"#;
    assert_eq!(text(world.post("/v1/messages/count_tokens", body).await).await, (200, r#"{"input_tokens":7}"#.into()));
    assert_eq!(world.meter.reserved.lock().unwrap()[0].0, 0);
    let record = world.record().await;
    assert_eq!((record.cost_nano, record.estimated, record.outcome), (0, false, RecordOutcome::Complete));
}

#[tokio::test]
async fn what_is_paid_for_is_what_runs() {
    // There is no channel here that would read the path and not the body.
    let deployment = "/openai/deployments/gpt-5.4-mini/chat/completions";
    let world = World::new([]).await;
    let response = world.post(deployment, r#"{"model":"gpt-5.5","messages":[]}"#).await;
    assert_eq!((response.status().as_u16(), world.provider.contacts()), (404, 0));
    for (path, body) in [
        ("/openai/deployments/local%2Fa/chat/completions", r#"{"model":"gpt-5.5","messages":[]}"#),
        ("/v1beta/models/gemini-2.5-flash:generateContent", r#"{"model":"models/gemini-3.1-pro-preview"}"#),
    ] {
        let world = World::new([]).await;
        let response = world.post(path, body).await;
        let told = (response.status().as_u16(), response.headers()["x-1k4-error"].to_str().unwrap());
        assert_eq!(told, (400, "model_mismatch"), "{path} {body}");
        assert_eq!(world.provider.contacts(), 0);
    }
    let answer = r#"{"usageMetadata":{"promptTokenCount":1,"totalTokenCount":1}}"#;
    let world = World::new([Act::Say(200, JSON, answer.into())]).await;
    let body = r#"{"model":"models/gemini-2.5-flash","contents":[]}"#;
    assert_eq!(text(world.post("/v1beta/models/gemini-2.5-flash:countTokens", body).await).await.0, 200);
}

#[tokio::test]
async fn who_leaves_before_a_word_owes_the_prompt_and_whom_the_provider_leaves_owes_nothing() {
    let prompt = "word ".repeat(100);
    let body = format!(
        r#"{{"model":"gpt-5.4-mini","stream":true,"stream_options":{{"include_usage":true}},"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
    );
    let (_go, held) = watch::channel(false);
    let world = World::new([Act::Hold(held, SSE, Vec::new())]).await;
    {
        let mut asking = std::pin::pin!(world.post(CHAT, body.clone()));
        while world.provider.contacts() == 0 {
            assert!(timeout(Duration::from_millis(5), &mut asking).await.is_err());
        }
    }
    let record = world.record().await;
    assert_eq!((record.status, record.outcome, record.estimated), (499, RecordOutcome::Cancelled, true));
    assert_eq!((record.input_tokens, record.output_tokens), (Some(body.len() as u64 / 5), Some(0)));

    for answer in ["data: {\"error\":{\"message\":\"overloaded\"}}\n\n", ": ping\n\n"] {
        let world = World::new([Act::Say(200, SSE, answer.into())]).await;
        assert_eq!(text(world.post(CHAT, body.clone()).await).await, (200, answer.into()));
        let record = world.record().await;
        assert_eq!((record.cost_nano, record.input_tokens), (0, None), "{answer}");
        assert!(matches!(record.outcome, RecordOutcome::Failed(_)));
    }
}

#[tokio::test]
async fn an_estimate_has_the_class_of_service_that_was_given() {
    let answer =
        |tier: &str| format!("data: {{{tier}\"choices\":[{{\"delta\":{{\"content\":\"Hello world\"}}}}]}}\n\ndata: [DONE]\n\n");
    let cost = async |asked: &str, told: &str| {
        let world = World::new([Act::Say(200, SSE, answer(told).into())]).await;
        let body =
            format!(r#"{{"model":"gpt-5.4-mini",{asked}"stream":true,"messages":[{{"role":"user","content":"Say hello"}}]}}"#);
        text(world.post(CHAT, body).await).await;
        world.record().await.cost_nano
    };
    let standard = 9 * 750 + 2 * 4500;
    assert_eq!(cost("", "").await, standard);
    assert_eq!(cost("\"service_tier\":\"flex\",", "").await, (standard + 1) / 2);
    assert_eq!(cost("\"service_tier\":\"flex\",", "\"service_tier\":\"default\",").await, standard);
    assert_eq!(cost("", "\"service_tier\":\"priority\",").await, 2 * standard);
}

#[tokio::test]
async fn usage_that_was_told_is_exact_also_without_the_streams_end() {
    let told = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5,\"total_tokens\":8}}\n\n";
    let (say, act) = live(SSE);
    let world = World::new([act]).await;
    say.send(Ok(told.into())).await.unwrap();
    let mut body = world.post(CHAT, STREAMED).await.into_body();
    first(&mut body).await;
    drop(body);
    let record = world.record().await;
    assert_eq!((record.cost_nano, record.estimated, record.outcome), (24_750, false, RecordOutcome::Cancelled));
}

#[tokio::test]
async fn a_picture_is_paid_for_when_its_caller_left() {
    let (say, act) = live(SSE);
    let world = World::new([act]).await;
    say.send(Ok("event: image_generation.partial_image\ndata: {\"b64_json\":\"AAAA\"}\n\n".into())).await.unwrap();
    let asked = r#"{"model":"gpt-image-1.5","prompt":"a cat","stream":true}"#;
    let mut body = world.post("/v1/images/generations", asked).await.into_body();
    first(&mut body).await;
    drop(body);
    let last = "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"usage\":{\"input_tokens\":10,\"output_tokens\":1000,\"total_tokens\":1010,\"input_tokens_details\":{\"text_tokens\":10,\"image_tokens\":0}}}\n\n";
    say.send(Ok(last.into())).await.unwrap();
    drop(say);
    let record = world.record().await;
    assert_eq!((record.input_tokens, record.output_tokens, record.estimated), (Some(10), Some(1000), false));
    assert!(record.cost_nano > 1_000_000, "{record:?}");
}
