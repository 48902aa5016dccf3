//! What people keep, over HTTP, by two people in their browsers.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::client::{Answer, Browser, TestLab, request};

async fn ok(browser: &Browser, method: &str, path: &str, body: Value) -> Value {
    let answer = browser.ask(method, path, Some(body)).await;
    assert!(answer.status.is_success(), "{method} {path}: {} {}", answer.status, answer.text());
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

async fn get(browser: &Browser, path: &str) -> Value {
    let answer = browser.ask("GET", path, None).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
    answer.json()
}

async fn search(browser: &Browser, body: Value) -> Value {
    ok(browser, "POST", "/api/search", body).await["data"].take()
}

async fn put(browser: &Browser, address: &str, path: &str, bytes: impl Into<Bytes>) -> Answer {
    let request = request("PUT", address).header("sec-fetch-site", "same-origin").header("x-1k4-path", path);
    browser.send(request.header("content-type", "application/octet-stream"), bytes.into()).await
}

async fn read(browser: &Browser, address: &str, path: &str) -> Answer {
    browser.send(request("GET", address).header("x-1k4-path", path), Bytes::new()).await
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.json()["error"]["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_conversation_is_held_branched_and_found() {
    let lab = TestLab::start().await;
    let (ada, eve) = (lab.sign_in("ada").await, lab.sign_in("eve").await);
    let made = ok(&ada, "POST", "/api/conversations", json!({ "project": ada.project })).await;
    let at = format!("/api/conversations/{}", made["id"].as_str().unwrap());
    assert_eq!((&made["title"], &made["titled"], &made["version"]), (&json!(""), &json!(false), &json!(1)));
    let text = |text: &str| json!([{ "type": "text", "text": text }]);
    let first = ok(&ada, "POST", &format!("{at}/messages"), json!({ "parts": text("Where is the Zugspitze?") })).await;
    let edited = ok(&ada, "POST", &format!("{at}/messages"), json!({ "parts": text("Where is the Watzmann?") })).await;
    let listed = get(&ada, &format!("{at}/messages?limit=1")).await;
    assert_eq!(listed["data"][0]["id"], first["id"]);
    let rest = get(&ada, &format!("{at}/messages?cursor={}", listed["next"].as_str().unwrap())).await;
    assert_eq!((rest["data"][0]["id"].clone(), rest["next"].clone()), (edited["id"].clone(), Value::Null));
    let branch = get(&ada, &format!("{at}/branch")).await;
    assert_eq!(branch["data"].as_array().unwrap().len(), 1);
    assert_eq!(branch["data"][0]["id"], edited["id"]);
    assert_eq!(get(&ada, &at).await["title"], "Where is the Zugspitze?");

    let folder = ok(&ada, "POST", "/api/folders", json!({ "name": "Mountains" })).await;
    let change = json!({ "version": 1, "title": "Alps", "folder": folder["id"], "leaf": first["id"], "pinned": true });
    let changed = ok(&ada, "PATCH", &at, change.clone()).await;
    assert_eq!((&changed["title"], &changed["leaf"], &changed["version"]), (&json!("Alps"), &first["id"], &json!(2)));
    assert_eq!(code(&ada.ask("PATCH", &at, Some(change)).await), (409, "changed_meanwhile".into()));
    let in_folder = get(&ada, &format!("/api/conversations?pinned=true&folder={}", folder["id"].as_str().unwrap())).await;
    assert_eq!(in_folder["data"].as_array().unwrap().len(), 1);
    assert_eq!(ok(&ada, "PATCH", &at, json!({ "title": null })).await["title"], "Where is the Zugspitze?");

    let found = search(&ada, json!({ "q": "ZUGSPITZE where" })).await;
    assert_eq!(found[0]["kind"], "message");
    assert_eq!(found[0]["message"], first["id"]);
    assert_eq!(found[0]["marks"], json!([{ "start": 0, "end": 5 }, { "start": 13, "end": 22 }]));
    assert_eq!(search(&eve, json!({ "q": "zugspitze" })).await, json!([]));

    let fork = ok(&ada, "POST", &format!("{at}/fork"), json!({ "message": first["id"] })).await;
    assert_ne!(fork["id"], made["id"]);
    for (method, path, body) in [
        ("GET", at.clone(), None),
        ("PATCH", at.clone(), Some(json!({ "pinned": false }))),
        ("DELETE", at.clone(), None),
        ("GET", format!("{at}/messages"), None),
        ("GET", format!("{at}/branch"), None),
        ("POST", format!("{at}/messages"), Some(json!({ "parts": text("x") }))),
        ("POST", format!("{at}/fork"), Some(json!({ "message": first["id"] }))),
        ("POST", "/api/conversations".into(), Some(json!({ "project": ada.project }))),
        ("POST", "/api/search".into(), Some(json!({ "q": "x", "project": ada.project }))),
        ("DELETE", format!("/api/folders/{}", folder["id"].as_str().unwrap()), None),
    ] {
        assert_eq!(code(&eve.ask(method, &path, body).await), (404, "not_found".into()), "{method} {path}");
    }
    let refused = ada.ask("POST", &format!("{at}/messages"), Some(json!({ "parts": [] }))).await;
    assert_eq!(code(&refused), (400, "invalid_field".into()));
    let large = "x".repeat(1024 * 1024);
    ok(&ada, "POST", &format!("{at}/messages"), json!({ "parts": text(&large) })).await;
    let larger = ada.ask("POST", &format!("{at}/messages"), Some(json!({ "parts": text(&format!("{large}x")) }))).await;
    assert_eq!(code(&larger), (400, "invalid_field".into()));

    ok(&ada, "DELETE", &at, Value::Null).await;
    assert_eq!(ada.ask("GET", &at, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(search(&ada, json!({ "q": "watzmann" })).await, json!([]));
}

#[tokio::test]
async fn files_are_written_read_moved_and_brought_back() {
    let lab = TestLab::start().await;
    let (ada, eve) = (lab.sign_in("ada").await, lab.sign_in("eve").await);
    let files = format!("/api/projects/{}/files", ada.project);
    let content = format!("{files}/content");
    let first = put(&ada, &content, "docs/plan.html", "<script>alert(1)</script>").await.json();
    assert_eq!((&first["version"], &first["media_type"]), (&json!(1), &json!("text/plain; charset=utf-8")));
    let shown = read(&ada, &content, "docs%2Fplan.html").await;
    assert_eq!(shown.text(), "<script>alert(1)</script>");
    let header = |name: &str| shown.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-disposition"), "attachment; filename*=UTF-8''plan.html");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("content-type"), "text/plain; charset=utf-8");

    assert_eq!(put(&ada, &format!("{content}?seen=1"), "docs/plan.html", "two").await.json()["version"], 2);
    let stale = put(&ada, &format!("{content}?seen=1"), "docs/plan.html", "three").await;
    assert_eq!(code(&stale), (409, "changed_meanwhile".into()));
    let nasty =
        ["..%2Fetc", "%2Fetc", "a%00", "a%5Cb", "C:", "", "a%2F..%2Fb", "con", "../etc", "a%", "a%2", "a%zz", "%ff", "a b", "ä"];
    for path in nasty {
        assert_eq!(code(&put(&ada, &content, path, "x").await), (400, "invalid_field".into()), "{path}");
    }
    let without = ada.ask("PUT", &content, Some(json!("x"))).await;
    assert_eq!(code(&without), (400, "invalid_field".into()));
    let twice = request("GET", &content).header("x-1k4-path", "docs/plan.html").header("x-1k4-path", "docs/plan.html");
    assert_eq!(code(&ada.send(twice, Bytes::new()).await), (400, "invalid_field".into()));
    let spelled = put(&ada, &content, "Gr%c3%bc%C3%9Fe%20100%25.md", "x").await.json();
    assert_eq!(spelled["path"], "Grüße 100%.md");
    ok(&ada, "DELETE", &format!("{files}/{}?forever=true", spelled["file"].as_str().unwrap()), Value::Null).await;
    let file = format!("{files}/{}", first["file"].as_str().unwrap());
    assert_eq!(ada.ask("GET", &format!("{file}/content?version=1"), None).await.text(), "<script>alert(1)</script>");
    assert_eq!(ok(&ada, "PATCH", &file, json!({ "path": "plan.md", "seen": 2 })).await["version"], 3);
    assert_eq!(get(&ada, &format!("{file}/versions?limit=2")).await["next"], "2");
    assert_eq!(search(&ada, json!({ "in": "files", "q": "plan.md" })).await[0]["file"], first["file"]);
    assert_eq!(search(&ada, json!({ "in": "files", "q": "two" })).await[0]["snippet"], "two");

    for (method, path, body) in [
        ("GET", files.clone(), None),
        ("GET", file.clone(), None),
        ("GET", format!("{file}/content"), None),
        ("GET", format!("{file}/versions"), None),
        ("PATCH", file.clone(), Some(json!({ "path": "x" }))),
        ("POST", format!("{file}/restore"), Some(json!({ "version": 1 }))),
        ("DELETE", file.clone(), None),
        ("DELETE", format!("{file}?forever=true"), None),
        // Her own project does not reach it either.
        ("GET", file.replace(&ada.project.to_string(), &eve.project.to_string()), None),
    ] {
        assert_eq!(code(&eve.ask(method, &path, body).await), (404, "not_found".into()), "{method} {path}");
    }
    assert_eq!(code(&put(&eve, &content, "plan.md", "x").await), (404, "not_found".into()));
    assert_eq!(code(&read(&eve, &content, "plan.md").await), (404, "not_found".into()));

    ok(&ada, "DELETE", &file, Value::Null).await;
    assert_eq!(get(&ada, &files).await["data"], json!([]));
    assert_eq!(get(&ada, &format!("{files}?deleted=true")).await["data"][0]["id"], first["file"]);
    assert_eq!(ok(&ada, "POST", &format!("{file}/restore"), json!({ "version": 1 })).await["path"], "docs/plan.html");
    ok(&ada, "DELETE", &format!("{file}?forever=true"), Value::Null).await;
    assert_eq!(ada.ask("GET", &file, None).await.status, StatusCode::NOT_FOUND);

    let blobs = lab.dir.join("blobs").join(ada.project.to_string());
    assert_eq!(std::fs::read_dir(&blobs).unwrap().count(), 0);
    let most = Bytes::from(vec![b'a'; 50 * 1024 * 1024]);
    assert_eq!(put(&ada, &content, "big", most.clone()).await.json()["size"], most.len());
    assert_eq!(read(&ada, &content, "big").await.body, most);
    ok(&ada, "DELETE", &format!("/api/projects/{}", ada.project), Value::Null).await;
    assert!(!blobs.exists());
}

#[tokio::test]
async fn a_board_and_a_brief_are_the_projects() {
    let lab = TestLab::start().await;
    let (ada, eve) = (lab.sign_in("ada").await, lab.sign_in("eve").await);
    let tasks = format!("/api/projects/{}/tasks", ada.project);
    let assigned = json!({ "type": "agent", "name": "writer" });
    let first = ok(&ada, "POST", &tasks, json!({ "title": "one", "assignee": assigned })).await;
    let second = ok(&ada, "POST", &tasks, json!({ "title": "two", "body": "**now**" })).await;
    assert_eq!((&first["state"], &first["assignee"]), (&json!("open"), &assigned));
    let task = format!("/api/tasks/{}", second["id"].as_str().unwrap());
    let change = json!({ "version": 1, "state": "in_progress", "place": { "at": "first" } });
    assert_eq!(ok(&ada, "PATCH", &task, change.clone()).await["version"], 2);
    assert_eq!(code(&ada.ask("PATCH", &task, Some(change)).await), (409, "changed_meanwhile".into()));
    let board = get(&ada, &tasks).await;
    assert_eq!((&board["data"][0]["title"], &board["data"][1]["title"]), (&json!("two"), &json!("one")));
    assert_eq!(search(&ada, json!({ "in": "tasks", "q": "now" })).await[0]["task"], second["id"]);

    let brief = format!("/api/projects/{}/brief", ada.project);
    assert_eq!(get(&ada, &brief).await["instructions"], "");
    let change = json!({ "version": 1, "instructions": "Be short.", "description": "Mountains" });
    assert_eq!(ok(&ada, "PATCH", &brief, change.clone()).await["version"], 2);
    assert_eq!(code(&ada.ask("PATCH", &brief, Some(change)).await), (409, "changed_meanwhile".into()));
    let long = json!({ "instructions": "x".repeat(65_537) });
    assert_eq!(code(&ada.ask("PATCH", &brief, Some(long)).await), (400, "invalid_field".into()));
    for (method, path) in [("GET", &tasks), ("GET", &task), ("DELETE", &task), ("GET", &brief)] {
        assert_eq!(code(&eve.ask(method, path, None).await), (404, "not_found".into()), "{method} {path}");
    }
    ok(&ada, "DELETE", &task, Value::Null).await;
    assert_eq!(get(&ada, &tasks).await["data"].as_array().unwrap().len(), 1);
    let log = get(&ada, &format!("/api/projects/{}/operations", ada.project)).await;
    let actions: Vec<_> = log["data"].as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["task_deleted", "instructions_changed", "task_changed", "task_created", "task_created"]);
}
