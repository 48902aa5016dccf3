//! The proxy between a meter that remembers and workstations that follow a script.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use api_proxy::{
    Aborted, Admitted, Answer, AnswerBody, AnswerSender, Ask, Bridges, Caller, Catalogue, Endpoint, KeyId, Leash, Listing, Meter,
    NotAdmitted, NotRelayed, NotReserved, Order, Part, Presence, PresentedKey, Proxy, ProxyBody, Record, RecordOutcome,
    Reservation, Surface, Tuning, Upstream, Workstation,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use wire::{
    Content, DeviceId, ProjectId, RelayId, UserId,
    relay::{Ending, Failure, Model, OllamaState, Operation, Outcome, PolicySummary, Refusal, RefusalCode, Snapshot, Usage},
};

const SSE: &str = "text/event-stream";
const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json; charset=utf-8";
const CHAT: &str = "/v1/chat/completions";
const STREAMED: &str = r#"{"model":"local/m","stream":true,"messages":[]}"#;
const WHOLE: &str = r#"{"model":"local/m","messages":[]}"#;

/// Lets in whoever has the key `good`.
struct Recorder {
    caller: Caller,
    leash: Leash,
    records: Mutex<Vec<Record>>,
}

impl Meter for Recorder {
    async fn admit(&self, key: PresentedKey<'_>, _: Surface) -> Result<Admitted, NotAdmitted> {
        match key.expose() {
            "good" => Ok(Admitted { caller: self.caller, exact_usage: false, leash: self.leash.clone(), allowance: None }),
            "bent" => Err(NotAdmitted::Malformed),
            _ => Err(NotAdmitted::Unknown),
        }
    }

    async fn reserve(&self, _: &Caller, ask: Ask<'_>) -> Result<Reservation, NotReserved> {
        Ok(Reservation { nano: ask.most_nano, tokens: ask.most_tokens, free: false, allowance: None })
    }

    fn settle(&self, record: Record, reservation: Option<Reservation>) {
        // A workstation's work costs nothing.
        assert!(reservation.is_none_or(|reservation| reservation.nano == 0));
        self.records.lock().unwrap().push(record);
    }
}

/// A Lab without any provider.
fn no_providers() -> (Arc<Upstream>, Arc<Catalogue>) {
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    (Arc::new(Upstream::new(Vec::new(), &Arc::new(tls), Tuning::default())), Arc::new(Catalogue::embedded().unwrap()))
}

/// What a workstation does when it is asked.
enum Act {
    Answer(Answer),
    Decline(NotRelayed),
    /// Says nothing until the test does.
    Wait(oneshot::Receiver<Result<Answer, NotRelayed>>),
    Panic,
    /// Panics once the test says so.
    PanicLater(oneshot::Receiver<()>),
}

#[derive(Debug, Clone, PartialEq)]
struct Asked {
    device: DeviceId,
    operation: Operation,
    body: Vec<u8>,
    streamed: bool,
}

struct Script {
    workstations: Mutex<Vec<Workstation>>,
    acts: Mutex<VecDeque<Act>>,
    asked: Mutex<Vec<Asked>>,
    /// Relays whose future was dropped before it was ready.
    dropped: AtomicUsize,
}

impl Bridges for Script {
    fn workstations(&self, _: UserId) -> Vec<Workstation> {
        self.workstations.lock().unwrap().clone()
    }

    async fn relay(&self, device: DeviceId, order: Order) -> Result<Answer, NotRelayed> {
        let body = order.body.for_routing().to_vec();
        self.asked.lock().unwrap().push(Asked { device, operation: order.operation, body, streamed: order.streamed });
        let act = self.acts.lock().unwrap().pop_front().unwrap();
        let mut watch = Watch(Some(&self.dropped));
        let answer = match act {
            Act::Answer(answer) => Ok(answer),
            Act::Decline(why) => Err(why),
            Act::Wait(answer) => answer.await.unwrap(),
            Act::Panic => panic!("scripted"),
            Act::PanicLater(now) => {
                now.await.unwrap();
                panic!("scripted")
            }
        };
        watch.0 = None;
        answer
    }
}

struct Watch<'a>(Option<&'a AtomicUsize>);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct World {
    meter: Arc<Recorder>,
    script: Arc<Script>,
    proxy: Arc<Proxy<Recorder, Script>>,
}

impl World {
    /// One workstation, `box`, with the model `m`.
    fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        Self::with([station("box")], acts)
    }

    fn with(workstations: impl IntoIterator<Item = Workstation>, acts: impl IntoIterator<Item = Act>) -> Self {
        let key: KeyId = "abcDEF123456".parse().unwrap();
        let caller = Caller { user: UserId::random(), project: ProjectId::random(), key };
        let meter = Arc::new(Recorder { caller, leash: Leash::new(), records: Mutex::default() });
        let script = Arc::new(Script {
            workstations: Mutex::new(workstations.into_iter().collect()),
            acts: Mutex::new(acts.into_iter().collect()),
            asked: Mutex::default(),
            dropped: AtomicUsize::new(0),
        });
        let (upstream, catalogue) = no_providers();
        let proxy = Arc::new(Proxy::new(Arc::clone(&meter), Arc::clone(&script), upstream, catalogue));
        Self { meter, script, proxy }
    }

    async fn post(&self, path: &str, body: &'static str) -> Response<ProxyBody> {
        let request = Request::post(path).header("authorization", "Bearer good").body(Full::from(body)).unwrap();
        self.proxy.handle(request).await
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(path).header("x-api-key", "good").body(Full::<Bytes>::default()).unwrap();
        whole(self.proxy.handle(request).await).await
    }

    /// The one record there is.
    fn record(&self) -> Record {
        let records = self.meter.records.lock().unwrap();
        assert_eq!(records.len(), 1, "{records:?}");
        records[0].clone()
    }

    fn device(&self) -> DeviceId {
        self.script.workstations.lock().unwrap()[0].device
    }
}

