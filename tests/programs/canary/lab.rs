//! Row 4 of the Lab's issue, and promises R12 and R27: what people keep in the Lab is sealed wherever it lies, and nowhere else.
//!
//! Every text that any route takes is sent with a canary of its own, once the way it should be and then in the ways it should not.
//! Afterwards nothing of it is to be found: not in the database nor its log, not in blobs, tails, temporary folders, or in what was
//! printed. What a development Lab writes instead of sending mail is the one place where words stand as they are.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::{HeaderValue, Method, StatusCode};
use journeys::{
    caller::{Caller, Whole},
    description::{Description, Draft, Fill, Meaning, Operation, Place, Text, guess, made, makes, meaning},
    programs::{PATIENCE, Pair},
};
use lab_server::{
    Config,
    account::session,
    store::{MAIL, Store, Subject, now_ms},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::search::{Canary, Hit, Search};

/// Answers that never end.
const ENDLESS: &str = "local/tiny-z3";
/// Shorter than this a text cannot hold a canary.
const LENGTH: u64 = 32;
/// More than a body may be.
const TOO_LARGE: usize = 1024 * 1024 + 1;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the release programs: cargo xtask test"]
async fn nothing_of_the_lab_lies_open_when_it_is_stopped() {
    nothing_lies_open(false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the release programs: cargo xtask test"]
async fn nothing_of_the_lab_lies_open_when_it_is_killed() {
    nothing_lies_open(true).await;
}

async fn nothing_lies_open(killed: bool) {
    let pair = Pair::start(&["tiny-h400", "tiny-z3"]).await;
    let description = Description::of_this_lab();
    let mut house = House::open(&pair).await;
    let cookie = house.cookie.clone();
    house.every_field(&description).await;
    house.every_failure(&description).await;
    println!("{} canaries in {} requests, {} of them accepted", house.canaries.len(), house.asked, house.accepted);
    for label in &house.never_accepted(&description) {
        println!("never accepted: {label}");
    }

    house.is_answered().await;
    back_up(&pair);

    let data = pair.lab.machine.home().join(".local/share/1k4-lab");
    if killed {
        pair.lab.service().kill();
        assert!(data.join("lab.sqlite-wal").exists(), "the killed Lab's log is searched too");
    } else {
        pair.lab.service().signal(Signal::TERM);
        assert_eq!(pair.lab.service().wait(), Some(0), "{}", pair.lab.service().err());
    }

    let token = cookie.split_once('=').map(|(_, token)| token.to_owned()).expect("a cookie");
    let token = Canary::of(&token);
    let named = house.canaries.iter().map(|(name, canary)| (name.as_str(), canary));
    let search = Search::new(named.chain([("the session's cookie", &token)]));
    let planted = pair.dir().join("lab/home/planted");
    let (_, first) = house.canaries.first().expect("a canary");
    fs::write(&planted, HEXLOWER.encode(first.as_str().as_bytes())).expect("planted");
    let (found, files) = search.directory(pair.dir());
    let is_planted = |hit: &&Hit| hit.at == planted.display().to_string();
    assert!(found.iter().any(|hit| is_planted(&hit)), "the planted one was not found");
    let leaks: Vec<_> = found.iter().filter(|hit| !is_planted(hit) && !hit.at.contains("/outbox/")).collect();
    println!("{} canaries in {files} files: {} found", house.canaries.len(), leaks.len());
    assert!(leaks.is_empty(), "{leaks:#?}");
    // A session's token is known by its hash alone (R27), and that one is there.
    let hash = Sha256::digest(token.as_str().as_bytes());
    assert!(holds(&data, &hash), "the hash of the session's token stands in the database");
}

/// Copies everything to two places, while it runs. Nobody has the identity that opens them: they are searched as they are.
fn back_up(pair: &Pair) {
    let config = "[backup]\nrecipients = [\"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\"]\n\
                  destinations = [\"copies/one\", \"copies/two\"]\n";
    pair.lab.machine.write_private("backup.toml", config);
    // A place that is not there may be a disk that was not mounted, so none is made.
    for place in ["one", "two"] {
        pair.lab.machine.write(&format!("copies/{place}/here"), "");
    }
    let said = pair.lab.machine.say("1k4-lab", &["backup", "create", "--config", "backup.toml"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let copies = fs::read_dir(pair.lab.machine.home().join("copies/two")).expect("copies").count();
    assert!(copies >= 3, "only {copies} files at the second place");
}

/// Somebody's browser at a Lab, and everything that was said in it.
struct House {
    caller: Caller,
    cookie: String,
    /// What the person has, by noun.
    things: HashMap<&'static str, String>,
    canaries: Vec<(String, Canary)>,
    asked: usize,
    accepted: usize,
    /// Operations that were answered with success.
    done: Vec<String>,
}

impl House {
    async fn open(pair: &Pair) -> Self {
        // A second process beside the running Lab, as the operator's commands are.
        let config = Config::in_dir(pair.lab.machine.home().join(".local/share/1k4-lab"));
        let store = Store::of(&config).await.expect("the database");
        let (name, address) = (Canary::fresh(), Canary::fresh());
        // Whose workstation answers.
        let user = pair.lab.admin(&["users", "list"])[0]["id"].as_str().expect("a user").parse().expect("an id");
        // Only now: what the command prints is kept, and searched.
        store.add_user(name.as_str()).await.expect("a user");
        let subject = Subject {
            provider: MAIL.to_owned(),
            subject: format!("{address}@example.com"),
            email: Some(format!("{address}@example.com")),
        };
        let identity = store.add_identity(user, &subject, now_ms()).await.expect("an identity").id;
        let browser = session::Browser::of(Some(&HeaderValue::from_static("Mozilla/5.0 (X11; Linux x86_64) Firefox/150.0")));
        let new = session::open(&store, user, identity, &browser, now_ms()).await.expect("a session");
        store.close().await.expect("the database closes");
        let cookie = new.cookie().to_str().expect("a cookie").split(';').next().unwrap_or_default().to_owned();
        let canaries = vec![("a person's name".to_owned(), name), ("a person's address".to_owned(), address)];
        let caller = pair.lab.caller(&pair.key).with_key(None);
        Self { caller, cookie, things: HashMap::new(), canaries, asked: 0, accepted: 0, done: Vec::new() }
    }

    /// A canary in every text of every route, in the order in which things come into being and go.
    async fn every_field(&mut self, description: &Description) {
        let mut operations = description.operations();
        let step = |operation: &Operation<'_>| match operation.method {
            _ if makes(operation).is_some() => 0,
            Method::PUT => 1,
            Method::PATCH => 2,
            Method::POST => 3,
            Method::DELETE => 5,
            _ => 4,
        };
        // Signing out would end all that follows; to delete the account asks for more than words.
        let ends_all =
            |operation: &Operation<'_>| ["/api/sign-out", "/api/account"].contains(&operation.path) && !operation.is_safe();
        operations.retain(|operation| !operation.streams() && !ends_all(operation));
        operations.sort_by_key(|operation| (step(operation), operation.path.matches('/').count()));
        // What belongs into something else can be made once that is there.
        for _ in 0..2 {
            for operation in operations.iter().filter(|operation| makes(operation).is_some()) {
                self.plainly(operation).await;
            }
        }
        for operation in &operations {
            let texts = operation.texts();
            let words: Vec<_> =
                texts.iter().filter(|text| text.longest.is_none_or(|longest| longest >= LENGTH) && !is_open(text)).collect();
            for text in words {
                let canary = Canary::fresh();
                let draft = operation.draft(Fill::With(text), &mut |other| {
                    if (other.place, &other.name) == (text.place, &text.name) {
                        fitted(text, &canary)
                    } else {
                        self.chooses(operation, other)
                    }
                });
                let draft = draft.completed(operation, ENDLESS);
                self.send(operation, &draft, &format!("{} {}", operation.label(), text.name), canary).await;
            }
            // What is deleted by an identity that is a canary stays; by its own it goes.
            self.plainly(operation).await;
        }
    }

    /// As it should be, with nothing to hide in it.
    async fn plainly(&mut self, operation: &Operation<'_>) {
        let draft = operation.draft(Fill::Least, &mut |text| self.chooses(operation, text));
        let answer = self.ask(operation.method.clone(), &draft.completed(operation, ENDLESS), &[]).await;
        self.note(operation, &answer);
    }

    /// Everything that can be wrong with a request that has a body, and words in places where none are expected.
    async fn every_failure(&mut self, description: &Description) {
        for operation in description.operations().iter().filter(|operation| operation.media_type().is_some()) {
            let draft = operation.draft(Fill::Least, &mut |text| self.chooses(operation, text));
            let kind = operation.media_type().unwrap_or_default();
            let label = operation.label();
            for (how, kind) in [
                ("no JSON", kind),
                ("a field that is not", kind),
                ("another type", "application/x-1k4"),
                ("a type of forms", "application/x-www-form-urlencoded"),
                ("too large", kind),
            ] {
                let canary = Canary::fresh();
                let body = match how {
                    "a field that is not" => format!("{{\"{canary}\":\"{canary}\"}}").into_bytes(),
                    "too large" => format!("{{\"name\":\"{canary}{}\"}}", "x".repeat(TOO_LARGE)).into_bytes(),
                    _ => format!("{{\"name\":\"{canary}\"").into_bytes(),
                };
                let draft = Draft { body: Some((kind.to_owned(), body)), ..draft.clone() };
                if how == "too large" {
                    // The connection is closed over what was not read, maybe before the answer is.
                    self.unheard(operation, &draft, &format!("{label}: {how}"), canary, 0).await;
                } else {
                    self.send(operation, &draft, &format!("{label}: {how}"), canary).await;
                }
            }
            let canary = Canary::fresh();
            let body = Some((kind.to_owned(), format!("{{\"name\":\"{canary}").into_bytes()));
            let half = Draft { body, ..draft };
            self.unheard(operation, &half, &format!("{label}: hung up in the middle of the body"), canary, 4096).await;
        }
        for operation in description.operations() {
            let canary = Canary::fresh();
            let draft = operation.draft(Fill::Least, &mut |text| self.chooses(&operation, text));
            let mut path = draft.path.clone();
            path.push_str(if path.contains('?') { "&" } else { "?" });
            path.push_str(&format!("{canary}={canary}"));
            let name = format!("{}: a query and headers that are not", operation.label());
            let headers = [("x-1k4-unknown", canary.as_str()), ("user-agent", canary.as_str()), ("referer", canary.as_str())];
            if operation.method == Method::GET && !operation.streams() {
                self.canaries.push((name, canary.clone()));
                self.ask(Method::GET, &Draft { path, ..Draft::default() }, &headers).await;
            }
        }
    }

    /// Sends a body, which was announced as so many bytes longer, and leaves.
    async fn unheard(&mut self, operation: &Operation<'_>, draft: &Draft, name: &str, canary: Canary, missing: usize) {
        let (kind, body) = draft.body.as_ref().expect("a body");
        let head = format!(
            "{} {} HTTP/1.1\r\nhost: localhost\r\ncookie: {}\r\nsec-fetch-site: same-origin\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\n\r\n",
            operation.method,
            draft.path,
            self.cookie,
            body.len() + missing,
        );
        self.canaries.push((name.to_owned(), canary));
        let mut stream = self.next_caller().connect().await;
        // The Lab may have refused it before all of it was sent.
        let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
        let _ = stream.flush().await;
    }

    /// Sends it, remembers the canary and what was made of it.
    async fn send(&mut self, operation: &Operation<'_>, draft: &Draft, name: &str, canary: Canary) {
        self.canaries.push((name.to_owned(), canary));
        let answer = self.ask(operation.method.clone(), draft, &[]).await;
        self.note(operation, &answer);
    }

    fn note(&mut self, operation: &Operation<'_>, answer: &Whole) {
        // Servers that people name are not the Lab's, and the one of this house does not speak the protocol of tools.
        let is_anothers = answer.status == StatusCode::BAD_GATEWAY && answer.text().contains("\"tool_server\"");
        assert!(is_anothers || !answer.status.is_server_error(), "{}: {} {}", operation.label(), answer.status, answer.text());
        if !answer.status.is_success() {
            return;
        }
        self.accepted += 1;
        self.done.push(operation.label());
        let told = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
        if let (Some(id), Some(noun)) = (made(&told), makes(operation)) {
            self.things.insert(noun, id.to_owned());
        }
    }

    async fn ask(&mut self, method: Method, draft: &Draft, headers: &[(&str, &str)]) -> Whole {
        let kind = draft.body.as_ref().map_or("application/json", |(kind, _)| kind.as_str());
        let cookie = self.cookie.clone();
        let mut all = vec![("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin"), ("content-type", kind)];
        all.extend(draft.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        all.extend(headers);
        let body = Bytes::from(draft.body.as_ref().map(|(_, body)| body.clone()).unwrap_or_default());
        let mut line = self.next_caller().line().await;
        timeout(PATIENCE, line.ask(method, &draft.path, &all, body)).await.expect("an answer in time")
    }

    /// Each 250 requests come from another address: the Lab lets one ask 300 times at once.
    fn next_caller(&mut self) -> Caller {
        self.asked += 1;
        let [.., middle, low] = (self.asked / 250 + 1).to_be_bytes();
        let address = if cfg!(target_os = "linux") { [127, 0, middle, low] } else { [127, 0, 0, 1] };
        self.caller.at(address.into())
    }

    /// Asks a model once more, now that everything was deleted, and waits until it is saying something: the Lab is to be stopped in the
    /// middle of an answer, with its question's canary in it.
    async fn is_answered(&mut self) {
        let canary = Canary::fresh();
        let project = self.make("/api/projects", &json!({ "name": canary.as_str() })).await;
        let conversation = self.make("/api/conversations", &json!({ "project": project["id"], "title": canary.as_str() })).await;
        let says = json!([{ "type": "text", "text": canary.as_str() }]);
        let order = json!({ "conversation": conversation["id"], "says": says, "model": { "model": ENDLESS } });
        let started = self.make("/api/runs", &order).await;
        self.canaries.push(("a question that is being answered".to_owned(), canary));
        let run = started["run"]["id"].as_str().expect("a run").to_owned();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let draft = Draft { path: format!("/api/runs/{run}"), ..Draft::default() };
            let answer = self.ask(Method::GET, &draft, &[]).await;
            if answer.json()["last_seq"].as_u64() >= Some(3) {
                return;
            }
            assert!(Instant::now() < deadline, "nothing is answered: {}", answer.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn make(&mut self, path: &str, body: &Value) -> Value {
        let body = Some(("application/json".to_owned(), body.to_string().into_bytes()));
        let answer = self.ask(Method::POST, &Draft { path: path.to_owned(), body, ..Draft::default() }, &[]).await;
        assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text());
        answer.json()
    }

    fn chooses(&self, operation: &Operation<'_>, text: &Text) -> String {
        match meaning(operation, text) {
            Meaning::Identity(noun) => self.things.get(noun).cloned().or_else(|| guess(noun)).unwrap_or_default(),
            Meaning::Words | Meaning::Unknown => plain(text),
        }
    }

    fn never_accepted(&self, description: &Description) -> Vec<String> {
        let takes_session = |operation: &Operation<'_>| operation.credentials().contains(&"session") && !operation.streams();
        let all = description.operations().into_iter().filter(takes_session).map(|operation| operation.label());
        all.filter(|label| !self.done.contains(label)).collect()
    }
}

/// Which models a key may ask is a term of its, such as its limits are, and stands beside them: names of models, no words of people.
fn is_open(text: &Text) -> bool {
    text.name == "models"
}

/// The canary in the form that the field asks for.
fn fitted(text: &Text, canary: &Canary) -> String {
    match text.name.rsplit('.').next().unwrap_or_default() {
        "url" => format!("https://{canary}.example/{canary}"),
        "email" | "address" => format!("{canary}@example.com"),
        "path" if text.place != Place::Path => format!("{canary}/{canary}.txt"),
        _ => canary.as_str().to_owned(),
    }
}

/// Words with nothing to them, in the form that the field asks for.
fn plain(text: &Text) -> String {
    match text.name.rsplit('.').next().unwrap_or_default() {
        "by" => "day",
        "day" | "month" | "total" => "1.5",
        "from" | "to" => "2026-11-20",
        "cursor" | "after" => "1",
        "media_type" => "text/plain",
        "tool" => "files_write",
        "url" => "https://tools.example/mcp",
        "path" => "a.txt",
        _ => "x",
    }
    .to_owned()
}

/// Whether these bytes stand in a database of that folder or in its log.
fn holds(data: &Path, bytes: &[u8]) -> bool {
    ["lab.sqlite", "lab.sqlite-wal"].iter().any(|name| {
        let file = fs::read(data.join(name)).unwrap_or_default();
        file.windows(bytes.len()).any(|window| window == bytes)
    })
}
