//! A cut link: the answer goes on, without a lost or a doubled byte.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use journeys::{
    caller::{BodyEnd, Caller},
    fault_proxy::{Fault, Way},
    world::{Wishes, World},
};
use serde_json::{Value, json};

/// The text of a native stream; panics unless it is whole lines with exactly one ending.
fn text_of(stream: &[u8]) -> String {
    let mut text = String::new();
    let mut done = false;
    for line in std::str::from_utf8(stream).expect("UTF-8").lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("a line of JSON: {line:?}"));
        assert!(!done, "something follows the last line: {line}");
        text.push_str(line["message"]["content"].as_str().unwrap_or_else(|| panic!("a chunk: {line}")));
        done = line["done"] == true;
    }
    assert!(done, "no last line");
    text
}

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

async fn ask(caller: &Caller, model: &str) -> String {
    let answer = caller.post("/api/chat", &chat(model)).await;
    assert_eq!(answer.status, 200);
    let (bytes, end) = answer.read().await;
    assert_eq!(end, BodyEnd::Clean);
    text_of(&bytes)
}

/// Row 3. About 20 kB of answer, cut after each so-many-th byte of what the bridge sends, TLS and framing included.
async fn cut_at_bytes(positions: impl Iterator<Item = u64>) {
    const MODEL: &str = "fake-n150";
    let world =
        World::with(Wishes { models: vec![MODEL.to_owned()], longest_wait: Some(Duration::ZERO), ..Wishes::default() }).await;
    let expected = ask(&world.caller, MODEL).await;
    let mut cuts = 0;
    for position in positions {
        let before = world.network.traffic().resets;
        world.network.cut_after(Way::Up, position);
        let answer = ask(&world.caller, MODEL).await;
        assert!(answer == expected, "cut at byte {position}: {} bytes of {}", answer.len(), expected.len());
        cuts += world.network.traffic().resets - before;
    }
    assert!(cuts > 0, "nothing was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_every_97_bytes_loses_and_doubles_nothing() {
    cut_at_bytes((0..24_000).step_by(97)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "20,000 answers: cargo xtask test --full"]
async fn full_a_cut_at_every_byte_loses_and_doubles_nothing() {
    cut_at_bytes(0..24_000).await;
}

/// When each stream heard of something new.
struct Listener {
    text: String,
    /// How long after the network was back the stream went on.
    resumed: Vec<Duration>,
}

/// Reads a paced stream and notes when it goes on after each time that the network was back.
async fn listen(caller: &Caller, model: &str, back: &Mutex<Vec<Instant>>) -> Listener {
    let mut answer = caller.post("/api/chat", &chat(model)).await;
    assert_eq!(answer.status, 200);
    let mut bytes = Vec::new();
    let mut noted = 0;
    let mut resumed = Vec::new();
    while let Some(chunk) = answer.chunk().await.expect("the caller's own connection holds") {
        bytes.extend_from_slice(&chunk);
        let back = back.lock().unwrap();
        for at in &back[noted..] {
            resumed.push(at.elapsed());
        }
        noted = back.len();
    }
    Listener { text: text_of(&bytes), resumed }
}

/// One kind of cut, as a saboteur makes it; returns when the network is back.
async fn sabotage(world: &World, kind: &str, seed: u64) {
    match kind {
        "rst" => {
            let resets = world.network.traffic().resets;
            world.network.cut_after(if seed.is_multiple_of(2) { Way::Up } else { Way::Down }, seed % 20_000);
            tokio::time::timeout(Duration::from_secs(2), world.network.wait_for(|t| t.resets > resets)).await.ok();
            world.network.cut();
        }
        "half-open" => world.network.set(Fault::HalfOpen),
        "black-hole" => {
            world.network.set(Fault::BlackHole);
            tokio::time::sleep(Duration::from_millis(500 + seed % 2_000)).await;
            world.network.set(Fault::Pass);
        }
        "slow" => {
            world.network.set(Fault::Slow { bytes_per_second: 40_000, latency: Duration::from_millis(100) });
            tokio::time::sleep(Duration::from_millis(500 + seed % 1_000)).await;
            world.network.cut();
            world.network.set(Fault::Pass);
        }
        other => panic!("no such fault: {other}"),
    }
}

/// Row 2. `streams` streams at once, cut `cuts` times in one way; the worst 5 % of the times to go on.
async fn survive(kind: &str, streams: usize, cuts: usize, tokens: u32) -> Duration {
    let model = format!("fake-n{tokens}-d5000");
    let policy = bridge_core::policy::Policy { max_concurrent: 1000, ..Default::default() };
    let world = World::with(Wishes { models: vec![model.clone()], policy, ..Wishes::default() }).await;
    let expected = ask(&world.caller, &model).await;
    let back = Mutex::new(Vec::new());
    let listeners = join_all((0..streams).map(|_| listen(&world.caller, &model, &back)));
    let saboteur = async {
        for cut in 0..cuts {
            tokio::time::sleep(Duration::from_millis(300)).await;
            sabotage(&world, kind, (cut as u64 + 1) * 7_919).await;
            back.lock().unwrap().push(Instant::now());
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
    };
    let (listeners, ()) = tokio::join!(listeners, saboteur);
    let mut resumed: Vec<_> = listeners.iter().flat_map(|listener| listener.resumed.iter().copied()).collect();
    for listener in &listeners {
        assert!(listener.text == expected, "{kind}: {} bytes of {}", listener.text.len(), expected.len());
    }
    let records = world.records(streams + 1).await;
    assert_eq!(records.len(), streams + 1, "{kind}: one record each");
    assert!(records.iter().all(|record| record.outcome == "complete"), "{kind}: {records:?}");
    assert_eq!(world.ollama.log().iter().filter(|seen| seen.path == "/api/chat").count(), streams + 1, "{kind}: each ran once");
    resumed.sort();
    let p95 = resumed[resumed.len() * 95 / 100];
    println!("{kind}: {streams} streams, {} times gone on, p95 {p95:?}, longest {:?}", resumed.len(), resumed.last());
    p95
}

const RESUME_P95: Duration = Duration::from_millis(1_500);
/// A dead link that says nothing is given up after [`wire::relay::SILENCE_LIMIT`], looked at once a second.
const SILENCE: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn streams_survive_resets() {
    assert!(survive("rst", 50, 3, 600).await <= RESUME_P95);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_survive_a_black_hole() {
    assert!(survive("black-hole", 50, 1, 600).await <= RESUME_P95);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_survive_a_slow_link_that_is_cut() {
    assert!(survive("slow", 20, 1, 600).await <= RESUME_P95);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_survive_a_half_open_link() {
    assert!(survive("half-open", 50, 1, 600).await <= SILENCE + RESUME_P95);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a thousand streams: cargo xtask test --full"]
async fn full_a_thousand_streams_survive_every_kind_of_cut() {
    for (kind, limit) in
        [("rst", RESUME_P95), ("black-hole", RESUME_P95), ("slow", RESUME_P95), ("half-open", SILENCE + RESUME_P95)]
    {
        for cuts in [1, 2, 3] {
            let p95 = survive(kind, 84, cuts, 1200).await;
            assert!(p95 <= limit, "{kind}: {p95:?}");
        }
    }
}
