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
        ConversationSettings, HeaderSecret, NewConversation, Role, Store, ToolServerTerms,
        transparency::{DATABASE, Taken},
    },
    vault::{Scope, VaultError},
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
    assert!(old.messages_page(browser.user, conversation, None, 99).await.map_or(true, |(messages, _)| messages.is_empty()));
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
    let put = crate::client::request("PUT", &format!("/api/projects/{}/files/content", browser.project));
    let put = put
        .header("x-1k4-path", "notes/a.txt")
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "application/octet-stream");
    assert!(browser.send(put, "CANARY file".into()).await.status.is_success());

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

#[tokio::test]
async fn files_are_taken_along_as_they_are_and_no_secret_is() {
    let lab = TestLab::start().await;
    let ada = lab.sign_in("ada").await;
    let at = format!("/api/projects/{}/files", ada.project);
    let put = async |path: &str, bytes: Vec<u8>| {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = crate::client::request("PUT", &format!("{at}/content?{query}")).header("x-1k4-path", path);
        let request = request.header("sec-fetch-site", "same-origin").header("content-type", "application/octet-stream");
        let answer = ada.send(request, bytes.into()).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text());
        answer.json()
    };
    // More than a piece, a chunk and a compressor's window, and not to be compressed.
    let mut state = 1_u64;
    let large: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(5 << 20)
    .collect();
    put("deep/er/large.bin", large.clone()).await;
    put("a", b"first".to_vec()).await;
    put("a?seen=1", b"a file".to_vec()).await;
    put("a/b", b"below it".to_vec()).await;
    put("A/c", b"capital".to_vec()).await;
    put("same", b"lower".to_vec()).await;
    put("Same", b"upper".to_vec()).await;
    put("empty", Vec::new()).await;
    let gone = put("old/gone", b"in the bin".to_vec()).await;
    let gone = gone["file"].as_str().unwrap().to_owned();
    assert!(ada.ask("DELETE", &format!("{at}/{gone}"), None).await.status.is_success());

    // Everything that lets somebody in, with words of its own.
    let key = lab.key(ada.project, &lab_server::store::Scope::ALL).await;
    let terms = ToolServerTerms {
        name: "s".into(),
        url: "https://CANARYNAME:CANARYWORD@tools.example.com:8443/mcp/x?token=CANARYQUERY#CANARYPART".into(),
        headers: vec![("authorization".into(), HeaderSecret::new("Bearer CANARYHEADER".into()))],
        tools: Vec::new(),
    };
    lab.lab.store.add_tool_server(ada.user, ada.project, terms).await.unwrap();
    let served = json!({ "name": "t", "url": "https://tools.example.com/mcp?token=CANARYQUERY", "headers": [{ "name": "x-key", "value": "CANARYHEADER" }] });
    let added = ada.ask("POST", &format!("/api/projects/{}/tool-servers", ada.project), Some(served)).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.text());
    let cookie = ada.cookies();

    let answer = ada.ask("GET", "/api/account/export", None).await;
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(answer.body.to_vec())).unwrap();
    let names: Vec<String> = zip.file_names().map(|name| name.unwrap().into_owned()).collect();
    let mut files = std::collections::BTreeMap::<String, Vec<u8>>::new();
    for name in names {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut zip.by_name(&name).unwrap(), &mut bytes).unwrap();
        assert!(files.insert(name, bytes).is_none());
    }
    let project = format!("projects/{}", ada.project);
    let listed: serde_json::Value = serde_json::from_slice(&files[&format!("{project}/files.json")]).unwrap();
    let content = |path: &str| {
        let of = |one: &&serde_json::Value| one["file"]["path"] == path && one["file"]["deleted_at"].is_null();
        let place = listed.as_array().unwrap().iter().find(of).unwrap()["content"].as_str().unwrap();
        (place.strip_prefix(&project).unwrap().to_owned(), files[place].clone())
    };
    assert!(content("deep/er/large.bin") == ("/files/deep/er/large.bin".into(), large));
    for (path, text) in [("a/b", "below it"), ("A/c", "capital"), ("empty", "")] {
        assert_eq!(content(path), (format!("/files/{path}"), text.into()));
    }
    // Where `a` is a folder no file can be, and two that differ in capitals alone are one where many people unpack them.
    for (path, text) in [("a", "a file"), ("same", "lower"), ("Same", "upper")] {
        assert_eq!(content(path).1, text.as_bytes());
    }
    assert!(
        content("a").0.starts_with("/files/a.")
            && content("same").0 == "/files/same"
            && content("Same").0.starts_with("/files/Same.")
    );
    assert_eq!(files[&format!("{project}/bin/{gone}/gone")], b"in the bin");
    let places: Vec<String> = files.keys().map(|place| place.to_lowercase()).collect();
    for place in &places {
        let below = places.iter().filter(|other| other.starts_with(&format!("{place}/"))).count();
        assert_eq!((below, places.iter().filter(|other| *other == place).count()), (0, 1), "{place}");
    }

    let servers = String::from_utf8(files[&format!("{project}/tool-servers.json")].clone()).unwrap();
    assert!(
        servers.contains("\"https://tools.example.com:8443/mcp/x\"") && servers.contains("\"https://tools.example.com/mcp\""),
        "{servers}"
    );
    let token = cookie.split_once('=').unwrap().1;
    let db = Database::connect(format!("sqlite:{}", lab.dir.join("lab.sqlite").display())).await.unwrap();
    let stored =
        Statement::from_string(db.get_database_backend(), "SELECT lower(hex(hash)) AS h, lower(hex(salt)) AS s FROM api_keys");
    let stored = db.query_one_raw(stored).await.unwrap().unwrap();
    let (hash, salt): (String, String) = (stored.try_get("", "h").unwrap(), stored.try_get("", "s").unwrap());
    for secret in ["CANARY", &key[22..65], token, &hash, &salt] {
        for (name, bytes) in &files {
            let found = bytes.windows(secret.len()).any(|part| part.eq_ignore_ascii_case(secret.as_bytes()));
            assert!(!found, "{secret} is in {name}");
        }
    }
}

