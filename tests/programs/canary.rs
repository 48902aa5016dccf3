//! Row 15, and promises R1 and R3: of what passes through, nothing stays. Not on disk, not in the database, not in what is printed,
//! on neither side, whatever becomes of a request; and one record of each.

mod asks;
mod cloud;
mod lab;
mod parrot;
mod probes;
mod search;

use std::{fs, path::Path};

use journeys::{
    caller::Caller,
    fake_ollama::{Capability, Model, Outcome},
    programs::{PATIENCE, Pair, Service},
    world::eventually,
};
use lab_server::{
    Config,
    store::{RequestRecord, Store},
};
use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use probes::{Fate, Probe, SPEAKING, question, request};
use search::{Canary, Search};

/// Answers that take seconds, so that something can happen to them.
const SLOW: &str = "tiny-n300-d10000";
/// Answers that never end.
const ENDLESS: &str = "tiny-z3";
/// The most characters that Ollama takes for a model's owner, for its name and for its tag.
const LONGEST_PART: usize = 80;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the release programs: cargo xtask test"]
async fn nothing_that_passes_through_stays() {
    let part = "m".repeat(LONGEST_PART);
    let longest = format!("{}/{part}/{part}:{part}", "h".repeat(wire::ModelName::MAX_LEN - 3 * (LONGEST_PART + 1)));
    let mut pair = Pair::start(&["tiny-h400", "tiny-h500", "tiny-x3", "tiny-f3", "tiny-e3", SLOW, ENDLESS, &longest]).await;
    for name in ["embed-h400", "embed-h500"] {
        pair.ollama.add_model(Model::new(name).with(&[Capability::Embedding]));
    }
    eventually("the last models are listed", async || pair.caller.models().await.iter().any(|name| name.contains("embed-h500")))
        .await;
    let watched = ["logs -f", "logs -f --json", "status --watch", "status --watch --json"]
        .map(|words| pair.workstation.machine.start("1k4-bridge", &words.split(' ').collect::<Vec<_>>()));

    let mut canaries = Vec::new();
    let mut expected = 0;
    for probe in probes::all(&pair.key) {
        expected += usize::from(probe.fate != Fate::Outside);
        send(&pair, &probe).await;
        canaries.push((probe.name, probe.canary));
    }
    read_everything(&pair);
    let mut broken = Broken { pair: &mut pair, canaries: &mut canaries, recorded: &mut expected };
    broken.hung_up().await;
    broken.link_cut().await;
    broken.ollama_killed().await;
    broken.bridge_killed().await;
    broken.whole_again(&longest).await;
    read_everything(&pair);

    eventually("the records are written", async || records(&pair).await.len() >= expected).await;
    let written = records(&pair).await;
    assert_eq!(written.len(), expected, "one record of each request");
    let largest = written.iter().max_by_key(|record| row_bytes(record)).expect("records");
    println!("{} records, the largest with {} bytes", written.len(), row_bytes(largest));
    assert_eq!(largest.model, longest);
    assert!(row_bytes(largest) <= 512, "{} bytes: {largest:?}", row_bytes(largest));

    let device_key = fs::read_to_string(pair.workstation.file(".local/state/1k4-bridge/device-key")).expect("the device's key");
    let (_, secret) = pair.key.rsplit_once('_').expect("a key");
    let secrets = [("the API key", Canary::of(secret)), ("the device's key", Canary::of(device_key.trim()))];
    let all = || {
        canaries.iter().map(|(name, canary)| (name.as_str(), canary)).chain(secrets.iter().map(|(name, secret)| (*name, secret)))
    };
    let search = Search::new(all());
    for service in [pair.lab.service(), pair.workstation.bridge()] {
        nothing_in_the_process_table(&search, service, pair.dir());
    }

    let (name, canary) = Broken { pair: &mut pair, canaries: &mut Vec::new(), recorded: &mut 0 }.lab_killed().await;
    let search = Search::new(all().chain([(name.as_str(), &canary)]));
    let bridge = pair.workstation.take_bridge();
    bridge.signal(Signal::TERM);
    assert_eq!(bridge.wait(), Some(0), "{}", bridge.err());
    drop(watched);

    let planted = pair.dir().join("lab/home/planted");
    fs::write(&planted, format!("{{\"a\":\"{}\"}}", data_encoding::BASE64.encode(format!("..{canary}").as_bytes())))
        .expect("planted");
    let (found, _) = search.directory(pair.dir());
    let is_planted = |at: &str| at == planted.display().to_string();
    assert!(found.iter().any(|hit| is_planted(&hit.at)), "the planted one was not found");
    let left: Vec<_> = found.iter().filter(|hit| !is_planted(&hit.at)).collect();
    let expected = |at: &str| at.ends_with(".local/state/1k4-bridge/device-key");
    let leaks: Vec<_> = left.iter().filter(|hit| !expected(&hit.at) || !hit.what.starts_with("the device's key")).collect();
    let (_, files) = search.directory(pair.dir());
    println!("{} canaries in {files} files of {} bytes: {} found", canaries.len() + 1, bytes_below(pair.dir()), leaks.len());
    assert!(leaks.is_empty(), "{leaks:#?}");
    assert!(pair.dir().join("lab/home/.local/share/1k4-lab/lab.sqlite-wal").exists(), "the killed Lab's log was searched too");
    assert_eq!(pair.ollama.violations(), []);
}

