//! Runs go on without anybody, and lose nothing. Row 7 of the issue "The Lab's server side".

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use journeys::{
    caller::BodyEnd,
    fake_ollama::Outcome,
    watcher::{Watcher, start_run},
    world::{
        Wishes, World,
        cloud::{CREDITS_NANO, CloudWorld, OPENAI},
    },
};
use lab_server::{
    Lab,
    lab::content::{Part, Use},
    store::{ConversationSettings, NewConversation},
};
use serde_json::Value;
use tokio::task::JoinSet;
use wire::{ConversationId, UserId};

/// A hundred and fifty tokens, one each 4 ms.
const PACED: &str = "fake-n150-d4000";

async fn world() -> World {
    World::with(Wishes { models: vec![PACED.to_owned(), "fake-n5000-d4000".to_owned()], ..Wishes::default() }).await
}

/// A new conversation of the owner's.
async fn conversation(lab: &Lab, user: UserId) -> ConversationId {
    let project = lab.store.projects(user).await.expect("the projects")[0].id;
    let new = NewConversation { project, folder: None, title: None, settings: ConversationSettings::default() };
    lab.store.add_conversation(user, new).await.expect("a conversation").id
}

/// What the message that a run made says, and what it took.
async fn message(lab: &Lab, user: UserId, message: &str) -> (String, Vec<Use>) {
    let message = lab.store.message(user, message.parse().expect("an id")).await.expect("the message");
    let content = message.expect("a message").content;
    let words = content.parts.iter().filter_map(|part| match part {
        Part::Text { text } => Some(text.as_str()),
        _ => None,
    });
    (words.collect(), content.usage)
}

