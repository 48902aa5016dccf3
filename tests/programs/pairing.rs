//! Two machines are paired by what a person types and clicks, and parted again.

use journeys::{
    fake_ollama::FakeOllama,
    fault_proxy::FaultProxy,
    programs::{Lab, Machine, Service, Workstation, chat, lab, test_dir, text_of, until},
    world::eventually,
};
use serde_json::Value;
use tempfile::TempDir;

/// A Lab with its user, and a machine on which nothing has been set up.
struct Start {
    workstation: Workstation,
    lab: Lab,
    key: String,
    ollama: FakeOllama,
    _network: FaultProxy,
    _dir: TempDir,
}

fn start() -> Start {
    let dir = test_dir();
    let network = FaultProxy::start(([127, 0, 0, 1], 9).into());
    let (lab, key) = lab(dir.path(), &network);
    let workstation = Workstation::new(Machine::new(dir.path().join("workstation")));
    Start { workstation, lab, key, ollama: FakeOllama::start(), _network: network, _dir: dir }
}

/// What a login shows a person: the address, the code, the words.
fn shown(login: &Service) -> (String, String, String) {
    let after = |out: &str, label: &str| {
        let line = out.lines().find_map(|line| line.strip_prefix(label))?;
        Some(line.trim().trim_start_matches("that the page shows the words").trim().to_owned())
    };
    until("the code to be shown", || {
        assert!(login.is_running(), "the login ended: {}", login.err());
        let out = login.out();
        // The line after them says that they are all there.
        out.contains("Waiting for the approval (the code holds for 10 min").then_some(())?;
        Some((after(&out, "Open")?, after(&out, "Enter")?, after(&out, "Check")?))
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the release programs: cargo xtask test"]
async fn a_workstation_is_paired_by_typing_and_revoked() {
    let mut start = start();
    let Start { workstation, lab, key, ollama, .. } = &mut start;
    let said = workstation.say(&["status"]);
    assert_eq!((said.code, said.out.as_str()), (3, ""), "nothing runs yet: {}", said.err);
    let login = workstation.start_login(lab, &[]);
    let (address, code, words) = shown(&login);
    assert_eq!(address, format!("{}/pair", lab.url));
    assert_eq!(words.split('-').count().max(words.split(' ').count()), 4, "four words: {words}");

    let pending = lab.machine.say("1k4-lab", &["admin", "devices", "pending"]);
    let row = pending.out.lines().find(|line| line.starts_with(&code)).expect("the Lab shows the code");
    assert!(row.contains(&words) && row.contains("workstation"), "{row:?} does not show {words:?}");
    // As somebody types it who read it aloud.
    let typed = code.to_lowercase().replace('-', " ");
    let approved = lab.machine.say("1k4-lab", &["admin", "devices", "approve", &typed]);
    assert_eq!((approved.code, approved.out.as_str()), (0, "approved workstation for ada; its bridge links within seconds\n"));
    assert_eq!(login.wait(), Some(0), "{}", login.err());

    let told = login.out();
    assert!(told.contains(&format!("Paired with {} for ada.\n", lab.url)), "{told}");
    assert!(
        told.ends_with("Start the bridge: `1k4-bridge run`, or `1k4-bridge service install` to have it always on.\n"),
        "{told}"
    );
    // Of what it was told nothing has to be said again.
    workstation.configure(&format!("ollama_host = {}\n", Value::from(ollama.url())));

    workstation.run();
    let status = workstation.wait_until_linked(0);
    assert_eq!(status["link"]["lab"], lab.url.as_str());
    assert_eq!(status["name"], "workstation");
    let caller = lab.caller(key);
    eventually("a model is listed", async || caller.models().await.contains(&"local/tiny:latest".to_owned())).await;
    let (answer, _) = caller.post("/api/chat", &chat("tiny", "hello")).await.read().await;
    assert!(text_of(&answer).starts_with("« hello »"));

    let said = lab.machine.say("1k4-lab", &["admin", "devices", "revoke", "workstation"]);
    assert_eq!((said.code, said.out.as_str()), (0, "revoked workstation; its link is closed within a second\n"));
    let status = workstation.wait_for_link("the link to be refused", |link| link["state"] == "refused");
    assert_eq!(status["link"]["code"], "revoked");
    let said = workstation.say(&["status"]);
    assert_eq!(said.code, 0);
    assert!(said.out.starts_with(&format!("● Refused by {}\n", lab.url)), "{}", said.out);
    assert!(said.out.contains("revoked this workstation; pair it again with `1k4-bridge login`"), "{}", said.out);
    let doctor = workstation.say(&["doctor"]);
    assert_eq!(doctor.code, 6, "{}", doctor.out);
    assert!(doctor.out.contains("revoked"), "{}", doctor.out);
    let refused = caller.post("/api/chat", &chat("tiny", "hello")).await;
    assert_eq!(refused.status, 503, "no workstation is left");

    let said = workstation.say(&["logout"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.starts_with("The pairing is forgotten and the device's key removed."), "{}", said.out);
    workstation.wait_for_link("the pairing to be forgotten", |link| link["state"] == "unpaired");
    for forgotten in ["device-key", "device.toml"] {
        assert!(!workstation.file(".local/state/1k4-bridge").join(forgotten).exists(), "{forgotten} is still there");
    }
    assert_eq!(workstation.say(&["logout"]).code, 4, "there is nothing left to forget");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the release programs: cargo xtask test"]
async fn a_workstation_is_paired_on_the_page() {
    let mut start = start();
    let Start { workstation, lab, ollama, .. } = &mut start;
    workstation.configure(&format!(
        "ca_file = {}\nollama_host = {}\ncredential_store = \"insecure-file\"\ndevice_name = \"workstation\"\n",
        Value::from(workstation.trust(lab)),
        Value::from(ollama.url())
    ));
    // Somebody has started it first, and pairs it now.
    workstation.run();
    assert_eq!(workstation.status()["link"]["state"], "unpaired");
    let login = workstation.machine.start("1k4-bridge", &["login", &lab.url]);
    let (address, code, words) = shown(&login);

    // Letting a workstation in takes more than asking a model.
    let key = &lab.create_key_with(&["--scope", "manage"]);
    let browser = Browser { lab };
    let page = browser.get(&address);
    assert_eq!(page.status, 200);
    assert!(page.html.contains(r#"<form method="post" action="/pair/review">"#), "{}", page.html);
    let review = |code: &str, key: &str| browser.post("/pair/review", &[("code", code), ("key", key)], "same-origin");
    let wrong = review("BBBB-BBBB", key);
    assert_eq!(wrong.status, 422);
    assert!(wrong.html.contains("No workstation waits under this code."), "{}", wrong.html);
    assert_eq!(review(&code, "1k4_live_nobody").status, 403);
    assert_eq!(browser.post("/pair/review", &[("code", &code), ("key", key)], "cross-site").status, 403);
    let right = review(&code, key);
    assert_eq!(right.status, 200);
    assert!(right.html.contains(&format!("<dd class=\"words\">{words}</dd>")), "{words} is not in {}", right.html);
    assert!(right.html.contains("<dd>workstation</dd>") && right.html.contains(&code), "{}", right.html);
    assert!(!right.html.contains(key.as_str()), "the key is on the page");

    let (_, rest) = right.html.split_once(r#"name="ticket" value=""#).expect("a ticket");
    let (ticket, _) = rest.split_once('"').expect("its end");
    let decide = || browser.post("/pair/decide", &[("ticket", ticket), ("decision", "approve")], "same-origin");
    let approved = decide();
    assert_eq!(approved.status, 200);
    assert!(approved.html.contains("<strong>workstation</strong> is yours"), "{}", approved.html);
    assert_eq!(decide().status, 422, "a ticket is good for one decision");

    assert_eq!(login.wait(), Some(0), "{}", login.err());
    assert!(login.out().ends_with("The running bridge dials now; `1k4-bridge status` shows it.\n"), "{}", login.out());
    workstation.wait_until_linked(0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the release programs: cargo xtask test"]
async fn a_workstation_that_is_turned_away_keeps_nothing() {
    let start = start();
    let Start { workstation, lab, .. } = &start;
    let login = workstation.start_login(lab, &[]);
    let (_, code, _) = shown(&login);
    assert!(workstation.file(".local/state/1k4-bridge/device-key").exists(), "the key is made first");
    lab.admin(&["devices", "deny", &code]);
    assert_eq!(login.wait(), Some(5));
    assert_eq!(login.err(), "1k4-bridge: the pairing was declined at the Lab\n");
    assert!(!workstation.file(".local/state/1k4-bridge/device-key").exists(), "the key of the attempt is left");
    assert!(!workstation.file(".local/state/1k4-bridge/device.toml").exists(), "a pairing is left");
    assert_eq!(lab.admin(&["devices", "list"]), serde_json::json!([]));
}

/// What a browser does with the page, by curl.
struct Browser<'a> {
    lab: &'a Lab,
}

struct Page {
    status: u16,
    html: String,
}

impl Browser<'_> {
    fn get(&self, url: &str) -> Page {
        self.ask(&format!("url = \"{url}\"\n"))
    }

    fn post(&self, path: &str, fields: &[(&str, &str)], site: &str) -> Page {
        let fields: String = fields.iter().map(|(name, value)| format!("data-urlencode = \"{name}={value}\"\n")).collect();
        self.ask(&format!("url = \"{}{path}\"\nheader = \"sec-fetch-site: {site}\"\n{fields}", self.lab.url))
    }

    fn ask(&self, request: &str) -> Page {
        let said = self.lab.machine.say_to_tool(
            "curl",
            &["--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}", "--config", "-"],
            &format!("cacert = \"{}\"\n{request}", self.lab.ca_file.display()),
        );
        assert_eq!(said.code, 0, "{}", said.err);
        let (html, status) = said.out.rsplit_once('\n').expect("a status");
        Page { status: status.parse().expect("a number"), html: html.to_owned() }
    }
}