/// Sends a probe, reads the answer to its end, and checks that the canary came where it should, and only there.
async fn send(pair: &Pair, probe: &Probe) {
    let before = pair.ollama.log().len();
    let answer = Exchange::start(&pair.caller, &probe.bytes).await.rest().await;
    assert!(!answer.is_empty() || probe.fate == Fate::Outside, "{}: no answer", probe.name);
    let seen = pair.ollama.log()[before..].iter().any(|seen| {
        let head = format!("{} {:?}", seen.path, seen.headers);
        head.contains(probe.canary.as_str()) || contains(&seen.body, probe.canary.as_str())
    });
    let head = String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned();
    assert_eq!(seen, probe.fate == Fate::Arrives, "{}: whether Ollama saw it; the answer was {head}", probe.name);
    if probe.fate == Fate::Outside && !answer.is_empty() {
        assert!(head.starts_with("HTTP/1.1 4"), "{}: {head}", probe.name);
    }
}

/// Everything that can be asked of either side.
fn read_everything(pair: &Pair) {
    for words in [
        "status",
        "status --json",
        "activity",
        "activity --json",
        "logs",
        "logs --json",
        "doctor",
        "doctor --json",
        "models",
        "policy",
    ] {
        let said = pair.workstation.say(&words.split(' ').collect::<Vec<_>>());
        assert!(said.code == 0 || words.starts_with("doctor"), "{words}: {}", said.err);
        assert!(!said.out.is_empty(), "{words} prints nothing");
    }
    for words in ["users list", "projects list", "keys list", "devices list", "devices pending"] {
        pair.lab.admin(&words.split(' ').collect::<Vec<_>>());
    }
}

/// What goes wrong while an answer is on its way.
struct Broken<'a> {
    pair: &'a mut Pair,
    canaries: &'a mut Vec<(String, Canary)>,
    recorded: &'a mut usize,
}

