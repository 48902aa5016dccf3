//! Row 4: when a key has ended, it has ended: nothing is accepted after the word, and what runs is cut.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use journeys::{
    caller::{Answer, Caller},
    world::{
        cloud::{ANTHROPIC, CloudWorld, GOOGLE, OPENAI, Provider, soon},
        eventually,
    },
};
use lab_server::account::api_key::NewKey;
use tokio::task::JoinHandle;

use super::{CHAT, chat, question};

/// What runs under an ended key ends within this.
const CUT: Duration = Duration::from_secs(1);

/// Streams of three protocols that have begun and are held, under this caller's key.
async fn running_streams(world: &CloudWorld, caller: &Caller, models: [(Provider, &'static str); 3]) -> Vec<(Provider, Answer)> {
    let mut streams = Vec::new();
    for (provider, model) in models {
        world.providers.hold_at_token(model, 3);
        let (path, body) = question(provider, model, true);
        let mut answer = caller.post(&path, &body).await;
        assert_eq!(answer.status, 200);
        assert!(answer.chunk().await.expect("bytes").is_some());
        streams.push((provider, answer));
    }
    world.held(3).await;
    streams
}

const HELD: [&str; 3] = ["ofake-held", "afake-held", "gfake-held"];

/// What is left of each stream, and when it was over.
fn read_streams(streams: Vec<(Provider, Answer)>) -> Vec<JoinHandle<(Provider, String, Instant)>> {
    let read = |(provider, answer): (Provider, Answer)| {
        tokio::spawn(async move {
            let (rest, _) = answer.read().await;
            (provider, String::from_utf8_lossy(&rest).into_owned(), Instant::now())
        })
    };
    streams.into_iter().map(read).collect()
}

/// Each ended in time, with the reason in its protocol's own words and without the protocol's good end.
async fn all_cut(streams: Vec<JoinHandle<(Provider, String, Instant)>>, at: Instant) {
    for stream in streams {
        let (provider, rest, ended) = soon("a stream is cut", stream).await.expect("a stream");
        let took = ended.saturating_duration_since(at);
        println!("{}'s stream was cut after {took:?}", provider.name);
        assert!(took <= CUT, "{}: only after {took:?}", provider.name);
        let error = match provider {
            ANTHROPIC => "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"authentication_error\"",
            GOOGLE => "data: {\"error\":{\"code\":401,",
            _ => "data: {\"error\":{\"message\":\"the API key is not valid here",
        };
        assert!(rest.contains(error), "{}: {rest}", provider.name);
        assert!(!rest.contains("[DONE]") && !rest.contains("message_stop"), "{}: {rest}", provider.name);
    }
}

/// A cut stream's record says why.
async fn recorded_as_cut(world: &CloudWorld, streams: usize) {
    eventually("the streams' records", async || {
        let records = world.lab.store.requests(world.user).await.expect("records");
        records.iter().filter(|record| record.stream && record.outcome == "invalid_api_key").count() == streams
    })
    .await;
}

fn models() -> [(Provider, &'static str); 3] {
    [(OPENAI, HELD[0]), (ANTHROPIC, HELD[1]), (GOOGLE, HELD[2])]
}

/// Asks at a steady pace over some connections until it is told to stop; when each request began and how it was answered.
fn load(caller: &Caller, lines: usize, every: Duration, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<Vec<(Instant, StatusCode)>>> {
    (0..lines)
        .map(|_| {
            let (caller, stop) = (caller.clone(), Arc::clone(stop));
            tokio::spawn(async move {
                let mut line = caller.line().await;
                let mut turns = tokio::time::interval(every);
                let mut all = Vec::new();
                let body = chat("ofake-n2", false).to_string();
                while !stop.load(Ordering::Relaxed) {
                    turns.tick().await;
                    let began = Instant::now();
                    let answer = line.ask(Method::POST, CHAT, &[], body.clone()).await;
                    all.push((began, answer.status));
                }
                all
            })
        })
        .collect()
}

async fn revoke_over_http(manager: &Caller, key: &NewKey) -> Instant {
    let answer = manager.send(Method::DELETE, &format!("/api/keys/{}", key.kid()), bytes::Bytes::new()).await.expect("an answer");
    assert_eq!(answer.status, 204);
    Instant::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_accepted_after_the_word() {
    const LINES: usize = 8;
    let world = CloudWorld::with_models(&["ofake-n2", HELD[0], HELD[1], HELD[2]]).await;
    let manager = world.manager().await;
    let streams = read_streams(running_streams(&world, &world.caller, models()).await);
    let stop = Arc::new(AtomicBool::new(false));
    // 200 a second.
    let began = Instant::now();
    let lines = load(&world.caller, LINES, Duration::from_millis(40), &stop);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let at = revoke_over_http(&manager, &world.key).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for line in lines {
        all.extend(soon("the load ends", line).await.expect("a line"));
    }
    all_cut(streams, at).await;
    let (after, before): (Vec<_>, Vec<_>) = all.iter().partition(|(began, _)| *began >= at);
    let good = before.iter().filter(|(_, status)| status.is_success()).count();
    let rate = before.len() as f64 / at.saturating_duration_since(began).as_secs_f64();
    println!("{} requests before the word ({rate:.0}/s), {good} of them answered; {} after it", before.len(), after.len());
    assert!(before.len() >= 300 && good >= 300, "{} and {good}: not the load that was meant", before.len());
    assert!(after.len() >= 100, "{}", after.len());
    let accepted = after.iter().filter(|(_, status)| *status != StatusCode::UNAUTHORIZED).count();
    assert_eq!(accepted, 0, "accepted after the word");
    // OpenAI's and Anthropic's are hung up on; Google's would be paid for all the same.
    world
        .providers
        .wait_for(|log| {
            let gone = |model: &str| {
                let seen = log.iter().find(|seen| String::from_utf8_lossy(&seen.body).contains(model));
                seen.is_some_and(|seen| journeys::world::cloud::gone(seen).is_some())
            };
            gone(HELD[0]) && gone(HELD[1])
        })
        .await;
    recorded_as_cut(&world, 3).await;
}

/// As `1k4-lab admin` does it, in another process: by the database alone.
#[tokio::test(flavor = "multi_thread")]
async fn another_process_ends_a_key_within_a_heartbeat() {
    let world = CloudWorld::with_models(&["ofake-n2", HELD[0], HELD[1], HELD[2]]).await;
    let streams = read_streams(running_streams(&world, &world.caller, models()).await);
    let mut line = world.caller.line().await;
    let body = chat("ofake-n2", false).to_string();
    assert_eq!(line.ask(Method::POST, CHAT, &[], body.clone()).await.status, 200);
    world.lab.store.revoke_key(world.key.kid()).await.expect("revoked");
    let at = Instant::now();
    while line.ask(Method::POST, CHAT, &[], body.clone()).await.status == 200 {
        assert!(at.elapsed() < CUT, "still accepted after {:?}", at.elapsed());
    }
    println!("another process's revocation was known after {:?}", at.elapsed());
    all_cut(streams, at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_ends_at_once_or_after_the_overlap() {
    let world = CloudWorld::with_models(&[HELD[0], HELD[1], HELD[2]]).await;
    let manager = world.manager().await;
    let body = chat("ofake", false);
    let rotate = async |kid: &str, terms: &str| {
        let answer = manager.post_bytes(&format!("/api/keys/{kid}/rotate"), terms.to_owned().into()).await;
        assert_eq!(answer.status, 201);
        answer.json().await
    };
    // At once.
    let streams = read_streams(running_streams(&world, &world.caller, models()).await);
    let second = rotate(&world.key.kid().to_string(), "{}").await;
    let at = Instant::now();
    let second_caller = world.caller.with_key(second["key"].as_str().map(str::to_owned));
    assert_eq!(world.caller.post(CHAT, &body).await.status, 401);
    assert_eq!(second_caller.post(CHAT, &body).await.status, 200);
    all_cut(streams, at).await;
    // The second is good for a second more, and what runs under it ends with it.
    world.providers.release();
    let streams = read_streams(running_streams(&world, &second_caller, models()).await);
    let at = Instant::now();
    let third = rotate(second["kid"].as_str().expect("an id"), r#"{"overlap_s":1}"#).await;
    let third_caller = world.caller.with_key(third["key"].as_str().map(str::to_owned));
    assert_eq!(second_caller.post(CHAT, &body).await.status, 200);
    assert_eq!(third_caller.post(CHAT, &body).await.status, 200);
    eventually("the old key ends", async || second_caller.post(CHAT, &body).await.status == 401).await;
    let ended = at.elapsed();
    println!("with an overlap of 1 s the old key ended after {ended:?}");
    assert!((Duration::from_millis(990)..Duration::from_millis(1_600)).contains(&ended), "{ended:?}");
    all_cut(streams, at + Duration::from_secs(1)).await;
    assert_eq!(third_caller.post(CHAT, &body).await.status, 200);
    recorded_as_cut(&world, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_project_takes_its_keys_with_it() {
    let world = CloudWorld::with_models(&[HELD[0], HELD[1], HELD[2]]).await;
    // A key of another project manages: this one's own would end with it.
    let other = world.lab.store.add_project(world.user, "other").await.expect("a project").id;
    let terms = lab_server::store::KeyTerms {
        scopes: [lab_server::store::Scope::Manage].into_iter().collect(),
        ..lab_server::store::KeyTerms::default()
    };
    let (manager, _) = lab_server::account::create_key(&world.lab.store, other, "manager", terms).await.expect("a key");
    let streams = read_streams(running_streams(&world, &world.caller, models()).await);
    let answer = world
        .caller_with(&manager)
        .send(Method::DELETE, &format!("/api/projects/{}", world.project), bytes::Bytes::new())
        .await
        .expect("an answer");
    assert_eq!(answer.status, 204);
    let at = Instant::now();
    let refused = world.caller.post(CHAT, &chat("ofake", false)).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-1k4-error")), (401, "invalid_api_key"));
    all_cut(streams, at).await;
}
