//! The owner's policy holds at the bridge, whatever a caller or a Lab asks for.

use bridge_core::policy::Policy;
use journeys::{
    fake_ollama::Model,
    world::{Wishes, World},
};
use serde_json::{Value, json};

fn posts(world: &World) -> usize {
    world.ollama.log().iter().filter(|seen| seen.method == "POST").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_owner_does_not_allow_never_reaches_ollama() {
    let mut policy = Policy::default();
    policy.deny("seer".parse().expect("a pattern"));
    let world = World::without_waiting(Wishes { policy, ..Wishes::default() }).await;
    world.ollama.add_model(Model::new("pretender").remote("https://ollama.com:443", "gpt-oss:120b"));
    world.models_are_listed().await;
    let hello = r#""messages":[{"role":"user","content":"hello"}]"#;
    for (what, body, statuses) in [
        ("an unshared model", format!(r#"{{"model":"seer",{hello}}}"#), [404, 404]),
        ("a cloud name", format!(r#"{{"model":"gpt-oss:cloud",{hello}}}"#), [404, 403]),
        ("a cloud suffix", format!(r#"{{"model":"gpt-oss:120b-Cloud",{hello}}}"#), [404, 403]),
        ("a remote host", format!(r#"{{"model":"pretender",{hello}}}"#), [404, 403]),
        ("a duplicate key", format!(r#"{{"model":"tiny","model":"gpt-oss:cloud",{hello}}}"#), [400, 400]),
        ("a case variant", format!(r#"{{"model":"tiny","MODEL":"gpt-oss:cloud",{hello}}}"#), [400, 400]),
        ("a folded variant", format!(r#"{{"model":"tiny","optionſ":{{}},{hello}}}"#), [400, 400]),
        ("a debug field", format!(r#"{{"model":"tiny","_debug_render_only":true,{hello}}}"#), [400, 400]),
        ("no JSON", "{".to_owned(), [400, 400]),
    ] {
        let answer = world.caller.post_bytes("/api/chat", body.into()).await;
        assert!(statuses.contains(&answer.status.as_u16()), "{what}: {}", answer.status);
        assert!(answer.json().await["error"].is_string(), "{what}");
    }
    assert_eq!(posts(&world), 0);
    assert_eq!(world.ollama.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_above_the_ceiling_is_lowered() {
    let world = World::start().await;
    let body = json!({
        "model": "tiny", "stream": false, "keep_alive": -1, "messages": [{"role": "user", "content": "hello"}],
        "options": {"num_ctx": 1_000_000, "num_predict": -1, "num_gpu": 99, "seed": 7},
    });
    assert_eq!(world.caller.post("/api/chat", &body).await.status, 200);
    let seen = world.ollama.log().into_iter().find(|seen| seen.path == "/api/chat").expect("a chat");
    let seen: Value = serde_json::from_slice(&seen.body).expect("JSON");
    let policy = Policy::default();
    assert_eq!(seen["options"], json!({"num_ctx": policy.num_ctx, "num_predict": policy.num_predict, "seed": 7}));
    assert_eq!(seen["keep_alive"], json!(policy.keep_alive_s));
    assert_eq!(seen["messages"], body["messages"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_workstation_takes_nothing_and_comes_back() {
    let world = World::start().await;
    world.bridge.pause(None);
    let body = json!({"model": "local/tiny", "messages": [{"role": "user", "content": "hello"}]});
    let answer = world.caller.post("/v1/chat/completions", &body).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json().await["error"]["code"], "paused");
    assert_eq!(posts(&world), 0);
    world.bridge.resume();
    assert_eq!(world.caller.post("/v1/chat/completions", &body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_queue_there_is_a_hint_when_to_come_back() {
    let policy = Policy { max_concurrent: 1, max_queued: 1, ..Policy::default() };
    let world = World::with(Wishes { policy, ..Wishes::default() }).await;
    world.ollama.hold_before_headers("tiny");
    let body = json!({"model": "local/tiny", "messages": [{"role": "user", "content": "hello"}]});
    let asked: Vec<_> = (0..2)
        .map(|_| {
            let (caller, body) = (world.caller.clone(), body.clone());
            tokio::spawn(async move { caller.post("/v1/chat/completions", &body).await.status })
        })
        .collect();
    world.wait(|status| status.relays.len() == 2).await;
    let refused = world.caller.post("/v1/chat/completions", &body).await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(refused.json().await["error"]["code"], "queue_full");
    world.ollama.release();
    for asked in asked {
        assert_eq!(asked.await.expect("an answer"), 200);
    }
}