impl Broken<'_> {
    /// A question whose answer has begun, with the canary in it.
    async fn begun(&mut self, name: &str, path: &str, model: &str) -> Exchange {
        let canary = Canary::fresh();
        let mut exchange = self.asked(name, path, model, &canary, true).await;
        exchange.until(canary.as_str()).await;
        exchange
    }

    async fn asked(&mut self, name: &str, path: &str, model: &str, canary: &Canary, stream: bool) -> Exchange {
        self.canaries.push((format!("{path}: {name}"), canary.clone()));
        *self.recorded += 1;
        let body = question(path, model, canary.as_str(), stream).to_string();
        let bearer = format!("authorization: Bearer {}\r\n", self.pair.key);
        Exchange::start(&self.pair.caller, &request(&format!("POST {path}"), &bearer, body.as_bytes())).await
    }

    async fn hung_up(&mut self) {
        let gone = |pair: &Pair, canary: &Canary| {
            pair.ollama
                .log()
                .iter()
                .any(|seen| contains(&seen.body, canary.as_str()) && matches!(seen.outcome, Outcome::ClientGone { .. }))
        };
        for path in SPEAKING {
            drop(self.begun("hung up in the middle", path, ENDLESS).await);
            let canary = Canary::fresh();
            let asked = self.asked("hung up before the answer", path, ENDLESS, &canary, false).await;
            eventually("the question arrives", async || {
                self.pair.ollama.log().iter().any(|seen| contains(&seen.body, canary.as_str()))
            })
            .await;
            drop(asked);
            eventually("Ollama is let go", async || gone(self.pair, &canary)).await;
            let half = Canary::fresh();
            self.canaries.push((format!("{path}: hung up in the middle of the body"), half.clone()));
            *self.recorded += 1;
            let body = question(path, ENDLESS, half.as_str(), true).to_string();
            let bytes = request(&format!("POST {path}"), &format!("authorization: Bearer {}\r\n", self.pair.key), body.as_bytes());
            drop(Exchange::start(&self.pair.caller, &bytes[..bytes.len() - 3]).await);
        }
    }

    async fn link_cut(&mut self) {
        for path in ["/v1/chat/completions", "/v1/messages", "/api/chat"] {
            let exchange = self.begun("the link cut", path, SLOW).await;
            self.pair.network.cut();
            let answer = exchange.rest().await;
            let end = if path == "/v1/chat/completions" {
                "data: [DONE]"
            } else if path == "/v1/messages" {
                "message_stop"
            } else {
                "\"done\":true"
            };
            assert!(contains(&answer, end), "{path}: the answer went on after the cut");
        }
    }

    async fn ollama_killed(&mut self) {
        let exchange = self.begun("Ollama killed", "/v1/chat/completions", SLOW).await;
        self.pair.ollama.stop();
        let answer = exchange.rest().await;
        assert!(contains(&answer, "ollama_lost"), "the caller is told");
        self.pair.ollama.restart().expect("Ollama starts again");
        eventually("the models are back", async || !self.pair.caller.models().await.is_empty()).await;
    }

    async fn bridge_killed(&mut self) {
        let exchange = self.begun("the bridge killed", "/v1/chat/completions", SLOW).await;
        self.pair.workstation.bridge().kill();
        self.pair.workstation.run();
        self.pair.workstation.wait_until_linked(0);
        let answer = exchange.rest().await;
        assert!(
            contains(&answer, "\"error\"") && !contains(&answer, "[DONE]"),
            "the caller is told: {}",
            String::from_utf8_lossy(&answer)
        );
        eventually("the models are back", async || !self.pair.caller.models().await.is_empty()).await;
    }

    async fn whole_again(&mut self, model: &str) {
        let canary = Canary::fresh();
        let answer = self.asked("afterwards", "/api/chat", model, &canary, true).await.rest().await;
        assert!(contains(&answer, canary.as_str()) && contains(&answer, "\"done\":true"), "{}", String::from_utf8_lossy(&answer));
    }

    /// The last one: its own name and canary.
    async fn lab_killed(&mut self) -> (String, Canary) {
        let exchange = self.begun("the Lab killed", "/v1/chat/completions", SLOW).await;
        self.pair.lab.service().kill();
        drop(exchange);
        self.canaries.pop().expect("just added")
    }
}

/// One HTTP/1 exchange on a connection of its own, byte by byte.
struct Exchange {
    read: Vec<u8>,
    from: Box<dyn AsyncRead + Send + Unpin>,
    writing: tokio::task::JoinHandle<()>,
}

impl Exchange {
    async fn start(caller: &Caller, bytes: &[u8]) -> Self {
        let (from, mut to) = tokio::io::split(caller.connect().await);
        let bytes = bytes.to_vec();
        let (sent, is_sent) = tokio::sync::oneshot::channel();
        let writing = tokio::spawn(async move {
            // The Lab may have said no and closed before all of it was sent.
            let written = to.write_all(&bytes).await.is_ok() && to.flush().await.is_ok();
            let _ = sent.send(written);
            // Half of it closed would say that the caller is gone.
            std::future::pending::<()>().await;
        });
        let mut exchange = Self { read: Vec::new(), from: Box::new(from), writing };
        exchange.while_sending(is_sent).await;
        exchange
    }

