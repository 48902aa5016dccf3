//! Row 10: whatever a provider does, the caller gets one error in their own protocol or the very bytes, and nobody else notices.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::Method;
use journeys::{
    caller::BodyEnd,
    fake_provider::{Behaviour, Outcome},
    world::cloud::{ANTHROPIC, AZURE, CREDITS_NANO, CloudWorld, DEPLOYMENTS, GOOGLE, HOME, OPENAI, Provider, XAI, soon},
};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::{CHAT, chat, question};

/// Nobody else waits longer than this for an answer that takes some milliseconds, in a debug build on a busy machine.
const UNDISTURBED: Duration = Duration::from_secs(1);

/// Others who ask other providers all the while, each over a connection of their own.
struct Neighbours {
    stop: Arc<AtomicBool>,
    slowest: Arc<Mutex<Duration>>,
    asking: Vec<JoinHandle<usize>>,
}

impl Neighbours {
    /// At providers to whom nothing of a test's is done.
    fn of(world: &CloudWorld) -> Self {
        let (stop, slowest) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Duration::ZERO)));
        let asking = [XAI, AZURE, DEPLOYMENTS, XAI]
            .into_iter()
            .map(|provider| {
                let (stop, slowest, caller) = (Arc::clone(&stop), Arc::clone(&slowest), world.caller.clone());
                let (path, body) = question(provider, provider.model, true);
                tokio::spawn(async move {
                    let (mut line, mut count) = (caller.line().await, 0);
                    while !stop.load(Ordering::Relaxed) {
                        let at = Instant::now();
                        let answer = line.ask(Method::POST, &path, &[], body.to_string()).await;
                        let took = at.elapsed();
                        assert_eq!(answer.status, 200, "{}", provider.name);
                        let slowest = &mut *slowest.lock().expect("nobody panicked");
                        *slowest = took.max(*slowest);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        Self { stop, slowest, asking }
    }

    async fn were_undisturbed(self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = 0;
        for asking in self.asking {
            let count = asking.await.expect("a neighbour");
            assert!(count > 0);
            answers += count;
        }
        let slowest = *self.slowest.lock().expect("nobody panicked");
        println!("4 neighbours had {answers} answers, the slowest after {slowest:?}");
        assert!(slowest < UNDISTURBED, "{slowest:?}");
    }
}

/// The code that an error has in its own protocol's shape.
fn told(provider: Provider, error: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match provider {
        ANTHROPIC => text(&error["error"]["type"]),
        GOOGLE => text(&error["error"]["details"][0]["reason"]),
        _ => text(&error["error"]["code"]),
    }
}

fn upstream_error(provider: Provider) -> &'static str {
    if provider == ANTHROPIC { "api_error" } else { "upstream_error" }
}

/// What never becomes an answer is one error with a status.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_is_one_error() {
    let world = CloudWorld::start().await;
    let neighbours = Neighbours::of(&world);
    for provider in [HOME, GOOGLE] {
        for letters in ["l", "r", "e0", "h401", "h402", "h403"] {
            for stream in [true, false] {
                // A refused secret shuts the channel for a minute, so those have worlds of their own.
                let refused_key = letters.starts_with("h40") && letters != "h403";
                let own = if refused_key { Some(CloudWorld::start().await) } else { None };
                let world = own.as_ref().unwrap_or(&world);
                let (path, body) = question(provider, provider.model, stream);
                // More than once: what comes to nothing over a connection that had waited is asked for again over a fresh one.
                world.providers.always(provider.kind, Some(Behaviour::of(letters)));
                let answer = soon(letters, world.caller.post(&path, &body)).await;
                world.providers.always(provider.kind, None);
                let what = format!("{letters} at {}", provider.name);
                assert_eq!((answer.status.as_u16(), answer.header("x-1k4-error")), (502, "upstream_error"), "{what}");
                assert_eq!(answer.header("x-1k4-source"), "gateway", "{what}");
                let text = answer.text().await;
                assert!(!text.contains("fake"), "{what}: what the provider said of the operator's secret went out: {text}");
                assert_eq!(told(provider, &serde_json::from_str(&text).expect("JSON")), upstream_error(provider), "{what}");
                assert!(world.providers.log().iter().all(|seen| !seen.path.contains("redirected")), "the redirect was followed");
                if !refused_key {
                    let good = world.caller.post(&path, &body).await;
                    assert_eq!(good.status, 200, "after {what}");
                    good.text().await;
                }
            }
        }
    }
    neighbours.were_undisturbed().await;
}

/// In Anthropic's words.
#[tokio::test(flavor = "multi_thread")]
async fn anthropics_callers_are_told_in_their_words() {
    let world = CloudWorld::start().await;
    let neighbours = Neighbours::of(&world);
    for letters in ["l", "r", "e0", "h403"] {
        for stream in [true, false] {
            let (path, body) = question(ANTHROPIC, "afake", stream);
            world.providers.always(ANTHROPIC.kind, Some(Behaviour::of(letters)));
            let answer = soon(letters, world.caller.post(&path, &body)).await;
            world.providers.always(ANTHROPIC.kind, None);
            assert_eq!(answer.status, 502, "{letters}");
            let request = answer.header("x-1k4-request-id").to_owned();
            let error = answer.json().await;
            assert_eq!((&error["type"], &error["error"]["type"]), (&"error".into(), &"api_error".into()), "{letters}");
            assert_eq!(error["request_id"], request);
            assert_eq!(world.record(&request).await.outcome, "upstream_error");
            assert_eq!(world.caller.post(&path, &body).await.status, 200, "after {letters}");
        }
    }
    neighbours.were_undisturbed().await;
}

/// What breaks after it began is told in the stream, once, in the protocol's words; a document breaks off as it did.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_in_the_middle_is_told_in_the_middle() {
    let world = CloudWorld::start().await;
    let neighbours = Neighbours::of(&world);
    for (provider, error) in [
        (HOME, "data: {\"error\":{\"message\":\"the provider broke off"),
        (OPENAI, "data: {\"error\":{\"message\":\"the provider broke off"),
        (ANTHROPIC, "event: error\ndata: {\"type\":\"error\""),
        (GOOGLE, "data: {\"error\":{\"code\":502"),
    ] {
        for letters in ["e1", "e5", "e15"] {
            let (path, body) = question(provider, provider.model, true);
            let whole = world.caller.post(&path, &body).await.text().await;
            world.providers.next(provider.kind, Behaviour::of(letters));
            let answer = world.caller.post(&path, &body).await;
            let request = answer.header("x-1k4-request-id").to_owned();
            assert_eq!(answer.status, 200);
            let (cut, _) = answer.read().await;
            let cut = String::from_utf8(cut).expect("text");
            let at = cut.find(error).unwrap_or_else(|| panic!("{letters} at {}: {cut}", provider.name));
            assert_eq!(cut.matches(error).count(), 1);
            assert!(whole.starts_with(cut[..at].trim_end()), "{letters} at {}: {cut}", provider.name);
            assert!(!cut[..at].trim_end().is_empty() && cut.ends_with("\n\n"), "{cut:?}");
            let record = world.record(&request).await;
            assert_eq!((record.outcome.as_str(), record.status), ("upstream_error", 200));
            // Google says with every piece what it has cost so far.
            assert!(record.estimated == (provider != GOOGLE) && record.cost_nano > 0, "{record:?}");
        }
        // Half a document, whose length was told.
        let (path, body) = question(provider, provider.model, false);
        world.providers.next(provider.kind, Behaviour::of("e3"));
        let answer = world.caller.post(&path, &body).await;
        let (half, end) = answer.read().await;
        assert_eq!(end, BodyEnd::Broken, "{}", provider.name);
        assert!(half.starts_with(b"{"), "{}", provider.name);
    }
    neighbours.were_undisturbed().await;
}

