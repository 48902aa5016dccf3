//! Row 9: a laptop is closed and opened again. Row 8: Ollama dies and comes back.

use std::time::{Duration, Instant};

use bridge_core::status::now_ms;
use journeys::{
    caller::{Answer, BodyEnd},
    fault_proxy::{Fault, FaultProxy},
    programs::{Lab, Machine, Pair, Service, Workstation, chat, lab, plain_text, test_dir, text_of, until},
    world::eventually,
};
use rustix::process::Signal;
use serde_json::Value;

/// What the owner was promised.
const BACK: Duration = Duration::from_secs(5);

/// A stopped process is what a sleeping machine is to all others: its clock jumps and its peers have given it up.
async fn sleep_through_a_stream(sleep: Duration, tokens: u32) {
    let model = format!("fake-n{tokens}-d20000");
    let pair = Pair::start(&[&model]).await;
    let mut answer = pair.caller.post("/api/chat", &chat(&model, "hello")).await;
    assert_eq!(answer.status, 200);
    let mut bytes = read_some(&mut answer, 4_000).await;
    let bridge = pair.workstation.bridge();
    bridge.signal(Signal::STOP);
    // Nothing reaches a sleeping machine, neither then nor afterwards: not even that its link was closed.
    pair.network.set(Fault::HalfOpen);
    let stopped = Instant::now();
    // The rest of what was on its way, and then the silence of somebody who is held.
    while stopped.elapsed() < sleep {
        if let Ok(chunk) = tokio::time::timeout(sleep.saturating_sub(stopped.elapsed()), answer.chunk()).await {
            bytes.extend_from_slice(&chunk.expect("the caller is held").expect("the answer is not over"));
        }
    }
    let given_up = pair.lab.service().err().matches("a bridge's link has ended").count();
    assert_eq!(given_up, 1, "the Lab still believes in the link after {sleep:?}");
    let (woken_ms, woken) = (now_ms(), Instant::now());
    bridge.signal(Signal::CONT);
    pair.workstation.wait_until_linked(woken_ms);
    let back = woken.elapsed();
    let next = answer.chunk().await.expect("the caller is held").expect("the answer is not over");
    let resumed = woken.elapsed();
    bytes.extend_from_slice(&next);
    let (rest, end) = answer.read().await;
    bytes.extend_from_slice(&rest);
    println!("stopped for {sleep:?}: linked again after {back:?}, the stream went on within {resumed:?}");
    assert_eq!(end, BodyEnd::Clean);
    assert!(text_of(&bytes) == plain_text(tokens), "{} bytes are not what Ollama said", bytes.len());
    assert!(back <= BACK, "linked again after {back:?} only");
    let asked = pair.ollama.log().iter().filter(|seen| seen.path == "/api/chat").count();
    assert_eq!(asked, 1, "Ollama was asked once");
}

async fn read_some(answer: &mut Answer, least: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < least {
        bytes.extend_from_slice(&answer.chunk().await.expect("the connection holds").expect("the answer is not over"));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the release programs: cargo xtask test"]
async fn a_stream_outlives_a_sleep() {
    sleep_through_a_stream(Duration::from_secs(15), 900).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute of sleep, needs the release programs: cargo xtask test --full"]
async fn full_a_stream_outlives_a_minute_of_sleep() {
    sleep_through_a_stream(Duration::from_secs(60), 3_300).await;
}

/// A fake Ollama that can be killed.
struct Ollama {
    machine: Machine,
    service: Service,
    addr: String,
}

impl Ollama {
    fn start(machine: Machine, addr: &str) -> Self {
        let service = machine.start("fake-ollama", &["--addr", addr, "--print-url"]);
        let addr = until("the fake Ollama", || {
            assert!(service.is_running(), "the fake Ollama ended: {}", service.err());
            service.out().lines().next()?.strip_prefix("http://").map(str::to_owned)
        });
        Self { machine, service, addr }
    }

    fn start_again(&mut self) {
        *self = Self::start(self.machine.clone(), &self.addr);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the release programs: cargo xtask test"]
async fn a_killed_ollama_is_missed_and_found_again() {
    /// What the owner was promised.
    const SEEN: Duration = Duration::from_secs(2);

    let dir = test_dir();
    let network = FaultProxy::start(([127, 0, 0, 1], 9).into());
    let (lab, key): (Lab, String) = lab(dir.path(), &network);
    let mut workstation = Workstation::new(Machine::new(dir.path().join("workstation")));
    let mut ollama = Ollama::start(workstation.machine.clone(), "127.0.0.1:0");
    workstation.pair(&lab, &format!("http://{}", ollama.addr), "");
    workstation.run();
    let linked = workstation.wait_until_linked(0)["link"]["since_ms"].clone();
    let caller = lab.caller(&key);
    let is_listed = async || caller.models().await.contains(&"local/tiny:latest".to_owned());
    eventually("a model is listed", is_listed).await;
    let ask = async || {
        let answer = caller.post("/api/chat", &chat("tiny", "hello")).await;
        (answer.status, answer.json().await)
    };
    for _ in 0..2 {
        ollama.service.kill();
        let killed = Instant::now();
        eventually("the Lab to miss Ollama", async || !is_listed().await).await;
        let missed = killed.elapsed();
        let status = workstation.status();
        assert_eq!(status["ollama"]["state"], "unreachable", "{status}");
        let (refused, error) = ask().await;
        assert_eq!(refused, 503, "{error}");
        assert!(error["error"].as_str().is_some_and(|error| error.contains("Ollama")), "{error}");

        ollama.start_again();
        let started = Instant::now();
        eventually("the Lab to find Ollama again", is_listed).await;
        let found = started.elapsed();
        println!("Ollama killed: the Lab knew after {missed:?}; started again: after {found:?}");
        assert!(missed <= SEEN && found <= SEEN, "seen too late: gone after {missed:?}, back after {found:?}");
        let answer = caller.post("/api/chat", &chat("tiny", "hello")).await;
        assert_eq!(answer.status, 200);
        assert!(text_of(&answer.read().await.0).starts_with("« hello »"));
    }
    let now: Value = workstation.status()["link"]["since_ms"].clone();
    assert_eq!(now, linked, "the link itself stayed up");
}
