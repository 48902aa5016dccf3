//! Row 5's neighbours: how fast a key may ask, in the numbers that its answers tell.

use std::num::NonZeroU32;

use http::Method;
use journeys::{
    caller::Whole,
    world::cloud::{CloudWishes, CloudWorld},
};
use lab_server::store::{KeyTerms, Rates};
use serde_json::json;

use super::{CHAT, chat};

async fn world(rates: Rates) -> CloudWorld {
    CloudWorld::with(CloudWishes { terms: KeyTerms { rates, ..KeyTerms::default() }, ..CloudWishes::default() }).await
}

fn number(answer: &Whole, name: &str) -> u64 {
    answer.header(name).trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{name}: {:?}", answer.headers))
}

/// What the answer says is left of requests or tokens: the limit, the rest, and the seconds until all is there again.
fn left(answer: &Whole, of: &str) -> (u64, u64, u64) {
    let header = |what: &str| number(answer, &format!("x-ratelimit-{what}-{of}"));
    (header("limit"), header("remaining"), header("reset"))
}

fn refusal(answer: &Whole) -> (u16, &str) {
    (answer.status.as_u16(), answer.header("x-1k4-error"))
}

#[tokio::test(flavor = "multi_thread")]
async fn three_requests_a_minute_are_three_at_once_and_then_one_in_twenty_seconds() {
    let world = world(Rates { requests_per_minute: NonZeroU32::new(3), ..Rates::default() }).await;
    let mut line = world.caller.line().await;
    let body = chat("ofake", false).to_string();
    for remaining in [2, 1, 0] {
        let answer = line.ask(Method::POST, CHAT, &[], body.clone()).await;
        assert_eq!(answer.status, 200);
        let (limit, told, reset) = left(&answer, "requests");
        // The reset is rounded up, and the test takes a moment itself.
        assert_eq!((limit, told), (3, remaining));
        assert!((20 * (3 - remaining) - 3..=20 * (3 - remaining)).contains(&reset), "{reset}");
        // The provider's own limits are the operator's, and are told to nobody.
        assert!(answer.headers.keys().all(|name| !name.as_str().contains("-tokens")), "{:?}", answer.headers);
    }
    // Lists count like everything else.
    for path in ["/v1/models", "/api/version"] {
        let refused = line.ask(Method::GET, path, &[], "").await;
        assert_eq!(refusal(&refused), (429, "rate_limited"), "{path}");
    }
    let refused = line.ask(Method::POST, CHAT, &[], body).await;
    assert_eq!(refusal(&refused), (429, "rate_limited"));
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    let (limit, told, reset) = left(&refused, "requests");
    assert_eq!((limit, told), (3, 0));
    assert!((56..=60).contains(&reset), "{reset}");
    let wait = number(&refused, "retry-after");
    assert_eq!(wait, reset - 40, "one of three comes back in a third of the minute");
    assert_eq!(world.providers.totals().started, 3);
    // In Anthropic's words too.
    let refused = line.ask(Method::POST, "/v1/messages", &[], chat("afake", false).to_string()).await;
    assert_eq!((refusal(&refused), &refused.json()["error"]["type"]), ((429, "rate_limited"), &"rate_limit_error".into()));
    // Another key of the project has its own.
    let other = world.key(KeyTerms::default()).await;
    assert_eq!(world.caller_with(&other).post(CHAT, &chat("ofake", false)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_set_aside_and_come_back() {
    let world = world(Rates { tokens_per_minute: NonZeroU32::new(1_200), ..Rates::default() }).await;
    let body = json!({"model": "ofake", "max_tokens": 800, "messages": [{"role": "user", "content": "hello"}]}).to_string();
    // What one request sets aside is told by one that is let in while nothing else was used.
    let mut line = world.caller.line().await;
    let first = line.ask(Method::POST, CHAT, &[], body.clone()).await;
    let (limit, after_first, _) = left(&first, "tokens");
    let aside = limit - after_first;
    assert_eq!((first.status.as_u16(), limit), (200, 1_200));
    assert!((800..1_000).contains(&aside), "{aside}");
    world.records(1).await;
    // It used 18, and all else came back: there are 1,182 and what a moment brings.
    world.providers.hold_before_headers("ofake");
    let (caller, held) = (world.caller.clone(), body.clone());
    let running = tokio::spawn(async move { caller.line().await.ask(Method::POST, CHAT, &[], held).await });
    world.held(1).await;
    let refused = line.ask(Method::POST, CHAT, &[], body.clone()).await;
    assert_eq!(refusal(&refused), (429, "rate_limited"));
    let (_, rest, _) = left(&refused, "tokens");
    let used = 18;
    assert!((1_200 - used - aside..=1_200 - aside).contains(&rest), "{rest} with {aside} set aside");
    // What is missing comes at 20 a second.
    let wait = number(&refused, "retry-after");
    let missing = aside - rest;
    assert!((missing / 20..=missing / 20 + 1).contains(&wait), "{wait} s for {missing}");
    world.providers.release();
    let ran = running.await.expect("an answer");
    assert_eq!(ran.status, 200);
    world.records(3).await;
    let again = line.ask(Method::POST, CHAT, &[], body).await;
    let (_, rest, _) = left(&again, "tokens");
    assert_eq!(again.status, 200);
    assert!((1_200 - 2 * used - aside..=1_200 - aside).contains(&rest), "{rest}");
    assert_eq!(world.providers.totals().started, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_are_two_at_once() {
    let world = world(Rates { concurrent: NonZeroU32::new(2), ..Rates::default() }).await;
    world.providers.hold_at_token("ofake", 2);
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut answer = world.caller.post(CHAT, &chat("ofake", true)).await;
        assert!(answer.chunk().await.expect("bytes").is_some());
        streams.push(answer);
    }
    let mut line = world.caller.line().await;
    let body = chat("hfake", false).to_string();
    let refused = line.ask(Method::POST, CHAT, &[], body.clone()).await;
    assert_eq!((refusal(&refused), refused.header("retry-after")), ((429, "rate_limited"), "1"));
    assert_eq!(world.providers.totals().started, 2);
    // One hangs up, and there is room for one.
    streams.pop();
    world.hung_up().await;
    world.records(1).await;
    assert_eq!(line.ask(Method::POST, CHAT, &[], body.clone()).await.status, 200);
    world.providers.release();
    for stream in streams {
        assert!(stream.text().await.ends_with("data: [DONE]\n\n"));
    }
    world.records(3).await;
    assert_eq!(line.ask(Method::POST, CHAT, &[], body).await.status, 200);
}
