//! The real programs, built for release, each a process of its own: what a person starts, with a home of its own for each machine.
//!
//! Everything that a program prints is kept in files beside what it writes itself, so that a test can search all of it.

mod machine;
mod service;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

pub use machine::{Machine, Said};
pub use service::Service;

use crate::{caller::Caller, fake_ollama::FakeOllama, fault_proxy::FaultProxy};

/// Waiting longer than this for something that should happen is a failure. Generous: the machine may be compiling.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The path of one of the workspace's programs, built for release.
///
/// # Panics
/// When it has not been built: `cargo xtask test` does that first.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    // target/<profile>/deps/<test>, of which the second part may differ.
    let test = std::env::current_exe().unwrap_or_else(|error| panic!("the test does not know where it lies: {error}"));
    let target = test.ancestors().nth(3).unwrap_or(Path::new("target"));
    let path = target.join("release").join(name);
    assert!(path.is_file(), "there is no {}; these tests need the release programs: run `cargo xtask test`", path.display());
    path
}

/// Looks again and again until `look` has found something.
///
/// # Panics
/// When it finds nothing in time; `what` finishes the sentence "gave up waiting for …".
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "gave up waiting for {what} after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A Lab that runs on a machine, with one user who has one project.
#[derive(Debug)]
pub struct Lab {
    /// Where it runs.
    pub machine: Machine,
    /// Where it listens.
    pub addr: SocketAddr,
    /// The address that clients and bridges know.
    pub url: String,
    /// Its test CA, as clients are given it.
    pub ca_file: PathBuf,
    operator: Option<SocketAddr>,
    service: Service,
}

/// What a Lab prints once it listens.
struct Announced {
    addr: SocketAddr,
    ca_file: PathBuf,
    operator: Option<SocketAddr>,
}

impl Announced {
    /// Reads it in either of its forms; `None` while it is not whole.
    fn read(out: &str) -> Option<Self> {
        if let Ok(said) = serde_json::from_str::<Value>(out) {
            let addr = |name: &str| said[name].as_str()?.parse().ok();
            return Some(Self { addr: addr("addr")?, ca_file: said["ca_file"].as_str()?.into(), operator: addr("admin_addr") });
        }
        let after = |words: &str| out.lines().find_map(|line| line.split_once(words)?.1.split_whitespace().next());
        // The certificate stands in the last line.
        let ca_file = after("give clients ").filter(|_| out.ends_with('\n'))?.into();
        let operator = after("/metrics and /readyz on ").and_then(|addr| addr.parse().ok());
        Some(Self { addr: after("1k4-lab listens on ")?.parse().ok()?, ca_file, operator })
    }
}

impl Lab {
    /// Starts `1k4-lab serve`, with everything where it is by default.
    ///
    /// # Panics
    /// When it does not come to listen.
    #[must_use]
    pub fn serve(machine: Machine, listen: SocketAddr, url: &str) -> Self {
        Self::serve_with(machine, listen, url, &[])
    }

    /// The same, with more words for `serve`.
    ///
    /// # Panics
    /// When it does not come to listen.
    #[must_use]
    pub fn serve_with(machine: Machine, listen: SocketAddr, url: &str, words: &[&str]) -> Self {
        let listen = listen.to_string();
        let service = machine.start("1k4-lab", &[&["serve", "--listen", &listen, "--public-url", url], words].concat());
        let announced = until("the Lab to listen", || {
            let announced = Announced::read(&service.out());
            assert!(announced.is_some() || service.is_running(), "the Lab ended: {}", service.err());
            announced
        });
        let Announced { addr, ca_file, operator } = announced;
        Self { machine, addr, url: url.to_owned(), ca_file, operator, service }
    }

    /// Where its operator's listener is, if it has one.
    #[must_use]
    pub fn operator(&self) -> Option<SocketAddr> {
        self.operator
    }

    /// Adds the user `ada` with the project `work`.
    ///
    /// # Panics
    /// When the Lab refuses.
    pub fn add_user(&self) {
        self.admin(&["users", "add", "ada"]);
        self.admin(&["projects", "add", "work"]);
    }

    /// A new API key. Nothing of it is left on disk.
    ///
    /// # Panics
    /// When none is printed.
    #[must_use]
    pub fn create_key(&self) -> String {
        self.create_key_with(&[])
    }