fn station(name: &str) -> Workstation {
    let model = Model {
        name: "m".parse().unwrap(),
        modified_at: "2025-01-01T00:00:00Z".into(),
        size: 1,
        digest: "d".into(),
        details: serde_json::json!({}),
        capabilities: vec![],
    };
    let snapshot = Snapshot {
        name: name.into(),
        models: vec![model],
        ollama: OllamaState::Running { version: "0.32.15".into() },
        policy: PolicySummary { operations: Operation::ALL.to_vec(), ..PolicySummary::default() },
        ..Snapshot::default()
    };
    Workstation {
        device: DeviceId::random(),
        name: name.into(),
        presence: Presence::Online,
        snapshot: Arc::new(snapshot),
        active: 0,
    }
}

/// An answer, and the end of it that the workstation holds.
fn answer(status: u16, content_type: &'static str) -> (AnswerSender, Answer) {
    let (sender, body) = AnswerBody::channel(16);
    (sender, Answer { relay: RelayId::random(), status, content_type: HeaderValue::from_static(content_type), body })
}

/// An answer that says all of this at once.
fn said(status: u16, content_type: &'static str, texts: &[&'static str], outcome: Outcome) -> Act {
    Act::Answer(said_answer(status, content_type, texts, outcome))
}

fn said_answer(status: u16, content_type: &'static str, texts: &[&'static str], outcome: Outcome) -> Answer {
    let (sender, answer) = answer(status, content_type);
    let usage = Some(Usage { input: 3, output: 5 });
    for text in texts {
        sender.send(bytes(text)).now_or_never().unwrap().unwrap();
    }
    sender.send(Part::End(Ending { outcome, usage })).now_or_never().unwrap().unwrap();
    answer
}

fn bytes(text: &'static str) -> Part {
    Part::Bytes(Bytes::from_static(text.as_bytes()).into())
}

fn text(content: &Content) -> String {
    String::from_utf8(content.for_routing().to_vec()).unwrap()
}

async fn next(body: &mut ProxyBody) -> Option<Result<String, Aborted>> {
    body.frame().await.map(|frame| frame.map(|f| text(&f.into_data().ok().unwrap())))
}

async fn whole(response: Response<ProxyBody>) -> (u16, String) {
    let (status, text, end) = to_the_end(response).await;
    assert_eq!(end, Ok(()));
    (status, text)
}

async fn to_the_end(response: Response<ProxyBody>) -> (u16, String, Result<(), Aborted>) {
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut all = String::new();
    loop {
        match next(&mut body).await {
            Some(Ok(text)) => all.push_str(&text),
            Some(Err(aborted)) => return (status, all, Err(aborted)),
            None => return (status, all, Ok(())),
        }
    }
}

fn header<'a>(response: &'a Response<ProxyBody>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

fn failed(failure: Failure) -> Outcome {
    Outcome::Failed(failure)
}

#[tokio::test(start_paused = true)]
async fn an_answer_passes_through_untouched_and_is_recorded_once() {
    let (sender, answer) = answer(200, SSE);
    let world = World::new([Act::Answer(answer)]);
    let speak = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(40)).await;
        sender.send(bytes("data: a\n\n")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        sender.send(bytes("data: [DONE]\n\n")).await.unwrap();
        let usage = Some(Usage { input: 0, output: 7 });
        sender.send(Part::End(Ending { outcome: Outcome::Complete, usage })).await.unwrap();
    });
    let response = world.post(CHAT, STREAMED).await;
    assert_eq!(header(&response, "content-type"), SSE);
    assert_eq!(header(&response, "cache-control"), "no-store");
    assert_eq!(header(&response, "x-accel-buffering"), "no");
    assert_eq!(header(&response, "x-1k4-device"), world.device().to_string());
    assert!(!response.headers().contains_key("content-length"));
    let request = header(&response, "x-1k4-request-id").to_owned();
    assert_eq!(whole(response).await, (200, "data: a\n\ndata: [DONE]\n\n".into()));
    speak.await.unwrap();

    let asked = world.script.asked.lock().unwrap().clone();
    let body = STREAMED.as_bytes().to_vec();
    assert_eq!(asked, [Asked { device: world.device(), operation: Operation::OpenaiChat, body, streamed: true }]);
    let record = world.record();
    let expected = Record {
        request: request.parse().unwrap(),
        time: record.time,
        model: Some("m:latest".into()),
        operation: Surface::Model(Endpoint::OpenaiChat),
        device: Some(world.device()),
        provider: None,
        prices: None,
        input_tokens: Some(0),
        output_tokens: Some(7),
        estimated: false,
        cost_nano: 0,
        user: world.meter.caller.user,
        project: world.meter.caller.project,
        key: world.meter.caller.key,
        latency_ms: 100,
        first_byte_ms: Some(40),
        stream: true,
        status: 200,
        outcome: RecordOutcome::Complete,
    };
    assert_eq!(record, expected);
    assert!(record.time.elapsed().unwrap() < Duration::from_secs(60));
}

