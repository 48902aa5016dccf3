//! Leaving: what a deleted account leaves behind, and what an older copy of it is worth.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use http::StatusCode;
use lab_server::{
    Config,
    lab::{
        content::{Content, Part},
        operations::{Action, Operation, verify},
    },
    store::{
        ConversationSettings, NewConversation, Role, Store,
        transparency::{DATABASE, Taken},
    },
};
use sea_orm::{ConnectionTrait, Database, Statement};
use serde_json::json;
use wire::ConversationId;

use crate::client::{Browser, TestLab};

/// Tables that outlive an account.
const STAY: [&str; 7] = ["requests", "ledger", "spending", "lab_secrets", "security_epoch", "seaql_migrations", "sign_in_attempts"];

fn text(text: &str) -> Content {
    Content { parts: vec![Part::Text { text: text.to_owned() }], usage: Vec::new() }
}

/// A conversation with so many messages, a folder and a line in the operation log.
async fn furnish(lab: &TestLab, browser: &Browser, messages: usize) -> ConversationId {
    let store = &lab.lab.store;
    let folder = store.add_folder(browser.user, None, "CANARY folder".into()).await.unwrap().id;
    let new = NewConversation {
        project: browser.project,
        folder: Some(folder),
        title: Some("CANARY title".into()),
        settings: ConversationSettings::default(),
    };
    let conversation = store.add_conversation(browser.user, new).await.unwrap().id;
    let mut parent = None;
    for _ in 0..messages {
        let message = store.add_message(browser.user, conversation, parent, Role::User, text("CANARY words"), None).await.unwrap();
        parent = Some(message.id);
    }
    let operation = Operation::by_person(Action::ConversationCreated, Some(conversation.to_string()), json!({ "t": "CANARY" }));
    lab.lab.log.record(browser.user, browser.project, operation).await.unwrap();
    conversation
}

async fn rows(database: &Path, table: &str) -> i64 {
    let db = Database::connect(format!("sqlite:{}", database.display())).await.unwrap();
    let count = Statement::from_string(db.get_database_backend(), format!("SELECT COUNT(*) AS n FROM {table}"));
    db.query_one_raw(count).await.unwrap().unwrap().try_get("", "n").unwrap()
}