/// So many visits in all that end in the middle, of watchers of runs that stream.
async fn walk_away(disconnects: usize) {
    let world = world().await;
    let page = world.sign_in().await;
    let (begun, mut walked, mut started) = (Instant::now(), 0, 0_u32);
    while walked < disconnects {
        let mut watchers = JoinSet::new();
        let mut runs = Vec::new();
        for number in 0..8 {
            started += 1;
            // Each run is watched from an address of its own: what one may ask in ten seconds is rationed.
            let page = page.at(IpAddr::V4(Ipv4Addr::from_bits((127 << 24) + started)));
            let (run, made) =
                start_run(&page, &conversation(&world.lab, world.user).await.to_string(), None, &format!("local/{PACED}")).await;
            for way in 0..4 {
                let mut watcher = Watcher::new(&page, &run);
                let mut step = number * 7 + way * 3;
                watchers.spawn(async move {
                    // Sometimes for one event, sometimes for none, never for the whole.
                    let enough = || {
                        step += 5;
                        step % 11
                    };
                    watcher.watch(enough).await;
                    watcher
                });
            }
            runs.push((run, made));
        }
        let watched = watchers.join_all().await;
        for (run, made) in runs {
            let mut last = Watcher::new(&page, &run);
            last.watch(|| usize::MAX).await;
            assert_eq!(last.visits, 1);
            assert_eq!(last.events().last().map(|event| &event["outcome"]), Some(&Value::from("done")), "{:?}", last.events());
            let theirs: Vec<&Watcher> = watched.iter().filter(|watcher| watcher.run() == run).collect();
            assert_eq!(theirs.len(), 4);
            for watcher in theirs {
                assert_eq!(watcher.events(), last.events(), "a watcher has seen something else than the record has");
                assert!(watcher.visits > 1);
            }
            let (words, used) = message(&world.lab, world.user, &made).await;
            assert_eq!(words, last.text());
            assert_eq!(used.iter().map(|used| used.output_tokens).collect::<Vec<_>>(), [Some(150)]);
        }
        walked += watched.iter().map(|watcher| watcher.visits - 1).sum::<usize>();
    }
    println!("{walked} watchers walked away in {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_come_and_go_and_miss_nothing() {
    walk_away(500).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: cargo xtask test --full"]
async fn full_ten_thousand_watchers_come_and_go() {
    walk_away(10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_a_run_stops_the_model() {
    let world = world().await;
    let page = world.sign_in().await;
    let (run, made) =
        start_run(&page, &conversation(&world.lab, world.user).await.to_string(), None, "local/fake-n5000-d4000").await;
    let mut watcher = Watcher::new(&page, &run);
    watcher.visit(10).await.expect("the first words");
    let stopped = page.post(&format!("/api/runs/{run}/stop"), &Value::Object(serde_json::Map::new())).await;
    assert_eq!(stopped.status, 202);
    watcher.watch(|| usize::MAX).await;
    assert_eq!(watcher.events().last().map(|event| &event["outcome"]), Some(&Value::from("stopped")));
    assert!(!watcher.text().is_empty());
    let (words, used) = message(&world.lab, world.user, &made).await;
    assert_eq!(words, watcher.text());
    let device = used.first().and_then(|used| used.device.as_deref());
    assert_eq!((used.len(), device), (1, Some("workstation")), "the message says where it was made");
    // Ollama sees its connection closed: the graphics card is free.
    world.ollama.wait_for(|log| log.iter().any(|seen| matches!(seen.outcome, Outcome::ClientGone { .. }))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_answer_says_what_it_cost() {
    let world = CloudWorld::start().await;
    let page = world.sign_in().await;
    world.providers.hold_at_token(OPENAI.model, 3);
    let (run, made) = start_run(&page, &conversation(&world.lab, world.user).await.to_string(), None, OPENAI.model).await;
    world.held(1).await;
    let mut watcher = Watcher::new(&page, &run);
    while watcher.text().is_empty() {
        watcher.visit(1).await.expect("the first words");
    }
    page.post(&format!("/api/runs/{run}/stop"), &Value::Object(serde_json::Map::new())).await;
    watcher.watch(|| usize::MAX).await;
    assert_eq!(watcher.events().last().map(|event| &event["outcome"]), Some(&Value::from("stopped")));
    let records = world.records(1).await;
    let (words, used) = message(&world.lab, world.user, &made).await;
    assert_eq!(words, watcher.text());
    assert_eq!(
        used.iter().map(|used| (used.request.to_string(), used.cost_nano)).collect::<Vec<_>>(),
        [(records[0].id.clone(), records[0].cost_nano)]
    );
    assert!(records[0].cost_nano > 0);
    let shown = page.get(&format!("/api/runs/{run}")).await.json().await;
    assert_eq!(shown["cost_nano"], records[0].cost_nano);
    world.spent(CREDITS_NANO, &records).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_somebody_elses_is_not_there() {
    let world = world().await;
    let page = world.sign_in().await;
    let (run, _) = start_run(&page, &conversation(&world.lab, world.user).await.to_string(), None, &format!("local/{PACED}")).await;
    let eve = world.lab.store.add_user("eve@example.com").await.expect("a user").id;
    let stranger = world.caller.with_session(&journeys::world::sign_in(&world.lab, eve).await);
    let empty = Value::Object(serde_json::Map::new());
    for path in ["", "/events"] {
        assert_eq!(stranger.get(&format!("/api/runs/{run}{path}")).await.status, 404);
        assert_eq!(world.caller.get(&format!("/api/runs/{run}{path}")).await.status, 401);
    }
    assert_eq!(stranger.post(&format!("/api/runs/{run}/stop"), &empty).await.status, 404);
    let body = serde_json::json!({
        "conversation": conversation(&world.lab, world.user).await, "says": [{"type": "text", "text": "x"}], "model": {"model": "local/tiny"}
    });
    assert_eq!(stranger.post("/api/runs", &body).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_signed_out_sees_no_more() {
    let world = world().await;
    let session = journeys::world::sign_in(&world.lab, world.user).await;
    let page = world.caller.with_session(&session);
    let (run, _) = start_run(&page, &conversation(&world.lab, world.user).await.to_string(), None, "local/fake-n5000-d4000").await;
    let mut stream = page.get(&format!("/api/runs/{run}/events")).await;
    assert_eq!(stream.status, 200);
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("event: text") {
        seen.extend(stream.chunk().await.expect("the first words").expect("more"));
    }
    world.lab.revocations.end_session(world.user, session.id()).await.expect("the session ends");
    let begun = Instant::now();
    let (rest, end) = stream.read().await;
    assert_eq!(end, BodyEnd::Clean);
    assert!(!String::from_utf8_lossy(&rest).contains("event: ended"), "it streams for twenty seconds");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(page.get(&format!("/api/runs/{run}/events")).await.status, 401);
}
