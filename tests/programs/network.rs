//! Row 9: the workstation's address changes, its network goes away and comes back. In network namespaces, so with the system's own
//! routes, retransmissions and errors. Needs root.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use bridge_core::status::now_ms;
use journeys::programs::{Lab, Machine, Service, Workstation, chat, plain_text, test_dir, text_of, until};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the owner was promised.
const BACK: Duration = Duration::from_secs(5);
const LAB: &str = "198.18.0.1";
const FIRST: &str = "198.18.0.2/24";
const SECOND: &str = "198.18.0.3/24";
const THIRD: &str = "198.18.0.4/24";

/// A Lab and a linked workstation, each in a network namespace of its own, with a cable between them.
struct Site {
    workstation: Workstation,
    lab: Lab,
    _ollama: Service,
    _dir: TempDir,
    // The last to go: nothing runs in them any more.
    networks: Networks,
}

impl Site {
    fn start(model: &str) -> Self {
        let networks = Networks::new();
        let dir = test_dir();
        let machine = Machine::new(dir.path().join("lab")).in_network(&networks.lab);
        let lab = Lab::serve(machine, ([0, 0, 0, 0], 8443).into(), &format!("https://{LAB}:8443"));
        lab.add_user();
        lab.machine.write(
            "curl.conf",
            &format!(
                "header = \"Authorization: Bearer {}\"\ncacert = {:?}\nno-buffer\nsilent\nshow-error\n",
                lab.create_key(),
                lab.ca_file
            ),
        );
        let mut workstation = Workstation::new(Machine::new(dir.path().join("workstation")).in_network(&networks.workstation));
        let ollama = workstation.machine.start("fake-ollama", &[]);
        until("the fake Ollama", || ollama.out().starts_with("listening on").then_some(()));
        let pull = json!({"model": model, "stream": false}).to_string();
        let pulled =
            workstation.machine.say_tool("curl", &["--silent", "--fail", "--data-raw", &pull, "http://127.0.0.1:11434/api/pull"]);
        assert_eq!(pulled.code, 0, "{}", pulled.err);
        workstation.pair(&lab, "http://127.0.0.1:11434", "");
        workstation.run();
        workstation.wait_until_linked(0);
        let site = Self { workstation, lab, _ollama: ollama, _dir: dir, networks };
        until("the model to be listed", || site.get("/v1/models").out.contains(model).then_some(()));
        site
    }

    /// Asks the Lab from its own machine.
    fn get(&self, path: &str) -> journeys::programs::Said {
        self.lab.machine.say_tool("curl", &["--config", "curl.conf", &self.url(path)])
    }

    /// Starts a stream and waits until it runs.
    fn stream(&self, model: &str) -> Service {
        let body = chat(model, "hello").to_string();
        let stream = self.lab.machine.start_tool("curl", &["--config", "curl.conf", "--json", &body, &self.url("/api/chat")]);
        until("the stream to begin", || (stream.out().len() > 4_000).then_some(()));
        assert!(stream.is_running(), "the stream is over too soon");
        stream
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.lab.url)
    }

    /// Waits until the stream has said something new: the link carries again.
    fn goes_on(stream: &Service) {
        let before = stream.out().len();
        until("the stream to go on", || (stream.out().len() > before).then_some(()));
    }
}

/// Waits for the end of a stream, which must be the whole of it.
fn whole(stream: Service, tokens: u32) {
    let said = stream.ended();
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(text_of(said.out.as_bytes()) == plain_text(tokens), "{} bytes are not what Ollama said", said.out.len());
}