/// Reads a line without an end for a while, and gives the least by which memory had grown in the second half of that: the sender, the
/// Lab and the reader are this process, and so are other tests, which come and go.
async fn grown_by_a_line(world: &CloudWorld, provider: Provider, stream: bool) -> usize {
    const HALF: usize = 24 << 20;
    world.providers.next(provider.kind, Behaviour::of("m"));
    let (path, body) = question(provider, provider.model, stream);
    let before = memory();
    let mut answer = world.caller.post(&path, &body).await;
    assert_eq!(answer.status, 200);
    let (mut taken, mut least) = (0, usize::MAX);
    while taken < 2 * HALF {
        let chunk = soon("the line", answer.chunk()).await.expect("bytes").expect("it has not ended");
        assert!(taken == 0 || chunk.iter().all(|byte| *byte == b'x'));
        taken += chunk.len();
        if taken > HALF {
            least = least.min(memory().saturating_sub(before));
        }
    }
    least
}

/// A line without an end, and what unpacks to a gibibyte.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_endless_passes_and_stops_with_its_caller() {
    /// A Lab that kept what it passes on would have grown by more each time.
    const LITTLE: usize = 12 << 20;
    let world = CloudWorld::start().await;
    let neighbours = Neighbours::of(&world);
    for (provider, stream) in [(HOME, true), (HOME, false), (GOOGLE, true), (GOOGLE, false)] {
        let mut least = usize::MAX;
        for _ in 0..10 {
            least = least.min(grown_by_a_line(&world, provider, stream).await);
            if least < LITTLE {
                break;
            }
        }
        println!("48 MiB of one line of {} took {} KiB of memory", provider.name, least >> 10);
        assert!(least < LITTLE, "{least}");
    }
    for stream in [true, false] {
        world.providers.next(HOME.kind, Behaviour::of("b"));
        let (path, body) = question(HOME, "hfake", stream);
        let answer = world.caller.post(&path, &body).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, "gzip"), "it is passed on packed");
        let (packed, _) = soon("the bomb", answer.read()).await;
        assert!((1_000_000..6 << 20).contains(&packed.len()), "{}", packed.len());
        assert!(packed.starts_with(&[0x1f, 0x8b]));
    }
    neighbours.were_undisturbed().await;
}

