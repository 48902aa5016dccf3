//! A caller who hangs up frees the GPU, and a link that stays away ends both sides.

use std::time::{Duration, Instant};

use bridge_core::policy::Policy;
use journeys::{
    fake_ollama::Outcome,
    fault_proxy::Fault,
    world::{PATIENCE, Wishes, World},
};
use serde_json::{Value, json};

/// Row 4: Ollama's connection is closed within this after the caller has hung up.
const FREED: Duration = Duration::from_millis(100);

fn chat(stream: bool) -> Value {
    json!({"model": "local/tiny", "stream": stream, "messages": [{"role": "user", "content": "hello"}]})
}

fn gone(outcome: Outcome) -> Option<Instant> {
    match outcome {
        Outcome::ClientGone { at, .. } => Some(at),
        Outcome::Running | Outcome::Finished | Outcome::Stopped => None,
    }
}

/// Hangs up with `hang_up` and checks that Ollama noticed in time and the record says so.
async fn freed(world: &World, hang_up: impl FnOnce()) {
    let at = Instant::now();
    hang_up();
    world.ollama.wait_for(|log| log.iter().any(|seen| gone(seen.outcome).is_some())).await;
    let noticed = world.ollama.log().iter().find_map(|seen| gone(seen.outcome)).expect("somebody is gone");
    let took = noticed.saturating_duration_since(at);
    println!("Ollama was free after {took:?}");
    assert!(took <= FREED, "Ollama was free only after {took:?}");
    let records = world.records(1).await;
    assert_eq!(records.iter().map(|record| record.outcome.as_str()).collect::<Vec<_>>(), ["cancelled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_while_tokens_flow_frees_the_gpu() {
    let world = World::start().await;
    world.ollama.hold_at_token("tiny", 3);
    let mut answer = world.caller.post("/v1/chat/completions", &chat(true)).await;
    assert!(answer.chunk().await.expect("bytes").is_some());
    world.ollama.wait_for(|log| log.iter().any(|seen| seen.held)).await;
    freed(&world, || drop(answer)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_while_the_model_loads_frees_the_gpu() {
    for stream in [true, false] {
        let world = World::start().await;
        world.ollama.hold_before_headers("tiny");
        let caller = world.caller.clone();
        let asking = tokio::spawn(async move { caller.post("/v1/chat/completions", &chat(stream)).await });
        world.ollama.wait_for(|log| log.iter().any(|seen| seen.held)).await;
        freed(&world, || asking.abort()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_while_queued_leaves_the_queue() {
    let policy = Policy { max_concurrent: 1, ..Policy::default() };
    let world = World::with(Wishes { policy, ..Wishes::default() }).await;
    world.ollama.hold_before_headers("tiny");
    let first = tokio::spawn({
        let caller = world.caller.clone();
        async move { caller.post("/v1/chat/completions", &chat(true)).await.text().await }
    });
    world.ollama.wait_for(|log| log.iter().any(|seen| seen.held)).await;
    let second = tokio::spawn({
        let caller = world.caller.clone();
        async move { caller.post("/v1/chat/completions", &chat(true)).await }
    });
    world.wait(|status| status.relays.len() == 2).await;
    second.abort();
    world.wait(|status| status.relays.len() == 1).await;
    world.ollama.release();
    assert!(first.await.expect("the first goes on").contains("[DONE]"));
    let records = world.records(2).await;
    let mut outcomes: Vec<_> = records.iter().map(|record| record.outcome.as_str()).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["cancelled", "complete"]);
    assert_eq!(world.ollama.log().iter().filter(|seen| seen.method == "POST").count(), 1, "the second never reached Ollama");
}

/// Row 5, with a window of a second instead of sixty.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_stays_away_ends_both_sides() {
    for (path, expected) in
        [("/v1/chat/completions", "data: {\"error\""), ("/v1/messages", "event: error"), ("/api/chat", "{\"error\"")]
    {
        let world = World::with(Wishes { resume_window: Some(Duration::from_secs(1)), ..Wishes::default() }).await;
        world.ollama.hold_at_token("tiny", 3);
        let mut body = chat(true);
        body["max_tokens"] = 100.into();
        let mut answer = world.caller.post(path, &body).await;
        assert!(answer.chunk().await.expect("bytes").is_some());
        world.network.set(Fault::Refuse);
        let (rest, _) = tokio::time::timeout(PATIENCE, answer.read()).await.expect("the caller is told");
        let rest = String::from_utf8(rest).expect("text");
        assert!(rest.contains(expected), "{path}: {rest}");
        world.ollama.wait_for(|log| log.iter().any(|seen| gone(seen.outcome).is_some())).await;
        let records = world.records(1).await;
        assert_eq!(records[0].outcome, "bridge_offline");

        // Before the first byte there still is a status.
        let refused = world.caller.post(path, &body).await;
        assert_eq!(refused.status, 503, "{path}");
        assert!(refused.text().await.contains("bridge_offline") || path != "/v1/chat/completions");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_leaves_while_the_link_is_away_is_not_forgotten() {
    let world = World::start().await;
    world.ollama.hold_at_token("tiny", 3);
    let mut answer = world.caller.post("/v1/chat/completions", &chat(true)).await;
    assert!(answer.chunk().await.expect("bytes").is_some());
    world.network.set(Fault::Refuse);
    world.wait(|status| !matches!(status.link, bridge_core::status::LinkState::Online { .. })).await;
    drop(answer);
    world.records(1).await;
    world.network.set(Fault::Pass);
    world.ollama.wait_for(|log| log.iter().any(|seen| gone(seen.outcome).is_some())).await;
}