#[test]
#[ignore = "needs root and the release programs: cargo xtask test"]
fn a_new_address_is_dialled_from_at_once() {
    const MODEL: &str = "fake-n1200-d10000";
    let site = Site::start(MODEL);
    let stream = site.stream(MODEL);
    for (old, new, between) in [(FIRST, SECOND, Duration::ZERO), (SECOND, THIRD, Duration::from_secs(3))] {
        site.networks.on_the_workstation(&["addr", "del", old, "dev", "to-lab"]);
        // Between two networks there may be none.
        let unplugged = Instant::now();
        until("the time between two networks", || (unplugged.elapsed() >= between).then_some(()));
        let (since, moved) = (now_ms(), Instant::now());
        site.networks.on_the_workstation(&["addr", "add", new, "dev", "to-lab"]);
        site.workstation.wait_until_linked(since);
        let linked = moved.elapsed();
        assert!(stream.is_running(), "the stream was over before the network was back");
        Site::goes_on(&stream);
        println!(
            "a new address, {between:?} after the old one: linked again after {linked:?}, the stream within {:?}",
            moved.elapsed()
        );
        assert!(linked <= BACK, "linked again after {linked:?} only");
    }
    whole(stream, 1_200);
}

/// The cable is out for so long, in the middle of a stream.
fn without_a_network(time: Duration, tokens: u32) {
    let model = format!("fake-n{tokens}-d10000");
    let site = Site::start(&model);
    let stream = site.stream(&model);
    site.networks.on_the_workstation(&["link", "set", "to-lab", "down"]);
    let down = Instant::now();
    until("the end of the outage", || (down.elapsed() >= time).then_some(()));
    assert!(stream.is_running(), "the caller is held");
    let up = Instant::now();
    site.networks.on_the_workstation(&["link", "set", "to-lab", "up"]);
    Site::goes_on(&stream);
    let resumed = up.elapsed();
    println!("no network for {time:?}: the stream went on within {resumed:?}");
    assert!(resumed <= BACK, "the stream went on after {resumed:?} only");
    whole(stream, tokens);
    let status: Value = site.workstation.status();
    assert_eq!(status["link"]["state"], "online");
}

#[test]
#[ignore = "needs root and the release programs: cargo xtask test"]
fn a_stream_outlives_a_lost_network() {
    without_a_network(Duration::from_secs(4), 700);
}

#[test]
#[ignore = "half a minute without a network, needs root and the release programs: cargo xtask test --full"]
fn full_a_stream_outlives_half_a_minute_without_a_network() {
    without_a_network(Duration::from_secs(30), 3_600);
}

/// Two network namespaces with a cable between them. They are gone when it is.
struct Networks {
    lab: String,
    workstation: String,
}

impl Networks {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "network namespaces can only be made by root: run `cargo xtask test` as root"
        );
        sweep();
        let prefix = format!("1k4-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let networks = Self { lab: format!("{prefix}-lab"), workstation: format!("{prefix}-ws") };
        let Self { lab, workstation } = &networks;
        for namespace in [lab, workstation] {
            ip(&["netns", "add", namespace]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        ip(&["-n", lab, "link", "add", "to-workstation", "type", "veth", "peer", "name", "to-lab", "netns", workstation]);
        ip(&["-n", lab, "addr", "add", &format!("{LAB}/24"), "dev", "to-workstation"]);
        ip(&["-n", lab, "link", "set", "to-workstation", "up"]);
        networks.on_the_workstation(&["addr", "add", FIRST, "dev", "to-lab"]);
        networks.on_the_workstation(&["link", "set", "to-lab", "up"]);
        networks
    }

    fn on_the_workstation(&self, words: &[&str]) {
        ip(&[&["-n", &self.workstation], words].concat());
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for namespace in [&self.lab, &self.workstation] {
            // One that was not made cannot be removed, and a panic is under way already.
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// Removes what tests that were killed have left.
fn sweep() {
    for namespace in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = namespace.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("1k4-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !std::path::Path::new(&format!("/proc/{owner}")).exists()) {
            ip(&["netns", "del", &name]);
        }
    }
}

fn ip(words: &[&str]) {
    let said = Command::new("ip").args(words).output().expect("the program ip, of the package iproute2");
    assert!(said.status.success(), "ip {}: {}", words.join(" "), String::from_utf8_lossy(&said.stderr));
}