    /// A body that nobody reads would stand in the way of the answer that says so.
    async fn while_sending(&mut self, mut is_sent: tokio::sync::oneshot::Receiver<bool>) {
        loop {
            tokio::select! {
                biased;
                _ = &mut is_sent => return,
                is_more = more(&mut self.from, &mut self.read) => if !is_more { return },
            }
        }
    }

    /// Reads until the answer holds `text`.
    async fn until(&mut self, text: &str) {
        while !contains(&self.read, text) {
            let is_more = timeout(PATIENCE, more(&mut self.from, &mut self.read)).await.expect("an answer in time");
            assert!(is_more, "the answer ended without the canary: {}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Reads to the end, clean or not, and says all that was read.
    async fn rest(mut self) -> Vec<u8> {
        while timeout(PATIENCE, more(&mut self.from, &mut self.read)).await.expect("an end in time") {}
        std::mem::take(&mut self.read)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.writing.abort();
    }
}

/// Reads some more; false at the end.
async fn more(from: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> bool {
    matches!(from.read_buf(read).await, Ok(1..))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

async fn records(pair: &Pair) -> Vec<RequestRecord> {
    let users = pair.lab.admin(&["users", "list"]);
    let user = users[0]["id"].as_str().expect("a user").parse().expect("an id");
    let store = Store::of(&Config::in_dir(pair.lab.machine.home().join(".local/share/1k4-lab"))).await.expect("the database");
    let mut records = store.requests(user).await.expect("the records");
    store.close().await.expect("the database closes");
    // The test itself lists models, to see whether they are there.
    records.retain(|record| record.operation != "models.list");
    records
}

/// How many bytes a record takes in SQLite's format: a header of one or two bytes a column, then the values.
fn row_bytes(record: &RequestRecord) -> usize {
    let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let texts = [
        record.id.len(),
        record.model.len(),
        record.operation.len(),
        optional(&record.device),
        optional(&record.provider),
        record.user.len(),
        record.project.len(),
        record.key.len(),
        record.outcome.len(),
    ];
    let integers = [
        Some(record.time),
        record.input_tokens,
        record.output_tokens,
        Some(record.cost_nano),
        Some(record.latency_ms),
        record.first_token_ms,
        Some(record.stream.into()),
        Some(record.status.into()),
        Some(record.estimated.into()),
    ];
    let header = 2 + integers.len() + texts.iter().map(|length| if *length > 57 { 2 } else { 1 }).sum::<usize>();
    let bytes = |value: &Option<i64>| match value {
        None | Some(0 | 1) => 0,
        Some(-0x80..=0x7f) => 1,
        Some(-0x8000..=0x7fff) => 2,
        Some(-0x0080_0000..=0x007f_ffff) => 3,
        Some(-0x8000_0000..=0x7fff_ffff) => 4,
        Some(-0x8000_0000_0000..=0x7fff_ffff_ffff) => 6,
        Some(_) => 8,
    };
    header + texts.iter().sum::<usize>() + integers.iter().map(bytes).sum::<usize>()
}

/// What every user of a machine can read of a process, and where it writes.
fn nothing_in_the_process_table(search: &Search, service: &Service, dir: &Path) {
    let process = format!("/proc/{}", service.id());
    for file in ["cmdline", "environ"] {
        let path = format!("{process}/{file}");
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(!bytes.is_empty(), "{path} is empty");
        assert_eq!(search.bytes(&path, &bytes), []);
    }
    for open in fs::read_dir(format!("{process}/fd")).expect("its open files").flatten() {
        let Ok(target) = fs::read_link(open.path()) else { continue };
        let is_elsewhere = target.is_file() && !target.starts_with(dir);
        assert!(!is_elsewhere, "{} is open, outside of what is searched", target.display());
    }
}

fn bytes_below(path: &Path) -> u64 {
    fs::read_dir(path).expect("a directory").flatten().fold(0, |sum, entry| {
        let found = entry.metadata().expect("what it is");
        sum + if found.is_dir() { bytes_below(&entry.path()) } else { found.len() }
    })
}