/// Silence ends when the caller has had enough; until then it costs nobody else anything.
#[tokio::test(flavor = "multi_thread")]
async fn silence_holds_up_nobody_else() {
    let world = CloudWorld::start().await;
    let neighbours = Neighbours::of(&world);
    let (path, body) = question(HOME, "hfake", true);
    for letters in ["w", "z0", "z3"] {
        world.providers.next(HOME.kind, Behaviour::of(letters));
        let before = world.providers.log().len();
        let (caller, path, body) = (world.caller.clone(), path.clone(), body.clone());
        let waiting = tokio::spawn(async move {
            let mut answer = caller.post(&path, &body).await;
            while let Ok(Some(_)) = answer.chunk().await {}
        });
        world.providers.wait_for(|log| log[before..].iter().any(|seen| seen.kind == HOME.kind && seen.body_len > 0)).await;
        // Others ask the very same channel and model meanwhile.
        for _ in 0..20 {
            let at = Instant::now();
            assert_eq!(world.caller.post(CHAT, &chat("hfake", false)).await.status, 200);
            assert!(at.elapsed() < UNDISTURBED);
        }
        assert!(!waiting.is_finished());
        waiting.abort();
        let is_gone = |seen: &journeys::fake_provider::Seen| matches!(seen.outcome, Outcome::ClientGone { .. });
        world.providers.wait_for(|log| log[before..].iter().any(|seen| seen.kind == HOME.kind && is_gone(seen))).await;
    }
    neighbours.were_undisturbed().await;
}

/// While nothing of an answer is there, the second channel gives it.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_channel_answers_when_the_first_fails() {
    for letters in ["h500", "h502", "h503", "h529", "h429-a1", "h401", "h402", "h403", "e0", "l", "r"] {
        let world = CloudWorld::start().await;
        for stream in [true, false] {
            world.providers.next(OPENAI.kind, Behaviour::of(letters));
            let answer = soon(letters, world.caller.post(CHAT, &chat("ofake", stream))).await;
            assert_eq!((answer.status.as_u16(), answer.header("x-1k4-provider")), (200, "openai"), "{letters}");
            let text = answer.text().await;
            assert!(text.contains("chat.completion"), "{letters}: {text}");
        }
        assert_eq!(world.spare.totals().started, 2, "{letters}");
        let (sent, seen) = (world.providers.log(), world.spare.log());
        assert_eq!(sent[0].body_sha256, seen[0].body_sha256, "{letters}: the same bytes");
        let records = world.records(2).await;
        assert!(records.iter().all(|record| record.outcome == "complete" && record.cost_nano > 0), "{letters}: {records:?}");
        world.spent(CREDITS_NANO, &records).await;
    }
}

/// After its first byte an answer is nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_twice_once_an_answer_has_begun() {
    let world = CloudWorld::start().await;
    for letters in ["e1", "e3", "x1", "f2", "g", "h400", "h404", "h422"] {
        world.providers.next(OPENAI.kind, Behaviour::of(letters));
        world.caller.post(CHAT, &chat("ofake", true)).await.read().await;
    }
    assert_eq!((world.providers.totals().started, world.spare.totals().started), (8, 0));
}

/// When both fail the caller gets the last one's own words, or the one error; a refused secret is never the caller's fault.
#[tokio::test(flavor = "multi_thread")]
async fn when_all_channels_fail_there_is_one_error() {
    let world = CloudWorld::start().await;
    let both = |letters: &str| {
        world.providers.always(OPENAI.kind, Some(Behaviour::of(letters)));
        world.spare.always(OPENAI.kind, Some(Behaviour::of(letters)));
    };
    let asked = || (world.providers.totals().started, world.spare.totals().started);
    both("h503");
    let answer = world.caller.post(CHAT, &chat("ofake", true)).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-1k4-source")), (503, "provider"));
    assert_eq!(answer.json().await["error"]["type"], "server_error");
    both("e0");
    let answer = world.caller.post(CHAT, &chat("ofake", true)).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-1k4-error")), (502, "upstream_error"));
    both("h401");
    let before = asked();
    for _ in 0..2 {
        let answer = world.caller.post(CHAT, &chat("ofake", true)).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-1k4-error")), (502, "upstream_error"));
        assert!(!answer.text().await.contains("sk-"));
    }
    // The second time nobody was asked: a secret that was refused is not shown again at once.
    assert_eq!(asked(), (before.0 + 1, before.1 + 1));
    // Nobody is there any more.
    world.spare.stop();
    world.providers.stop();
    let answer = world.caller.post(CHAT, &chat("hfake", true)).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-1k4-error")), (502, "upstream_error"));
    let records = world.records(5).await;
    assert_eq!(world.spent(CREDITS_NANO, &records).await, 0);
}

/// Bytes of this process in memory; 0 where the system does not say so.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or_default() << 10
}
