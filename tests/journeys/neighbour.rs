//! Ollama stops, restarts, is updated, gets models and loses them: seen in the Lab within two seconds, and back by itself.

use std::time::{Duration, Instant};

use bridge_core::status::LinkState;
use journeys::{
    fake_ollama::Model,
    world::{World, eventually},
};
use serde_json::json;
use wire::relay::OllamaState;

/// Row 8.
const SEEN: Duration = Duration::from_secs(2);

async fn seen_in_the_lab(what: &str, is_so: impl AsyncFnMut() -> bool) {
    let at = Instant::now();
    eventually(what, is_so).await;
    let took = at.elapsed();
    println!("{what}: seen after {took:?}");
    assert!(took <= SEEN + Duration::from_millis(500), "{what}: seen only after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go() {
    let world = World::start().await;
    world.ollama.add_model(Model::new("newcomer"));
    let lists = async || world.caller.models().await.contains(&"local/newcomer:latest".to_owned());
    seen_in_the_lab("a new model", lists).await;
    world.ollama.remove_model("newcomer");
    seen_in_the_lab("a model that is gone", async || !lists().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ollama_stops_and_comes_back() {
    let world = World::start().await;
    let body = json!({"model": "local/tiny", "messages": [{"role": "user", "content": "hello"}]});
    world.ollama.stop();
    world.wait(|status| matches!(status.ollama, OllamaState::Unreachable { .. })).await;
    let answer = world.caller.post("/v1/chat/completions", &body).await;
    assert_eq!(answer.status, 503);
    let error = answer.json().await;
    assert!(["ollama_unavailable", "bridge_offline"].contains(&error["error"]["code"].as_str().unwrap_or_default()), "{error}");
    assert!(error["error"]["message"].as_str().is_some_and(|message| message.contains("Ollama")), "{error}");
    world.ollama.restart().expect("the same port");
    let answers = async || world.caller.post("/v1/chat/completions", &body).await.status == 200;
    seen_in_the_lab("Ollama is back", answers).await;
    assert!(matches!(world.bridge.status().borrow().link, LinkState::Online { .. }), "the link never broke");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ollama_that_is_too_old_is_not_relayed_to_until_it_is_updated() {
    let world = World::start().await;
    let body = json!({"model": "local/tiny", "messages": [{"role": "user", "content": "hello"}]});
    world.ollama.set_version("0.17.0");
    world.wait(|status| matches!(status.ollama, OllamaState::TooOld { .. })).await;
    let answer = world.caller.post("/v1/chat/completions", &body).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json().await["error"]["code"], "ollama_too_old");
    world.ollama.set_version("0.17.1");
    let answers = async || world.caller.post("/v1/chat/completions", &body).await.status == 200;
    seen_in_the_lab("the update", answers).await;
}
