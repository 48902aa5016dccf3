//! A Lab in the wrong hands, and a bridge in the wrong hands: neither gets further than the list allows.

use std::{sync::Arc, time::Duration};

use bridge_core::{
    bridge::{Bridge, Tuning},
    config::{Origin, Pairing, Told},
    credentials::{self, Credentials},
    dial::Dialer,
    policy::Policy,
    status::LinkState,
};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::proxy::matcher::Matcher;
use journeys::{
    caller::Caller,
    fake_ollama::FakeOllama,
    hostile_lab::HostileLab,
    world::{self, World, wait},
};
use proptest::{
    collection::vec,
    prelude::*,
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use tokio_tungstenite::tungstenite::Message;
use wire::{
    DeviceId, RelayId,
    hello::{Challenge, LINK_PATH, Proof, RefusalCode, SUBPROTOCOL, Verdict},
    relay::{OPERATION, Operation},
};

/// A real bridge whose Lab is hostile.
async fn captive(lab: &HostileLab, ollama: &FakeOllama, dir: &std::path::Path) -> bridge_core::bridge::Handle {
    let ca_file = dir.join("ca.pem");
    std::fs::write(&ca_file, &lab.ca_pem).unwrap();
    let origin: Origin = lab.origin.parse().unwrap();
    let config = world::bridge_config(dir.join("bridge"), &origin, ca_file, &ollama.url(), Policy::default());
    let key = credentials::new_key().unwrap();
    Credentials::open(config.credential_store.clone(), &origin).unwrap().save(&key).await.unwrap();
    Pairing { lab: origin, device: DeviceId::random(), owner: "owner".to_owned(), told: Told::default() }
        .save(&config.paths)
        .unwrap();
    let dialer = Dialer::with_proxies(config.ca_file.as_deref(), Matcher::builder().build()).unwrap();
    Bridge::start_with(config, dialer, &Tuning::default()).unwrap()
}

/// Requests near the list and far from it. None of them is on it: each spoils at least one thing.
fn adversarial() -> impl Strategy<Value = (Method, String, Vec<(String, String)>, Vec<u8>)> {
    let id = any::<u8>().prop_map(|_| RelayId::random().to_string());
    let path = prop_oneof![
        Just("/api/chat".to_owned()),
        Just("/api/delete".to_owned()),
        Just("/api/pull".to_owned()),
        Just("/api/create".to_owned()),
        Just("/v1/chat/completions".to_owned()),
        Just("/v1/control/..".to_owned()),
        Just("/v1/control?x=1".to_owned()),
        Just("/v1/%72elays/x".to_owned()),
        Just("/v1/relays/".to_owned()),
        Just("/v1/relays/../../api/delete".to_owned()),
        id.clone().prop_map(|id| format!("/v1/relays/{id}/../../../api/delete")),
        id.clone().prop_map(|id| format!("/v1/relays/{id}?from=18446744073709551616")),
        id.clone().prop_map(|id| format!("/v1/relays/{id}?from=0&path=/api/delete")),
        id.prop_map(|id| format!("/v1/relays/{id}")),
        "/[a-z0-9/%.]{0,40}",
    ];
    let method = prop_oneof![
        Just(Method::GET),
        Just(Method::POST),
        Just(Method::PUT),
        Just(Method::DELETE),
        Just(Method::HEAD),
        Just(Method::PATCH),
        Just(Method::OPTIONS),
    ];
    let header = prop_oneof![
        Just((OPERATION.to_owned(), "ollama.delete".to_owned())),
        Just((OPERATION.to_owned(), "../api/delete".to_owned())),
        Just(("x-forwarded-host".to_owned(), "evil".to_owned())),
        Just(("authorization".to_owned(), "Bearer x".to_owned())),
        Just(("origin".to_owned(), "https://evil".to_owned())),
        Just(("cookie".to_owned(), "a=b".to_owned())),
        ("[a-z]{1,12}", "[ -~]{0,30}").prop_map(|(name, value)| (format!("x-{name}"), value)),
    ];
    let body = prop_oneof![
        Just(br#"{"model":"tiny","messages":[]}"#.to_vec()),
        Just(br#"{"model":"x:cloud"}"#.to_vec()),
        vec(any::<u8>(), 0..200),
    ];
    (method, path, vec(header, 1..4), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_off_the_list_reach_nothing() {
    let (lab, ollama, dir) = (HostileLab::start().await, FakeOllama::start(), tempfile::tempdir().unwrap());
    let bridge = captive(&lab, &ollama, dir.path()).await;
    let mut socket = lab.accept().await;
    HostileLab::challenge(&mut socket, [1; 32], &lab.origin).await;
    let requests = HostileLab::take_over(socket).await;
    let mut runner = TestRunner::deterministic();
    let adversarial = adversarial();
    for number in 0..10_000 {
        let (method, path, headers, body) = adversarial.new_tree(&mut runner).unwrap().current();
        let mut request = Request::builder().method(method.clone()).uri(format!("http://bridge{path}"));
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let Ok(request) = request.body(Full::new(Bytes::from(body))) else { continue };
        let response = requests.clone().send_request(request).await;
        let response =
            response.unwrap_or_else(|error| panic!("the link lives: {error:?} after {number}: {method} {path} {headers:?}"));
        assert!(response.status().is_client_error(), "{method} {path} {headers:?}: {}", response.status());
        drop(response.into_body().collect().await);
    }
    assert_eq!(ollama.log().iter().filter(|seen| seen.method != "GET").count(), 0);
    assert_eq!(ollama.violations(), []);
    assert!(bridge.activity().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_lands_on_its_one_path_whatever_the_body_says() {
    let (lab, ollama, dir) = (HostileLab::start().await, FakeOllama::start(), tempfile::tempdir().unwrap());
    let bridge = captive(&lab, &ollama, dir.path()).await;
    wait(bridge.status(), |status| !status.models.is_empty()).await;
    let mut socket = lab.accept().await;
    HostileLab::challenge(&mut socket, [1; 32], &lab.origin).await;
    let requests = HostileLab::take_over(socket).await;
    for operation in Operation::ALL {
        let body =
            r#"{"model":"tiny","messages":[],"prompt":"x","input":"x","max_tokens":5,"path":"/api/delete","url":"http://evil"}"#;
        let request = Request::put(format!("http://bridge/v1/relays/{}", RelayId::random()))
            .header(OPERATION, operation.as_str())
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = requests.clone().send_request(request).await.expect("the link lives");
        drop(response.into_body().collect().await);
    }
    let posts: Vec<_> = ollama.log().iter().filter(|seen| seen.method == "POST").map(|seen| seen.path.clone()).collect();
    let allowed = [
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/show",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
    ];
    assert_eq!(posts, allowed);
    for seen in ollama.log().iter().filter(|seen| seen.method == "POST") {
        let foreign: Vec<_> = seen.headers.keys().map(|name| name.as_str()).collect();
        let known = ["content-type", "content-length", "accept", "host", "user-agent"];
        assert!(foreign.iter().all(|name| known.contains(name)), "{foreign:?}");
    }
    assert_eq!(ollama.violations(), []);
}

/// A socket to the real Lab, as a bridge opens it.
async fn knock(world: &World) -> tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let tls = world.caller.connect().await;
    let request = Request::get(format!("wss://localhost{LINK_PATH}"))
        .header("host", "localhost")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", tokio_tungstenite::tungstenite::handshake::client::generate_key())
        .header("sec-websocket-protocol", SUBPROTOCOL)
        .body(())
        .unwrap();
    tokio_tungstenite::client_async(request, tls).await.expect("a WebSocket").0
}

/// Says hello to the real Lab with the proof that `prove` makes of its challenge.
async fn hello(world: &World, prove: impl FnOnce(&Challenge) -> Proof) -> Verdict {
    let mut socket = knock(world).await;
    let Some(Ok(Message::Text(challenge))) = socket.next().await else { panic!("a challenge") };
    let proof = prove(&serde_json::from_str(&challenge).unwrap());
    socket.send(Message::text(serde_json::to_string(&proof).unwrap())).await.unwrap();
    let Some(Ok(Message::Text(verdict))) = socket.next().await else { panic!("a verdict") };
    serde_json::from_str(&verdict).unwrap()
}

fn refusal(verdict: Verdict) -> RefusalCode {
    match verdict {
        Verdict::Refused { code, .. } => code,
        Verdict::Welcome { .. } => panic!("welcome"),
    }
}

/// Row 10: replayed proof, wrong origin, old nonce, another's key, a device that never was.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_fresh_proof_for_this_lab_opens_a_link() {
    let world = World::start().await;
    let origin = world.lab.origin.as_str();
    let key = Credentials::open(world.bridge_config.credential_store.clone(), &origin.parse().unwrap()).unwrap();
    let key = Arc::new(key.load().await.unwrap());
    let device = world.device;
    let sign = |key: &SigningKey, origin: &str, challenge: &Challenge| Proof::sign(key, device, origin, challenge, "0");

    let mut recorded = None;
    let verdict = hello(&world, |challenge| {
        let proof = sign(&key, origin, challenge);
        recorded = Some((challenge.clone(), proof.clone()));
        proof
    })
    .await;
    assert!(matches!(verdict, Verdict::Welcome { .. }), "the control: a good proof is welcome");
    let (old_challenge, old_proof) = recorded.unwrap();

    let replayed = old_proof.clone();
    assert_eq!(refusal(hello(&world, |_| replayed).await), RefusalCode::BadProof);
    assert_eq!(refusal(hello(&world, |_| sign(&key, origin, &old_challenge)).await), RefusalCode::BadProof);
    let elsewhere = refusal(hello(&world, |challenge| sign(&key, "https://localhost:1", challenge)).await);
    assert_eq!(elsewhere, RefusalCode::BadProof);
    let stranger = SigningKey::from_bytes(&[9; 32]);
    assert_eq!(refusal(hello(&world, |challenge| sign(&stranger, origin, challenge)).await), RefusalCode::BadProof);
    let nobody = refusal(hello(&world, |c| Proof::sign(&key, DeviceId::random(), origin, c, "0")).await);
    assert_eq!(nobody, RefusalCode::Revoked);
    let future = refusal(hello(&world, |c| Proof { protocol: 99, ..sign(&key, origin, c) }).await);
    assert_eq!(future, RefusalCode::UpgradeRequired);
}

/// A Lab that passes on another Lab's challenge gets nothing that is worth anything there.
#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_that_was_passed_on_is_not_signed_for_its_owner() {
    let (lab, ollama, dir) = (HostileLab::start().await, FakeOllama::start(), tempfile::tempdir().unwrap());
    let bridge = captive(&lab, &ollama, dir.path()).await;
    // In the name of the other Lab: the bridge notices.
    let mut socket = lab.accept().await;
    let other = Challenge { nonce: [3; 32], lab: "https://lab.example.com".to_owned() };
    socket.send(Message::text(serde_json::to_string(&other).unwrap())).await.unwrap();
    wait(bridge.status(), |status| matches!(&status.link, LinkState::Refused { code, .. } if code == "other_name")).await;
    drop(socket);
    // In its own name: the signature holds for this name only.
    bridge.retry_now();
    let mut socket = tokio::time::timeout(Duration::from_secs(5), lab.accept()).await.expect("the bridge dials");
    let proof = HostileLab::challenge(&mut socket, other.nonce, &lab.origin).await;
    let key = Credentials::open(bridge.config().credential_store.clone(), &lab.origin.parse().unwrap()).unwrap();
    let key = key.load().await.unwrap().verifying_key();
    assert!(proof.verify(&key, &lab.origin, &other.nonce).is_ok());
    assert!(proof.verify(&key, &other.lab, &other.nonce).is_err());
}

/// The door for bridges opens for nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn the_link_is_no_way_in_for_browsers_and_plain_requests() {
    let world = World::start().await;
    let caller: &Caller = &world.caller;
    assert_eq!(caller.get(LINK_PATH).await.status, 400);
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    let with = |extra: &'static [(&'static str, &'static str)]| upgrade.iter().chain(extra).copied().collect::<Vec<_>>();
    assert_eq!(caller.get_with(LINK_PATH, &with(&[])).await.status, 426);
    assert_eq!(caller.get_with(LINK_PATH, &with(&[("sec-websocket-protocol", "1k4.link.v0")])).await.status, 426);
    let page = with(&[("sec-websocket-protocol", SUBPROTOCOL), ("origin", "https://evil.example")]);
    assert_eq!(caller.get_with(LINK_PATH, &page).await.status, 403);
}

/// An acknowledgement comes off the wire: one for bytes that were never sent frees nothing and ends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_false_acknowledgement_changes_nothing() {
    let (lab, ollama, dir) = (HostileLab::start().await, FakeOllama::start(), tempfile::tempdir().unwrap());
    let bridge = captive(&lab, &ollama, dir.path()).await;
    wait(bridge.status(), |status| !status.models.is_empty()).await;
    let mut socket = lab.accept().await;
    HostileLab::challenge(&mut socket, [1; 32], &lab.origin).await;
    let requests = HostileLab::take_over(socket).await;
    let id = RelayId::random();
    let control = Request::post("http://bridge/v1/control")
        .body(Full::new(Bytes::from(format!("{{\"type\":\"ack\",\"received\":[[\"{id}\",{}]]}}\n", u64::MAX))))
        .unwrap();
    ollama.hold_at_token("tiny", 3);
    let start = Request::put(format!("http://bridge/v1/relays/{id}"))
        .header(OPERATION, Operation::OllamaChat.as_str())
        .body(Full::new(Bytes::from_static(br#"{"model":"tiny","messages":[{"role":"user","content":"hello"}]}"#)))
        .unwrap();
    let answer = requests.clone().send_request(start).await.expect("the link lives");
    drop(requests.clone().send_request(control).await.expect("the link lives"));
    ollama.release();
    let body = tokio::time::timeout(Duration::from_secs(5), answer.into_body().collect()).await.expect("an end").unwrap();
    assert!(body.trailers().is_some());
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    assert_eq!(text.matches("\"done\":true").count(), 1);
    assert!(text.starts_with('{'));
}
