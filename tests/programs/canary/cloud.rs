//! The same for models in the cloud: whatever a caller, a provider or the operator's own secrets say, in each place and however it
//! ends, of none of it anything stays, and neither side sees the other's keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
};

use journeys::{
    caller::Caller,
    fake_provider::{FakeProvider, Kind},
    programs::{Lab, Machine, PATIENCE, program, test_dir},
    world::eventually,
};
use lab_server::{Config, store::Store};
use rustix::process::Signal;

use super::{
    Exchange,
    asks::{self, Keys, SURFACES, Surface},
    bytes_below, contains,
    parrot::{MOODS, Mood, Parrot},
    probes::Fate,
    search::{Canary, Hit, Search},
};

/// A way to run the Lab. Between the two of them everything that can be on or off is both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Switches {
    /// `--json`, which is the one switch of `serve`.
    json: bool,
    /// `exact usage`, the one switch of a project.
    exact_usage: bool,
    /// Whether the Lab is killed at the end, or stopped in order.
    killed: bool,
}

/// The variable in which one of the secrets is given; the others are in files.
const SECRET_VARIABLE: &str = "ONEK4_TEST_SECRET";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the release programs: cargo xtask test"]
async fn nothing_of_the_cloud_stays_when_the_lab_is_stopped() {
    nothing_stays(Switches { json: false, exact_usage: false, killed: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the release programs: cargo xtask test"]
async fn nothing_of_the_cloud_stays_when_the_lab_is_killed() {
    nothing_stays(Switches { json: true, exact_usage: true, killed: true }).await;
}

async fn nothing_stays(switches: Switches) {
    let dir = test_dir();
    let parrot = Parrot::start().await;
    let house = tokio::task::block_in_place(|| House::open(dir.path(), parrot.addr, switches));
    let keys = Keys { good: &house.keys.good, poor: &house.keys.poor, revoked: &house.keys.revoked };
    let mut canaries: Vec<(String, Canary)> = Vec::new();
    let mut heard = Heard { answers: Vec::new() };
    let mut let_in = Vec::new();
    let probes = asks::all(&keys);
    println!("{} requests with a canary in them", probes.len());
    let mut wrong = Vec::new();
    for probe in probes {
        let before = parrot.count();
        let answer = Exchange::start(&house.caller, &probe.bytes).await.rest().await;
        let came = parrot.heard(probe.canary.as_str(), before);
        let head = String::from_utf8_lossy(&answer[..answer.len().min(400)]).into_owned();
        if answer.is_empty() || came != (probe.fate == Fate::Arrives) {
            wrong.push(format!("{}: whether the provider saw it: {came}; the answer was {head}", probe.name));
        }
        let_in.extend(id(&answer).map(|id| (id, probe.name.clone(), probe.fate != Fate::Outside)));
        canaries.push((probe.name, probe.canary));
        heard.answers.push(answer);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut given_up = 0;
    let mut broken = Broken { house: &house, parrot: &parrot, canaries: &mut canaries, heard: &mut heard, recorded: &mut given_up };
    broken.hung_up().await;
    parrot.release();

    // One record of each that was let in and of no other; and everything that can be asked of the Lab about them.
    let expected = given_up + let_in.iter().filter(|(.., is_in)| *is_in).count();
    eventually("the records are written", async || house.records().await.len() >= expected).await;
    let records = house.records().await;
    let wrong: Vec<_> = let_in.iter().filter(|(id, _, is_in)| records.contains(id) != *is_in).collect();
    assert!(wrong.is_empty(), "whether these have a record: {wrong:#?}");
    assert_eq!(records.len(), expected, "one record of each request that was let in");
    let said = house.everything_that_it_says().await;

    for (number, canary) in parrot.said().into_iter().enumerate() {
        canaries.push((format!("the provider's answer {number}"), canary));
    }
    let of_callers =
        [&house.keys.good, &house.keys.poor, &house.keys.reader].map(|key| Canary::of(key.rsplit('_').next().unwrap_or(key)));
    let nothing_of = |what: &str, found: Vec<Hit>| assert!(found.is_empty(), "{what}: {found:#?}");
    let of_all = |canaries: &[(String, Canary)]| {
        let named = canaries.iter().chain(&house.secrets).map(|(name, canary)| (name.as_str(), canary));
        Search::new(named.chain(of_callers.iter().map(|key| ("a caller's key", key))))
    };
    let search = of_all(&canaries);
    // Neither side sees the other's keys.
    for from in &of_callers {
        assert!(!parrot.heard(from.as_str(), 0), "a provider was sent a caller's key");
    }
    let operators_only = Search::new(house.secrets.iter().map(|(name, secret)| (name.as_str(), secret)));
    for answer in &heard.answers {
        nothing_of("an answer to a caller", operators_only.bytes("an answer", answer));
    }
    assert!(house.secrets.iter().all(|(_, secret)| parrot.heard(secret.as_str(), 0)), "each secret was used");
    for (what, text) in &said {
        assert!(!text.is_empty(), "{what} says nothing");
        nothing_of(what, search.bytes(what, text));
    }
    house.nothing_in_the_process_table(&search);
    if switches.killed {
        let last = Canary::fresh();
        let asked = Exchange::start(&house.caller, &Surface::Chat.ask(keys.good, Mood::Well, last.as_str(), true)).await;
        let stream = asked.rest().await;
        assert!(contains(&stream, last.as_str()));
        canaries.push(("just before the kill".to_owned(), last));
        house.lab.service().kill();
        assert!(house.data_dir().join("lab.sqlite-wal").exists(), "the killed Lab's log is searched too");
    } else {
        house.lab.service().signal(Signal::TERM);
        assert_eq!(house.lab.service().wait(), Some(0), "{}", house.lab.service().err());
    }
    canaries.extend(parrot.said().into_iter().map(|canary| ("a provider's answer".to_owned(), canary)));
    found_nowhere(&house, &of_all(&canaries), &canaries[0].1, canaries.len());
    assert!(!tls_keys(house.dir()).exists(), "who has the keys of a connection reads what passed through it");
    let printed = house.lab.service().err();
    assert!(!["DEBUG", "TRACE"].iter().any(|level| printed.contains(level)), "RUST_LOG made it talk: {printed}");
}

/// Where other programs that speak TLS can be made to write their connections' keys.
fn tls_keys(root: &Path) -> PathBuf {
    root.join("lab/printed/tls-keys")
}

/// Searches everything that lies on the machine, and finds what was planted for it and the secrets where they were given.
fn found_nowhere(house: &House, search: &Search, planted: &Canary, count: usize) {
    assert!(fs::read_dir(house.data_dir().join("journal")).expect("the journal").count() > 1, "the journal is searched too");
    let at = house.data_dir().join("journal/planted");
    fs::write(&at, format!("..{}", data_encoding::BASE64URL.encode(format!("..{planted}..").as_bytes()))).expect("planted");
    let (found, files) = search.directory(house.dir());
    let is_planted = |hit: &&Hit| hit.at == at.display().to_string();
    assert!(found.iter().any(|hit| is_planted(&hit)), "the planted one was not found");
    let is_given = |hit: &&Hit| hit.at.ends_with(".secret") && hit.what.starts_with("the secret of");
    let given: BTreeSet<&str> = found.iter().filter(is_given).map(|hit| hit.at.as_str()).collect();
    assert_eq!(given.len(), house.secrets.len() - 1, "each secret in the file that was given, and nowhere else");
    let leaks: Vec<_> = found.iter().filter(|hit| !is_planted(hit) && !is_given(hit)).collect();
    println!("{count} canaries in {files} files of {} bytes: {} found", bytes_below(house.dir()), leaks.len());
    assert!(leaks.is_empty(), "{leaks:#?}");
}

/// The Lab with its providers, and who may ask.
struct House {
    lab: Lab,
    operator: SocketAddr,
    keys: AllKeys,
    caller: Caller,
    secrets: Vec<(String, Canary)>,
    root: PathBuf,
}

struct AllKeys {
    good: String,
    poor: String,
    revoked: String,
    reader: String,
}

/// What was answered.
struct Heard {
    answers: Vec<Vec<u8>>,
}

impl House {
    fn open(root: &Path, parrot: SocketAddr, switches: Switches) -> Self {
        let machine = Machine::new(root.join("lab"));
        let providers: BTreeSet<&str> = SURFACES.into_iter().map(|surface| surface.provider().0).collect();
        let secrets: Vec<(String, Canary)> =
            providers.into_iter().map(|name| (format!("the secret of {name}"), Canary::fresh())).collect();
        let mut machine = machine.with_variable("SSLKEYLOGFILE", &tls_keys(root).display().to_string());
        for (name, secret) in &secrets {
            match name.rsplit(' ').next() {
                // One from the environment, where those who can read it could read the Lab's memory too.
                Some("azure") => machine = machine.with_variable(SECRET_VARIABLE, secret.as_str()),
                Some(name) => machine.write_private(&format!(".config/1k4-lab/{name}.secret"), secret.as_str()),
                None => {}
            }
        }
        machine.write(".config/1k4-lab/1k4-lab.toml", &configuration(parrot));
        let words: &[&str] = if switches.json { &["--json"] } else { &[] };
        let lab = Lab::serve_with(machine, ([127, 0, 0, 1], 0).into(), "https://localhost", words);
        for words in [
            "users add ada",
            "projects add work",
            "credits grant 100000",
            if switches.exact_usage { "projects update work --exact-usage on" } else { "projects update work --exact-usage off" },
        ] {
            lab.admin(&words.split(' ').collect::<Vec<_>>());
        }
        let keys = AllKeys {
            good: lab.create_key(),
            poor: lab.create_key_with(&["--spend-total", "0.000000001"]),
            revoked: lab.create_key(),
            reader: lab.create_key_with(&["--scope", "usage", "--scope", "manage"]),
        };
        lab.admin(&["keys", "revoke", keys.revoked.split('_').nth(2).expect("a key's id")]);
        let caller = lab.caller(&keys.good);
        let operator = lab.operator().expect("the operator's listener");
        Self { lab, operator, keys, caller, secrets, root: root.to_owned() }
    }

    fn dir(&self) -> &Path {
        &self.root
    }

    fn data_dir(&self) -> PathBuf {
        self.lab.machine.home().join(".local/share/1k4-lab")
    }

    /// The ids of all requests of which there are records.
    async fn records(&self) -> BTreeSet<String> {
        let store = Store::of(&Config::in_dir(self.data_dir())).await.expect("the database");
        let mut ids = BTreeSet::new();
        for user in store.users().await.expect("the people") {
            ids.extend(store.requests(user.id).await.expect("the records").into_iter().map(|record| record.id));
        }
        store.close().await.expect("the database closes");
        ids
    }

    /// Everything that can be asked of the Lab, by the operator and by people.
    async fn everything_that_it_says(&self) -> Vec<(String, Vec<u8>)> {
        let mut said = Vec::new();
        for words in [
            "users list",
            "projects list",
            "keys list",
            "devices list",
            "devices pending",
            "credits show",
            "credits ledger --limit 100000",
            "usage --by day",
            "usage --by model",
            "usage --by key",
            "usage --by project",
        ] {
            for json in [true, false] {
                let mut line = vec!["admin"];
                line.extend(words.split(' '));
                line.extend(json.then_some("--json"));
                let out = self.lab.machine.say("1k4-lab", &line);
                assert_eq!(out.code, 0, "{words}: {}", out.err);
                said.push((words.to_owned(), format!("{}{}", out.out, out.err).into_bytes()));
            }
        }
        for words in ["check", "check --json", "check --probe", "migrate"] {
            let out = self.lab.machine.say("1k4-lab", &words.split(' ').collect::<Vec<_>>());
            said.push((words.to_owned(), format!("{words} {}{}", out.out, out.err).into_bytes()));
        }
        let reader = self.caller.with_key(Some(self.keys.reader.clone()));
        let mut paths: Vec<String> = ["requests", "requests?format=csv&limit=1000", "account", "ledger", "projects", "providers"]
            .map(|path| format!("/api/{path}"))
            .into();
        for by in ["day", "model", "key", "project"] {
            paths.extend([format!("/api/usage?by={by}"), format!("/api/usage?by={by}&format=csv")]);
        }
        let mut cursor = Some("/api/requests?limit=1000".to_owned());
        while let Some(path) = cursor.take() {
            let page = reader.get(&path).await.json().await;
            cursor = page["next"].as_str().map(|next| format!("/api/requests?limit=1000&cursor={next}"));
            for record in page["data"].as_array().expect("records").iter().take(3) {
                paths.push(format!("/v1/requests/{}", record["id"].as_str().expect("an id")));
            }
            said.push((path, page.to_string().into_bytes()));
        }
        for path in paths {
            let answer = reader.get(&path).await;
            assert!(answer.status.is_success(), "{path}: {}", answer.status);
            said.push((path, answer.read().await.0));
        }
        for path in ["/metrics", "/healthz", "/readyz", "/"] {
            said.push((format!("the operator's {path}"), ask(self.operator, path).expect("an answer")));
        }
        said
    }

    /// What can be read of the process from outside: its arguments, its environment, what it has open; and that it leaves no core.
    fn nothing_in_the_process_table(&self, search: &Search) {
        let service = self.lab.service();
        let process = format!("/proc/{}", service.id());
        let read = |file: &str| fs::read(format!("{process}/{file}")).unwrap_or_else(|error| panic!("{process}/{file}: {error}"));
        assert_eq!(search.bytes("its arguments", &read("cmdline")), []);
        let found = search.bytes("its environment", &read("environ"));
        assert!(found.iter().all(|hit| hit.what.starts_with("the secret of azure")), "{found:?}");
        let limits = String::from_utf8_lossy(&read("limits")).into_owned();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("the limit of a core");
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        for open in fs::read_dir(format!("{process}/fd")).expect("its open files").flatten() {
            let Ok(target) = fs::read_link(open.path()) else { continue };
            assert!(!target.is_file() || target.starts_with(&self.root), "{} is open, and is not searched", target.display());
        }
    }
}

/// The request's id, as the head of an answer of the model API has it.
fn id(answer: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(answer);
    let line = head.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix("x-1k4-request-id: "))?;
    Some(line.to_owned())
}

/// What callers do to an answer that does not come to its end.
struct Broken<'a> {
    house: &'a House,
    parrot: &'a Parrot,
    canaries: &'a mut Vec<(String, Canary)>,
    heard: &'a mut Heard,
    recorded: &'a mut usize,
}

impl Broken<'_> {
    async fn hung_up(&mut self) {
        for surface in SURFACES {
            let stream = surface.ask_for_stream();
            for (mood, name) in [(Mood::Stalls, "hung up in the middle"), (Mood::Hangs, "hung up before the answer")] {
                let canary = Canary::fresh();
                let before = self.parrot.count();
                let bytes = surface.ask(&self.house.keys.good, mood, canary.as_str(), stream);
                let mut asked = Exchange::start(&self.house.caller, &bytes).await;
                eventually("the provider hears it", async || self.parrot.heard(canary.as_str(), before)).await;
                if mood == Mood::Stalls && stream {
                    asked.until(canary.as_str()).await;
                }
                self.heard.answers.push(std::mem::take(&mut asked.read));
                drop(asked);
                self.canaries.push((format!("{surface:?}: {name}"), canary));
                *self.recorded += 1;
            }
            let canary = Canary::fresh();
            let bytes = surface.ask(&self.house.keys.good, Mood::Well, canary.as_str(), stream);
            drop(Exchange::start(&self.house.caller, &bytes[..bytes.len() - 3]).await);
            self.canaries.push((format!("{surface:?}: hung up in the middle of the body"), canary));
            *self.recorded += 1;
        }
    }
}

/// Each surface's model of each mood, with a channel of its own: what one does to its provider is no other's business.
fn configuration(parrot: SocketAddr) -> String {
    let mut text = "[admin]\nlisten = \"127.0.0.1:0\"\n[trial]\nfree_requests = 0\n".to_owned();
    let mut by_provider: BTreeMap<(&str, &str), Vec<Surface>> = BTreeMap::new();
    for surface in SURFACES {
        by_provider.entry(surface.provider()).or_default().push(surface);
    }
    for ((provider, kind), surfaces) in by_provider {
        writeln!(text, "[[providers]]\nname = \"{provider}\"").unwrap();
        for (surface, mood) in surfaces.iter().flat_map(|surface| MOODS.map(|mood| (surface, mood))) {
            let model = surface.model(mood);
            let secret = if provider == "azure" {
                format!("{{ env = \"{SECRET_VARIABLE}\" }}")
            } else {
                format!("{{ file = \"{provider}.secret\" }}")
            };
            let deployments =
                if provider == "azure" { format!("deployments = {{ \"{model}\" = \"{model}\" }}\n") } else { String::new() };
            write!(
                text,
                "[[providers.channels]]\nname = \"{model}\"\nkind = \"{kind}\"\nbase_url = \"http://{parrot}\"\nsecret = {secret}\n\
                 models = [\"{model}\"]\n{deployments}"
            )
            .unwrap();
        }
    }
    for surface in SURFACES {
        for mood in MOODS {
            write!(
                text,
                "[[models]]\nid = \"{}\"\nprovider = \"{}\"\nmax_input = 1000\nmax_output = 100\n\
                 usd_per_mtok = {{ input = \"1\", output = \"2\" }}\n",
                surface.model(mood),
                surface.provider().0
            )
            .unwrap();
        }
    }
    text
}

/// `GET` of the operator's listener.
fn ask(addr: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Some providers quote a part of the key that they refuse, and each refuses with another status: of the operator's business callers
/// see nothing, whoever it is.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the release programs: cargo xtask test"]
async fn a_refused_secret_is_not_quoted_to_callers() {
    const KINDS: [(Kind, &str); 5] = [
        (Kind::Openai, "openai"),
        (Kind::Anthropic, "anthropic"),
        (Kind::Gemini, "gemini"),
        (Kind::Xai, "xai"),
        (Kind::Azure, "azure"),
    ];
    let dir = test_dir();
    let fake = FakeProvider::start_all();
    let machine = Machine::new(dir.path().join("lab"));
    let secret = Canary::fresh();
    machine.write_private(".config/1k4-lab/wrong.secret", secret.as_str());
    let mut text = String::new();
    for (of, kind) in KINDS {
        let deployments = if of == Kind::Azure { "deployments = { \"azure-fake\" = \"azure-fake\" }\n" } else { "" };
        write!(
            text,
            "[[providers]]\nname = \"{kind}\"\n[[providers.channels]]\nname = \"{kind}-1\"\nkind = \"{kind}\"\nbase_url = \"{}\"\n\
             secret = {{ file = \"wrong.secret\" }}\n{deployments}[[models]]\nid = \"{kind}-fake\"\nprovider = \"{kind}\"\n\
             max_input = 1000\nmax_output = 100\nusd_per_mtok = {{ input = \"1\", output = \"2\" }}\n",
            fake.url(of)
        )
        .unwrap();
    }
    machine.write(".config/1k4-lab/1k4-lab.toml", &text);
    let lab = tokio::task::block_in_place(|| {
        let lab = Lab::serve(machine, ([127, 0, 0, 1], 0).into(), "https://localhost");
        lab.add_user();
        lab
    });
    let key = tokio::task::block_in_place(|| lab.create_key());
    let caller = lab.caller(&key);
    // What providers show of a key: two characters or more at either end.
    let parts = [&secret.as_str()[..8], &secret.as_str()[secret.as_str().len() - 4..]];
    for (_, kind) in KINDS {
        let mut body = Surface::Chat.body(&format!("{kind}-fake"), "hello", false);
        let mut path = "/v1/chat/completions".to_owned();
        if kind == "gemini" {
            path = format!("/v1beta/models/{kind}-fake:generateContent");
            body = Surface::Gemini.body("", "hello", false);
        }
        let answer = caller.post(&path, &body).await;
        let (status, code) = (answer.status.as_u16(), answer.headers.get("x-1k4-error").cloned());
        let text = answer.text().await;
        assert!(!text.contains("Incorrect API key") && parts.iter().all(|part| !text.contains(part)), "{kind} {status}: {text}");
        assert_eq!((status, code.as_ref().and_then(|code| code.to_str().ok())), (502, Some("upstream_error")), "{kind}: {text}");
    }
}

/// R2: there is nothing to turn on. Every word of the command line, every variable that stands in the program and every key of the
/// configuration is one that is known here, so that whoever adds one looks here first; and none of them is about what passes through.
#[test]
#[ignore = "needs the release programs: cargo xtask test"]
fn nothing_turns_on_the_logging_of_content() {
    let dir = test_dir();
    let machine = Machine::new(dir.path().join("lab"));
    let mut flags = BTreeSet::new();
    let mut left: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(words) = left.pop() {
        let line: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let help = machine.say("1k4-lab", &line);
        assert_eq!(help.code, 0, "{words:?}: {}", help.err);
        let options = help.out.split_whitespace().filter_map(|word| word.strip_prefix("--"));
        let name = |word: &str| word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-').to_owned();
        flags.extend(options.map(name).filter(|name| !name.is_empty()));
        let commands = help.out.split("Commands:").nth(1).unwrap_or_default();
        let verbs = commands.lines().skip(1).take_while(|line| line.starts_with("  "));
        let verbs = verbs.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
        left.extend(verbs.filter(|verb| *verb != "help").map(|verb| [&words[..], &[verb.to_owned()]].concat()));
    }
    let known: BTreeSet<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    assert_eq!(flags, known, "a flag is new or gone: is it about what passes through?");

    let binary = fs::read(program("1k4-lab")).expect("the program");
    let is_name = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    let variables: Vec<String> = binary
        .windows(PREFIX.len())
        .enumerate()
        .filter(|(_, window)| *window == PREFIX.as_bytes())
        .map(|(at, _)| {
            let name = &binary[at..][..binary[at..].iter().take_while(|byte| is_name(byte)).count()];
            String::from_utf8_lossy(name).into_owned()
        })
        .collect();
    // What follows a text in the program has no gap before it. The prefix alone stands in the text that explains secrets.
    let unknown = |name: &&String| *name != PREFIX && !VARIABLES.iter().any(|known| name.starts_with(known));
    let unknown: Vec<&String> = variables.iter().filter(unknown).collect();
    assert!(unknown.is_empty(), "a variable is new: is it about what passes through? {unknown:?}");
    for known in VARIABLES {
        assert!(variables.iter().any(|name| name.starts_with(known)), "the program does not read {known}");
    }
    assert!(!contains(&binary, "RUST_LOG"), "the program knows RUST_LOG");

    // What is no key is refused with the list of those that are.
    for name in ["log_bodies", "debug", "trace", "log", "record", "dump", "capture"] {
        for value in ["true", "false"] {
            machine.write(".config/1k4-lab/1k4-lab.toml", &format!("{name} = {value}\n"));
            let said = machine.say("1k4-lab", &["check"]);
            assert_eq!(said.code, 78, "{name} = {value}");
            assert!(said.err.contains(KEYS), "{}", said.err);
        }
    }
    // And no key has a yes or no.
    let keys = KEYS.split(", ").filter(|key| !["providers", "models"].contains(key));
    for (key, value) in keys.flat_map(|key| [(key, "true"), (key, "false")]) {
        machine.write(".config/1k4-lab/1k4-lab.toml", &format!("{key} = {value}\n"));
        assert_eq!(machine.say("1k4-lab", &["check"]).code, 78, "{key} = {value}");
    }
    let about = ["body", "bodies", "prompt", "content", "payload", "log", "trace", "debug", "verbose", "dump", "capture", "record"];
    for name in FLAGS.iter().chain(VARIABLES).copied().chain(KEYS.split(", ")) {
        let name = name.to_lowercase();
        let words: Vec<&str> = name.split(['_', '-']).collect();
        assert!(!about.iter().any(|word| words.contains(word)), "{name}");
    }
}

/// Every flag of `1k4-lab` and of its verbs.
const FLAGS: &[&str] = &[
    "by",
    "concurrent",
    "config",
    "confirm",
    "data-dir",
    "database",
    "email",
    "exact-usage",
    "expires",
    "from",
    "heads",
    "help",
    "identity",
    "json",
    "limit",
    "listen",
    "model",
    "name",
    "once",
    "overlap",
    "probe",
    "project",
    "public-url",
    "rpm",
    "scope",
    "spend-day",
    "spend-month",
    "spend-total",
    "test",
    "tls-cert",
    "tls-key",
    "to",
    "tpm",
    "user",
    "version",
];

/// Every variable that `1k4-lab` reads.
const VARIABLES: &[&str] = &[
    "ONEK4_LAB_CONFIG",
    "ONEK4_LAB_DATA_DIR",
    "ONEK4_LAB_DATABASE",
    "ONEK4_LAB_LISTEN",
    "ONEK4_LAB_PUBLIC_URL",
    "ONEK4_LAB_TLS_CERT",
    "ONEK4_LAB_TLS_KEY",
    // Inside an env file, not in the environment.
    "ONEK4_MASTER_KEY",
];
/// With which they begin.
const PREFIX: &str = "ONEK4_";

/// Every key at the top of the configuration.
const KEYS: &str = "data_dir, database, listen, public_url, tls, admin, limits, trial, audit, storage, vault, backup, providers, models, \
                    upstream, agents, assistant, sign_in, mail";