#[tokio::test]
async fn a_backup_that_is_older_brings_nobody_back() {
    let (lab, here) = (TestLab::start().await, crate::vault::Folder::new("leaving"));
    let (ada, eve) = (lab.sign_in("Ada CANARY").await, lab.sign_in("eve").await);
    let (gone, kept) = (furnish(&lab, &ada, 5).await, furnish(&lab, &eve, 5).await);
    for person in [&ada, &eve] {
        let put = crate::client::request("PUT", &format!("/api/projects/{}/files/content", person.project));
        let put = put
            .header("x-1k4-path", "notes/a.txt")
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "application/octet-stream");
        assert!(person.send(put, "CANARY file".into()).await.status.is_success());
    }
    lab.lab.log.sign_heads().await.unwrap();
    let identity = age::x25519::Identity::generate();
    std::fs::create_dir(here.0.join("copies")).unwrap();
    let config = format!(
        "data_dir = \"{}\"\n[backup]\nrecipients = [\"{}\"]\ndestinations = [\"copies\"]\nsingle_site = true\n",
        lab.dir.display(),
        identity.to_public()
    );
    std::fs::write(here.0.join("1k4-lab.toml"), config).unwrap();
    here.secret("id.txt", age::secrecy::ExposeSecret::expose_secret(&identity.to_string()), 0o600);
    assert_eq!(crate::vault::json(&here.0, &["backup", "create"]).await.as_array().unwrap().len(), 2);
    assert!(blobs(&lab.dir.join("blobs").join(ada.project.to_string())) > 0);

    assert_eq!(ada.ask("DELETE", "/api/account", Some(json!({ "confirm": "ada canary" }))).await.status, StatusCode::NO_CONTENT);
    assert!(!lab.dir.join("blobs").join(ada.project.to_string()).exists());
    // The Lab that runs knows of no backups, and so did not write its deletions beside them: the next one that is made does, which is
    // not the one that is restored.
    let older: Vec<_> = std::fs::read_dir(here.0.join("copies")).unwrap().map(|file| file.unwrap().path()).collect();
    let older = older.iter().find(|path| path.to_str().unwrap().ends_with(".data.age")).unwrap();
    crate::vault::json(&here.0, &["backup", "create"]).await;
    let restore = ["backup", "restore", "--from", older.to_str().unwrap(), "--identity", "id.txt", "--to", "again"];
    crate::vault::json(&here.0, &restore).await;
    let again = here.0.join("again");
    std::fs::copy(lab.dir.join("master.key"), again.join("master.key")).unwrap();
    let old = Store::of(&Config::in_dir(&again)).await.unwrap();
    assert_eq!((old.user(ada.user).await.unwrap(), old.user(eve.user).await.unwrap().unwrap().name), (None, "eve".to_owned()));
    assert!(old.messages_page(ada.user, gone, None, 99).await.map_or(true, |(messages, _)| messages.is_empty()));
    assert_eq!(old.messages_page(eve.user, kept, None, 99).await.unwrap().0.len(), 5);
    for scope in [Scope::User(ada.user), Scope::Project(ada.user, ada.project), Scope::Conversation(ada.user, gone)] {
        assert!(matches!(old.vault().key(scope).await, Err(VaultError::NoKey)), "{scope}");
    }
    for (table, left) in [("users", 1), ("projects", 1), ("conversations", 1), ("messages", 5), ("files", 1), ("operations", 2)] {
        assert_eq!(rows(&again.join("lab.sqlite"), table).await, left, "{table}");
    }
    let report = verify(&old, None, None).await.unwrap();
    assert!(report.sound && report.logs.len() == 1, "{report:?}");
    // With the heads of the Lab that was, eve's log is whole and ada's ended.
    let report = verify(&old, None, Some(&lab.dir.join("audit-heads.jsonl"))).await.unwrap();
    assert!(report.sound && report.logs.iter().any(|log| log.project == ada.project && log.ended), "{report:?}");
    old.close().await.unwrap();
}

/// How many files lie in a folder.
fn blobs(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |files| files.count())
}