#[tokio::test]
async fn a_deleted_account_is_gone_at_once_and_no_copy_of_it_opens() {
    let lab = TestLab::start().await;
    let browser = lab.sign_in("Ada CANARY").await;
    let conversation = furnish(&lab, &browser, 500).await;
    let key = lab.key(browser.project, &lab_server::store::Scope::ALL).await;
    assert_eq!(lab.ask(&key, "GET", "/api/account", None).await.status, StatusCode::OK);
    lab.lab.log.sign_heads().await.unwrap();
    // A copy of everything but the keystore, as a backup would be.
    let copy = lab.dir.with_extension("copy");
    std::fs::create_dir(&copy).unwrap();
    let snapshot = Database::connect(format!("sqlite:{}", lab.dir.join("lab.sqlite").display())).await.unwrap();
    snapshot.execute_unprepared(&format!("VACUUM INTO '{}'", copy.join("lab.sqlite").display())).await.unwrap();
    drop(snapshot);

    for confirm in ["", "ada", "Ada CANARY2"] {
        let answer = browser.ask("DELETE", "/api/account", Some(json!({ "confirm": confirm }))).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    let began = Instant::now();
    let answer = browser.ask("DELETE", "/api/account", Some(json!({ "confirm": "ada canary" }))).await;
    let took = began.elapsed();
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(browser.ask("GET", "/api/account", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(lab.ask(&key, "GET", "/api/account", None).await.status, StatusCode::UNAUTHORIZED);

    let store = &lab.lab.store;
    for table in DATABASE.iter().filter(|table| !STAY.contains(&table.name)) {
        assert_eq!(rows(&lab.dir.join("lab.sqlite"), table.name).await, 0, "{}", table.name);
    }
    assert_eq!(store.user(browser.user).await.unwrap(), None);
    let report = verify(store, None, Some(&lab.dir.join("audit-heads.jsonl"))).await.unwrap();
    assert!(report.sound && report.logs.iter().all(|log| log.ended), "{report:?}");

    // The old rows with the keystore of today, and everything that they are sealed under.
    for file in ["keystore.sqlite", "keystore.sqlite-wal", "master.key"] {
        let _ = std::fs::copy(lab.dir.join(file), copy.join(file));
    }
    let old = Store::of(&Config::in_dir(&copy)).await.unwrap();
    assert!(rows(&copy.join("lab.sqlite"), "messages").await == 500);
    assert_eq!(old.user(browser.user).await.unwrap(), None);
    assert!(old.messages(browser.user, conversation).await.map_or(true, |messages| messages.is_empty()));
    assert!(old.folders(browser.user).await.map_or(true, |folders| folders.is_empty()));
    assert!(old.identities(browser.user).await.map_or(true, |identities| identities.iter().all(|one| one.email.is_none())));
    // A Lab that starts on them ends what is left.
    assert_eq!(old.half_gone().await.unwrap(), [browser.user]);
    old.close().await.unwrap();
    std::fs::remove_dir_all(&copy).unwrap();
}

#[tokio::test]
async fn everything_can_be_taken_along() {
    let lab = TestLab::start().await;
    let browser = lab.sign_in("ada").await;
    let stranger = lab.sign_in("eve").await;
    furnish(&lab, &stranger, 1).await;
    let conversation = furnish(&lab, &browser, 30).await;
    lab.key(browser.project, &lab_server::store::Scope::ALL).await;
    lab.lab.store.grant(browser.user, 5, "gift").await.unwrap();
    let put = crate::client::request("PUT", &format!("/api/projects/{}/files/notes/a.txt", browser.project));
    let put = put.header("sec-fetch-site", "same-origin").header("content-type", "text/plain; charset=utf-8");
    let _ = browser.send(put, "CANARY file".into()).await;

    let answer = browser.ask("GET", "/api/account/export", None).await;
    assert_eq!((answer.status, answer.headers["content-type"].to_str().unwrap()), (StatusCode::OK, "application/zip"));
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(answer.body.to_vec())).unwrap();
    let names: Vec<String> = zip.file_names().map(|name| name.unwrap().into_owned()).collect();
    let mut texts = std::collections::BTreeMap::<String, String>::new();
    for name in &names {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut zip.by_name(name).unwrap(), &mut text).unwrap();
        texts.insert(name.clone(), text);
    }
    // What is said to be in the export is there, and nobody else's.
    for table in DATABASE {
        if let Taken::In(file) = table.export {
            assert!(names.iter().any(|name| name.starts_with(file)), "{}: {file} is not among {names:?}", table.name);
        }
    }
    assert!(texts.values().all(|text| !text.contains(&stranger.user.to_string()) && !text.contains(&stranger.project.to_string())));
    let tree: serde_json::Value = serde_json::from_str(&texts[&format!("conversations/{conversation}.json")]).unwrap();
    assert_eq!((tree["conversation"]["title"].as_str(), tree["messages"].as_array().unwrap().len()), (Some("CANARY title"), 30));
    assert_eq!(tree["messages"][1]["parent"], tree["messages"][0]["id"]);
    assert_eq!(tree["messages"][29]["content"]["parts"][0]["text"], "CANARY words");
    assert!(texts[&format!("projects/{}/operations.jsonl", browser.project)].contains("conversation_created"));
    assert!(texts["folders.json"].contains("CANARY folder"));
    assert!(texts["identities.json"].contains("ada@example.com") || texts["identities.json"].contains("mail"));
    assert!(texts["ledger.jsonl"].contains("grant"));
    let keys: serde_json::Value = serde_json::from_str(&texts["keys.json"]).unwrap();
    assert_eq!(keys.as_array().unwrap().len(), 1);
    assert!(keys[0].get("key").is_none());
}

/// `1k4-lab` with ten thousand messages: R41's figure. Run with `--ignored`; it takes its time to write them.
#[tokio::test]
#[ignore = "writes ten thousand messages"]
async fn ten_thousand_messages_are_taken_along_and_deleted_in_time() {
    let lab = TestLab::start().await;
    let browser = lab.sign_in("ada").await;
    furnish(&lab, &browser, 10_000).await;
    let began = Instant::now();
    let answer = browser.ask("GET", "/api/account/export", None).await;
    let exported = began.elapsed();
    assert_eq!(answer.status, StatusCode::OK);
    let began = Instant::now();
    let gone = browser.ask("DELETE", "/api/account", Some(json!({ "confirm": "ada" }))).await;
    let deleted = began.elapsed();
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    println!("export {exported:?}, {} bytes; deletion {deleted:?}", answer.body.len());
    assert!(exported < Duration::from_secs(60), "{exported:?}");
    assert!(deleted < Duration::from_secs(5), "{deleted:?}");
}

#[tokio::test]
async fn a_log_is_read_filtered_checked_and_taken_along_by_its_owner_alone() {
    let lab = TestLab::start().await;
    let (browser, stranger) = (lab.sign_in("ada").await, lab.sign_in("eve").await);
    let log = &lab.lab.log;
    let run = wire::RunId::random();
    let record = |action, target: String| {
        let operation = Operation::by_person(action, Some(target), json!({ "n": 1 }));
        async { log.record(browser.user, browser.project, operation).await.unwrap() }
    };
    let first = record(Action::TaskCreated, "t".into()).await;
    for _ in 0..3 {
        record(Action::TaskChanged, "t".into()).await;
    }
    record(Action::RunStarted, run.to_string()).await;
    let base = format!("/api/projects/{}/operations", browser.project);
    let seqs = async |query: &str| {
        let page = browser.ask("GET", &format!("{base}?{query}"), None).await.json();
        let seqs = page["data"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap() - first).collect::<Vec<_>>();
        (seqs, page["next"].as_str().map(|next| next.parse::<u64>().unwrap() - first))
    };
    assert_eq!(seqs("limit=2").await, (vec![4, 3], Some(3)));
    assert_eq!(seqs(&format!("limit=2&cursor={}", first + 3)).await, (vec![2, 1], Some(1)));
    assert_eq!(seqs(&format!("order=oldest&cursor={}", first + 2)).await, (vec![3, 4], None));
    assert_eq!(seqs(&format!("run={run}")).await, (vec![4], None));
    assert_eq!(seqs("action=task_created").await.0, [0]);
    for bad in ["limit=0", "limit=201", "cursor=x", "cursor=-1", "run=x", "action=x", "order=x", "what=1"] {
        assert_eq!(browser.ask("GET", &format!("{base}?{bad}"), None).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    lab.lab.log.sign_heads().await.unwrap();
    let verdict = browser.ask("GET", &format!("{base}/verify"), None).await.json();
    assert_eq!((&verdict["sound"], &verdict["rows"], &verdict["signed_to"]), (&json!(true), &json!(first + 4), &json!(first + 4)));
    let export = browser.ask("GET", &format!("{base}/export"), None).await;
    assert_eq!(export.text().lines().count() as u64, first + 4);
    for path in ["", "/verify", "/export"] {
        assert_eq!(stranger.ask("GET", &format!("{base}{path}"), None).await.status, StatusCode::NOT_FOUND);
        assert_eq!(lab.get(&format!("{base}{path}")).await.status, StatusCode::UNAUTHORIZED);
    }
    // One changed byte, and the line is named.
    let db = Database::connect(format!("sqlite:{}", lab.dir.join("lab.sqlite").display())).await.unwrap();
    db.execute_unprepared("UPDATE operations SET time = time + 1 WHERE seq = 3").await.unwrap();
    let verdict = browser.ask("GET", &format!("{base}/verify"), None).await.json();
    assert_eq!((&verdict["sound"], &verdict["findings"][0]["line"]), (&json!(false), &json!(3)));
}
