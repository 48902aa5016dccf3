//! Row 5: what there is to spend cannot be overrun, by however many at once, and is accounted for to the nano-credit.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use journeys::{
    caller::Whole,
    fake_provider::{Behaviour, Kind},
    world::cloud::{CREDITS_NANO, CloudWishes, CloudWorld, GOOGLE, HOME, INPUT_NANO, OUTPUT_NANO, PROVIDERS},
};
use lab_server::store::{KeyTerms, Spending};
use serde_json::json;

use super::{CHAT, chat, question};

fn trial() -> CloudWishes {
    CloudWishes { credits_nano: 0, free_requests: 20, ..CloudWishes::default() }
}

/// So many at once, each over a connection of its own.
async fn at_once(world: &CloudWorld, count: usize, body: &serde_json::Value) -> Vec<Whole> {
    let body = Bytes::from(body.to_string());
    join_all((0..count).map(|_| async { world.caller.line().await.ask(Method::POST, CHAT, &[], body.clone()).await })).await
}

/// How many there were of each status and code.
fn counted(answers: &[Whole]) -> BTreeMap<(u16, String), usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry((answer.status.as_u16(), answer.header("x-1k4-error").to_owned())).or_default() += 1;
    }
    counts
}

async fn free_left(world: &CloudWorld) -> i32 {
    world.lab.store.balance(world.user).await.expect("a balance").expect("a balance").free_requests_left
}

