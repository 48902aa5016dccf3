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
    store::{ConversationSettings, NewConversation, Role, Store, transparency::DATABASE},
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
