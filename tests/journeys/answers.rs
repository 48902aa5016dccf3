//! What Ollama answers is what the caller gets, and one record says so.

use journeys::world::World;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_chat_comes_through_byte_for_byte() {
    let world = World::start().await;
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "options": {"seed": 1}});
    let answer = world.caller.post("/api/chat", &body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let text = answer.text().await;
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(lines.last().expect("a last line")["done"], true);

    let records = world.records(1).await;
    let [record] = &records[..] else { panic!("one record: {records:?}") };
    assert_eq!((record.outcome.as_str(), record.status, record.stream), ("complete", 200, true));
    assert_eq!(record.output_tokens, lines.last().and_then(|line| line["eval_count"].as_i64()));
    assert_eq!(record.input_tokens, lines.last().and_then(|line| line["prompt_eval_count"].as_i64()));
    assert_eq!(record.device.as_deref(), Some(world.device.to_string().as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_dialect_gets_the_bytes_that_ollama_sent() {
    let world = World::start().await;
    for (path, body) in [
        ("/v1/chat/completions", json!({"model": "local/tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]})),
        ("/v1/chat/completions", json!({"model": "local/tiny", "messages": [{"role": "user", "content": "hi"}]})),
        ("/v1/completions", json!({"model": "local/tiny", "stream": true, "prompt": "hi"})),
        ("/v1/responses", json!({"model": "local/tiny", "stream": true, "input": "hi"})),
        (
            "/v1/messages",
            json!({"model": "local/tiny", "stream": true, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}),
        ),
        ("/v1/embeddings", json!({"model": "local/embed", "input": "hi"})),
        ("/api/generate", json!({"model": "tiny", "prompt": "hi"})),
        ("/api/embed", json!({"model": "embed", "input": "hi"})),
    ] {
        let answer = world.caller.post(path, &body).await;
        assert_eq!(answer.status, 200, "{path}");
        let text = answer.text().await;
        assert!(text.len() > 20, "{path}: {text}");
    }
    let records = world.records(8).await;
    assert!(records.iter().all(|record| record.outcome == "complete"), "{records:?}");
    assert_eq!(records.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_for_both_kinds_of_clients() {
    let world = World::start().await;
    assert!(world.caller.models().await.contains(&"local/tiny:latest".to_owned()));
    let tags = world.caller.get("/api/tags").await.json().await;
    let direct = ["tiny:latest", "thinker:latest", "seer:latest", "embed:latest"];
    let names: Vec<_> = tags["models"].as_array().expect("models").iter().filter_map(|model| model["name"].as_str()).collect();
    assert!(direct.iter().all(|name| names.contains(name)), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_key_nothing_reaches_ollama() {
    let world = World::start().await;
    let body = json!({"model": "local/tiny", "messages": [{"role": "user", "content": "hello"}]});
    let good = world.caller.key().expect("a key").to_owned();
    let wrong = format!("{}x", &good[..good.len() - 1]);
    for key in [None, Some("nonsense".to_owned()), Some(wrong)] {
        for path in ["/v1/chat/completions", "/v1/messages", "/api/chat"] {
            let answer = world.caller.with_key(key.clone()).post(path, &body).await;
            assert_eq!(answer.status, 401, "{path}");
            assert!(answer.json().await["error"].is_object() || path == "/api/chat");
        }
    }
    assert_eq!(world.ollama.log().iter().filter(|seen| seen.method == "POST").count(), 0);
}