async fn refused(world: &CloudWorld, body: &serde_json::Value, status: u16, code: &str) -> Whole {
    let answer = world.caller.line().await.ask(Method::POST, CHAT, &[], body.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-1k4-error")), (status, code), "{}", answer.text());
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_one_at_once_on_a_trial_twenty_succeed() {
    for held in [true, false] {
        let world = CloudWorld::with(trial()).await;
        if held {
            // All of them have begun before the first is answered.
            world.providers.hold_before_headers("hfake");
        }
        let body = chat("hfake", false);
        let (answers, ()) = tokio::join!(at_once(&world, 21, &body), async {
            if held {
                world.held(20).await;
                // While the twenty run, one of them may still come to nothing: the 21st may try again.
                let early = refused(&world, &body, 402, "in_flight_budget_exhausted").await;
                assert_eq!(early.header("retry-after"), "1");
                world.providers.release();
            }
        });
        let counts = counted(&answers);
        assert_eq!(counts.get(&(200, String::new())), Some(&20), "{counts:?}");
        let refusals: usize = counts.iter().filter(|((status, _), _)| *status == 402).map(|(_, count)| count).sum();
        assert_eq!(refusals, 1, "{counts:?}");
        let records = world.records(21 + usize::from(held)).await;
        refused(&world, &body, 402, "trial_exhausted").await;
        assert_eq!((free_left(&world).await, world.spent(0, &records).await), (0, 0), "what is free costs nothing");
        assert_eq!(world.providers.totals().started, 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_twenty_free_requests_one_after_the_other_the_trial_is_over() {
    let world = CloudWorld::with(trial()).await;
    // Over all providers and ways.
    let mut asked = 0;
    for stream in [false, true] {
        for provider in PROVIDERS {
            let (path, body) = question(provider, provider.model, stream);
            let answer = world.caller.post(&path, &body).await;
            assert_eq!(answer.status, 200, "{}", provider.name);
            answer.text().await;
            asked += 1;
        }
    }
    // What comes to nothing was none of them: a provider's failure, a model that is not there, a body that is none.
    for _ in 0..3 {
        world.providers.next(HOME.kind, Behaviour::of("h500"));
        assert_eq!(world.caller.post(CHAT, &chat("hfake", false)).await.status, 500);
        assert_eq!(world.caller.post(CHAT, &chat("hfake", false)).await.status, 200);
        asked += 1;
    }
    refused(&world, &chat("nothing", false), 404, "model_not_found").await;
    // What is free in any case takes none.
    let count = format!("/v1beta/models/{}:countTokens", GOOGLE.model);
    let counted = question(GOOGLE, GOOGLE.model, false).1;
    assert_eq!(world.caller.post(&count, &counted).await.status, 200);
    let records = world.records(asked + 5).await;
    assert_eq!(free_left(&world).await, i32::try_from(20 - asked).expect("fewer than 20"));
    assert_eq!(records.iter().map(|record| record.cost_nano).sum::<i64>(), 0);
    for _ in asked..20 {
        assert_eq!(world.caller.post(CHAT, &chat("hfake", false)).await.status, 200);
    }
    world.records(20 + 5).await;
    let exhausted = refused(&world, &chat("hfake", false), 402, "trial_exhausted").await;
    assert_eq!((exhausted.header("retry-after"), &exhausted.json()["error"]["type"]), ("", &"insufficient_quota".into()));
    // Free endpoints and lists go on, and so does everything once there are credits, at once.
    assert_eq!(world.caller.post(&count, &counted).await.status, 200);
    assert_eq!(world.caller.get("/v1/models").await.status, 200);
    world.lab.store.grant(world.user, CREDITS_NANO, "order 1").await.expect("credits");
    let at = std::time::Instant::now();
    while world.caller.post(CHAT, &chat("hfake", false)).await.status != 200 {
        assert!(at.elapsed() < std::time::Duration::from_secs(1), "credits are there and are not taken");
    }
}

/// Fails with whatever its provider fails with, and its caller is charged nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_to_nothing_costs_nothing() {
    let world = CloudWorld::start().await;
    for letters in ["h400", "h404", "h429-a1", "h500", "h503", "e0", "l", "r"] {
        // More than once: what comes to nothing over a connection that had waited is asked for again over a fresh one.
        world.providers.always(HOME.kind, Some(Behaviour::of(letters)));
        let failed = world.caller.post(CHAT, &chat("hfake", false)).await;
        assert!(failed.status.as_u16() >= 400, "{letters}");
        world.providers.always(HOME.kind, None);
        // A good one between, so that the channel is not left alone.
        assert_eq!(world.caller.post(CHAT, &chat("hfake", false)).await.status, 200, "{letters}");
    }
    let records = world.records(16).await;
    let spent = world.spent(CREDITS_NANO, &records).await;
    assert_eq!(spent, 8 * (2 * INPUT_NANO + 16 * OUTPUT_NANO));
    assert!(records.iter().filter(|record| record.status >= 400).all(|record| record.cost_nano == 0));
}

/// A cent, and 200 at once who would each take a tenth of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cent_cannot_be_overrun_by_two_hundred_at_once() {
    const CENT: i64 = 10_000_000;
    const EACH: i64 = 2 * INPUT_NANO + 200 * OUTPUT_NANO;
    let spending = Spending { total: Some(CENT), ..Spending::default() };
    let wishes =
        CloudWishes { terms: KeyTerms { spending, ..KeyTerms::default() }, models: vec!["hfake-n200"], ..CloudWishes::default() };
    let world = CloudWorld::with(wishes).await;
    let body = json!({"model": "hfake-n200", "max_tokens": 200, "messages": [{"role": "user", "content": "hello"}]});
    world.providers.hold_before_headers("hfake-n200");
    // Nine fit in what can be set aside, and the others are told that it may be worth another try.
    let (answers, ()) = tokio::join!(at_once(&world, 200, &body), async {
        world.providers.wait_for(|log| log.iter().filter(|seen| seen.held).count() == 9).await;
        refused(&world, &body, 402, "in_flight_budget_exhausted").await;
        // All 200 have been decided on when nobody is on the way any more.
        journeys::world::eventually("the others are refused", async || {
            world.lab.store.requests(world.user).await.expect("records").len() == 192
        })
        .await;
        world.providers.release();
    });
    let counts = counted(&answers);
    let expected = BTreeMap::from([((200, String::new()), 9), ((402, "in_flight_budget_exhausted".to_owned()), 191)]);
    assert_eq!(counts, expected);
    for refused in answers.iter().filter(|answer| answer.status == 402) {
        assert_eq!((refused.header("retry-after"), &refused.json()["error"]["type"]), ("1", &"insufficient_quota".into()));
    }
    let records = world.records(201).await;
    let spent = world.spent(CREDITS_NANO, &records).await;
    assert_eq!(spent, 9 * EACH);
    assert!(spent <= CENT);
    // What is left does not suffice for one more, and waiting would not help.
    let broke = refused(&world, &body, 402, "key_spend_limit").await;
    assert_eq!(broke.header("retry-after"), "");
    // Another key of the same account goes on.
    let other = world.key(KeyTerms::default()).await;
    assert_eq!(world.caller_with(&other).post(CHAT, &body).await.status, 200);
    assert_eq!(world.providers.totals().started, 10);
}

/// The same without anything held: whoever is told to try again does, until the limit is reached.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_who_try_again_spend_a_cent_and_no_more() {
    const CENT: i64 = 10_000_000;
    let spending = Spending { day: Some(CENT), ..Spending::default() };
    let world =
        CloudWorld::with(CloudWishes { terms: KeyTerms { spending, ..KeyTerms::default() }, ..CloudWishes::default() }).await;
    let body = Bytes::from(chat("ofake", true).to_string());
    let all = join_all((0..200).map(|_| async {
        let mut line = world.caller.line().await;
        let (mut good, mut tries) = (0, 0);
        loop {
            let answer = line.ask(Method::POST, CHAT, &[], body.clone()).await;
            tries += 1;
            match (answer.status.as_u16(), answer.header("x-1k4-error")) {
                (200, _) => good += 1,
                (402, "in_flight_budget_exhausted") => tokio::task::yield_now().await,
                (402, "key_spend_limit") => return (good, tries),
                other => panic!("{other:?}"),
            }
        }
    }))
    .await;
    let (good, tries) = all.iter().fold((0, 0), |(good, tries), one| (good + one.0, tries + one.1));
    let records = world.records(tries).await;
    let spent = world.spent(CREDITS_NANO, &records).await;
    println!("{tries} tries, {good} answers, {spent} of {CENT} nano-credits spent");
    assert!(spent <= CENT, "{spent}");
    assert_eq!(records.iter().filter(|record| record.cost_nano > 0).count(), good);
    // It was used as far as one more request could have been set aside.
    assert!(spent > CENT - 200_000, "{spent}");
}

/// Not a limit of a key's but all that there is.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_cannot_be_overrun_either() {
    let given = 3_000_000;
    let world = CloudWorld::with(CloudWishes { credits_nano: given, ..CloudWishes::default() }).await;
    let mut answers = at_once(&world, 100, &chat("hfake", false)).await;
    // Until there is not enough for one more.
    loop {
        let more = at_once(&world, 3, &chat("hfake", false)).await;
        let is_over = more.iter().all(|answer| answer.header("x-1k4-error") == "insufficient_credits");
        answers.extend(more);
        if is_over {
            break;
        }
    }
    let counts = counted(&answers);
    let allowed = ["", "insufficient_credits", "in_flight_budget_exhausted"];
    assert!(counts.keys().all(|(status, code)| [200, 402].contains(status) && allowed.contains(&code.as_str())), "{counts:?}");
    let records = world.records(answers.len()).await;
    let spent = world.spent(given, &records).await;
    let left = world.lab.store.balance(world.user).await.expect("a balance").expect("a balance").balance_nano;
    println!("{counts:?}: {spent} spent, {left} left");
    assert_eq!(spent + left, given);
    assert!((0..200_000).contains(&left), "{left}");
    let good = i64::try_from(counts[&(200, String::new())]).expect("few");
    assert_eq!(spent, good * (2 * INPUT_NANO + 16 * OUTPUT_NANO));
    assert_eq!(world.providers.totals().started, u64::try_from(good).expect("few"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_asks_nobody() {
    let models = Some(vec!["afake*".parse().expect("a pattern"), "hfake".parse().expect("a pattern")]);
    let wishes = CloudWishes { terms: KeyTerms { models, ..KeyTerms::default() }, ..CloudWishes::default() };
    let world = CloudWorld::with(wishes).await;
    for provider in PROVIDERS {
        for stream in [false, true] {
            let (path, body) = question(provider, provider.model, stream);
            let answer = world.caller.post(&path, &body).await;
            let expected = match provider.kind {
                Kind::Anthropic | Kind::Compatible => (200, ""),
                _ => (403, "model_not_allowed"),
            };
            assert_eq!((answer.status.as_u16(), answer.header("x-1k4-error")), expected, "{}", provider.name);
        }
    }
    assert_eq!(world.providers.totals().started, 4);
    // Not enough for one request, though there is something.
    let world = CloudWorld::with(CloudWishes { credits_nano: 1_000, ..CloudWishes::default() }).await;
    let broke = refused(&world, &chat("ofake", false), 402, "insufficient_credits").await;
    assert_eq!((broke.header("retry-after"), &broke.json()["error"]["type"]), ("", &"insufficient_quota".into()));
    assert_eq!(world.providers.totals().connections, 0);
}