    /// The same, on these terms.
    ///
    /// # Panics
    /// When none is printed.
    #[must_use]
    pub fn create_key_with(&self, terms: &[&str]) -> String {
        let said = self.machine.say_unwritten("1k4-lab", &[&["admin", "keys", "create"], terms].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        said.out.trim().to_owned()
    }

    /// What `1k4-lab admin … --json` prints.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    pub fn admin(&self, words: &[&str]) -> Value {
        let said = self.machine.say("1k4-lab", &[&["admin", "--json"], words].concat());
        assert_eq!(said.code, 0, "1k4-lab admin {words:?}: {}", said.err);
        said.json()
    }

    /// A client with this key.
    ///
    /// # Panics
    /// When the CA cannot be read.
    #[must_use]
    pub fn caller(&self, key: &str) -> Caller {
        let ca = fs::read_to_string(&self.ca_file).unwrap_or_else(|error| panic!("no CA: {error}"));
        Caller::new(self.addr, &ca, Some(key.to_owned()))
    }

    /// Its process.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }
}

/// A machine with a bridge on it.
#[derive(Debug)]
pub struct Workstation {
    /// The machine.
    pub machine: Machine,
    bridge: Option<Service>,
}

impl Workstation {
    /// A workstation on which nothing has been set up.
    #[must_use]
    pub fn new(machine: Machine) -> Self {
        Self { machine, bridge: None }
    }

    /// Writes the owner's `config.toml`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, lines: &str) {
        self.machine.write(".config/1k4-bridge/config.toml", lines);
    }

    /// `1k4-bridge` with these words, to its end.
    #[must_use]
    pub fn say(&self, words: &[&str]) -> Said {
        self.machine.say("1k4-bridge", words)
    }

    /// Starts a login that waits for its approval, on a machine that was told nothing before.
    #[must_use]
    pub fn start_login(&self, lab: &Lab, words: &[&str]) -> Service {
        let ca = self.trust(lab);
        let login = ["login", &lab.url, "--insecure-file-store", "--ca-file", &ca, "--name", "workstation"];
        self.machine.start("1k4-bridge", &[&login, words].concat())
    }

    /// Pairs it, approved at once. `settings` are further lines of `config.toml`.
    ///
    /// # Panics
    /// When one of the two says no.
    pub fn pair(&self, lab: &Lab, ollama: &str, settings: &str) {
        self.configure(&format!("ollama_host = {}\n{settings}", Value::from(ollama)));
        let login = self.start_login(lab, &["--json"]);
        let code = until("a pairing code", || {
            assert!(login.is_running(), "the login ended: {}", login.err());
            serde_json::from_str::<Value>(login.out().lines().next()?).ok()?["user_code"].as_str().map(str::to_owned)
        });
        lab.admin(&["devices", "approve", &code]);
        assert_eq!(login.wait(), Some(0), "{}", login.err());
    }

    /// Brings the Lab's CA over, as its owner would, and says where it lies.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn trust(&self, lab: &Lab) -> String {
        let ca = fs::read_to_string(&lab.ca_file).unwrap_or_else(|error| panic!("no CA: {error}"));
        self.machine.write("lab-ca.pem", &ca);
        self.file("lab-ca.pem").display().to_string()
    }

    /// Starts `1k4-bridge run` and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn run(&mut self) {
        let bridge = self.machine.start("1k4-bridge", &["run"]);
        until("the bridge to answer", || {
            assert!(bridge.is_running(), "the bridge ended: {}", bridge.err());
            (self.say(&["status", "--json"]).code == 0).then_some(())
        });
        self.bridge = Some(bridge);
    }

    /// The running bridge.
    ///
    /// # Panics
    /// When it was not started.
    #[must_use]
    pub fn bridge(&self) -> &Service {
        self.bridge.as_ref().unwrap_or_else(|| panic!("the bridge was not started"))
    }

    /// Hands the running bridge over, to be ended.
    ///
    /// # Panics
    /// When it was not started.
    #[must_use]
    pub fn take_bridge(&mut self) -> Service {
        self.bridge.take().unwrap_or_else(|| panic!("the bridge was not started"))
    }

    /// The running bridge's status.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn status(&self) -> Value {
        self.say(&["status", "--json"]).json()
    }

    /// Waits until the link is in that state, and says the status then.
    ///
    /// # Panics
    /// When it does not come to be so in time.
    pub fn wait_for_link(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(what, || Some(self.status()).filter(|status| is_so(&status["link"])))
    }

    /// Waits until the link is up and was made after `since_ms` (Unix milliseconds).
    ///
    /// # Panics
    /// When it is not in time.
    pub fn wait_until_linked(&self, since_ms: u64) -> Value {
        let is_new = |link: &Value| link["state"] == "online" && link["since_ms"].as_u64().is_some_and(|since| since >= since_ms);
        self.wait_for_link("the link", is_new)
    }

    /// A path below its home.
    #[must_use]
    pub fn file(&self, path: &str) -> PathBuf {
        self.machine.home().join(path)
    }
}

