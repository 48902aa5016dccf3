//! Row 8: a caller who hangs up stops what can be stopped, and pays for what cannot.

use std::time::{Duration, Instant};

use journeys::{
    fake_provider::{Behaviour, Outcome},
    world::cloud::{
        ANTHROPIC, AZURE, CREDITS_NANO, CloudWishes, CloudWorld, DEPLOYMENTS, GOOGLE, HOME, INPUT_NANO, OPENAI, OUTPUT_NANO,
        PROVIDERS, Provider, XAI, gone, soon,
    },
};
use serde_json::json;

use super::{CHAT, question};

/// The provider's connection is closed within this after the caller has hung up.
const CLOSED: Duration = Duration::from_millis(100);

/// That the Lab has noticed a hang-up behind which work goes on shows nowhere. Whoever comes later over connections of their own is
/// served later.
async fn noticed(world: &CloudWorld) {
    for _ in 0..4 {
        assert_eq!(world.caller.get("/healthz").await.status, 200);
    }
}

/// Reads up to the first token, hangs up, and checks that the provider noticed in time.
async fn hang_up_mid_stream(provider: Provider) {
    let world = CloudWorld::start().await;
    world.providers.hold_at_token(provider.model, 3);
    let (path, body) = question(provider, provider.model, true);
    let mut answer = world.caller.post(&path, &body).await;
    assert_eq!(answer.status, 200);
    let request = answer.header("x-1k4-request-id").to_owned();
    assert!(answer.chunk().await.expect("bytes").is_some());
    world.held(1).await;
    let at = Instant::now();
    drop(answer);
    let took = world.hung_up().await.saturating_duration_since(at);
    println!("{} noticed after {took:?}", provider.name);
    assert!(took <= CLOSED, "{}: only after {took:?}", provider.name);
    let record = world.record(&request).await;
    assert_eq!((record.outcome.as_str(), record.status, record.estimated), ("cancelled", 200, true), "{}", provider.name);
    // The prompt and three tokens, as far as they were seen.
    assert!(record.cost_nano > 0 && record.output_tokens.is_some_and(|tokens| (1..=16).contains(&tokens)), "{record:?}");
    world.spent(CREDITS_NANO, &world.records(1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_mid_stream_ends_it_at_whoever_stops_then() {
    for provider in [OPENAI, ANTHROPIC, XAI, AZURE, DEPLOYMENTS, HOME] {
        hang_up_mid_stream(provider).await;
    }
}

/// Also while the model is still thinking.
#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_before_the_first_byte_of_a_stream_ends_it_too() {
    for provider in [OPENAI, ANTHROPIC, XAI, AZURE] {
        let world = CloudWorld::start().await;
        world.providers.hold_before_headers(provider.model);
        let (caller, (path, body)) = (world.caller.clone(), question(provider, provider.model, true));
        let asking = tokio::spawn(async move { caller.post(&path, &body).await });
        world.held(1).await;
        let at = Instant::now();
        asking.abort();
        let took = world.hung_up().await.saturating_duration_since(at);
        assert!(took <= CLOSED, "{}: only after {took:?}", provider.name);
        let records = world.records(1).await;
        assert_eq!((records[0].outcome.as_str(), records[0].status), ("cancelled", 499), "{}", provider.name);
        world.spent(CREDITS_NANO, &records).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn googles_stream_is_read_to_its_end_for_the_bill() {
    for sse in [true, false] {
        let world = CloudWorld::start().await;
        world.providers.hold_at_token("gfake", 3);
        let (path, body) = question(GOOGLE, "gfake", true);
        let path = if sse { path } else { path.replace("?alt=sse", "") };
        let mut answer = world.caller.post(&path, &body).await;
        let request = answer.header("x-1k4-request-id").to_owned();
        assert!(answer.chunk().await.expect("bytes").is_some());
        world.held(1).await;
        drop(answer);
        noticed(&world).await;
        // It goes on: whoever had hung up there would be seen before the rest is.
        world.providers.release();
        world.providers.wait_for(|log| log[0].outcome != Outcome::Running).await;
        assert_eq!(world.providers.log()[0].outcome, Outcome::Finished);
        let record = world.record(&request).await;
        assert_eq!((record.outcome.as_str(), record.estimated), ("cancelled", false));
        assert_eq!((record.input_tokens, record.output_tokens), (Some(2), Some(16)));
        assert_eq!(record.cost_nano, 2 * INPUT_NANO + 16 * OUTPUT_NANO);
        world.spent(CREDITS_NANO, &world.records(1).await).await;
    }
}

/// An answer in one piece is made whether somebody waits or not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_streamed_is_finished_and_billed() {
    for provider in PROVIDERS {
        let world = CloudWorld::start().await;
        world.providers.hold_before_headers(provider.model);
        let (caller, (path, body)) = (world.caller.clone(), question(provider, provider.model, false));
        let asking = tokio::spawn(async move { caller.post(&path, &body).await });
        world.held(1).await;
        asking.abort();
        assert!(asking.await.is_err_and(|error| error.is_cancelled()), "{}", provider.name);
        noticed(&world).await;
        world.providers.release();
        world.providers.wait_for(|log| log[0].outcome != Outcome::Running).await;
        assert_eq!(world.providers.log()[0].outcome, Outcome::Finished, "{}", provider.name);
        let records = world.records(1).await;
        assert_eq!(records[0].outcome, "cancelled", "{}", provider.name);
        assert_eq!((records[0].input_tokens, records[0].output_tokens), (Some(2), Some(16)), "{}", provider.name);
        assert_eq!(records[0].cost_nano, 2 * INPUT_NANO + 16 * OUTPUT_NANO, "{}: {:?}", provider.name, records[0]);
        world.spent(CREDITS_NANO, &records).await;
    }
}

/// Whoever never reads an answer that has no end is let go, and so is its provider.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_of_an_answer_is_ended() {
    const SHORT: Duration = Duration::from_millis(400);
    let world = CloudWorld::with(CloudWishes { stall: Some(SHORT), ..CloudWishes::default() }).await;
    // A line of a gibibyte: more than all buffers on the way take.
    world.providers.next(HOME.kind, Behaviour::of("m"));
    let (path, body) = question(HOME, "hfake", true);
    let at = Instant::now();
    let answer = world.caller.post(&path, &body).await;
    assert_eq!(answer.status, 200);
    let stalled = soon("the provider is let go", world.hung_up()).await.saturating_duration_since(at);
    println!("the provider was let go after {stalled:?}");
    assert!(stalled >= SHORT && stalled < Duration::from_secs(10), "{stalled:?}");
    let records = world.records(1).await;
    assert_eq!(records[0].outcome, "cancelled");
    // Whoever reads slowly, but reads, is not.
    world.providers.next(HOME.kind, Behaviour::of("n4-d300000"));
    let mut reading = world.caller.post(&path, &json!({"model": "hfake", "stream": true, "messages": body["messages"]})).await;
    let mut said = Vec::new();
    while let Some(chunk) = soon("the next token", reading.chunk()).await.expect("bytes") {
        said.extend_from_slice(&chunk);
    }
    assert!(String::from_utf8(said).expect("text").ends_with("data: [DONE]\n\n"));
    drop(answer);
}

/// A thousand who come and go leave nothing behind: no connection, no reservation.
#[tokio::test(flavor = "multi_thread")]
async fn many_who_hang_up_leave_nothing_set_aside() {
    const MANY: usize = 200;
    let world = CloudWorld::start().await;
    world.providers.hold_at_token("ofake", 2);
    let body = super::chat("ofake", true);
    let answers = futures_util::future::join_all((0..MANY).map(|_| async {
        let mut answer = world.caller.post(CHAT, &body).await;
        assert_eq!(answer.status, 200);
        assert!(answer.chunk().await.expect("bytes").is_some());
        answer
    }))
    .await;
    world.held(MANY).await;
    drop(answers);
    world.providers.wait_for(|log| log.iter().all(|seen| gone(seen).is_some())).await;
    world.providers.wait_for_connections(|open| open == 0).await;
    let records = world.records(MANY).await;
    assert!(records.iter().all(|record| record.outcome == "cancelled"));
    let spent = world.spent(CREDITS_NANO, &records).await;
    // All that is left can be set aside again, to the last nano-credit that one request may need.
    world.providers.release();
    assert_eq!(world.caller.post(CHAT, &super::chat("ofake", false)).await.status, 200);
    println!("{MANY} who hung up cost {spent} nano-credits");
}