#[tokio::test]
async fn without_a_good_key_nothing_happens() {
    let world = World::new([]);
    let ask = async |path: &str, name: &str, key: &str| {
        let request = Request::post(path).header(name, key).body(Full::from(WHOLE)).unwrap();
        let response = world.proxy.handle(request).await;
        let (id, challenge) = (header(&response, "x-1k4-request-id").to_owned(), header(&response, "www-authenticate").to_owned());
        let (status, text) = whole(response).await;
        (status, challenge, text.replace(&id, "REQ"))
    };
    let bearer = || "Bearer".to_owned();
    assert_eq!(
        ask(CHAT, "x-unrelated", "1").await,
        (
            401,
            bearer(),
            r#"{"error":{"message":"the request carries no API key: send one as `Authorization: Bearer <key>`","type":"authentication_error","param":null,"code":"missing_api_key"}}"#.into()
        )
    );
    assert_eq!(
        ask("/api/chat", "authorization", "Bearer stolen-key-text").await,
        (401, bearer(), r#"{"error":"the API key is not valid here: copy it again, whole, or make a new one if it was revoked or has expired"}"#.into())
    );
    assert_eq!(
        ask("/v1/messages", "x-api-key", "bent").await,
        (
            401,
            bearer(),
            r#"{"type":"error","error":{"type":"authentication_error","message":"the API key is not valid here: copy it again, whole, or make a new one if it was revoked or has expired"},"request_id":"REQ"}"#.into()
        )
    );
    assert_eq!(
        ask("/nowhere", "x-api-key", "good").await,
        (
            404,
            String::new(),
            r#"{"error":{"message":"there is no such address here: the model API lives under `/v1` (also `/v1beta` and `/openai`) and `/api`; check the base URL and the path","type":"not_found_error","param":null,"code":"not_found"}}"#.into()
        )
    );
    let two = Request::post("/api/chat").header("x-api-key", "good").header("api-key", "other").body(Full::from(WHOLE)).unwrap();
    assert_eq!(
        whole(world.proxy.handle(two).await).await,
        (400, r#"{"error":"the request carries two different API keys: send one"}"#.into())
    );
    assert_eq!(world.meter.records.lock().unwrap().len(), 0);
    assert_eq!(world.script.asked.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn what_cannot_be_routed_is_told_and_recorded() {
    for (path, body, status, code) in [
        (CHAT, "", 400, "invalid_body"),
        (CHAT, r#"{"model":"local/m","model":"local/m"}"#, 400, "duplicate_field"),
        (CHAT, r#"{"messages":[]}"#, 400, "missing_model"),
        (CHAT, r#"{"model":"local/a b"}"#, 400, "invalid_model"),
        (CHAT, r#"{"model":"gpt-5"}"#, 404, "model_not_found"),
        (CHAT, r#"{"model":"local/x"}"#, 404, "model_not_found"),
        ("/v1/messages", r#"{"model":"claude"}"#, 404, "model_not_found"),
        ("/api/chat", r#"{"model":"x"}"#, 404, "model_not_found"),
        ("/v1/embeddings", r#"{"model":"local@attic/m"}"#, 404, "workstation_not_found"),
    ] {
        let world = World::new([]);
        let response = world.post(path, body).await;
        assert_eq!(header(&response, "x-1k4-error"), code, "{body}");
        let (got, text) = whole(response).await;
        assert_eq!(got, status, "{body}");
        let record = world.record();
        assert_eq!((record.status, record.outcome), (status, RecordOutcome::Failed(code)), "{body}");
        // A name that nobody has is a caller's text like any other, and is not kept.
        assert_eq!(record.model, None, "{body}");
        assert_eq!((record.device, record.first_byte_ms, record.input_tokens), (None, None, None), "{body}");
        assert!(!text.contains("a b"), "{text}");
    }
}

#[tokio::test]
async fn a_workstation_that_is_not_there_is_an_error_of_each_dialect() {
    let sentence = "the workstation that has this model is not connected: see there what `1k4-bridge status` says, and try again";
    for (path, expected) in [
        ("/api/generate", format!(r#"{{"error":"{sentence}"}}"#)),
        (CHAT, format!(r#"{{"error":{{"message":"{sentence}","type":"api_error","param":null,"code":"bridge_offline"}}}}"#)),
        (
            "/v1/messages",
            format!(r#"{{"type":"error","error":{{"type":"overloaded_error","message":"{sentence}"}},"request_id":"REQ"}}"#),
        ),
    ] {
        let world = World::with([Workstation { presence: Presence::Offline, ..station("box") }], []);
        let response = world.post(path, WHOLE).await;
        let id = header(&response, "x-1k4-request-id").to_owned();
        assert_eq!(header(&response, "retry-after"), "5");
        let (status, text) = whole(response).await;
        assert_eq!((status, text.replace(&id, "REQ")), (503, expected));
        assert_eq!(world.record().outcome, RecordOutcome::Failed("bridge_offline"));
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_however_it_comes() {
    let large = 32 * 1024 * 1024 + 1;
    let announced = Full::from(vec![b' '; large]);
    let chunk = Bytes::from(vec![b' '; 1 << 20]);
    let chunks = stream::iter((0..33).map(move |_| Ok::<_, Infallible>(Frame::data(chunk.clone()))));
    let world = World::new([]);
    let request = |path: &str| Request::post(path.to_owned()).header("x-api-key", "good");
    let first = world.proxy.handle(request("/api/chat").body(announced).unwrap()).await;
    let second = world.proxy.handle(request("/v1/messages").body(StreamBody::new(chunks)).unwrap()).await;
    let id = header(&second, "x-1k4-request-id").to_owned();
    let sentence = "the request's body is larger than 32 MiB: send less, or smaller images";
    assert_eq!(whole(first).await, (413, format!(r#"{{"error":"{sentence}"}}"#)));
    assert_eq!(
        whole(second).await,
        (413, format!(r#"{{"type":"error","error":{{"type":"request_too_large","message":"{sentence}"}},"request_id":"{id}"}}"#))
    );
    let outcomes: Vec<_> = world.meter.records.lock().unwrap().iter().map(|r| (r.status, r.outcome)).collect();
    assert_eq!(outcomes, [(413, RecordOutcome::Failed("too_large")); 2]);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let world = World::new([]);
    let broken = stream::iter([Ok(Frame::data(Bytes::from_static(b"{"))), Err(std::io::Error::other("secret"))]);
    let request = Request::post(CHAT).header("x-api-key", "good").body(StreamBody::new(broken)).unwrap();
    let (status, text) = whole(world.proxy.handle(request).await).await;
    assert_eq!(status, 400);
    assert!(text.contains("did not arrive whole") && !text.contains("secret"), "{text}");
    assert_eq!(world.record().outcome, RecordOutcome::Failed("invalid_body"));
}

#[tokio::test]
async fn a_refusal_keeps_its_status_code_sentence_and_hint() {
    let refusal = Refusal { retry_after_s: Some(7), ..Refusal::new(RefusalCode::QueueFull, "the queue is full: try again") };
    let world = World::new([Act::Decline(NotRelayed::Refused(refusal))]);
    let response = world.post(CHAT, STREAMED).await;
    assert_eq!((header(&response, "retry-after"), header(&response, "x-1k4-error")), ("7", "queue_full"));
    assert_eq!(
        whole(response).await,
        (503, r#"{"error":{"message":"the queue is full: try again","type":"api_error","param":null,"code":"queue_full"}}"#.into())
    );
    let record = world.record();
    assert_eq!((record.status, record.outcome, record.device), (503, RecordOutcome::Failed("queue_full"), Some(world.device())));
}

#[tokio::test]
async fn another_workstation_takes_what_one_refuses() {
    let full = || Act::Decline(NotRelayed::Refused(Refusal::new(RefusalCode::QueueFull, "full")));
    let world = World::with([station("a"), station("b")], [full(), said(200, JSON, &["{}"], Outcome::Complete)]);
    assert_eq!(whole(world.post(CHAT, WHOLE).await).await, (200, "{}".into()));
    let asked = world.script.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0].device, asked[1].device);
    assert_eq!(asked[0].body, asked[1].body);
    assert_eq!(world.record().device, Some(asked[1].device));

    let world = World::with([station("a"), station("b")], [full(), Act::Decline(NotRelayed::Offline)]);
    assert_eq!(world.post(CHAT, WHOLE).await.status(), 503);
    assert_eq!(world.record().outcome, RecordOutcome::Failed("queue_full"));

    // A field that one refuses every other would refuse, too; and what a cut link may have started is not started twice.
    let no = NotRelayed::Refused(Refusal::new(RefusalCode::FieldNotAllowed, "no"));
    for (why, code) in [(no, "field_not_allowed"), (NotRelayed::LinkLost, "bridge_offline")] {
        let world = World::with([station("a"), station("b")], [Act::Decline(why)]);
        world.post(CHAT, WHOLE).await;
        assert_eq!(world.script.asked.lock().unwrap().len(), 1);
        assert_eq!(world.record().outcome, RecordOutcome::Failed(code));
    }
}

#[tokio::test]
async fn the_same_key_stays_with_a_workstation() {
    let acts = (0..3).map(|_| said(200, JSON, &["{}"], Outcome::Complete));
    let world = World::with([station("a"), station("b")], acts);
    let mut used = Vec::new();
    // The first choice is the idle one; it is kept when the other is less busy by one, and left when by two.
    for active in [[0, 1], [1, 0], [2, 0]] {
        for (workstation, active) in world.script.workstations.lock().unwrap().iter_mut().zip(active) {
            workstation.active = active;
        }
        whole(world.post(CHAT, WHOLE).await).await;
        used.push(world.script.asked.lock().unwrap().last().unwrap().device);
    }
    let [a, b] = [0, 1].map(|n| world.script.workstations.lock().unwrap()[n].device);
    assert_eq!(used, [a, a, b]);
}

#[tokio::test]
async fn what_breaks_before_the_first_byte_has_a_status() {
    for (content_type, outcome, status, code) in [
        (SSE, failed(Failure::LinkLost), 503, "bridge_offline"),
        (SSE, failed(Failure::OllamaTruncated), 502, "ollama_truncated"),
        (JSON, failed(Failure::OllamaLost), 502, "ollama_lost"),
        (JSON, failed(Failure::TimeLimit), 504, "time_limit"),
        (JSON, Outcome::Cancelled, 503, "stopped_at_workstation"),
    ] {
        let world = World::new([said(200, content_type, &[""], outcome)]);
        let response = world.post(CHAT, STREAMED).await;
        assert_eq!((response.status().as_u16(), header(&response, "x-1k4-error")), (status, code));
        assert_eq!(world.record().outcome, RecordOutcome::Failed(code));
    }
    // The gateway gave up without a word.
    let (sender, answer) = answer(200, SSE);
    drop(sender);
    let world = World::new([Act::Answer(answer)]);
    assert_eq!(header(&world.post(CHAT, STREAMED).await, "x-1k4-error"), "bridge_offline");
}

#[tokio::test]
async fn a_stream_that_breaks_says_so_in_its_dialect() {
    let lost = "Ollama went away in the middle of the answer: see whether it runs on the workstation, and try again";
    let openai = format!(r#"data: {{"error":{{"message":"{lost}","type":"api_error","param":null,"code":"ollama_lost"}}}}"#);
    for (path, content_type, begun, expected) in [
        (CHAT, SSE, "data: a\n\n", format!("data: a\n\n{openai}\n\n")),
        (CHAT, SSE, "data: {\"a", format!("data: {{\"a\n\n{openai}\n\n")),
        (
            "/v1/messages",
            SSE,
            "event: ping\n",
            format!(
                "event: ping\n\nevent: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"api_error\",\"message\":\"{lost}\"}},\"request_id\":\"REQ\"}}\n\n"
            ),
        ),
        ("/api/chat", NDJSON, "{}\n", format!("{{}}\n{{\"error\":\"{lost}\"}}\n")),
        ("/api/chat", NDJSON, "{\"mess", format!("{{\"mess\n{{\"error\":\"{lost}\"}}\n")),
    ] {
        let world = World::new([said(200, content_type, &[begun], failed(Failure::OllamaLost))]);
        let response = world.post(path, STREAMED).await;
        let id = header(&response, "x-1k4-request-id").to_owned();
        let (status, text) = whole(response).await;
        assert_eq!((status, text.replace(&id, "REQ")), (200, expected));
        let record = world.record();
        assert_eq!((record.status, record.outcome), (200, RecordOutcome::Failed("ollama_lost")));
        assert_eq!((record.input_tokens, record.output_tokens), (Some(3), Some(5)));
    }
}

#[tokio::test]
async fn an_error_of_ollamas_own_is_left_as_it_is() {
    // As the last line of a stream.
    let line = "{\"error\":\"runner stopped\"}\n";
    let world = World::new([said(200, NDJSON, &["{}\n", line], failed(Failure::OllamaError))]);
    assert_eq!(whole(world.post("/api/chat", STREAMED).await).await, (200, format!("{{}}\n{line}")));
    assert_eq!(world.record().outcome, RecordOutcome::Failed("ollama_error"));
    // As an answer with an error status, with and without words.
    for text in [r#"{"error":{"message":"does not support tools"}}"#, ""] {
        let world = World::new([said(400, JSON, &[text], failed(Failure::OllamaError))]);
        let response = world.post(CHAT, STREAMED).await;
        assert_eq!(header(&response, "content-type"), JSON);
        assert_eq!(whole(response).await, (400, text.into()));
        let record = world.record();
        assert_eq!((record.status, record.outcome), (400, RecordOutcome::Failed("ollama_error")));
    }
}

#[tokio::test]
async fn half_a_document_never_ends_cleanly() {
    let world = World::new([said(200, JSON, &["{\"choices\":["], failed(Failure::LinkLost))]);
    assert_eq!(to_the_end(world.post(CHAT, WHOLE).await).await, (200, "{\"choices\":[".into(), Err(Aborted)));
    assert_eq!(world.record().outcome, RecordOutcome::Failed("bridge_offline"));
    let world = World::new([said(200, "text/plain", &["x"], Outcome::Cancelled)]);
    assert_eq!(to_the_end(world.post(CHAT, WHOLE).await).await, (200, "x".into(), Err(Aborted)));
    assert_eq!(world.record().outcome, RecordOutcome::Cancelled);
}

#[tokio::test]
async fn a_caller_who_drops_the_body_cancels() {
    let (sender, answer) = answer(200, SSE);
    sender.send(bytes("data: a\n\n")).await.unwrap();
    let world = World::new([Act::Answer(answer)]);
    let mut body = world.post(CHAT, STREAMED).await.into_body();
    assert_eq!(next(&mut body).await, Some(Ok("data: a\n\n".into())));
    assert!(sender.closed().now_or_never().is_none());
    assert_eq!(world.meter.records.lock().unwrap().len(), 0);
    drop(body);
    sender.closed().await;
    assert!(sender.send(bytes("more")).await.is_err());
    let record = world.record();
    assert_eq!((record.status, record.outcome, record.output_tokens), (200, RecordOutcome::Cancelled, None));
    assert!(record.first_byte_ms.is_some());
}

#[tokio::test]
async fn a_caller_who_leaves_after_the_last_byte_had_everything() {
    let (sender, answer) = answer(200, SSE);
    sender.send(bytes("data: [DONE]\n\n")).await.unwrap();
    sender.send(Part::End(Ending { outcome: Outcome::Complete, usage: Some(Usage { input: 1, output: 2 }) })).await.unwrap();
    let world = World::new([Act::Answer(answer)]);
    let mut body = world.post(CHAT, STREAMED).await.into_body();
    next(&mut body).await.unwrap().unwrap();
    drop(body);
    let record = world.record();
    assert_eq!((record.outcome, record.output_tokens), (RecordOutcome::Complete, Some(2)));
    // With bytes still unread they had not.
    let world = World::new([said(200, SSE, &["data: a\n\n", "data: b\n\n"], Outcome::Complete)]);
    let mut body = world.post(CHAT, STREAMED).await.into_body();
    next(&mut body).await.unwrap().unwrap();
    drop(body);
    assert_eq!(world.record().outcome, RecordOutcome::Cancelled);
}

#[tokio::test]
async fn a_caller_who_drops_the_request_cancels() {
    // While the workstation is silent.
    let (_say, silent) = oneshot::channel();
    let world = World::new([Act::Wait(silent)]);
    {
        let mut asking = std::pin::pin!(world.post("/api/chat", STREAMED));
        assert!(asking.as_mut().now_or_never().is_none());
        assert_eq!(world.script.asked.lock().unwrap().len(), 1);
    }
    assert_eq!(world.script.dropped.load(Ordering::Relaxed), 1);
    let record = world.record();
    assert_eq!((record.status, record.outcome, record.stream), (499, RecordOutcome::Cancelled, true));
    assert_eq!(record.device, Some(world.device()));
    // Between the head and the first byte.
    let (sender, answer) = answer(200, NDJSON);
    let world = World::new([Act::Answer(answer)]);
    {
        let mut asking = std::pin::pin!(world.post("/api/chat", STREAMED));
        assert!(asking.as_mut().now_or_never().is_none());
    }
    sender.closed().await;
    assert_eq!((world.record().status, world.record().outcome), (499, RecordOutcome::Cancelled));
    // While the body is still being sent.
    let world = World::new([]);
    let never = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
    let request = Request::post(CHAT).header("x-api-key", "good").body(never).unwrap();
    assert!(world.proxy.handle(request).now_or_never().is_none());
    assert_eq!((world.record().status, world.record().outcome), (499, RecordOutcome::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_recorded_once() {
    let world = World::new([Act::Panic]);
    let proxy = Arc::clone(&world.proxy);
    let request = Request::post(CHAT).header("x-api-key", "good").body(Full::from(STREAMED)).unwrap();
    let panicked = tokio::spawn(async move { drop(proxy.handle(request).await) }).await.unwrap_err();
    assert!(panicked.is_panic());
    assert_eq!((world.record().status, world.record().outcome), (500, RecordOutcome::Failed("panic")));
    // After the head has gone out.
    let (now, later) = oneshot::channel();
    let world = World::new([Act::PanicLater(later)]);
    let response = world.post(CHAT, STREAMED).await;
    let reading = tokio::spawn(to_the_end(response));
    now.send(()).unwrap();
    assert!(reading.await.unwrap_err().is_panic());
    assert_eq!((world.record().status, world.record().outcome), (200, RecordOutcome::Failed("panic")));
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_is_kept_alive_while_a_model_loads() {
    let (say, silent) = oneshot::channel();
    let world = World::new([Act::Wait(silent)]);
    let start = Instant::now();
    let response = world.post(CHAT, STREAMED).await;
    assert_eq!(start.elapsed().as_secs(), 15);
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, SSE));
    assert_eq!(header(&response, "x-1k4-device"), world.device().to_string());
    let mut body = response.into_body();
    for seconds in [15, 30, 45] {
        assert_eq!(next(&mut body).await, Some(Ok(": keepalive\n\n".into())));
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
    let (sender, answer) = answer(200, SSE);
    assert!(say.send(Ok(answer)).is_ok());
    // The head alone is nothing that a caller can hear.
    assert_eq!(next(&mut body).await, Some(Ok(": keepalive\n\n".into())));
    assert_eq!(start.elapsed().as_secs(), 60);
    sender.send(bytes("data: a\n\n")).await.unwrap();
    assert_eq!(next(&mut body).await, Some(Ok("data: a\n\n".into())));
    // Once bytes flow, not one is added.
    assert!(timeout(Duration::from_secs(120), next(&mut body)).await.is_err());
    sender.send(Part::End(Ending { outcome: Outcome::Complete, usage: None })).await.unwrap();
    assert_eq!(next(&mut body).await, None);
    let record = world.record();
    assert_eq!((record.latency_ms, record.first_byte_ms), (180_000, Some(60_000)));
    assert_eq!((record.input_tokens, record.output_tokens, record.outcome), (None, None, RecordOutcome::Complete));
}

#[tokio::test(start_paused = true)]
async fn silence_between_head_and_first_byte_is_filled_too() {
    let (sender, answer) = answer(200, SSE);
    let world = World::new([Act::Answer(answer)]);
    let start = Instant::now();
    let mut body = world.post(CHAT, STREAMED).await.into_body();
    for seconds in [15, 30] {
        assert_eq!(next(&mut body).await, Some(Ok(": keepalive\n\n".into())));
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
    drop(sender);
    let last = next(&mut body).await.unwrap().unwrap();
    assert!(last.starts_with(r#"data: {"error":{"message":"the workstation was cut off for more than 60 s"#), "{last}");
    assert_eq!(next(&mut body).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_after_a_keepalive_is_told_in_the_stream() {
    let refused = || Err(NotRelayed::Refused(Refusal::new(RefusalCode::OllamaUnavailable, "start Ollama")));
    let laid_out = "{\n  \"error\": {\"message\": \"out of memory\"}\r\n}\n";
    let ollama = |text| Ok(said_answer(500, JSON, &[text], failed(Failure::OllamaError)));
    let openai = |message: &str, code: &str| {
        format!("data: {{\"error\":{{\"message\":\"{message}\",\"type\":\"api_error\",\"param\":null,\"code\":\"{code}\"}}}}\n\n")
    };
    let no_words = "Ollama answered with an error: see its log on the workstation, and try again";
    for (path, answer, expected, code) in [
        (CHAT, refused(), openai("start Ollama", "ollama_unavailable"), "ollama_unavailable"),
        (
            "/v1/messages",
            refused(),
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"start Ollama\"},\"request_id\":\"REQ\"}\n\n".into(),
            "ollama_unavailable",
        ),
        (CHAT, ollama(laid_out), "data: {   \"error\": {\"message\": \"out of memory\"}  } \n\n".into(), "ollama_error"),
        (
            "/v1/messages",
            ollama(r#"{"type":"error"}"#),
            "event: error\ndata: {\"type\":\"error\"}\n\n".into(),
            "ollama_error",
        ),
        (CHAT, ollama("404 page not found"), openai(no_words, "ollama_error"), "ollama_error"),
        (CHAT, ollama(""), openai(no_words, "ollama_error"), "ollama_error"),
    ] {
        let (say, silent) = oneshot::channel();
        let world = World::new([Act::Wait(silent)]);
        let response = world.post(path, STREAMED).await;
        let id = header(&response, "x-1k4-request-id").to_owned();
        assert!(say.send(answer).is_ok());
        let (status, text) = whole(response).await;
        assert_eq!((status, text.replace(&id, "REQ")), (200, format!(": keepalive\n\n{expected}")));
        let record = world.record();
        assert_eq!((record.status, record.outcome), (200, RecordOutcome::Failed(code)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_is_kept_alive_by_blanks_before_it() {
    let (say, silent) = oneshot::channel();
    let world = World::new([Act::Wait(silent)]);
    let start = Instant::now();
    let response = world.post(CHAT, WHOLE).await;
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, "application/json"));
    let mut body = response.into_body();
    for seconds in [15, 30] {
        assert_eq!(next(&mut body).await, Some(Ok("\n".into())));
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
    assert!(say.send(Ok(said_answer(200, JSON, &["{}"], Outcome::Complete))).is_ok());
    assert_eq!(next(&mut body).await, Some(Ok("{}".into())));
    assert_eq!(next(&mut body).await, None);
    assert_eq!(world.record().outcome, RecordOutcome::Complete);

    // An error in its place is a whole document as well, whether it is Ollama's or ours.
    let (say, silent) = oneshot::channel();
    let world = World::new([Act::Wait(silent)]);
    let response = world.post(CHAT, WHOLE).await;
    assert!(say.send(Ok(said_answer(500, JSON, &[r#"{"error":{}}"#], failed(Failure::OllamaError)))).is_ok());
    assert_eq!(whole(response).await, (200, "\n{\"error\":{}}".into()));
    assert_eq!(world.record().outcome, RecordOutcome::Failed("ollama_error"));
    let (say, silent) = oneshot::channel();
    let world = World::new([Act::Wait(silent)]);
    let response = world.post("/api/chat", r#"{"model":"m","stream":false}"#).await;
    assert!(say.send(Err(NotRelayed::LinkLost)).is_ok());
    let sentence = "the workstation was cut off for more than 60 s: see there what `1k4-bridge status` says, and try again";
    assert_eq!(whole(response).await, (200, format!("\n{{\"error\":\"{sentence}\"}}")));
    assert_eq!(world.record().outcome, RecordOutcome::Failed("bridge_offline"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_added_to_ollamas_lines() {
    let (say, silent) = oneshot::channel();
    let world = World::new([Act::Wait(silent)]);
    let mut asking = Box::pin(world.post("/api/chat", r#"{"model":"m"}"#));
    assert!(timeout(Duration::from_secs(300), &mut asking).await.is_err());
    assert!(say.send(Ok(said_answer(200, NDJSON, &["{}\n"], Outcome::Complete))).is_ok());
    assert_eq!(whole(asking.await).await, (200, "{}\n".into()));
    assert_eq!(world.record().first_byte_ms, Some(300_000));
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_while_a_model_loads_cancels() {
    let (_say, silent) = oneshot::channel();
    let world = World::new([Act::Wait(silent)]);
    let mut body = world.post(CHAT, STREAMED).await.into_body();
    next(&mut body).await.unwrap().unwrap();
    drop(body);
    assert_eq!(world.script.dropped.load(Ordering::Relaxed), 1);
    let record = world.record();
    assert_eq!((record.status, record.outcome, record.first_byte_ms), (200, RecordOutcome::Cancelled, None));
}

#[tokio::test]
async fn a_slow_reader_slows_the_workstation_down() {
    let (sender, answer) = answer(200, SSE);
    let world = World::new([Act::Answer(answer)]);
    let sent = AtomicUsize::new(0);
    let speak = async {
        for _ in 0..1000 {
            sender.send(bytes("data: a\n\n")).await.unwrap();
            sent.fetch_add(1, Ordering::Relaxed);
        }
        sender.send(Part::End(Ending { outcome: Outcome::Complete, usage: None })).await.unwrap();
    };
    let mut speak = std::pin::pin!(speak);
    assert!(speak.as_mut().now_or_never().is_none());
    let response = world.post(CHAT, STREAMED).await;
    assert!(speak.as_mut().now_or_never().is_none());
    assert_eq!(sent.load(Ordering::Relaxed), 17, "a channel of 16 and the first bytes");
    let ((), (status, text)) = tokio::join!(speak, whole(response));
    assert_eq!((status, text.len()), (200, 9000));
}

#[tokio::test]
async fn listings_answer_by_themselves() {
    let world = World::new([]);
    let model = r#"{"id":"local/m:latest","object":"model","created":1735689600,"owned_by":"box"}"#;
    assert_eq!(world.get("/v1/models").await, (200, format!(r#"{{"object":"list","data":[{model}]}}"#)));
    for id in ["local/m", "local%2Fm:latest", "local@box/m", "local%40box%2Fm"] {
        let (status, text) = world.get(&format!("/v1/models/{id}")).await;
        assert_eq!((status, text.replace("local@box/", "local/")), (200, model.to_owned()), "{id}");
    }
    assert_eq!(world.get("/v1/models/gpt-5").await.0, 404);
    assert_eq!(
        world.get("/api/tags").await,
        (200, r#"{"models":[{"name":"m:latest","model":"m:latest","modified_at":"2025-01-01T00:00:00Z","size":1,"digest":"d","details":{}}]}"#.into())
    );
    assert_eq!(world.get("/api/ps").await, (200, r#"{"models":[]}"#.into()));
    assert_eq!(world.get("/api/version").await, (200, r#"{"version":"0.32.15"}"#.into()));

    let anthropic = Request::get("/v1/models").header("x-api-key", "good").header("anthropic-version", "2023-06-01");
    let response = world.proxy.handle(anthropic.body(Full::<Bytes>::default()).unwrap()).await;
    assert_eq!(header(&response, "content-type"), "application/json");
    assert_eq!(
        whole(response).await.1,
        r#"{"data":[{"type":"model","id":"local/m:latest","display_name":"m:latest · box","created_at":"2025-01-01T00:00:00Z"}],"has_more":false,"first_id":"local/m:latest","last_id":"local/m:latest"}"#
    );
    let anthropic = Request::get("/v1/models/x").header("x-api-key", "good").header("anthropic-version", "2023-06-01");
    let response = world.proxy.handle(anthropic.body(Full::<Bytes>::default()).unwrap()).await;
    assert!(whole(response).await.1.starts_with(r#"{"type":"error","error":{"type":"not_found_error","#));

    let records = world.meter.records.lock().unwrap();
    assert_eq!(records.len(), 11);
    assert_eq!(
        (records[0].operation, records[0].status, records[0].outcome),
        (Surface::Listing(Listing::Models), 200, RecordOutcome::Complete)
    );
    assert_eq!((records[5].status, records[5].outcome), (404, RecordOutcome::Failed("model_not_found")));
}

#[tokio::test]
async fn the_body_may_come_in_pieces() {
    let world = World::new([said(200, JSON, &["{}"], Outcome::Complete)]);
    let pieces = stream::iter([r#"{"model":"lo"#, r#"cal/m","stream":"#, "false}"])
        .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece.as_bytes()))));
    let request = Request::post("/v1/responses").header("api-key", "good").body(StreamBody::new(pieces)).unwrap();
    assert_eq!(whole(world.proxy.handle(request).await).await, (200, "{}".into()));
    let asked = world.script.asked.lock().unwrap();
    assert_eq!(asked[0].operation, Operation::OpenaiResponses);
    assert_eq!(asked[0].body, br#"{"model":"local/m","stream":false}"#);
    assert!(!asked[0].streamed);
}

#[tokio::test]
async fn only_what_can_stream_is_asked_for_as_a_stream() {
    for (path, body, streamed) in [
        ("/api/chat", r#"{"model":"m"}"#, true),
        ("/api/generate", r#"{"model":"m","stream":false}"#, false),
        ("/api/embed", r#"{"model":"m","stream":true}"#, false),
        ("/api/show", r#"{"model":"m"}"#, false),
        ("/v1/completions", r#"{"model":"local/m"}"#, false),
        ("/v1/messages", r#"{"model":"local/m","stream":true}"#, true),
        ("/v1/embeddings", r#"{"model":"local/m","stream":true}"#, false),
    ] {
        let world = World::new([said(200, JSON, &["{}"], Outcome::Complete)]);
        whole(world.post(path, body).await).await;
        assert_eq!(world.script.asked.lock().unwrap()[0].streamed, streamed, "{path}");
        assert_eq!(world.record().stream, streamed, "{path}");
    }
}
