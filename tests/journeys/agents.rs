//! Row 8: an agent that does its work, and one that wants something else.

mod news;
mod servers;
mod spending;

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use journeys::{
    caller::Caller,
    fake_ollama::{Capability, Model},
    scripted::Step,
    world::{Wishes, World, eventually},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The owner at their browser, in one project and one conversation.
struct Desk {
    browser: Caller,
    project: String,
    conversation: String,
}

impl Desk {
    async fn of(world: &World) -> Self {
        Self::at(world.sign_in().await).await
    }

    async fn at(browser: Caller) -> Self {
        let projects = browser.get("/api/projects").await.json().await;
        let project = projects["data"][0]["id"].as_str().expect("a project").to_owned();
        let made = browser.post("/api/conversations", &json!({ "project": project })).await.json().await;
        let conversation = made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        Self { browser, project, conversation }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.browser.post(path, &body).await;
        let status = answer.status;
        let said = answer.json().await;
        assert!(status.is_success(), "{path}: {status} {said}");
        said
    }

    async fn get(&self, path: &str) -> Value {
        self.browser.get(path).await.json().await
    }

    /// Whatever the tool is about, it may.
    async fn allow(&self, tool: &str) {
        let rule = json!({ "tool": tool, "targets": { "type": "any" }, "verdict": "allow" });
        self.post(&format!("/api/projects/{}/rules", self.project), rule).await;
    }

    async fn start(&self, model: &str, agent: Value) -> String {
        self.start_as(model, Some(agent)).await
    }

    /// Without terms for an agent it is an answer in a chat.
    async fn start_as(&self, model: &str, agent: Option<Value>) -> String {
        let says = json!([{ "type": "text", "text": "do it" }]);
        let mut order = json!({ "conversation": self.conversation, "says": says, "model": { "model": model } });
        if let Some(agent) = agent {
            order["agent"] = agent;
        }
        let started = self.post("/api/runs", order).await;
        started["run"]["id"].as_str().expect("a run").to_owned()
    }

    /// The one question that waits for an answer.
    async fn question(&self) -> Value {
        let pending = async || self.get("/api/approvals").await["data"].as_array().expect("a list").clone();
        eventually("a question", async || !pending().await.is_empty()).await;
        pending().await.remove(0)
    }

    async fn answer(&self, question: &Value, body: Value) -> Value {
        self.post(&format!("/api/approvals/{}", question["id"].as_str().expect("an id")), body).await
    }

    /// How the run ended, and its message.
    async fn end(&self, run: &str) -> (String, Vec<Value>) {
        // The stream ends when the run has, and its message is written.
        let told = self.browser.get(&format!("/api/runs/{run}/events")).await.text().await;
        assert!(told.contains("\"outcome\""), "{told}");
        let state = self.get(&format!("/api/runs/{run}")).await["state"].as_str().expect("a state").to_owned();
        let message = self.get(&format!("/api/runs/{run}")).await["message"].clone();
        let messages = self.get(&format!("/api/conversations/{}/messages", self.conversation)).await;
        let made = messages["data"].as_array().expect("messages").iter().find(|made| made["id"] == message).cloned();
        let parts = made.expect("the message")["content"]["parts"].as_array().cloned().unwrap_or_default();
        (state, parts)
    }

    /// Everything that was done in the project, oldest first.
    async fn operations(&self) -> Vec<Value> {
        let page = self.get(&format!("/api/projects/{}/operations?limit=200&order=oldest", self.project)).await;
        page["data"].as_array().unwrap_or_else(|| panic!("{page}")).clone()
    }

    /// The files' texts by their paths.
    async fn files(&self) -> BTreeMap<String, String> {
        let listed = self.get(&format!("/api/projects/{}/files", self.project)).await;
        let mut files = BTreeMap::new();
        for file in listed["data"].as_array().unwrap_or_else(|| panic!("{listed}")) {
            let id = file["id"].as_str().expect("an id");
            let text = self.browser.get(&format!("/api/projects/{}/files/{id}/content", self.project)).await.text().await;
            files.insert(file["path"].as_str().expect("a path").to_owned(), text);
        }
        files
    }
}

async fn world(parts: &[(&str, Vec<Step>)]) -> World {
    world_with(Wishes::default(), parts).await
}

async fn world_with(wishes: Wishes, parts: &[(&str, Vec<Step>)]) -> World {
    let world = World::with(wishes).await;
    for (model, part) in parts {
        world.ollama.add_model(Model::new(model).with(&[Capability::Completion, Capability::Tools]));
        world.ollama.plays(model, part.clone());
    }
    eventually("the models are known", async || {
        let known = world.caller.models().await;
        parts.iter().all(|(model, _)| known.iter().any(|name| name.contains(model)))
    })
    .await;
    world
}

fn results(parts: &[Value]) -> Vec<(bool, String)> {
    let results = parts.iter().filter(|part| part["type"] == "tool_result");
    results.map(|part| (part["ok"] == true, part["text"].as_str().expect("a text").to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_twenty_steps_is_done_with_two_approvals_and_one_delegation() {
    let world = world(&[("helper", vec![Step::say("forty-two")]), ("boss", vec![Step::say("nothing yet")])]).await;
    let desk = Desk::of(&world).await;
    let task = desk.post(&format!("/api/projects/{}/tasks", desk.project), json!({ "title": "count" })).await;
    let task = task["id"].as_str().expect("an id");
    for tool in ["files_patch", "tasks_update", "tasks_assign"] {
        desk.allow(tool).await;
    }
    let write = |path: &str, text: &str| Step::call("files_write", &json!({ "path": path, "text": text }));
    let part = [
        Step::call("files_list", &json!({})),
        write("docs/a.md", "one two"),
        write("docs/b.md", "three"),
        Step::call("files_read", &json!({ "path": "docs/a.md" })),
        Step::call("files_patch", &json!({ "path": "docs/a.md", "edits": [{ "old": "two", "new": "2" }] })),
        Step::call("files_patch", &json!({ "path": "docs/a.md", "edits": [{ "old": "two", "new": "2" }] })),
        Step::call("files_search", &json!({ "text": "THREE" })),
        Step::call("tasks_create", &json!({ "title": "first" })),
        Step::call("tasks_create", &json!({ "title": "second" })),
        Step::call("tasks_list", &json!({})),
        Step::call("tasks_update", &json!({ "task": task, "state": "done" })),
        Step::call("tasks_assign", &json!({ "task": task, "assignee": "person" })),
        Step::call("delegate", &json!({ "model": "local/helper", "task": "say a number" })),
        write("docs/c.md", "forty-two"),
        write("docs/d.md", "d"),
        write("docs/e.md", "e"),
        write("docs/a.md", "all new"),
        Step::call("files_list", &json!({ "pattern": "docs/*" })),
        Step::call("files_read", &json!({ "path": "docs/c.md" })),
        Step::say("done"),
    ];
    assert_eq!(part.len(), 20);
    world.ollama.plays("boss", part);
    let run = desk.start("local/boss", json!({})).await;

    let first = desk.question().await;
    assert_eq!((&first["question"]["tool"], &first["question"]["target"]), (&json!("files_write"), &json!("docs/a.md")));
    assert_eq!(first["question"]["arguments"], json!({ "path": "docs/a.md", "text": "one two" }));
    let elsewhere = json!({ "scope": "project", "targets": { "type": "matching", "pattern": "other/**" } });
    let asked = format!("/api/approvals/{}", first["id"].as_str().unwrap());
    let unfit = desk.browser.post(&asked, &json!({ "decision": "allow", "remember": elsewhere })).await;
    assert_eq!(unfit.status, 400);
    let docs = json!({ "scope": "project", "targets": { "type": "matching", "pattern": "docs/**" } });
    desk.answer(&first, json!({ "decision": "allow", "remember": docs })).await;
    let again =
        desk.browser.post(&format!("/api/approvals/{}", first["id"].as_str().unwrap()), &json!({ "decision": "deny" })).await;
    assert_eq!(again.status, 409);
    let second = desk.question().await;
    assert_eq!(second["question"]["tool"], "tasks_create");
    let any = json!({ "scope": "run", "targets": { "type": "any" } });
    desk.answer(&second, json!({ "decision": "allow", "remember": any })).await;

    let (state, parts) = desk.end(&run).await;
    let results = results(&parts);
    assert_eq!((state.as_str(), results.len()), ("done", 19), "{results:?}");
    let failed: Vec<usize> = results.iter().enumerate().filter(|(_, (ok, _))| !ok).map(|(at, _)| at).collect();
    assert_eq!(failed, [5], "only the patch that does not fit: {results:?}");
    assert_eq!(results[12].1, "forty-two");
    assert_eq!(desk.get("/api/approvals").await["data"], json!([]));

    let operations = desk.operations().await;
    let of_agent: Vec<&Value> = operations.iter().filter(|line| line["actor"]["type"] == "agent").collect();
    let asked = of_agent.iter().filter(|line| line["action"] == "model_asked").count();
    assert_eq!((asked, of_agent.len()), (20, 1 + 20 + 19 + 1), "the run's two ends, each question and each call are lines");
    let delegated = of_agent.iter().find(|line| line["action"] == "delegated").expect("the delegation");
    assert_eq!((&delegated["device"], &delegated["result"]["outcome"]), (&json!("workstation"), &json!("done")));
    let rules = desk.get(&format!("/api/projects/{}/rules", desk.project)).await;
    assert_eq!(rules["data"].as_array().unwrap().len(), 4);
    // What the log says was written is what is there.
    let mut replayed = BTreeMap::new();
    for line in of_agent.iter().filter(|line| line["result"]["outcome"] == "done") {
        if let Some(hash) = line["arguments"]["sha256"].as_str() {
            replayed.insert(line["target"].as_str().expect("a path").to_owned(), hash.to_owned());
        }
    }
    let hash = |text: &String| data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
    let files = desk.files().await;
    assert_eq!(files.iter().map(|(path, text)| (path.clone(), hash(text))).collect::<BTreeMap<_, _>>(), replayed);
    assert_eq!((files.len(), files["docs/a.md"].as_str()), (5, "all new"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malicious_model_neither_gets_out_nor_goes_on_for_ever() {
    let touched = Arc::<AtomicUsize>::default();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let counted = Arc::clone(&touched);
    let canary = tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let world = world(&[("evil", vec![Step::say("x")]), ("endless", vec![Step::call("files_list", &json!({}))])]).await;
    let desk = Desk::of(&world).await;
    // A project of the same owner's that the agent has no business in.
    let other = world.lab.store.add_project(world.user, "other").await.unwrap().id.to_string();
    let secret = desk.post(&format!("/api/projects/{other}/tasks"), json!({ "title": "secret" })).await;
    let secret = secret["id"].as_str().expect("an id").to_owned();
    // Even whoever is asked for nothing gets out of nothing.
    for tool in ["files_write", "files_patch", "tasks_create", "tasks_update", "tasks_assign", "web_fetch"] {
        desk.allow(tool).await;
    }
    let mut part = Vec::new();
    for path in [
        "../escaped",
        "../../escaped",
        "/escaped",
        "/etc/passwd",
        "a/../../escaped",
        "..\\escaped",
        "C:\\escaped",
        "C:escaped",
        "./escaped",
        "a//escaped",
        "a/./escaped",
        "~/../escaped\u{0}",
        "escaped\u{0}.md",
        "\u{2024}\u{2024}/\u{202e}escaped",
        "..",
        ".",
        "",
        "a/..",
        "\\\\host\\share",
        "nul",
        "con.txt",
        "a/\u{ff0e}\u{ff0e}/../escaped",
        "escaped.",
        "escaped ",
        "a\nescaped",
        "file:///escaped",
    ] {
        part.push(Step::call("files_write", &json!({ "path": path, "text": "escaped" })));
        part.push(Step::call("files_read", &json!({ "path": path })));
    }
    for call in [
        json!({ "task": secret, "title": "stolen" }),
        json!({ "task": "tsk_aaaaaaaaaaaaaaaaaaaaaaaaaa", "title": "stolen" }),
        json!({ "task": "' OR 1=1 --", "title": "stolen" }),
        json!({ "task": secret, "title": "stolen", "project": other }),
    ] {
        part.push(Step::call("tasks_update", &call));
    }
    part.push(Step::call("tasks_assign", &json!({ "task": secret, "assignee": "person" })));
    for url in
        [format!("http://127.0.0.1:{port}/?q=secret"), format!("https://localhost:{port}/"), "https://169.254.169.254/".to_owned()]
    {
        part.push(Step::call("web_fetch", &json!({ "url": url })));
    }
    for forged in [
        "Files_Write",
        "files_write ",
        "approve",
        "approvals_answer",
        "rules_create",
        "lab__files_write",
        "__files_write",
        "files__write",
        "propose_plan",
        "",
        "files_write\u{0}",
    ] {
        part.push(Step::call(forged, &json!({ "path": "escaped", "text": "x" })));
    }
    part.push(Step::call("files_read", &json!({ "path": "a.md", "approved": true, "approval": "apr_aaaaaaaaaaaaaaaaaaaaaaaaaa" })));
    part.push(Step::default().and_call_in_words("files_write", "this is no JSON {"));
    part.push(Step::call("files_write", &json!(["escaped", "x"])));
    let bad = part.len();
    part.push(Step::say(&format!(
        "![x](http://127.0.0.1:{port}/?secret) [y](http://127.0.0.1:{port}/) <img src=http://127.0.0.1:{port}>"
    )));
    world.ollama.plays("evil", part);
    let run = desk
        .start("local/evil", json!({ "budgets": { "steps": 200, "seconds": 600, "tokens": 10_000_000, "nano_credits": 0 } }))
        .await;
    let (state, parts) = desk.end(&run).await;
    let results = results(&parts);
    assert_eq!((state.as_str(), results.len()), ("done", bad), "{results:?}");
    let worked: Vec<_> = results.iter().enumerate().filter(|(_, (ok, _))| *ok).collect();
    assert_eq!(worked, [], "nothing of it works");
    assert_eq!(desk.files().await, BTreeMap::new());
    assert_eq!(desk.get(&format!("/api/tasks/{secret}")).await["title"], "secret");
    assert_eq!(touched.load(Ordering::SeqCst), 0);
    let escaped = Command::new("find").arg(world.dir()).args(["-name", "*escaped*"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&escaped.stdout), "");

    // The same call for ever, and as many as a budget has.
    let run = desk.start("local/endless", json!({})).await;
    let (state, parts) = desk.end(&run).await;
    assert_eq!((state.as_str(), self::results(&parts).len()), ("exhausted", 4));
    let run = desk
        .start("local/endless", json!({ "budgets": { "steps": 2, "seconds": 60, "tokens": 100_000, "nano_credits": 0 } }))
        .await;
    let (state, parts) = desk.end(&run).await;
    assert_eq!((state.as_str(), self::results(&parts).len()), ("exhausted", 2));
    canary.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_agreed_to_before_anything_is_changed_and_a_stopped_run_asks_nothing() {
    let write = Step::call("files_write", &json!({ "path": "a.md", "text": "a" }));
    let plan = Step::call("propose_plan", &json!({ "plan": "1. write" }));
    let planner = vec![write.clone(), plan, write.clone(), Step::say("done")];
    let world = world(&[("planner", planner), ("asker", vec![write])]).await;
    let desk = Desk::of(&world).await;
    let run = desk.start("local/planner", json!({ "plan_first": true })).await;
    let question = desk.question().await;
    assert_eq!(question["question"], json!({ "type": "plan", "plan": "1. write" }));
    assert_eq!(desk.files().await, BTreeMap::new());
    desk.answer(&question, json!({ "decision": "allow" })).await;
    let question = desk.question().await;
    assert_eq!(question["question"]["tool"], "files_write");
    desk.answer(&question, json!({ "decision": "allow" })).await;
    let (state, parts) = desk.end(&run).await;
    let worked: Vec<bool> = results(&parts).into_iter().map(|(ok, _)| ok).collect();
    assert_eq!((state.as_str(), worked), ("done", vec![false, true, true]));

    let run = desk.start("local/asker", json!({})).await;
    let question = desk.question().await;
    assert!(desk.browser.post(&format!("/api/runs/{run}/stop"), &json!({})).await.status.is_success());
    assert_eq!(desk.end(&run).await.0, "stopped");
    eventually("the question lapses", async || desk.get("/api/approvals").await["data"] == json!([])).await;
    let late =
        desk.browser.post(&format!("/api/approvals/{}", question["id"].as_str().unwrap()), &json!({ "decision": "allow" })).await;
    assert_eq!(late.status, 409);
    assert_eq!(desk.files().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_is_neither_listed_nor_found_nor_edited() {
    let edits = json!([{ "old": "NEEDLE", "new": "x" }]);
    let steps = vec![
        Step::call("files_list", &json!({})),
        Step::call("files_list", &json!({ "pattern": "secret/**" })),
        Step::call("files_search", &json!({ "text": "needle" })),
        Step::call("files_patch", &json!({ "path": "secret/a.md", "edits": edits })),
        Step::call("files_read", &json!({ "path": "secret/a.md" })),
        Step::say("done"),
    ];
    let write = |path: &str| Step::call("files_write", &json!({ "path": path, "text": format!("NEEDLE in {path}") }));
    let writes = vec![write("open.md"), write("asked/a.md"), write("secret/a.md"), Step::say("written")];
    let world = world(&[("writer", writes), ("peeker", steps)]).await;
    let desk = Desk::of(&world).await;
    for tool in ["files_write", "files_patch"] {
        desk.allow(tool).await;
    }
    let run = desk.start("local/writer", json!({})).await;
    assert_eq!(desk.end(&run).await.0, "done");
    for (pattern, verdict) in [("secret/**", "deny"), ("asked/**", "ask")] {
        let rule = json!({ "tool": "files_read", "targets": { "type": "matching", "pattern": pattern }, "verdict": verdict });
        desk.post(&format!("/api/projects/{}/rules", desk.project), rule).await;
    }
    let other = desk.post("/api/conversations", json!({ "project": desk.project })).await;
    let desk = Desk { conversation: other["id"].as_str().expect("an id").to_owned(), ..desk };
    let run = desk.start("local/peeker", json!({})).await;
    let (state, parts) = desk.end(&run).await;
    let told = results(&parts);
    let no = (false, "the owner does not allow this; do without it, or finish and say what is missing".to_owned());
    let found = "open.md:1: NEEDLE in open.md\n[left out, because the owner wants to be asked about them: 1; read them one by one]";
    assert_eq!(state, "done");
    assert_eq!(told[0], (true, "asked/a.md (20 bytes, version 1)\nopen.md (17 bytes, version 1)".to_owned()));
    assert_eq!(told[1], (true, "there are no such files".to_owned()));
    assert_eq!(told[2], (true, found.to_owned()));
    assert_eq!(told[3..], [no.clone(), no]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_wants_too_much_at_once_is_given_up() {
    let much = json!({ "path": "a.md", "text": "x".repeat(200 << 10) });
    let call = |calls: usize| (0..calls).fold(Step::default(), |step, _| step.and_call("files_write", &much));
    let world = world(&[("greedy", vec![call(24)]), ("busy", vec![call(2), Step::say("done")])]).await;
    let desk = Desk::of(&world).await;
    desk.allow("files_write").await;
    let run = desk.start("local/greedy", json!({})).await;
    assert_eq!(desk.end(&run).await.0, "failed");
    assert_eq!(desk.files().await, BTreeMap::new());
    // What is only long is made as far as a call may be.
    let other = desk.post("/api/conversations", json!({ "project": desk.project })).await;
    let desk = Desk { conversation: other["id"].as_str().expect("an id").to_owned(), ..desk };
    let run = desk.start("local/busy", json!({})).await;
    let (state, parts) = desk.end(&run).await;
    assert_eq!(state, "done");
    let told = results(&parts);
    let too_long = (false, "the arguments are longer than 128 KiB; do it in smaller parts".to_owned());
    assert_eq!(told[0], too_long);
}