/// The usual two machines: a Lab and a paired workstation with its bridge running, between them a network that a test can break.
pub struct Pair {
    /// The workstation.
    pub workstation: Workstation,
    /// The Lab.
    pub lab: Lab,
    /// What stands between them.
    pub network: FaultProxy,
    /// The Ollama on the workstation.
    pub ollama: FakeOllama,
    /// The owner's API key.
    pub key: String,
    /// A client that knows it.
    pub caller: Caller,
    dir: TempDir,
}

impl Pair {
    /// Starts everything, with these models beside the fake Ollama's own.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn start(models: &[&str]) -> Self {
        let pair = Self::paired(models, |machine| machine).await;
        pair.workstation.wait_until_linked(0);
        crate::world::eventually("the models are listed", async || {
            let listed = pair.caller.models().await;
            models.iter().all(|model| listed.contains(&listed_name(model))) && !listed.is_empty()
        })
        .await;
        pair
    }

    /// The same on a workstation to one's wishes, without waiting for its models.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn paired(models: &[&str], wishes: impl FnOnce(Machine) -> Machine) -> Self {
        let dir = test_dir();
        let ollama = FakeOllama::start();
        models.iter().for_each(|model| ollama.add_model(crate::fake_ollama::Model::new(model)));
        let network = FaultProxy::start(([127, 0, 0, 1], 9).into());
        let (lab, key) = lab(dir.path(), &network);
        let mut workstation = Workstation::new(wishes(Machine::new(dir.path().join("workstation"))));
        workstation.pair(&lab, &ollama.url(), "");
        workstation.run();
        let caller = lab.caller(&key);
        Self { workstation, lab, network, ollama, key, caller, dir }
    }

    /// Where everything of both machines lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A Lab with a user and a key, reached through `network`.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn lab(dir: &Path, network: &FaultProxy) -> (Lab, String) {
    let url = format!("https://localhost:{}", network.addr().port());
    let lab = Lab::serve(Machine::new(dir.join("lab")), ([127, 0, 0, 1], 0).into(), &url);
    network.retarget(lab.addr);
    lab.add_user();
    let key = lab.create_key();
    (lab, key)
}

/// A directory for everything of one test.
///
/// # Panics
/// When none can be made.
#[must_use]
pub fn test_dir() -> TempDir {
    // Short: a socket's path has to fit.
    tempfile::Builder::new().prefix("1k4").tempdir().unwrap_or_else(|error| panic!("no temporary directory: {error}"))
}

/// A model's name as `/v1/models` has it.
fn listed_name(model: &str) -> String {
    let name: wire::ModelName = model.parse().unwrap_or_else(|error| panic!("{model}: {error}"));
    format!("local/{name}")
}

/// A chat of Ollama's own with one question.
#[must_use]
pub fn chat(model: &str, question: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": question}]})
}

/// The text of a native stream.
///
/// # Panics
/// Unless it is whole lines with exactly one ending, the last.
#[must_use]
pub fn text_of(stream: &[u8]) -> String {
    let stream = std::str::from_utf8(stream).unwrap_or_else(|error| panic!("no UTF-8: {error}"));
    let (mut text, mut is_done) = (String::new(), false);
    for line in stream.lines() {
        let chunk: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no line of JSON: {line:?}"));
        assert!(!is_done, "something follows the last line: {line}");
        text.push_str(chunk["message"]["content"].as_str().unwrap_or_else(|| panic!("no chunk: {line}")));
        is_done = chunk["done"] == true;
    }
    assert!(is_done, "no last line after {} bytes", stream.len());
    text
}

/// What the fake Ollama's plain models (`fake-n…`) say with that many tokens.
#[must_use]
pub fn plain_text(tokens: u32) -> String {
    (0..tokens).map(|token| format!("{:x<6}", format!(" {token}"))).collect()
}
