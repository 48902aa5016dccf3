//! Many at once, and badly behaved: nobody else notices, and the link lives.

use std::time::{Duration, Instant};

use bridge_core::{policy::Policy, status::LinkState};
use futures_util::future::join_all;
use journeys::{
    fake_ollama::Outcome,
    world::{Wishes, World},
};
use serde_json::{Value, json};

fn generous() -> Policy {
    Policy { max_concurrent: 1_200, max_queued: 1_200, ..Policy::default() }
}

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

fn since(world: &World) -> u64 {
    match world.bridge.status().borrow().link {
        LinkState::Online { since_ms, .. } => since_ms,
        ref other => panic!("the link is down: {other:?}"),
    }
}

/// Row 6.
#[tokio::test(flavor = "multi_thread")]
async fn callers_who_stop_reading_disturb_nobody() {
    for model in ["fake-n60000-s1", "fake-n6000-s4096"] {
        let models = vec![model.to_owned(), "fake-n20".to_owned()];
        let world = World::with(Wishes { policy: generous(), models, ..Wishes::default() }).await;
        let linked = since(&world);
        let stalled = join_all((0..32).map(|_| async {
            let mut answer = world.caller.post("/api/chat", &chat(model)).await;
            assert!(answer.chunk().await.expect("bytes").is_some());
            answer
        }))
        .await;
        // Until every buffer on the way is full, Ollama's socket too: nothing moves any more.
        let mut sent = world.network.bytes();
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = world.network.bytes();
            if now.0 - sent.0 < 50_000 {
                break;
            }
            sent = now;
        }
        for _ in 0..20 {
            let at = Instant::now();
            let text = world.caller.post("/api/chat", &chat("fake-n20")).await.text().await;
            assert!(text.contains("\"done\":true"));
            assert!(at.elapsed() < Duration::from_secs(1), "{model}: {:?}", at.elapsed());
        }
        assert_eq!(since(&world), linked, "{model}: the link lives");
        if model.ends_with("s4096") {
            // 24 MB of answer each: more than a journal holds, so Ollama itself is made to wait and nobody's memory grows. What has
            // crossed the link lies in the callers' own socket buffers, which the system lets grow to 10 MB.
            let waiting = world.ollama.log().iter().filter(|seen| seen.outcome == Outcome::Running).count();
            assert_eq!(waiting, 32, "{model}");
            assert!(world.network.bytes().0 < 32 * (12 << 20), "{model}: {:?}", world.network.bytes());
        }
        drop(stalled);
        world.ollama.wait_for(|log| log.iter().all(|seen| seen.outcome != Outcome::Running)).await;
    }
}

/// Row 7, first part.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cancels_in_a_second_leave_the_link_alive() {
    let world = World::with(Wishes { policy: generous(), ..Wishes::default() }).await;
    let linked = since(&world);
    world.ollama.hold_at_token("tiny", 2);
    let answers = join_all((0..1_000).map(|_| async {
        let mut answer = world.caller.post("/api/chat", &chat("tiny")).await;
        assert!(answer.chunk().await.expect("bytes").is_some());
        answer
    }))
    .await;
    let at = Instant::now();
    drop(answers);
    world.ollama.wait_for(|log| log.iter().filter(|s| s.path == "/api/chat").all(|s| s.outcome != Outcome::Running)).await;
    println!("1,000 cancels took {:?}", at.elapsed());
    world.ollama.release();
    assert!(world.caller.post("/api/chat", &chat("tiny")).await.text().await.contains("\"done\":true"));
    assert_eq!(since(&world), linked, "the link lives");
    let records = world.records(1_001).await;
    assert_eq!(records.iter().filter(|record| record.outcome == "cancelled").count(), 1_000);
}

/// Row 7, second part: every way an answer can go wrong has its own outcome.
#[tokio::test(flavor = "multi_thread")]
async fn every_way_an_answer_goes_wrong_has_its_own_outcome() {
    let models = ["fake-n20-g1100", "fake-n20-u1", "fake-n20-x5", "fake-n20-f5", "fake-n20-e5"];
    let world = World::with(Wishes { models: models.map(str::to_owned).to_vec(), ..Wishes::default() }).await;
    let linked = since(&world);
    for (path, model, outcome, end) in [
        ("/api/generate", "fake-n20-g1100", "complete", "\"done\":true"),
        ("/api/chat", "fake-n20-u1", "complete", "\"done\":true"),
        ("/v1/chat/completions", "fake-n20-u1", "complete", "[DONE]"),
        ("/api/chat", "fake-n20-x5", "ollama_error", "{\"error\":"),
        ("/v1/chat/completions", "fake-n20-x5", "ollama_truncated", "data: {\"error\":"),
        ("/v1/messages", "fake-n20-x5", "ollama_truncated", "event: error"),
        ("/v1/responses", "fake-n20-x5", "ollama_truncated", "\"error\""),
        ("/api/chat", "fake-n20-f5", "ollama_truncated", "{\"error\":"),
        ("/v1/chat/completions", "fake-n20-f5", "ollama_truncated", "data: {\"error\":"),
        ("/api/chat", "fake-n20-e5", "ollama_lost", "{\"error\":"),
    ] {
        let before = world.records(0).await.len();
        let mut body = chat(&if path.starts_with("/v1") { format!("local/{model}") } else { model.to_owned() });
        body["stream"] = true.into();
        match path {
            "/api/generate" => body["prompt"] = "hello".into(),
            "/v1/responses" => body["input"] = "hello".into(),
            "/v1/messages" => body["max_tokens"] = 100.into(),
            _ => {}
        }
        let text = world.caller.post(path, &body).await.text().await;
        let last = text.trim_end().lines().rev().take(3).collect::<Vec<_>>().join("\n");
        assert!(last.contains(end), "{path} {model}: {}", &last[..last.len().min(300)]);
        let records = world.records(before + 1).await;
        let record = records.iter().max_by_key(|record| record.time).expect("a record");
        assert!(records.iter().any(|r| r.model.contains(model) && r.outcome.contains(outcome)), "{path} {model}: {record:?}");
    }
    assert_eq!(since(&world), linked, "the link lives");
}

/// A caller who does not read is no silence of the Lab's: the link is not dropped for it, and the answer is whole in the end.
#[tokio::test(flavor = "multi_thread")]
async fn one_caller_who_pauses_alone_keeps_the_link_and_the_answer() {
    const MODEL: &str = "fake-n6000-s4096";
    let world = World::with(Wishes { models: vec![MODEL.to_owned()], ..Wishes::default() }).await;
    let linked = since(&world);
    let mut answer = world.caller.post("/api/chat", &chat(MODEL)).await;
    let mut bytes = answer.chunk().await.expect("bytes").expect("a first chunk").to_vec();
    // Longer than a silent link lives while somebody waits for a relay.
    tokio::time::sleep(wire::relay::SILENCE_LIMIT + Duration::from_secs(5)).await;
    assert_eq!(since(&world), linked, "the link lives");
    while let Some(chunk) = answer.chunk().await.expect("the connection holds") {
        bytes.extend_from_slice(&chunk);
    }
    assert!(bytes.len() > 6000 * 4096, "{} bytes", bytes.len());
    assert!(bytes.windows(11).any(|bytes| bytes == b"\"done\":true"));
    assert_eq!(world.records(1).await[0].outcome, "complete");
}
