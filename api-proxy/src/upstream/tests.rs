//! The way to the providers, tried on providers that misbehave.

mod fake;

use std::{collections::HashMap, future::poll_fn, net::TcpListener, sync::LazyLock};

use fake::{Fake, Manner, Reply, TlsFake};
use http::{HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Barrier, Semaphore};

use super::*;
use crate::{Catalogue, provider::ProviderSecret};

const SHORT: Tuning = Tuning {
    connect: Duration::from_secs(5),
    first_byte: Duration::from_millis(400),
    idle: Duration::from_millis(400),
    keep: Duration::from_secs(60),
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

fn say(text: &str) -> Reply {
    Reply::Say(text.as_bytes().to_vec())
}

fn error(status: u16, body: &str) -> Reply {
    say(&format!("HTTP/1.1 {status} No\r\nretry-after: 7\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn model() -> Arc<Model> {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::embedded().unwrap());
    Arc::clone(CATALOGUE.find("gpt-5.5").unwrap())
}

fn channel(own: &str, kind: ProviderKind, base: &str) -> Channel {
    Channel {
        name: name(own),
        provider: name("openai"),
        kind,
        base: base.parse().unwrap(),
        secret: Some(ProviderSecret::new("sk-operator")),
        priority: 0,
        weight: 1,
        models: None,
        deployments: HashMap::new(),
        api_version: None,
    }
}

fn tls() -> Arc<rustls::ClientConfig> {
    Arc::new(rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

fn upstream(bases: &[&str]) -> Upstream {
    tuned(bases, SHORT)
}

fn tuned(bases: &[&str], tuning: Tuning) -> Upstream {
    let channel = |(index, base): (usize, &&str)| Channel {
        priority: u16::try_from(index).unwrap(),
        ..channel(&format!("c{index}"), ProviderKind::Openai, base)
    };
    Upstream::new(bases.iter().enumerate().map(channel).collect(), &tls(), tuning)
}

/// An answer that was read to its end, or as far as it came.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    channel: String,
    status: u16,
    body: Vec<u8>,
    broken: Option<BrokenOff>,
}

fn good(channel: &str, status: u16, body: &str) -> Result<Read, NoAnswer> {
    Ok(Read { channel: channel.to_owned(), status, body: body.as_bytes().to_vec(), broken: None })
}

async fn read(mut answer: UpstreamAnswer) -> Read {
    let mut body = answer.first.as_deref().unwrap_or_default().to_vec();
    let mut broken = None;
    while let Some(bytes) = poll_fn(|cx| answer.body.poll_bytes(cx)).await {
        match bytes {
            Ok(bytes) => body.extend_from_slice(&bytes),
            Err(why) => broken = Some(why),
        }
    }
    Read { channel: answer.channel.to_string(), status: answer.status.as_u16(), body, broken }
}

async fn ask(upstream: &Upstream) -> Result<Read, NoAnswer> {
    Ok(read(send(upstream, b"{}", &HeaderMap::new()).await?).await)
}

async fn send(upstream: &Upstream, body: &'static [u8], headers: &HeaderMap) -> Result<UpstreamAnswer, NoAnswer> {
    let (model, body) = (model(), Content::from(Bytes::from_static(body)));
    let endpoint = Endpoint::OpenaiChat;
    upstream
        .send(&Call {
            model: &model,
            endpoint,
            name: "gpt-5.5",
            query: None,
            addressing: Addressing::Usual,
            headers,
            body: &body,
            contacted: &AtomicBool::new(false),
        })
        .await
}

fn together(requests: usize) -> Manner {
    Manner::Together(Arc::new(Barrier::new(requests)))
}

fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
}

#[tokio::test]
async fn bodies_pass_byte_for_byte() {
    const ODD: &[u8] =
        b" {\r\n\t\"b\" : 1e400,\"a\":[ ],\"a\":\"\\ud800 \xc3\xa9\",  \"\\u0061\":-0.0,\"n\":123456789012345678901234567890 } \n";
    const BACK: &[u8] = b"data: {\"x\" :\"\\udfff\"}\n\ndata: \xff\xfe broken utf-8\n\ndata: [DONE]\n\n";
    let mut chunked = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for part in BACK.chunks(7) {
        chunked.extend_from_slice(format!("{:x};ext=1\r\n", part.len()).as_bytes());
        chunked.extend_from_slice(part);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\nx-trailer: 1\r\n\r\n");
    let fake = Fake::always(Reply::Say(chunked)).await;
    let upstream = upstream(&[&fake.base]);
    let answer = read(send(&upstream, ODD, &HeaderMap::new()).await.unwrap()).await;
    assert_eq!(Sha256::digest(&fake.seen()[0].body), Sha256::digest(ODD));
    assert_eq!(Sha256::digest(&answer.body), Sha256::digest(BACK));
    // It came to its end, so that the connection serves the next one.
    assert_eq!(ask(&upstream).await.unwrap().body, BACK);
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn heads_are_clean_both_ways() {
    let fake = Fake::always(say("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\nset-cookie: a=b\r\n\
         OpenAI-Organization: org-operator\r\nx-ratelimit-limit-requests: 1\r\ncf-ray: 1\r\nserver: cloudflare\r\n\
         connection: keep-alive, x-hop\r\nx-hop: 1\r\nvia: 1.1 x\r\n\
         openai-processing-ms: 12\r\ncontent-length: 2\r\n\r\n{}"))
    .await;
    let upstream = upstream(&[&fake.base]);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "lab.example"),
        ("authorization", "Bearer 1k4_live_caller"),
        ("x-api-key", "1k4_live_caller"),
        ("api-key", "1k4_live_caller"),
        ("x-goog-api-key", "1k4_live_caller"),
        ("cookie", "session=1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("connection", "keep-alive, x-stainless-secretly"),
        ("accept-encoding", "gzip, br"),
        ("content-length", "999"),
        ("content-type", "application/json"),
        ("user-agent", "OpenAI/Python 2.0"),
        ("x-stainless-lang", "python"),
        ("openai-beta", "assistants=v2"),
        ("openai-organization", "org-caller"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let answer = send(&upstream, b"{}", &headers).await.unwrap();
    assert_eq!(
        fake.seen()[0].head,
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\naccept-encoding: identity\r\nauthorization: Bearer sk-operator\r\n\
             content-length: 2\r\ncontent-type: application/json\r\nuser-agent: OpenAI/Python 2.0\r\nx-stainless-lang: python\r\n\
             openai-beta: assistants=v2",
            fake.base.trim_start_matches("http://")
        )
    );
    let mut passed: Vec<_> = answer.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    passed.sort_unstable();
    assert_eq!(passed, ["content-length: 2", "content-type: application/json", "openai-processing-ms: 12", "x-request-id: req_1"]);
}

#[test]
fn every_kind_has_its_paths_and_its_key() {
    let no_headers = HeaderMap::new();
    let body = Content::default();
    let check = |channel: &Channel, endpoint, query, expected: Option<(&str, &str, &str)>| {
        let model = model();
        let call = Call {
            model: &model,
            endpoint,
            name: "gpt-5.5",
            query,
            addressing: Addressing::Usual,
            headers: &no_headers,
            body: &body,
            contacted: &AtomicBool::new(false),
        };
        let address = Address::new(channel.clone()).unwrap();
        let takes = address.takes(&model, endpoint, call.name, call.addressing);
        let request = takes.then(|| address.request(&call, dial::Version::Http1).unwrap());
        let told = request.as_ref().map(|request| {
            let keys: Vec<_> = ["authorization", "x-api-key", "x-goog-api-key", "api-key"]
                .into_iter()
                .filter_map(|key| request.headers().get(key).map(|value| (key, value.to_str().unwrap())))
                .collect();
            assert_eq!(keys.len(), 1, "{keys:?}");
            (request.uri().to_string(), keys[0].0, keys[0].1)
        });
        assert_eq!(
            told.as_ref().map(|(path, key, value)| (path.as_str(), *key, *value)),
            expected,
            "{:?} {endpoint:?}",
            channel.kind
        );
        let version = request.as_ref().and_then(|request| request.headers().get("anthropic-version"));
        let is_anthropic = matches!(endpoint, Endpoint::AnthropicMessages | Endpoint::AnthropicCountTokens);
        assert_eq!(version.is_some(), expected.is_some() && is_anthropic);
    };
    use Endpoint as E;
    let of = |kind| channel("a", kind, "https://provider.example");
    let bearer = |path| Some((path, "authorization", "Bearer sk-operator"));

    for kind in [ProviderKind::Openai, ProviderKind::OpenaiCompatible, ProviderKind::Xai] {
        check(&of(kind), E::OpenaiChat, Some("key=x"), bearer("/v1/chat/completions"));
        check(&of(kind), E::OpenaiResponses, None, bearer("/v1/responses"));
        check(&of(kind), E::OpenaiCompletions, None, bearer("/v1/completions"));
        check(&of(kind), E::OpenaiEmbeddings, None, bearer("/v1/embeddings"));
        check(&of(kind), E::AnthropicMessages, None, None);
        check(&of(kind), E::OllamaChat, None, None);
    }
    check(&of(ProviderKind::Openai), E::OpenaiImages, None, bearer("/v1/images/generations"));
    check(&of(ProviderKind::Xai), E::OpenaiImages, None, None);

    let anthropic = of(ProviderKind::Anthropic);
    let plain = |path| Some((path, "x-api-key", "sk-operator"));
    check(&anthropic, E::AnthropicMessages, None, plain("/v1/messages"));
    check(&anthropic, E::AnthropicCountTokens, None, plain("/v1/messages/count_tokens"));
    check(&anthropic, E::OpenaiChat, None, bearer("/v1/chat/completions"));
    check(&anthropic, E::OpenaiEmbeddings, None, None);
    let token = Channel { secret: Some(ProviderSecret::new("sk-ant-oat01-x")), ..anthropic };
    check(&token, E::AnthropicMessages, None, Some(("/v1/messages", "authorization", "Bearer sk-ant-oat01-x")));

    let gemini = of(ProviderKind::Gemini);
    let goog = |path| Some((path, "x-goog-api-key", "sk-operator"));
    check(&gemini, E::GeminiGenerate, Some("key=1k4"), goog("/v1beta/models/gpt-5.5:generateContent"));
    check(&gemini, E::GeminiStreamGenerate, Some("alt=sse&key=1k4"), goog("/v1beta/models/gpt-5.5:streamGenerateContent?alt=sse"));
    check(&gemini, E::GeminiStreamGenerate, None, goog("/v1beta/models/gpt-5.5:streamGenerateContent"));
    check(&gemini, E::GeminiCountTokens, None, goog("/v1beta/models/gpt-5.5:countTokens"));
    check(&gemini, E::GeminiEmbed, None, goog("/v1beta/models/gpt-5.5:embedContent"));
    check(&gemini, E::GeminiBatchEmbed, None, goog("/v1beta/models/gpt-5.5:batchEmbedContents"));
    check(&gemini, E::OpenaiChat, None, bearer("/v1beta/openai/chat/completions"));
    check(&gemini, E::OpenaiEmbeddings, None, bearer("/v1beta/openai/embeddings"));

    let azure = |path| Some((path, "api-key", "sk-operator"));
    check(&of(ProviderKind::Azure), E::OpenaiChat, None, None);
    let deployed =
        |kind, deployment: &str| Channel { deployments: HashMap::from([("gpt-5.5".into(), deployment.into())]), ..of(kind) };
    check(&deployed(ProviderKind::Azure, "other"), E::OpenaiChat, None, None);
    let v1 = deployed(ProviderKind::Azure, "gpt-5.5");
    check(&v1, E::OpenaiChat, None, azure("/openai/v1/chat/completions"));
    check(&v1, E::OpenaiResponses, Some("api-version=preview"), azure("/openai/v1/responses?api-version=preview"));
    let older = deployed(ProviderKind::AzureDeployments, "my gpt");
    let path = |version| format!("/openai/deployments/my%20gpt/chat/completions?api-version={version}");
    check(&older, E::OpenaiChat, None, Some((&path("2024-10-21"), "api-key", "sk-operator")));
    let asked = path("2025-01-01-preview");
    check(&older, E::OpenaiChat, Some("api-version=2025-01-01-preview&x=y"), Some((&asked, "api-key", "sk-operator")));
    let versioned = Channel { api_version: Some("2024-06-01".into()), ..older };
    check(&versioned, E::OpenaiChat, None, Some((&path("2024-06-01"), "api-key", "sk-operator")));
    // There the body names the deployment, and it is passed on as it is.
    check(&versioned, E::OpenaiResponses, None, None);
    let named_alike = deployed(ProviderKind::AzureDeployments, "gpt-5.5");
    check(&named_alike, E::OpenaiResponses, None, azure("/openai/responses?api-version=2024-10-21"));
    let asked = Some("api-version=2025-04-01-preview");
    check(&named_alike, E::OpenaiResponses, asked, azure("/openai/responses?api-version=2025-04-01-preview"));
}

#[test]
fn a_channel_offers_what_it_has() {
    let offers = |channel: Channel, endpoint| {
        Upstream::new(vec![channel], &tls(), SHORT).offers(&model(), endpoint, "gpt-5.5", Addressing::Usual)
    };
    let openai = || channel("a", ProviderKind::Openai, "https://provider.example");
    assert!(offers(openai(), Endpoint::OpenaiChat));
    assert!(!offers(openai(), Endpoint::GeminiEmbed));
    assert!(!offers(Channel { provider: name("xai"), ..openai() }, Endpoint::OpenaiChat));
    assert!(offers(Channel { models: Some(vec!["gpt-5.5".into()]), ..openai() }, Endpoint::OpenaiChat));
    assert!(!offers(Channel { models: Some(vec!["gpt-5.4-mini".into()]), ..openai() }, Endpoint::OpenaiChat));
    let unsendable = Channel { secret: Some(ProviderSecret::new("sk\n1")), ..openai() };
    assert!(!offers(unsendable.clone(), Endpoint::OpenaiChat));
    assert_eq!(Upstream::new(vec![unsendable], &tls(), SHORT).health()[0].state, ChannelState::KeyRefused);
}

#[test]
fn what_no_channel_takes_under_its_name_is_not_offered() {
    let deployments = || HashMap::from([("gpt-5.5".into(), "prod".into())]);
    let azure = |kind| Channel { deployments: deployments(), ..channel("a", kind, "https://r.openai.azure.com") };
    let offers = |channel: &Channel, endpoint, name, addressing| {
        Upstream::new(vec![channel.clone()], &tls(), SHORT).offers(&model(), endpoint, name, addressing)
    };
    use Addressing::{Deployment, Usual};
    let (v1, older) = (azure(ProviderKind::Azure), azure(ProviderKind::AzureDeployments));
    let openai = channel("a", ProviderKind::Openai, "https://provider.example");
    // What Azure reads as the deployment is the body's word, and that is passed on as it is.
    assert!(!offers(&v1, Endpoint::OpenaiChat, "gpt-5.5", Usual));
    assert!(offers(&v1, Endpoint::OpenaiChat, "prod", Usual));
    assert!(!offers(&v1, Endpoint::OpenaiChat, "prod", Deployment));
    assert!(offers(&older, Endpoint::OpenaiChat, "gpt-5.5", Usual));
    assert!(offers(&older, Endpoint::OpenaiChat, "gpt-5.5", Deployment));
    assert!(!offers(&older, Endpoint::OpenaiResponses, "gpt-5.5", Usual));
    assert!(offers(&older, Endpoint::OpenaiResponses, "prod", Usual));
    assert!(!offers(&openai, Endpoint::OpenaiChat, "gpt-5.5", Deployment));
}

#[tokio::test]
async fn a_hundred_requests_share_a_connection() {
    let fake = Fake::always(say(OK)).await;
    let upstream = upstream(&[&fake.base]);
    for _ in 0..100 {
        assert_eq!(ask(&upstream).await, good("c0", 200, "{}"));
    }
    assert_eq!((fake.requests(), fake.connections()), (100, 1));
    // One whose body is dropped when all of its bytes were there, as a server does that knows the length.
    let answer = send(&upstream, b"{}", &HeaderMap::new()).await.unwrap();
    assert_eq!(answer.first.as_deref(), Some(b"{}".as_slice()));
    drop(answer);
    assert_eq!(ask(&upstream).await, good("c0", 200, "{}"));
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced() {
    // The provider closes at the very moment at which the second request comes.
    let at_once = Fake::new(|_, on_connection| if on_connection == 0 { say(OK) } else { Reply::SayAndClose(vec![]) }).await;
    let upstream_ = upstream(&[&at_once.base]);
    for _ in 0..3 {
        assert_eq!(ask(&upstream_).await, good("c0", 200, "{}"));
    }
    assert_eq!((at_once.requests(), at_once.connections()), (5, 3));

    // Or right behind its answer.
    let early = Fake::always(Reply::SayAndClose(OK.into())).await;
    let upstream_ = upstream(&[&early.base]);
    for _ in 0..3 {
        assert_eq!(ask(&upstream_).await, good("c0", 200, "{}"));
    }
    assert_eq!((early.requests(), early.connections()), (3, 3));

    // What closes a new connection is no accident, and half an answer is an answer.
    let never = Fake::always(Reply::SayAndClose(vec![])).await;
    assert_eq!(ask(&upstream(&[&never.base])).await, Err(NoAnswer::Failed));
    assert_eq!(never.requests(), 1);
    let half = Fake::new(|number, _| if number == 0 { say(OK) } else { Reply::SayAndClose(b"HTTP/1.1 2".to_vec()) }).await;
    let upstream_ = upstream(&[&half.base]);
    assert_eq!(ask(&upstream_).await, good("c0", 200, "{}"));
    assert_eq!(ask(&upstream_).await, Err(NoAnswer::Failed));
    assert_eq!(half.requests(), 2);
}

#[tokio::test]
async fn an_unused_connection_is_closed() {
    let fake = Fake::always(say(OK)).await;
    let channels = vec![channel("a", ProviderKind::Openai, &fake.base)];
    let upstream = Upstream::new(channels, &tls(), Tuning { keep: Duration::ZERO, ..SHORT });
    assert_eq!(ask(&upstream).await, good("a", 200, "{}"));
    assert_eq!(upstream.health()[0].state, ChannelState::Ready);
    assert!(fake.is_left_within(Duration::from_secs(5)).await);
    assert_eq!(ask(&upstream).await, good("a", 200, "{}"));
    assert_eq!(fake.connections(), 2);
}

#[tokio::test]
async fn what_fails_before_its_first_byte_goes_to_the_next() {
    let refused = |status| error(status, "{\"error\":1}");
    let hang = |text: &str| Reply::SayAndHang(text.as_bytes().to_vec());
    let close = |text: &str| Reply::SayAndClose(text.as_bytes().to_vec());
    let sse = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let gemini = "{\"error\":{\"details\":[{\"reason\" : \"API_KEY_INVALID\"}]}}";
    let quota = "{\"error\":{\"message\":\"You exceeded your current quota\",\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\"}}";
    let limit = "{\"error\":{\"type\":\"rate_limit_error\",\"details\":{\"error_code\": \"enforced_spend_limit_reached\"}}}";
    let quoted = "{\"error\":{\"message\":\"\\\"insufficient_quota\\\"\"}}";
    // What the first does, what comes of it where there is no second, and whether the second is asked where there is one.
    for (first, alone, goes_on) in [
        (close(""), Err(NoAnswer::Failed), true),
        (close("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"), Err(NoAnswer::Failed), true),
        // It may be at work, and then it will be paid for.
        (hang(""), Err(NoAnswer::Timeout), false),
        (hang(sse), Err(NoAnswer::Timeout), false),
        (say("SSH-2.0-OpenSSH_9\r\n\r\n"), Err(NoAnswer::Failed), true),
        (say("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"), Err(NoAnswer::Failed), true),
        (say("HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"), Err(NoAnswer::Failed), true),
        (refused(401), Err(NoAnswer::KeyRefused), true),
        (refused(402), Err(NoAnswer::KeyRefused), true),
        (refused(403), Err(NoAnswer::KeyRefused), true),
        (refused(429), good("c0", 429, "{\"error\":1}"), true),
        (error(429, quota), Err(NoAnswer::AccountSpent), true),
        (error(429, limit), Err(NoAnswer::AccountSpent), true),
        (error(429, quoted), good("c0", 429, quoted), true),
        (refused(500), good("c0", 500, "{\"error\":1}"), true),
        (refused(503), good("c0", 503, "{\"error\":1}"), true),
        (refused(529), good("c0", 529, "{\"error\":1}"), true),
        (refused(400), good("c0", 400, "{\"error\":1}"), false),
        (error(400, gemini), good("c0", 400, gemini), false),
        (refused(404), good("c0", 404, "{\"error\":1}"), false),
        (refused(413), good("c0", 413, "{\"error\":1}"), false),
        (refused(422), good("c0", 422, "{\"error\":1}"), false),
        (say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), good("c0", 200, ""), false),
    ] {
        let bad = Fake::always(first).await;
        assert_eq!(ask(&upstream(&[&bad.base])).await, alone);
        assert_eq!(bad.requests(), 1);
        let next = Fake::always(say(OK)).await;
        let second = ask(&upstream(&[&bad.base, &next.base])).await;
        assert_eq!(second, if goes_on { good("c1", 200, "{}") } else { alone });
        assert_eq!((bad.requests(), next.requests()), (2, usize::from(goes_on)));
    }
    let next = Fake::always(say(OK)).await;
    assert_eq!(ask(&upstream(&[&nobody()])).await, Err(NoAnswer::Failed));
    assert_eq!(ask(&upstream(&[&nobody(), &next.base])).await, good("c1", 200, "{}"));
}

#[tokio::test]
async fn the_last_answer_is_given_back_and_no_more_than_three_are_asked() {
    let busy = Fake::always(error(429, "busy")).await;
    let broken = Fake::always(error(500, "broken")).await;
    let good_one = Fake::always(say(OK)).await;
    let away = nobody();
    assert_eq!(ask(&upstream(&[&busy.base, &broken.base])).await, good("c1", 500, "broken"));
    // An answer is worth more than none.
    assert_eq!(ask(&upstream(&[&busy.base, &away])).await, good("c0", 429, "busy"));
    assert_eq!(ask(&upstream(&[&away, &busy.base, &broken.base, &good_one.base])).await, good("c2", 500, "broken"));
    assert_eq!(good_one.requests(), 0);
}

#[tokio::test]
async fn a_key_that_is_refused_with_400_is_the_operators() {
    let xai = "{\"code\":\"Client specified an invalid argument\",\"error\" : \"Incorrect API key provided: xa***42.\"}";
    for (kind, refused, quoted) in [
        (
            ProviderKind::Gemini,
            "{\"error\":{\"details\":[{\"reason\" : \"API_KEY_INVALID\"}]}}",
            "{\"m\":\"\\\"reason\\\":\\\"API_KEY_INVALID\\\"\"}",
        ),
        (ProviderKind::Xai, xai, "{\"error\":\"\\\"error\\\":\\\"Incorrect API key provided\\\"\"}"),
    ] {
        let fake = Fake::new(move |number, _| error(400, [refused, quoted][number])).await;
        let ask_new = async || ask(&Upstream::new(vec![channel("a", kind, &fake.base)], &tls(), SHORT)).await;
        assert_eq!(ask_new().await, Err(NoAnswer::KeyRefused), "{kind:?}");
        assert_eq!(ask_new().await.map(|read| read.status), Ok(400), "{kind:?}");
    }
}

#[tokio::test]
async fn a_failing_channel_is_left_alone() {
    let fake = Fake::always(error(500, "")).await;
    let upstream = upstream(&[&fake.base]);
    let state = || upstream.health()[0].state;
    for _ in 0..5 {
        assert_eq!(state(), ChannelState::Ready);
        assert_eq!(ask(&upstream).await, good("c0", 500, ""));
    }
    assert_eq!(ask(&upstream).await, Err(NoAnswer::NoProvider { retry_after_s: 5 }));
    assert_eq!((state(), fake.requests()), (ChannelState::Failing, 5));
}

#[tokio::test]
async fn a_channel_whose_key_is_refused_is_left_alone() {
    let fake = Fake::always(error(401, "")).await;
    let upstream_ = upstream(&[&fake.base]);
    assert_eq!(ask(&upstream_).await, Err(NoAnswer::KeyRefused));
    assert_eq!(ask(&upstream_).await, Err(NoAnswer::KeyRefused));
    assert_eq!((upstream_.health()[0].state, fake.requests()), (ChannelState::KeyRefused, 1));
    // One caller's model may not be the key's, which says nothing about the others.
    let fake = Fake::always(error(403, "")).await;
    let upstream_ = upstream(&[&fake.base]);
    assert_eq!(ask(&upstream_).await, Err(NoAnswer::KeyRefused));
    assert_eq!(ask(&upstream_).await, Err(NoAnswer::KeyRefused));
    assert_eq!((upstream_.health()[0].state, fake.requests()), (ChannelState::Ready, 2));
}

#[tokio::test]
async fn a_channel_with_too_many_requests_rests() {
    let busy = Fake::always(error(429, "busy")).await;
    let other = Fake::always(say(OK)).await;
    let both = upstream(&[&busy.base, &other.base]);
    for _ in 0..3 {
        assert_eq!(ask(&both).await, good("c1", 200, "{}"));
    }
    assert_eq!((busy.requests(), both.health()[0].state), (1, ChannelState::Resting));
    // Where there is no other, the provider decides.
    let alone = upstream(&[&busy.base]);
    for _ in 0..2 {
        assert_eq!(ask(&alone).await, good("c0", 429, "busy"));
    }
    assert_eq!(busy.requests(), 3);
}

#[test]
fn a_provider_says_how_long_to_rest() {
    let rest = |name, value| asked_rest(&HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]));
    assert_eq!(rest("retry-after", "7"), Some(Duration::from_secs(7)));
    assert_eq!(rest("retry-after", "0.5"), Some(Duration::from_millis(500)));
    assert_eq!(rest("retry-after-ms", "1500"), Some(Duration::from_millis(1500)));
    for value in ["-1", "NaN", "inf", "soon", "Fri, 20 Nov 2026 23:00:00 GMT"] {
        assert_eq!(rest("retry-after", value), None, "{value}");
    }
}

#[tokio::test]
async fn channels_take_turns_by_priority_and_weight() {
    let (a, b, c) = (Fake::always(say(OK)).await, Fake::always(say(OK)).await, Fake::always(say(OK)).await);
    let of = |own, fake: &Fake, priority, weight| Channel { priority, weight, ..channel(own, ProviderKind::Openai, &fake.base) };
    let upstream = Upstream::new(vec![of("c", &c, 2, 9), of("a", &a, 1, 1), of("b", &b, 1, 3)], &tls(), SHORT);
    let mut order = String::new();
    for _ in 0..8 {
        order += &ask(&upstream).await.unwrap().channel;
    }
    assert_eq!(order, "babbbabb");
    assert_eq!((a.requests(), b.requests(), c.requests()), (2, 6, 0));
}

#[tokio::test]
async fn hanging_up_ends_the_request_at_the_provider() {
    let soon = Duration::from_millis(100);
    // Before its head.
    let silent = Fake::always(Reply::SayAndHang(vec![])).await;
    let upstream_ = upstream(&[&silent.base]);
    {
        let headers = HeaderMap::new();
        let mut sending = std::pin::pin!(send(&upstream_, b"{}", &headers));
        while silent.requests() == 0 {
            assert!(timeout(Duration::from_millis(1), &mut sending).await.is_err());
        }
    }
    assert!(silent.is_left_within(soon).await);
    // In the middle.
    let streaming = Fake::always(Reply::SayAndHang(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n".to_vec())).await;
    let answer = send(&upstream(&[&streaming.base]), b"{}", &HeaderMap::new()).await.unwrap();
    assert_eq!(answer.first.as_deref(), Some(b"data: 1\n\n".as_slice()));
    drop(answer);
    assert!(streaming.is_left_within(soon).await);
    // And whoever does not hang up is told when the provider falls silent.
    let answer = send(&upstream(&[&streaming.base]), b"{}", &HeaderMap::new()).await.unwrap();
    assert_eq!(read(answer).await.broken, Some(BrokenOff::Silent));
    assert!(streaming.is_left_within(soon).await);
}

#[tokio::test]
async fn an_adversary_costs_one_request_and_nothing_else() {
    let good_one = Fake::always(say(OK)).await;
    let many = "x-a: 1\r\n".repeat(101);
    let long = format!("HTTP/1.1 200 OK\r\nx-a: {}\r\n", "a".repeat(40 << 10));
    for bad in [
        Reply::SayForever("HTTP/1.1 200 OK\r\n", "x-a: 1\r\n"),
        Reply::SayForever("HTTP/1.1 200 OK\r\nx-a: ", "aaaaaaaaaaaaaaaa"),
        Reply::SayForever("", "HTTP/1.1 100 Continue\r\n\r\n"),
        Reply::SayForever("", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"),
        Reply::SayForever("", "garbage "),
        Reply::SayAndHang(long.into_bytes()),
        Reply::SayAndHang(format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n").into_bytes()),
        Reply::SayAndHang(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello".to_vec()),
        Reply::SayAndHang(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nhello".to_vec()),
        Reply::SayAndHang(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec()),
        Reply::SayAndHang(b"HTTP/1.1 200 OK\r\nx a: 1\r\n\r\n".to_vec()),
        Reply::SayAndHang(b"HTTP/0.9 200 OK\r\n\r\n".to_vec()),
        Reply::SayAndHang(b"\x16\x03\x01\x02\x00".to_vec()),
    ] {
        let fake = Fake::always(bad).await;
        let patient = Tuning { first_byte: Duration::from_secs(30), ..SHORT };
        let (bad, good_) = (tuned(&[&fake.base], patient), tuned(&[&good_one.base], patient));
        let started = Instant::now();
        let (bad, good_) = tokio::join!(ask(&bad), ask(&good_));
        assert_eq!(bad, Err(NoAnswer::Failed));
        assert_eq!(good_, good("c0", 200, "{}"));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert_eq!(fake.requests(), 1);
    }
}

#[tokio::test]
async fn a_body_that_lies_about_its_length_is_broken_off_or_cut() {
    let short = Fake::always(Reply::SayAndClose(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello".to_vec())).await;
    let read_ = ask(&upstream(&[&short.base])).await.unwrap();
    assert_eq!((read_.body.as_slice(), read_.broken), (b"hello".as_slice(), Some(BrokenOff::Lost)));
    let unfinished = Reply::SayAndClose(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec());
    let unfinished = Fake::always(unfinished).await;
    let read_ = ask(&upstream(&[&unfinished.base])).await.unwrap();
    assert_eq!((read_.body.as_slice(), read_.broken), (b"hello".as_slice(), Some(BrokenOff::Lost)));
    // What comes behind the end belongs to nobody, and the next request is not answered with it.
    let long = Fake::new(|number, _| {
        say(["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", OK][number])
    })
    .await;
    let upstream_ = upstream(&[&long.base]);
    assert_eq!(ask(&upstream_).await, good("c0", 200, "{}"));
    assert_eq!(ask(&upstream_).await, good("c0", 200, "{}"));
    assert_eq!(long.connections(), 2);
}

#[tokio::test]
async fn a_packed_body_stays_packed_and_an_endless_line_costs_nothing() {
    let packed = b"\x1f\x8b\x08\x00not even gzip";
    let mut reply = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", packed.len()).into_bytes();
    reply.extend_from_slice(packed);
    let fake = Fake::always(Reply::Say(reply)).await;
    let answer = send(&upstream(&[&fake.base]), b"{}", &HeaderMap::new()).await.unwrap();
    assert_eq!(answer.headers["content-encoding"], "gzip");
    assert_eq!(read(answer).await.body, packed);

    let endless = Fake::always(Reply::SayForever(
        "HTTP/1.1 200 OK\r\n\r\n",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ))
    .await;
    let mut answer = send(&upstream(&[&endless.base]), b"{}", &HeaderMap::new()).await.unwrap();
    let mut read = 0;
    while read < 1 << 20 {
        let piece = poll_fn(|cx| answer.body.poll_bytes(cx)).await.unwrap().unwrap();
        assert!(piece.len() <= 128 << 10, "{}", piece.len());
        read += piece.len();
    }
    drop(answer);
    assert!(endless.is_left_within(Duration::from_millis(500)).await);
}

#[tokio::test]
async fn http2_opens_another_connection_when_one_is_full() {
    let fake = TlsFake::new(100, together(250)).await;
    let channels = vec![channel("a", ProviderKind::Openai, &fake.base)];
    let tuning = Tuning { first_byte: Duration::from_secs(20), ..SHORT };
    let upstream = Arc::new(Upstream::new(channels, &fake.client, tuning));
    let asking: Vec<_> = (0..250)
        .map(|_| {
            let upstream = Arc::clone(&upstream);
            tokio::spawn(async move { ask(&upstream).await })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap(), good("a", 200, "{}"));
    }
    assert_eq!((fake.connections(), fake.requests()), (3, 250));
}

#[tokio::test]
async fn hanging_up_resets_the_stream() {
    // The one that is given up counts among the three.
    let fake = TlsFake::new(100, together(3)).await;
    let upstream = Upstream::new(vec![channel("a", ProviderKind::Openai, &fake.base)], &fake.client, SHORT);
    {
        let headers = HeaderMap::new();
        let mut sending = std::pin::pin!(send(&upstream, b"{}", &headers));
        while fake.requests() == 0 {
            assert!(timeout(Duration::from_millis(1), &mut sending).await.is_err());
        }
    }
    assert!(fake.is_left_within(Duration::from_millis(100)).await);
    // The connection is as good as before.
    let (one, other) = tokio::join!(ask(&upstream), ask(&upstream));
    assert_eq!((one, other), (good("a", 200, "{}"), good("a", 200, "{}")));
    assert_eq!(fake.connections(), 1);

    let fake = TlsFake::new(100, Manner::Begin).await;
    let upstream = Upstream::new(vec![channel("a", ProviderKind::Openai, &fake.base)], &fake.client, SHORT);
    let answer = send(&upstream, b"{}", &HeaderMap::new()).await.unwrap();
    assert_eq!(answer.first.as_deref(), Some(b"{}".as_slice()));
    drop(answer);
    assert!(fake.is_left_within(Duration::from_millis(100)).await);
}

#[tokio::test]
async fn an_http2_connection_that_falls_over_is_replaced() {
    let fake = TlsFake::new(100, Manner::Once).await;
    let upstream = Upstream::new(vec![channel("a", ProviderKind::Openai, &fake.base)], &fake.client, SHORT);
    for _ in 0..3 {
        assert_eq!(ask(&upstream).await, good("a", 200, "{}"));
    }
    assert_eq!((fake.requests(), fake.connections()), (5, 3));
}

#[tokio::test]
async fn of_several_that_fell_over_unnoticed_one_is_tried() {
    // As many as two connections take, which both fall over at their next request.
    const FIRST: usize = 150;
    let manner = Manner::TogetherThenOnce(Arc::new(Barrier::new(FIRST)), Arc::new(Semaphore::new(FIRST)));
    let fake = TlsFake::new(100, manner).await;
    let channels = vec![channel("a", ProviderKind::Openai, &fake.base)];
    let tuning = Tuning { first_byte: Duration::from_secs(20), ..SHORT };
    let upstream = Upstream::new(channels, &fake.client, tuning);
    let asked = futures_util::future::join_all((0..FIRST).map(|_| ask(&upstream))).await;
    assert!(asked.iter().all(|asked| *asked == good("a", 200, "{}")));
    assert_eq!(fake.connections(), 2);
    assert_eq!(ask(&upstream).await, good("a", 200, "{}"));
    assert_eq!((fake.requests(), fake.connections()), (FIRST + 2, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_lose_no_wake_up() {
    static LARGE: [u8; 1 << 20] = [b'x'; 1 << 20];
    let mut reply = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..40 {
        reply.extend_from_slice(format!("2000\r\n{}\r\n", "y".repeat(0x2000)).as_bytes());
    }
    reply.extend_from_slice(b"0\r\n\r\n");
    let fake = Fake::always(Reply::Say(reply)).await;
    let channels = vec![channel("a", ProviderKind::Openai, &fake.base)];
    let tuning = Tuning { first_byte: Duration::from_secs(20), idle: Duration::from_secs(20), ..SHORT };
    let upstream = Arc::new(Upstream::new(channels, &tls(), tuning));
    let callers: Vec<_> = (0..32)
        .map(|caller| {
            let upstream = Arc::clone(&upstream);
            tokio::spawn(async move {
                for _ in 0..20 {
                    let body: &[u8] = if caller % 8 == 0 { &LARGE } else { b"{}" };
                    let answer = read(send(&upstream, body, &HeaderMap::new()).await.unwrap()).await;
                    assert_eq!((answer.body.len(), answer.broken), (40 * 0x2000, None));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(fake.requests(), 640);
    assert!(fake.connections() <= 32, "{}", fake.connections());
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_not_talked_to() {
    let fake = TlsFake::new(100, together(1)).await;
    let upstream = Upstream::new(vec![channel("a", ProviderKind::Openai, &fake.base)], &tls(), SHORT);
    assert_eq!(ask(&upstream).await, Err(NoAnswer::Failed));
    assert_eq!(upstream.probe(&name("a")).await, Some(Probe::Unreachable));
    assert_eq!(fake.requests(), 0);
}

#[tokio::test]
async fn a_probe_tells_what_is_wrong() {
    let probe = async |kind, reply| {
        let fake = Fake::always(reply).await;
        let upstream = Upstream::new(vec![channel("a", kind, &fake.base)], &tls(), SHORT);
        (upstream.probe(&name("a")).await.unwrap(), fake.seen()[0].head.lines().next().unwrap_or_default().to_owned())
    };
    let line = |path: &str| format!("GET {path} HTTP/1.1");
    assert_eq!(probe(ProviderKind::Openai, say(OK)).await, (Probe::Ok, line("/v1/models")));
    assert_eq!(probe(ProviderKind::Anthropic, error(401, "")).await, (Probe::KeyRefused, line("/v1/models")));
    assert_eq!(probe(ProviderKind::Xai, error(403, "")).await, (Probe::KeyRefused, line("/v1/models")));
    let invalid = error(400, "{\"reason\":\"API_KEY_INVALID\"}");
    assert_eq!(probe(ProviderKind::Gemini, invalid).await, (Probe::KeyRefused, line("/v1beta/models")));
    let not_found = (Probe::Unexpected(StatusCode::NOT_FOUND), line("/openai/models?api-version=2024-10-21"));
    assert_eq!(probe(ProviderKind::AzureDeployments, error(404, "")).await, not_found);
    let away = Upstream::new(vec![channel("a", ProviderKind::Openai, &nobody())], &tls(), SHORT);
    assert_eq!(away.probe(&name("a")).await, Some(Probe::Unreachable));
    assert_eq!(away.probe(&name("b")).await, None);
}

/// `cargo test --release -p api-proxy --lib upstream -- --ignored --nocapture`
#[test]
#[ignore = "measures, and says something only in a release build"]
#[expect(clippy::disallowed_types, clippy::disallowed_macros, reason = "beside it stands what the same costs without it")]
fn measure_send() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const ROUNDS: usize = 20_000;
    let runtime = |threads| tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    let server = runtime(1);
    let fake = server.block_on(Fake::always(say(OK)));
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    };
    let client = runtime(1);
    let base = fake.base.clone();
    let task = client.spawn(async move {
        let mut socket = tokio::net::TcpStream::connect(base.trim_start_matches("http://")).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
        let mut plain = Vec::with_capacity(ROUNDS);
        let mut buffer = [0; 1024];
        for _ in 0..ROUNDS {
            let started = std::time::Instant::now();
            socket.write_all(request).await.unwrap();
            let mut read = 0;
            while read < OK.len() {
                read += socket.read(&mut buffer).await.unwrap();
            }
            plain.push(started.elapsed());
        }
        let upstream = upstream(&[&base]);
        let mut sent = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let started = std::time::Instant::now();
            assert!(ask(&upstream).await.is_ok());
            sent.push(started.elapsed());
        }
        println!("a socket by itself: {:?} p50/p99; send and read: {:?}", median(plain), median(sent));
    });
    client.block_on(task).unwrap();
}
